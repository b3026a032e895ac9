"""OpenVINO on the processor: how it is told what to compute in, and on how many threads. No backend is needed here."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def reading_tensorflow() -> Iterator[None]:
    """Let OpenVINO take TensorFlow's graphs on Python 3.13 and later too.

    It asks for TensorFlow's version by `exec("del tensorflow")` in a function (2026.4), a NameError there (PEP 667).
    """
    if sys.version_info < (3, 13):
        yield
        return
    import tensorflow as tf
    from openvino.frontend.tensorflow import utils

    asked = utils.get_environment_setup
    utils.get_environment_setup = lambda framework: {"tensorflow": tf.__version__}
    try:
        yield
    finally:
        utils.get_environment_setup = asked


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
