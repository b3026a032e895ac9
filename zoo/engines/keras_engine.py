"""The engine that Keras is: a model's lighter graph, compiled by the backend.

TensorFlow is given the weights as constants, all but the largest, which it lays out for the processor once, and not at
every call.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.engines import lighter_graph
from zoo.engines.engine import Run
from zoo.engines.lighter_graph import LighterGraph
from zoo.network.graph import Graph

# Bytes of constants in a TensorFlow graph, which may have 2 GiB in all.
_MOST_CONSTANTS = 2**30


def run_keras(graph: Graph) -> Run:
    """The lighter graph, compiled by the backend once for all sizes (TensorFlow) or once for each (JAX)."""
    run = LighterGraph(graph)
    dtype, shape = graph.model.inputs[0].dtype, graph.model.inputs[0].shape
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        fixed = _constants(run.variables)
        values = [ops.convert_to_numpy(variable) for variable in fixed]

        def compute(images: Any) -> Any:
            return _with_values(run, fixed, [tf.constant(value) for value in values], images)

        # Traced here, once: a function that were traced at its first call would be warned of in a loop of scans.
        compiled = tf.function(compute, autograph=False).get_concrete_function(tf.TensorSpec(shape, dtype))
        return lambda images: compiled(tf.constant(np.asarray(images, dtype))).numpy()
    if backend == "jax":
        import jax

        stateless = jax.jit(lambda values, images: _with_values(run, run.variables, values, images))
        return lambda images: np.asarray(
            stateless([variable.value for variable in run.variables], np.asarray(images, dtype))
        )
    import torch

    def without_gradients(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return ops.convert_to_numpy(run(ops.convert_to_tensor(np.asarray(images, dtype))))

    return without_gradients


def _constants(variables: list[keras.Variable]) -> list[keras.Variable]:
    """Those of the variables that a graph holds as constants: all but the largest, up to the most it may hold."""
    sizes = [np.prod(variable.shape) * np.dtype("float32").itemsize for variable in variables]
    totals = np.cumsum([size if size <= lighter_graph.LARGE_KERNEL else 0 for size in sizes])
    return [
        variable
        for variable, size, total in zip(variables, sizes, totals, strict=True)
        if size <= lighter_graph.LARGE_KERNEL and total <= _MOST_CONSTANTS
    ]


def _with_values(run: Callable, variables: Sequence[keras.Variable], values: Sequence[Any], images: Any) -> Any:
    with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
        return run(images)
