"""OpenVINO on the processor: how it is told what to compute in, and on how many threads. No backend is needed here."""

import importlib.util
from typing import Any

from zoo.engines.engine import Precision, threads
from zoo.errors import InputError, refuse, unknown
from zoo.installed import with_extra

# OpenVINO's names of the precisions; what a file in int8 does not compute in int8, it computes in float32.
_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
# Those that a Keras model may be computed in.
_OF_MODELS = ("float32", "bfloat16")


def check_openvino(precision: str) -> None:
    """Check that OpenVINO is installed, and a precision is one of its.

    Raises:
        InputError: where it is not.
    """
    if precision not in _OF_MODELS:
        raise InputError(unknown("precision", precision, _OF_MODELS))
    if importlib.util.find_spec("openvino") is None:
        raise InputError(f"engine 'openvino': needs openvino; {with_extra('openvino')}")


def check_bfloat16(core: Any) -> None:
    """Check that OpenVINO, an `openvino.Core`, finds bfloat16 in this processor.

    Raises:
        InputError: where it does not.
    """
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        refuse("precision", "'bfloat16', which this processor does not have", "'float32'")


def compiled(model: Any, precision: Precision) -> Any:
    """An OpenVINO model, compiled for the processor.

    Raises:
        InputError: for bfloat16 on a processor that does not have it.
    """
    import openvino

    core = openvino.Core()
    if precision == "bfloat16":
        check_bfloat16(core)
    # Always given: OpenVINO's own default is the lowest precision that the processor has.
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": threads()}
    return core.compile_model(model, "CPU", options)
