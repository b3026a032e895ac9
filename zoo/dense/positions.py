"""What each layer does to positions: which input rows an output row looks at, along each spatial axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers

from zoo.errors import InputError
from zoo.graph import Step


@dataclass(frozen=True)
class Slide:
    """A window of `kernel` taps, `dilation` apart, moved by `stride`; `same` pads as TensorFlow does."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    same: bool = False

    @property
    def extent(self) -> int:
        """Rows from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def shifts_with_size(self) -> bool:
        """Whether the rows of padding at the top depend on the input's size."""
        return self.same and (self.extent - 1) // 2 != max(self.extent - self.stride, 0) // 2

    def padding(self, size: int) -> tuple[int, int]:
        """Rows added before and after an input of `size` rows."""
        if not self.same:
            return 0, 0
        total = max((-(-size // self.stride) - 1) * self.stride + self.extent - size, 0)
        return total // 2, total - total // 2

    def output_size(self, size: int) -> int:
        """Positions on an input of `size` rows; zero where the window does not fit."""
        return max((size + sum(self.padding(size)) - self.extent) // self.stride + 1, 0)


@dataclass(frozen=True)
class Border:
    """Rows of zeros added before and after; negative numbers crop."""

    before: int
    after: int


@dataclass(frozen=True)
class Repeat:
    """Every row `times` times over (nearest-neighbour upsampling)."""

    times: int


class Pointwise:
    """Each position by itself; several inputs are merged position by position, a single one being broadcast."""


class Everywhere:
    """Every output looks at the whole map (global pooling inside the network)."""


class Unknown:
    """A layer that may look anywhere: what only describes a model goes on past it."""


Move = Slide | Border | Repeat | Pointwise | Everywhere | Unknown

_GLOBAL_AVERAGE = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
_GLOBAL_MAX = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D)
GLOBAL_POOLINGS = (*_GLOBAL_AVERAGE, *_GLOBAL_MAX)
_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_POOLINGS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D)
_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D)
_CROPPINGS = (layers.Cropping1D, layers.Cropping2D)
_MERGES = (
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Concatenate,
)
_POINTWISE = (
    layers.Activation,
    layers.BatchNormalization,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.Normalization,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.UnitNormalization,
)
# Operations of keras.ops that appear in graphs as themselves, by class name.
_POINTWISE_OPERATIONS = {
    "Absolute", "Add", "Clip", "Divide", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Maximum", "Minimum", "Multiply",
    "Negative", "Power", "Relu", "Relu6", "Sigmoid", "Silu", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide",
}  # fmt: skip
# Layers that keras.applications defines for ConvNeXt and Inception-ResNet: x * scale, and x + scale * y.
_KERAS_SCALES = {"LayerScale", "CustomScaleLayer"}


def is_pointwise(layer: keras.Operation) -> bool:
    """Whether `layer` treats every position by itself."""
    kind = type(layer)
    if kind.__name__ in _KERAS_SCALES:
        return kind.__module__.startswith("keras.src.applications.")
    return isinstance(layer, _POINTWISE + _MERGES) or kind.__name__ in _POINTWISE_OPERATIONS


def moves(step: Step, axes: int) -> tuple[Move, ...]:
    """What a step does along each of `axes` spatial axes.

    Raises:
        InputError: naming the layer, where it is none whose reach is known.
    """
    layer = step.layer
    refuse_channels_first(step)
    if isinstance(layer, _CONVOLUTIONS):
        return _slides(step, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, axes)
    if isinstance(layer, _POOLINGS):
        return _slides(step, layer.pool_size, layer.strides, 1, layer.padding, axes)
    if isinstance(layer, _PADDINGS + _CROPPINGS):
        sign = 1 if isinstance(layer, _PADDINGS) else -1
        pairs = layer.padding if isinstance(layer, _PADDINGS) else layer.cropping
        pairs = [pairs] if axes == 1 else pairs
        return tuple(Border(sign * before, sign * after) for before, after in pairs)
    if isinstance(layer, layers.UpSampling1D | layers.UpSampling2D):
        if getattr(layer, "interpolation", "nearest") != "nearest":
            raise InputError(f"layer {step.path!r}: {layer.interpolation} interpolation; accepted: nearest")
        return tuple(Repeat(times) for times in _per_axis(layer.size, axes))
    if isinstance(layer, GLOBAL_POOLINGS):
        return (Everywhere(),) * axes
    if is_pointwise(layer):
        _refuse_spatial_axis(step)
        _refuse_spatial_weights(step)
        return (Pointwise(),) * axes
    raise InputError(f"layer {step.path!r} ({type(layer).__name__}): its reach over positions is not known")


def refuse_channels_first(step: Step) -> None:
    """See that a layer takes the last axis of a map for its channels.

    Raises:
        InputError: naming the layer.
    """
    if getattr(step.layer, "data_format", None) == "channels_first" and not is_pointwise(step.layer):
        raise InputError(f"layer {step.path!r}: data_format is channels_first; accepted: channels_last")


def _slides(step: Step, kernel, strides, dilation, padding: str, axes: int) -> tuple[Slide, ...]:
    if padding not in ("same", "valid"):
        raise InputError(f"layer {step.path!r}: padding {padding!r}; accepted: same, valid")
    sides = zip(_per_axis(kernel, axes), _per_axis(strides, axes), _per_axis(dilation, axes), strict=True)
    return tuple(Slide(k, s, d, padding == "same") for k, s, d in sides)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)[:axes]


def _refuse_spatial_axis(step: Step) -> None:
    """Normalisation, softmax or concatenation along rows or columns is not local."""
    axis = getattr(step.layer, "axis", -1)
    if axis is None or not isinstance(step.layer, layers.Layer):
        return
    rank = len(step.output_shape)
    for each in axis if isinstance(axis, list | tuple) else (axis,):
        if each % rank != rank - 1 and rank > 2:
            raise InputError(f"layer {step.path!r}: works along axis {each}; accepted: the channels, axis {rank - 1}")


def _refuse_spatial_weights(step: Step) -> None:
    """A slope of its own at every position belongs to maps of one size alone."""
    if isinstance(step.layer, layers.PReLU) and any(side != 1 for side in step.layer.alpha.shape[:-1]):
        raise InputError(
            f"layer {step.path!r}: has weights of its own at every position, {tuple(step.layer.alpha.shape)}; "
            "accepted: PReLU with shared_axes=[1, 2]"
        )
