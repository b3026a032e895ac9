"""The engine that OpenVINO is: the same lighter graph as Keras's, given to it by TensorFlow."""

import keras
import numpy as np

from zoo.engines.engine import Precision, Run
from zoo.engines.lighter_graph import LighterGraph
from zoo.engines.openvino_core import check_openvino, compiled, reading_tensorflow
from zoo.errors import InputError, refuse
from zoo.network.graph import Graph


def run_openvino(graph: Graph, precision: Precision) -> Run:
    """The model compiled by OpenVINO for the CPU, once for all sizes."""
    model = graph.model
    check_openvino(precision)
    if (backend := keras.backend.backend()) != "tensorflow":
        refuse("engine 'openvino'", f"{backend} as Keras's backend", "KERAS_BACKEND=tensorflow")
    computed = {step.layer.compute_dtype for step in graph.steps if getattr(step.layer, "weights", ())}
    if computed - {"float32"}:
        received = ", ".join(sorted(computed))
        raise InputError(f"model {model.name!r}: computes in {received}; accepted by the engine 'openvino': float32")
    import openvino
    import tensorflow as tf

    # In bfloat16 OpenVINO's own convolution reads a large kernel as fast.
    run = tf.function(LighterGraph(graph, by_rows=precision == "float32"), autograph=False)
    traced = run.get_concrete_function(tf.TensorSpec(model.inputs[0].shape, "float32"))
    with reading_tensorflow():
        converted = openvino.convert_model(traced)
    made = compiled(converted, precision)
    return lambda images: made(np.asarray(images, np.float32))[0]
