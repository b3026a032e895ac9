"""A model's graph made lighter: the same function within rounding, in another order.

A BatchNormalization after a convolution is multiplied into its kernel, and a convolution with more weights than the
processor's caches hold (a former Dense layer) runs as matrix products, one for each row of its kernel and some of its
filters.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from zoo.convert.folding import folded_weights, folds
from zoo.network.graph import Graph, run_steps

# Bytes of weights that no cache holds: a convolution of few positions spends its time on reading and reordering them.
LARGE_KERNEL = 16 * 2**20
# Filters of such a convolution in one matrix product: 512 were read twice as fast as 4,096 (VGG-16, two cores).
_FILTERS = 512


class LighterGraph:
    """The graph's steps, some of them replaced by cheaper ones; called with a batch, it gives the first output.

    `variables`: what it reads, the model's weights or what replaces them.
    """

    def __init__(self, graph: Graph, by_rows: bool = True):
        """Replace what can be; `by_rows`: large kernels too."""
        self.graph = graph
        self.variables: list[keras.Variable] = list(graph.model.variables)
        self.applied: list[Callable | None] = [step.layer for step in graph.steps]
        into = folds(graph)
        for index, step in enumerate(graph.steps):
            if type(step.layer) is not layers.Conv2D:
                continue
            if index in into and step.layer.data_format == "channels_last":
                self.applied[index] = self._folded(step.layer, graph.steps[into[index]].layer)
                self.applied[into[index]] = None
            elif by_rows and _is_large(step.layer):
                self.applied[index] = self._by_rows(step.layer)

    def __call__(self, images: Any) -> Any:
        """Run it on a batch, a tensor of the backend."""
        (output,) = self.graph.outputs
        return run_steps(self.graph, {self.graph.inputs[0]: images}, [output], self.applied)[output]

    def _replace(self, old: list[keras.Variable], new: list[keras.Variable]) -> None:
        # A layer that is shared, and stays as it is elsewhere, reads its own.
        gone = {id(variable) for variable in old}
        self.variables = [variable for variable in self.variables if id(variable) not in gone] + new

    def _folded(self, layer: layers.Conv2D, norm: layers.BatchNormalization) -> Callable:
        """A convolution and the normalisation after it as one convolution with other weights."""
        kernel, bias = folded_weights(layer, norm)
        kernel, bias = (keras.Variable(value, dtype=layer.compute_dtype, trainable=False) for value in (kernel, bias))
        self._replace([*layer.variables, *norm.variables], [kernel, bias])
        return lambda x: _convolve(x, layer, kernel) + ops.convert_to_tensor(bias)

    def _by_rows(self, layer: layers.Conv2D) -> Callable:
        """A convolution as matrix products, each of a row of its kernel, with the columns it sees side by side."""
        rows, columns, channels, filters = layer.kernel.shape
        kernel = ops.convert_to_numpy(layer.kernel).reshape(rows, columns * channels, filters)
        parts = [
            keras.Variable(kernel[..., first : first + _FILTERS], dtype=layer.compute_dtype, trainable=False)
            for first in range(0, filters, _FILTERS)
        ]
        self._replace([layer.kernel], parts)

        def call(x: Any) -> Any:
            x = ops.cast(x, layer.compute_dtype)
            batch, height, width, _ = ops.shape(x)
            shifted = [x[:, :, left : left - columns + 1 or None] for left in range(columns)]
            side_by_side = ops.concatenate(shifted, axis=-1)
            totals = [0] * len(parts)
            for top in range(rows):
                seen = ops.reshape(side_by_side[:, top : top - rows + 1 or None], (-1, columns * channels))
                totals = [total + ops.matmul(seen, part[top]) for total, part in zip(totals, parts, strict=True)]
            total = ops.reshape(
                ops.concatenate(totals, axis=-1), (batch, height - rows + 1, width - columns + 1, filters)
            )
            if layer.use_bias:
                total = total + ops.cast(layer.bias, layer.compute_dtype)
            return layer.activation(total)

        return call


def _is_large(layer: layers.Conv2D) -> bool:
    """Whether a convolution's weights outweigh its arithmetic, and its windows are plain ones."""
    plain = layer.padding == "valid" or set(layer.kernel_size) == {1}
    ones = {*layer.strides, *layer.dilation_rate, layer.groups} == {1}
    size = np.prod(layer.kernel.shape) * np.dtype(keras.backend.standardize_dtype(layer.variable_dtype)).itemsize
    return plain and ones and size > LARGE_KERNEL


def _convolve(x: Any, layer: layers.Conv2D, kernel: Any) -> Any:
    x = ops.cast(x, layer.compute_dtype)
    return ops.conv(
        x, ops.convert_to_tensor(kernel), layer.strides, layer.padding, "channels_last", layer.dilation_rate
    )
