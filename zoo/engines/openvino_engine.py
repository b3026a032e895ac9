"""The engine that OpenVINO is: the same lighter graph as Keras's, given to it by TensorFlow."""

import importlib.util
from typing import Any

import keras
import numpy as np

from zoo.engines.engine import Precision, Run
from zoo.engines.lighter_graph import LighterGraph
from zoo.errors import InputError, refuse, unknown
from zoo.network.graph import Graph

# Names of the precisions, ours and OpenVINO's.
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def run_openvino(graph: Graph, precision: Precision) -> Run:
    """The model compiled by OpenVINO for the CPU, once for all sizes."""
    model = graph.model
    if precision not in _PRECISIONS:
        raise InputError(unknown("precision", precision, _PRECISIONS))
    if importlib.util.find_spec("openvino") is None:
        raise InputError("engine 'openvino': needs openvino; pip install 'bottleneck-zoo[openvino]'")
    if (backend := keras.backend.backend()) != "tensorflow":
        refuse("engine 'openvino'", f"{backend} as Keras's backend", "KERAS_BACKEND=tensorflow")
    computed = {step.layer.compute_dtype for step in graph.steps if getattr(step.layer, "weights", ())}
    if computed - {"float32"}:
        received = ", ".join(sorted(computed))
        raise InputError(f"model {model.name!r}: computes in {received}; accepted by the engine 'openvino': float32")
    import openvino
    import tensorflow as tf

    core = openvino.Core()
    if precision == "bfloat16":
        check_bfloat16(core)
    # Always given: OpenVINO's own default is the lowest precision that the processor has.
    options = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision]}
    # In bfloat16 OpenVINO's own convolution reads a large kernel as fast.
    run = tf.function(LighterGraph(graph, by_rows=precision == "float32"))
    traced = run.get_concrete_function(tf.TensorSpec(model.inputs[0].shape, "float32"))
    compiled = core.compile_model(openvino.convert_model(traced), "CPU", options)
    return lambda images: compiled(np.asarray(images, np.float32))[0]


def check_bfloat16(core: Any) -> None:
    """Check that OpenVINO, an `openvino.Core`, finds bfloat16 in this processor.

    Raises:
        InputError: where it does not.
    """
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        refuse("precision", "'bfloat16', which this processor does not have", "'float32'")
