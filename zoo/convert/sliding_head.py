"""A classifier's head as layers that slide: Dense as convolution, global pooling as pooling over windows.

A Dense layer on a flattened H x W x C map is an H x W convolution without padding; a Dense layer after it, or after
pooling, is a 1x1 convolution; a global pooling is a pooling of the training map's size at stride 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
from keras import layers

from zoo.convert.affine import scales_and_shifts
from zoo.convert.copy import Copy, made_of
from zoo.convert.places import rearranged
from zoo.errors import InputError, refuse
from zoo.network.constants import check_constants, works_on_each_number
from zoo.network.graph import Step, known_shape
from zoo.network.layer_kinds import (
    GLOBAL_POOLINGS,
    REDUCTIONS,
    axes_of,
    does_nothing,
    is_affine,
    moves_numbers,
    operation_in,
)
from zoo.network.network import Network
from zoo.network.program import Ints
from zoo.network.rules import global_pooling, is_pointwise

HeadPooling = Literal["window", "global"]

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
# Settings of a Dense layer that a convolution with its weights has too, those of the weights' first values not among
# them: these are never drawn, and some fit a matrix alone.
_SHARED_SETTINGS = ("activation", "use_bias", "trainable", "dtype")
# Regularisers that sum over single numbers, whatever the shape of the weights.
_REGULARISERS = ("kernel_regularizer", "bias_regularizer", "activity_regularizer")
_SUMS = ("L1", "L2", "L1L2")


@dataclass(frozen=True)
class _Flat:
    """A rearranged map: its shape at the training size, without batch, its stride, and where its numbers come from.

    `places`: for every number of the rearranged map, in its shape, its place in the map, counted row by row. `affine`:
    layers (normalisations, scalings) since then that scale and shift each number by its own amounts, each with the
    places of its input; they become part of the kernel of the Dense layer that follows.
    """

    shape: Ints
    stride: Ints | None
    places: np.ndarray
    affine: tuple[tuple[layers.Layer, np.ndarray], ...] = ()

    @property
    def key(self) -> tuple:
        """What two calls of a Dense layer have in common where one kernel serves both."""
        before = tuple((id(layer), places.shape, places.tobytes()) for layer, places in self.affine)
        return self.shape, self.places.tobytes(), before

    def kernel_and_bias(self, matrix: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A Dense layer's (n, units) and (units,) as a convolution's, with the scales and shifts before it in them.

        The kernel is (h, w, c, units), zero at numbers of the map that the Dense layer does not take.
        """
        dtype = np.result_type(matrix, np.float64) if self.affine else matrix.dtype
        kernel = np.zeros((math.prod(self.shape), matrix.shape[-1]), dtype)
        kernel[self.places.ravel()] = matrix
        for layer, places in reversed(self.affine):
            scale, shift = (values.ravel() for values in scales_and_shifts(layer, places.shape))
            bias = bias + shift @ kernel[places.ravel()]
            kernel[places.ravel()] *= scale[:, None]
        return kernel.astype(matrix.dtype).reshape(*self.shape, -1), bias.astype(matrix.dtype)


