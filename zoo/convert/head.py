"""A classifier's head as layers that slide: Dense as convolution, global pooling as pooling over windows.

A Dense layer on a flattened H x W x C map is an H x W convolution without padding; a Dense layer after it, or after
pooling, is a 1x1 convolution; a global pooling is a pooling of the training map's size at stride 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
from keras import layers

from zoo.convert.affine import is_affine, scale_and_shift
from zoo.convert.copy import Rebuild, made_of
from zoo.errors import InputError
from zoo.network.graph import Graph, Step, shapes_at
from zoo.network.positions import (
    axes_of,
    does_nothing,
    global_pooling,
    is_along_last_axis,
    is_elementwise,
    is_pointwise,
    refuse_constants,
)
from zoo.network.program import spans

Pooling = Literal["window", "global"]

_CONVOLUTION = {1: layers.Conv1D, 2: layers.Conv2D}
_WINDOWS = {
    (1, "average"): layers.AveragePooling1D,
    (1, "max"): layers.MaxPooling1D,
    (2, "average"): layers.AveragePooling2D,
    (2, "max"): layers.MaxPooling2D,
}
_GLOBAL = {
    (1, "average"): layers.GlobalAveragePooling1D,
    (1, "max"): layers.GlobalMaxPooling1D,
    (2, "average"): layers.GlobalAveragePooling2D,
    (2, "max"): layers.GlobalMaxPooling2D,
}


@dataclass(frozen=True)
class _Flat:
    """A flattened map: its training shape without batch, its stride, and the order in which its axes were laid out.

    `affine`: layers (normalisations, scalings) since then that scale and shift each number by its own amounts; they
    become part of the kernel of the Dense layer that follows.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    order: tuple[int, ...]
    affine: tuple[layers.Layer, ...] = ()

    def kernel(self, matrix: np.ndarray, channel: int) -> np.ndarray:
        """A Dense kernel (h * w * c, units) as a convolution's, (h, w, c, units); `channel`: the axis of the c."""
        kernel = matrix.reshape(*(self.shape[axis] for axis in self.order), -1)
        spatial = [axis for axis in range(len(self.shape)) if axis != channel]
        return kernel.transpose(*(self.order.index(axis) for axis in (*spatial, channel)), -1)

    def folded(self, matrix: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Dense layer's kernel and bias with the scales and shifts before it in them."""
        for layer in reversed(self.affine):
            scale, shift = scale_and_shift(layer)
            bias = bias + np.broadcast_to(shift, len(matrix)) @ matrix
            matrix = np.broadcast_to(scale, len(matrix))[:, None] * matrix
        return matrix, bias


class SlidingHead(Rebuild):
    """A model with its head made to slide.

    A former vector is either `cells` (at every grid cell), or, after Flatten, a `flat` map that the next Dense layer
    takes whole.
    """

    def __init__(self, graph: Graph, collapses: frozenset[int], size: tuple[int, ...], pooling: Pooling):
        """`collapses`: the steps at which maps become vectors, at the training `size`."""
        super().__init__(graph, suffix="_fcn")
        self.collapses, self.pooling = collapses, pooling
        self.map_shapes = shapes_at(graph, size)
        self.strides = {key: span and tuple(side.stride for side in span) for key, span in spans(graph, size).items()}
        self.cells: dict[int, tuple[int, ...] | None] = {}  # the stride of the map that a vector was made of
        self.flat: dict[int, _Flat] = {}

    def run(self, sides: tuple[int | None, ...] | None = None) -> keras.Model:
        """The new model, height and width free."""
        model = super().run(sides)
        if any(key in self.flat for key in self.graph.outputs):
            raise InputError(f"model {self.graph.model.name!r}: an output is a flattened map, not a vector of classes")
        return model

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        if index in self.collapses:
            self._collapse(step)
        elif any(key in self.flat for key in step.inputs):
            self._flattened(step)
        elif any(key in self.cells for key in step.inputs):
            self._vector(step)
        else:
            super().step(index, step)

    def _collapse(self, step: Step) -> None:
        """Pooling or flattening of the map."""
        (source,), (result,) = step.inputs, step.outputs
        shape = self.map_shapes[source]
        sides = self.layout.sides((None, *shape))
        kind = global_pooling(step, self.layout)
        if kind is None and set(sides) != {1}:
            if self.pooling == "global":
                raise InputError(f"layer {step.path!r}: flattens the map; accepted for pooling='global': a pooled head")
            self.tensors[result] = self.tensors[source]
            self.flat[result] = _Flat(shape, self.strides[source], _order_of(step, len(shape)))
            return
        made = self.tensors[source]
        if kind is not None:
            common = {"name": self.name(step), "data_format": self.data_format}
            if isinstance(step.layer, layers.Layer):
                common["dtype"] = step.layer.dtype_policy
            key = (self.layout.axes, kind)
            if self.pooling == "global":
                made = _GLOBAL[key](keepdims=True, **common)(made)
            else:
                made = _WINDOWS[key](sides, strides=1, padding="valid", **common)(made)
        self.tensors[result] = made
        self.cells[result] = self.strides[source] if self.pooling == "window" else None

    def _flattened(self, step: Step) -> None:
        """A layer on a flattened map, up to the Dense layer that takes it."""
        layer = step.layer
        flat = self.flat[step.inputs[0]] if len(step.inputs) == 1 else None
        if flat and isinstance(layer, layers.Dense):
            self._call_dense(step, flat)
            self.cells[step.outputs[0]] = flat.stride
        elif flat and is_affine(layer) and not is_elementwise(layer):
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            self.flat[step.outputs[0]] = replace(flat, affine=(*flat.affine, layer))
            self.placed.add(id(layer))
        elif flat and does_nothing(layer) or flat and not flat.affine and is_elementwise(layer):
            self.call(step, self.clone(step))
            self.flat[step.outputs[0]] = flat
        else:
            where = "on the flattened map" if flat else "joining flattened maps, each of which a Dense layer must take"
            if flat and is_elementwise(layer):
                where = "between a normalisation of the flattened map and its Dense layer"
            raise InputError(f"layer {step.path!r} ({type(layer).__name__}): cannot be slid over an image {where}")

    def _vector(self, step: Step) -> None:
        """A layer on former vectors, which are now at every cell."""
        layer = step.layer
        strides = {self.cells[key] for key in step.inputs if key in self.cells}
        if len(strides) > 1:
            received = " and ".join(" x ".join(map(str, stride)) for stride in sorted(strides))
            raise InputError(f"layer {step.path!r}: joins heads on maps at strides {received}; accepted: one stride")
        self.cells |= dict.fromkeys(step.outputs, strides.pop())
        if isinstance(layer, layers.Dense):
            if step.shapes[0][-1] != self._channels(step):
                raise InputError(f"layer {step.path!r}: works along the last axis, and the channels are another here")
            self._call_dense(step, None)
            return
        if isinstance(layer, layers.Reshape | layers.Flatten):
            self._numbers_axis(step, step.output_shape)
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            return
        is_pointwise_convolution = isinstance(layer, tuple(_CONVOLUTION.values())) and set(layer.kernel_size) == {1}
        if not (is_pointwise(layer) or is_pointwise_convolution):
            raise InputError(f"layer {step.path!r} ({type(layer).__name__}): cannot be slid over an image in the head")
        changes: dict[str, object] = {}
        if axes_of(layer, len(step.output_shape)):
            changes["axis"] = self._channel_axis(step)
        if isinstance(layer, layers.Rescaling) and self.layout.channels_first:
            changes |= {name: self._per_channel(getattr(layer, name)) for name in ("scale", "offset")}
        else:
            refuse_constants(step, self.layout)
        if isinstance(layer, layers.RMSNormalization) and self.layout.channels_first:
            raise InputError(
                f"layer {step.path!r} (RMSNormalization): scales along the last axis, which are columns here"
            )
        if isinstance(layer, layers.PReLU):
            changes["shared_axes"] = list(range(self.layout.rank))[self.layout.spatial]
        if is_along_last_axis(layer) and self.layout.channels_first:
            if not isinstance(layer, layers.Activation) or step.shapes[0][-1] != self._channels(step):
                name = layer.activation.__name__
                raise InputError(f"layer {step.path!r}: activation {name} works along the last axis, here of columns")
            self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]
            self._softmax(step)
            return
        self.call(step, self.clone(step, **changes))

    def _channel_axis(self, step: Step) -> int:
        """The axis of the channels, for a layer that works along the numbers of a vector (C,) or (1, 1, C)."""
        rank = len(step.output_shape)
        own = self._numbers_axis(step, step.shapes[0])
        if own not in axes_of(step.layer, rank):
            raise InputError(f"layer {step.path!r}: works along axis {step.layer.axis}; accepted: axis {own}")
        if not isinstance(step.layer, layers.Layer) and (
            self.layout.channels_first or step.layer.axis not in (-1, [-1])
        ):
            accepted = "a layer" if self.layout.channels_first else "-1, or a layer"
            raise InputError(
                f"layer {step.path!r}: an operation along axis {step.layer.axis}; accepted here: {accepted}"
            )
        return self.layout.channel

    def _numbers_axis(self, step: Step, shape: tuple[int | None, ...]) -> int:
        """The axis of a former vector that its numbers lie along: (B, C), (B, 1, 1, C), or (B, C, 1, 1)."""
        channels = self._channels(step)
        axes = (self.layout.channel, len(shape) - 1) if len(shape) == self.layout.rank else (len(shape) - 1,)
        wanted = [axis for axis in axes if shape[1:] == (*(1,) * (axis - 1), channels, *(1,) * (len(shape) - 1 - axis))]
        if not wanted:
            raise InputError(
                f"layer {step.path!r}: reshapes the vector to {shape[1:]}; accepted: between (C,) and (1, 1, C)"
            )
        return wanted[0]

    def _per_channel(self, numbers: float | Sequence) -> float | list:
        """A constant for a vector as one for maps with their channels first."""
        return np.reshape(numbers, (-1, *(1,) * self.layout.axes)).tolist() if np.ndim(numbers) else numbers

    def _channels(self, step: Step) -> int:
        return self.tensors[step.inputs[0]].shape[self.layout.channel]

    def _call_dense(self, step: Step, flat: _Flat | None) -> None:
        """The convolution that a Dense layer is: over the whole map for the first after Flatten, else 1x1."""
        layer = step.layer
        if layer.quantization_mode is not None:
            raise InputError(
                f"layer {step.path!r}: is quantized to {layer.quantization_mode}; accepted: the float model"
            )
        key = (id(layer), flat and (flat.shape, flat.order, tuple(map(id, flat.affine))))
        if key not in self.made:
            config = layer.get_config()
            shared = ("units", "lora_rank", "lora_alpha", "quantization_config", "name")
            config = {name: value for name, value in config.items() if name not in shared}
            if flat and flat.affine:
                config["use_bias"] = True
            if is_along_last_axis(layer) and self.layout.channels_first:
                config["activation"] = "linear"
            sides = self.layout.sides((None, *flat.shape)) if flat else (1,) * self.layout.axes
            config |= {"filters": layer.units, "kernel_size": sides, "padding": "valid", "name": self.name(step)}
            config |= {"data_format": self.data_format}
            self.made[key] = made_of(step, _CONVOLUTION[self.layout.axes], config)
            self.place(self.made[key], lambda: _dense_values(layer, flat, self.layout.channel - 1), layer)
        self.call(step, self.made[key])
        if is_along_last_axis(layer) and self.layout.channels_first:
            self._softmax(step)

    def _softmax(self, step: Step) -> None:
        """The softmax of a Dense or Activation layer, along the channels where they come first."""
        if step.layer.activation is not keras.activations.softmax:
            name = step.layer.activation.__name__
            raise InputError(f"layer {step.path!r}: activation {name}; accepted, channels first: softmax")
        made = layers.Softmax(self.layout.channel, dtype=step.layer.dtype_policy, name=self.name(step, "_softmax"))
        self.tensors[step.outputs[0]] = made(self.tensors[step.outputs[0]])


def _order_of(step: Step, axes: int) -> tuple[int, ...]:
    """The order in which Flatten or Reshape lays out a map's axes; Flatten takes channels that come first last."""
    order = tuple(range(axes))
    first = isinstance(step.layer, layers.Flatten) and step.layer.data_format == "channels_first"
    return (*order[1:], order[0]) if first else order


def _dense_values(layer: layers.Dense, flat: _Flat | None, channel: int) -> list[np.ndarray]:
    """A Dense layer's weights as the convolution has them."""
    matrix = keras.ops.convert_to_numpy(layer.kernel)
    bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(layer.units, matrix.dtype)
    if flat is None:
        return [matrix, bias][: 1 + layer.use_bias]
    dtype = matrix.dtype
    matrix, bias = flat.folded(matrix.astype(np.float64), bias.astype(np.float64)) if flat.affine else (matrix, bias)
    values = [flat.kernel(matrix.astype(dtype), channel), bias.astype(dtype)]
    return values[: 1 + (layer.use_bias or bool(flat.affine))]
