"""Pixels to scores, a model's tensors given up as soon as no later layer needs them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from zoo.graph import Graph, trace

Run = Callable[[np.ndarray], np.ndarray]


def forward(fcn: keras.Model) -> Run:
    """The function (B, h, w, C) -> (B, rows, cols, K) that `fcn` is, in no more memory than `fcn` needs.

    Keras itself keeps every tensor of a call until its end.
    """
    run, dtype = forward_tensors(trace(fcn)), compute_dtype(fcn)
    return lambda pixels: keras.ops.convert_to_numpy(run(pixels)).astype(dtype, copy=False)


def forward_tensors(graph: Graph) -> Callable[[Any], Any]:
    """The function from images to the first output of a model's graph, or of a part of it, a tensor of the backend."""
    unused = unused_after(graph)
    dtype = graph.model.inputs[0].dtype

    def run(images: Any) -> Any:
        values = {graph.inputs[0]: keras.ops.convert_to_tensor(images, dtype=dtype)}
        for step, done in zip(graph.steps, unused, strict=True):
            args, kwargs = step.refill(values)
            values |= dict(zip(step.outputs, keras.tree.flatten(step.layer(*args, **kwargs)), strict=True))
            del args, kwargs
            for key in done:
                del values[key]
        return values[graph.outputs[0]]

    return run


def unused_after(graph: Graph) -> list[frozenset[int]]:
    """For each step, the keys of the tensors there that no later step and no output needs."""
    needed = set(graph.outputs)
    unused = []
    for step in reversed(graph.steps):
        there = {*step.inputs, *step.outputs}
        unused.append(frozenset(there - needed))
        needed |= there
    return unused[::-1]


def compute_dtype(fcn: keras.Model) -> np.dtype:
    """The type of pixels and scores: float64 for a model that answers in it, else float32."""
    is_double = keras.backend.standardize_dtype(fcn.outputs[0].dtype) == "float64"
    return np.dtype(np.float64 if is_double else np.float32)