class SlidingHead(Copy):
    """A model with its head made to slide; its maps have their channels last.

    A former vector is either `cells` (at every grid cell), or, after Flatten, a `flat` map that the next Dense layer
    takes whole.
    """

    def __init__(self, network: Network, pooling: HeadPooling, mark: str = ""):
        """Prepare the conversion of a network whose training size is known."""
        super().__init__(network, suffix="_fcn", mark=mark)
        self.pooling = pooling
        self.map_shapes = network.shapes(network.training_size)
        spans = network.spans(network.training_size)
        self.strides: dict[int, Ints | None] = {
            key: tuple(span.stride for span in along) if along else None for key, along in spans.items()
        }
        self.cells: dict[int, Ints | None] = {}  # the stride of the map that a vector was made of
        self.flat: dict[int, _Flat] = {}

    def run(self, sides: tuple[int | None, ...] | None = None) -> keras.Model:
        """The new model, height and width free."""
        model = super().run(sides)
        if any(key in self.flat for key in self.graph.outputs):
            raise InputError(f"model {self.network.name!r}: an output is a flattened map, not a vector of classes")
        return model

    def step(self, index: int, step: Step) -> None:
        """Build one step of the graph."""
        if index in self.network.head.collapses:
            self._collapse(step)
        elif any(key in self.flat for key in step.inputs):
            self._flattened(step)
        elif any(key in self.cells for key in step.inputs):
            self._vector(step)
        else:
            super().step(index, step)

    def _collapse(self, step: Step) -> None:
        """Pooling of the map, or the first step of rearranging it to a vector."""
        (source,), (result,) = step.inputs, step.outputs
        shape = known_shape(self.map_shapes[source])
        stride = self.strides[source]
        sides = shape[:-1]
        kind = global_pooling(step, self.axes)
        if self.network.head.kinds[source] == "plane":
            refuse(f"layer {step.path!r}", "a map without an axis of channels", "one with it, (h, w, 1)")
        if kind is None and self.pooling == "global":
            raise InputError(f"layer {step.path!r}: flattens the map; accepted for pooling='global': a pooled head")
        if kind is None and set(sides) != {1}:
            places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
            self.tensors[result] = self.tensors[source]
            self.flat[result] = _Flat(shape, stride, rearranged(step, places))
            return
        made = self.tensors[source]
        if kind is None:
            self._reshaped(step)
        else:
            # An operation of keras.ops has no policy of its own: it computes in what it is given.
            own = getattr(step.layer, "dtype_policy", None)
            settings = {"name": self.name(step), "dtype": own or keras.backend.result_type(made.dtype, "float32")}
            pool = (self.axes.count, kind)
            if self.pooling == "global":
                made = _GLOBAL[pool](keepdims=True, **settings)(made)
            else:
                made = _WINDOWS[pool](sides, strides=1, padding="valid", **settings)(made)
            self.tensors[result] = made
        self.cells[result] = stride if self.pooling == "window" else None

    def _flattened(self, step: Step) -> None:
        """A layer on a rearranged map, up to the Dense layer that takes it."""
        layer = step.layer
        flat = self.flat[step.inputs[0]] if len(step.inputs) == 1 else None
        is_vector = bool(flat and flat.places.ndim == 1)
        if flat and is_vector and isinstance(layer, layers.Dense):
            self._call_dense(step, flat)
            self.cells[step.outputs[0]] = flat.stride
        elif flat and moves_numbers(layer):
            self._hand_on(step)
            self.flat[step.outputs[0]] = replace(flat, places=rearranged(step, flat.places))
        elif flat and is_affine(layer) and not works_on_each_number(step):
            self._hand_on(step)
            self.flat[step.outputs[0]] = replace(flat, affine=(*flat.affine, (layer, flat.places)))
            self.placed.add(id(layer))
        elif flat and does_nothing(layer) or flat and not flat.affine and works_on_each_number(step):
            if isinstance(layer, layers.PReLU):
                self._prelu(step)
            else:
                self.call(step, self.clone(step))
            self.flat[step.outputs[0]] = flat
        else:
            where = "on the flattened map" if flat else "joining flattened maps, each of which a Dense layer must take"
            if flat and flat.affine:
                where = "between a normalisation of the flattened map and its Dense layer"
            raise InputError(f"layer {step.path!r} ({type(layer).__name__}): cannot be slid over an image {where}")

    def _vector(self, step: Step) -> None:
        """A layer on former vectors, which are now at every cell."""
        strides = {self.cells[key] for key in step.inputs if key in self.cells}
        if len(strides) > 1:
            received = " and ".join(" x ".join(map(str, stride or ("none",))) for stride in sorted(strides, key=str))
            raise InputError(f"layer {step.path!r}: joins heads on maps at strides {received}; accepted: one stride")
        self.cells |= dict.fromkeys(step.outputs, strides.pop())
        rule = next((rule for kinds, rule in _ON_VECTORS if isinstance(step.layer, kinds)), SlidingHead._at_every_cell)
        (SlidingHead._reshaped if moves_numbers(step.layer) else rule)(self, step)

    def _hand_on(self, step: Step) -> None:
        self.tensors[step.outputs[0]] = self.tensors[step.inputs[0]]

    def _dense(self, step: Step) -> None:
        self._numbers_axis(step, step.shapes[0])
        self._call_dense(step, None)

    def _reshaped(self, step: Step) -> None:
        """A vector in another form, (C,), (1, 1, C) or (C, 1, 1), or some of its numbers, at the same cells."""
        source, form = self.tensors[step.inputs[0]], known_shape(step.output_shape[1:])
        numbers = np.arange(source.shape[-1], dtype=np.int32)
        places = numbers.reshape(known_shape(self.map_shapes[step.inputs[0]]))
        taken = rearranged(step, places).ravel().astype(np.int32)
        if len(form) != self.axes.rank - 1 or math.prod(form) != max(form):
            self._check_form(step, step.output_shape, len(taken))
        if np.array_equal(taken, numbers):
            self._hand_on(step)
        else:
            self.give(step, keras.ops.take(source, taken, axis=-1))

    def _convolution(self, step: Step) -> None:
        if set(step.layer.kernel_size) != {1} or not isinstance(step.layer, _CONVOLUTION[self.axes.count]):
            raise self._cannot_slide(step)
        self.call(step, self.clone(step))

    def _prelu(self, step: Step) -> None:
        """Slopes of a vector's numbers, or one for all of them."""
        spatial = list(range(1, self.axes.channel))
        alone = math.prod(step.layer.alpha.shape) == 1
        self.call(step, self.clone(step, shared_axes=[*spatial, *([self.axes.channel] if alone else [])]))

    def _at_every_cell(self, step: Step) -> None:
        """A layer that works on a vector's numbers, one by one or along their axis."""
        layer = step.layer
        reduces = operation_in(layer, REDUCTIONS) and layer.keepdims
        if not is_pointwise(layer) and not reduces:
            raise self._cannot_slide(step)
        changes: dict[str, object] = {}
        if axes_of(layer, len(step.output_shape)):
            changes["axis"] = self._channel_axis(step)
        check_constants(step, self.axes)
        self.call(step, self.clone(step, **changes))

    def _cannot_slide(self, step: Step) -> InputError:
        kind = type(step.layer).__name__
        return InputError(f"layer {step.path!r} ({kind}): cannot be slid over an image in the head")

    def _channel_axis(self, step: Step) -> int:
        """The axis of the channels, for a layer that works along the numbers of a vector (C,) or (1, 1, C)."""
        own = self._numbers_axis(step, step.shapes[0])
        if own not in axes_of(step.layer, len(step.output_shape)):
            raise InputError(f"layer {step.path!r}: works along axis {step.layer.axis}; accepted: axis {own}")
        return self.axes.channel

    def _numbers_axis(self, step: Step, shape: tuple[int | None, ...]) -> int:
        """The axis of a former vector that its numbers lie along, the last: (B, C) or (B, 1, 1, C)."""
        self._check_form(step, shape, self.tensors[step.inputs[0]].shape[-1])
        return len(shape) - 1

    def _check_form(self, step: Step, shape: tuple[int | None, ...], channels: int) -> None:
        if shape[1:] != (*(1,) * (len(shape) - 2), channels):
            raise InputError(f"layer {step.path!r}: a vector in the form {shape[1:]}; accepted: (C,) or (1, 1, C)")

    def _call_dense(self, step: Step, flat: _Flat | None) -> None:
        """The convolution that a Dense layer is: over the whole map for the first after Flatten, else 1x1."""
        layer = step.layer
        if layer.quantization_mode is not None:
            raise InputError(
                f"layer {step.path!r}: is quantized to {layer.quantization_mode}; accepted: the float model"
            )
        key = (id(layer), flat and flat.key)
        if key not in self.copies:
            config = layer.get_config()
            sums = {name for name in _REGULARISERS if (config.get(name) or {}).get("class_name") in _SUMS}
            settings = {name: config[name] for name in (*_SHARED_SETTINGS, *sums)}
            if flat and flat.affine:
                settings["use_bias"] = True
            sides = flat.shape[:-1] if flat else (1,) * self.axes.count
            settings |= {"filters": layer.units, "kernel_size": sides, "padding": "valid", "name": self.name(step)}
            self.copies[key] = made_of(step, _CONVOLUTION[self.axes.count], settings)
            self.place(self.copies[key], lambda: _dense_values(layer, flat), layer)
        self.call(step, self.copies[key])


# Layers that a vector's grid cells need otherwise than the vector does, and what becomes of each; the others are the
# same at every cell.
_ON_VECTORS: tuple[tuple[tuple[type, ...], Callable[[SlidingHead, Step], None]], ...] = (
    ((layers.Dense,), SlidingHead._dense),
    (tuple(GLOBAL_POOLINGS), SlidingHead._reshaped),
    (tuple(_CONVOLUTION.values()), SlidingHead._convolution),
    ((layers.PReLU,), SlidingHead._prelu),
)


def _dense_values(layer: layers.Dense, flat: _Flat | None) -> list[np.ndarray]:
    """A Dense layer's weights as the convolution has them."""
    matrix = keras.ops.convert_to_numpy(layer.kernel)
    bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(layer.units, matrix.dtype)
    if flat is None:
        return [matrix, bias][: 1 + layer.use_bias]
    return list(flat.kernel_and_bias(matrix, bias))[: 1 + (layer.use_bias or bool(flat.affine))]
