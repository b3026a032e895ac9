"""What each layer does to positions: which input rows an output row looks at, along each spatial axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from keras import layers

from zoo.errors import InputError
from zoo.network.graph import AUGMENTATIONS, Layout, Step


@dataclass(frozen=True)
class Slide:
    """A window of `kernel` taps, `dilation` apart, moved by `stride`.

    `same` pads as TensorFlow does; `causal` pads before the first row alone, so that no output looks ahead.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    same: bool = False
    causal: bool = False

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
        if self.causal:
            return self.extent - 1, 0
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

_GLOBAL_POOLINGS = {
    layers.GlobalAveragePooling1D: "average",
    layers.GlobalAveragePooling2D: "average",
    layers.GlobalMaxPooling1D: "max",
    layers.GlobalMaxPooling2D: "max",
}
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
    layers.ActivityRegularization,
    layers.AlphaDropout,
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
    layers.RMSNormalization,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.UnitNormalization,
)
# Operations of keras.ops that appear in graphs as themselves, by class name: those of each number by itself,
_ELEMENTWISE_OPERATIONS = {
    "Absolute", "Cast", "Celu", "Clip", "Elu", "Exp", "Gelu", "HardShrink", "HardSigmoid", "HardSwish", "HardTanh",
    "LeakyRelu", "Log", "Log1p", "LogSigmoid", "Mish", "Negative", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid", "Silu",
    "SoftShrink", "Softplus", "Softsign", "Sqrt", "Square", "Tanh", "TanhShrink",
}  # fmt: skip
# of several tensors or constants, number by number,
_MERGING_OPERATIONS = {
    "Add", "Divide", "Maximum", "Minimum", "Multiply", "Power", "Subtract", "TrueDivide",
}  # fmt: skip
# and along an axis.
_AXIS_OPERATIONS = {"Concatenate", "Flip", "LogSoftmax", "Softmax"}
# Activations along the last axis; the others of keras.activations are of each number by itself.
_LAST_AXIS_ACTIVATIONS = {"glu", "log_softmax", "softmax", "sparsemax"}
# Layers that keras.applications defines for ConvNeXt and Inception-ResNet: x * scale, and x + scale * y.
_KERAS_SCALES = {"LayerScale", "CustomScaleLayer"}


def is_pointwise(layer: keras.Operation) -> bool:
    """Whether `layer` treats every position by itself."""
    kind = type(layer)
    if kind.__name__ in _KERAS_SCALES:
        return kind.__module__.startswith("keras.src.applications.")
    operations = _ELEMENTWISE_OPERATIONS | _MERGING_OPERATIONS | _AXIS_OPERATIONS
    return isinstance(layer, _POINTWISE + _MERGES + AUGMENTATIONS) or kind.__name__ in operations


def is_elementwise(layer: keras.Operation) -> bool:
    """Whether a layer does the same to each number by itself at inference, wherever it stands."""
    if isinstance(layer, layers.Activation):
        return not is_along_last_axis(layer)
    if isinstance(layer, layers.Rescaling):
        return np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0
    plain = layers.ReLU | layers.LeakyReLU | layers.ELU
    return does_nothing(layer) or isinstance(layer, plain) or type(layer).__name__ in _ELEMENTWISE_OPERATIONS


def does_nothing(layer: keras.Operation) -> bool:
    """Whether a layer does nothing at inference."""
    noise = layers.Dropout | layers.GaussianDropout | layers.GaussianNoise | layers.AlphaDropout
    return isinstance(layer, noise | layers.Identity | layers.ActivityRegularization)


def refuse_own_code(step: Step) -> None:
    """See that a layer, and the activation inside it, are Keras's own, whose reach is known and which load anywhere.

    Raises:
        InputError: naming the layer, for a Lambda, or code of the model's author.
    """
    layer = step.layer
    if isinstance(layer, layers.Lambda):
        raise InputError(
            f"layer {step.path!r}: a Lambda runs code of its own, whose reach over positions is not known, and is not "
            "converted"
        )
    if not type(layer).__module__.startswith("keras."):
        raise InputError(
            f"layer {step.path!r} ({type(layer).__name__}): code of its author's own, whose reach over positions "
            "is not known; accepted: layers of Keras"
        )
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.Operation):
        known = type(activation).__module__.startswith("keras.") and is_elementwise(activation)
    else:
        known = activation is None or _is_of_keras(activation)
    if not known:
        name = getattr(activation, "__name__", type(activation).__name__)
        raise InputError(f"layer {step.path!r}: activation {name!r}; accepted: activations of Keras")


def global_pooling(step: Step, layout: Layout) -> Literal["average", "max"] | None:
    """How a step pools a map over all positions, as a layer or as an operation of keras.ops; None where it does not."""
    kind = _GLOBAL_POOLINGS.get(type(step.layer))
    if kind is not None:
        return kind if _layout_is(step, layout) else None
    operations = {"Mean": "average", "Max": "max"}
    rank = len(step.shapes[0])
    is_global = rank == layout.rank and set(axes_of(step.layer, rank)) == set(range(rank)[layout.spatial])
    return operations.get(type(step.layer).__name__) if is_global else None


def moves(step: Step, layout: Layout) -> tuple[Move, ...]:
    """What a step does along each spatial axis of `layout`.

    Raises:
        InputError: naming the layer, where it is none whose reach is known.
    """
    layer, axes = step.layer, layout.axes
    refuse_own_code(step)
    if not _layout_is(step, layout) and not is_pointwise(layer):
        raise InputError(
            f"layer {step.path!r}: data_format is {layer.data_format}, unlike that of the layers before it"
        )
    if isinstance(layer, layers.Cropping1D | layers.UpSampling1D) and layout.channels_first:
        raise InputError(f"layer {step.path!r}: takes the last axis for the channels, which are axis 1 here")
    if isinstance(layer, _CONVOLUTIONS + _POOLINGS):
        _refuse_last_axis(step, layout)
        if isinstance(layer, _POOLINGS):
            return _slides(step, layer.pool_size, layer.strides, 1, layer.padding, axes)
        return _slides(step, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, axes)
    if isinstance(layer, _PADDINGS + _CROPPINGS):
        sign = 1 if isinstance(layer, _PADDINGS) else -1
        pairs = layer.padding if isinstance(layer, _PADDINGS) else layer.cropping
        pairs = [pairs] if axes == 1 else pairs
        return tuple(Border(sign * before, sign * after) for before, after in pairs)
    if isinstance(layer, layers.UpSampling1D | layers.UpSampling2D):
        if getattr(layer, "interpolation", "nearest") != "nearest":
            raise InputError(f"layer {step.path!r}: {layer.interpolation} interpolation; accepted: nearest")
        return tuple(Repeat(times) for times in _per_axis(layer.size, axes))
    if global_pooling(step, layout):
        return (Everywhere(),) * axes
    if is_pointwise(layer) or _takes_channels(step, layout):
        _refuse_last_axis(step, layout)
        _refuse_spatial_axis(step, layout)
        _refuse_spatial_weights(step, layout)
        refuse_constants(step, layout)
        return (Pointwise(),) * axes
    raise InputError(f"layer {step.path!r} ({type(layer).__name__}): {_why_not_local(layer)}")


def is_along_last_axis(layer: keras.Operation) -> bool:
    """Whether the layer's own activation works along the last axis, as a softmax does."""
    return getattr(getattr(layer, "activation", None), "__name__", None) in _LAST_AXIS_ACTIVATIONS


def refuse_constants(step: Step, layout: Layout) -> None:
    """See that numbers that a step adds, multiplies with or the like are the same at every position.

    Raises:
        InputError: naming the layer, where they are a map of one size, or, channels first, would meet columns.
    """
    rank = len(step.output_shape)
    is_map = rank == layout.rank
    numbers = layout.channel if is_map else rank - 1
    for shape in _constants(step):
        sides = (*(1,) * (rank - len(shape)), *shape)
        if len(sides) != rank or any(side != 1 for axis, side in enumerate(sides) if axis != numbers):
            raise InputError(
                f"layer {step.path!r}: takes a constant of shape {shape}, of its own at every position; accepted: one "
                "for all positions"
            )
        if layout.channels_first and not is_map and sides[-1] != 1:
            raise InputError(
                f"layer {step.path!r}: takes a constant of shape {shape} for a vector; accepted, channels first: a "
                "number"
            )


def axes_of(layer: keras.Operation, rank: int) -> tuple[int, ...]:
    """The axes, counted from the first, along which a layer normalises or joins; of others, none."""
    axis = getattr(layer, "axis", None)
    if axis is None:
        return ()
    return tuple(each % rank for each in (axis if isinstance(axis, list | tuple) else (axis,)))


def _layout_is(step: Step, layout: Layout) -> bool:
    """Whether a layer, if it asks, takes the axis for its channels that the other layers take."""
    wanted = "channels_first" if layout.channels_first else "channels_last"
    return getattr(step.layer, "data_format", None) in (None, wanted)


def _why_not_local(layer: keras.Operation) -> str:
    name = type(layer).__name__
    if "Attention" in name:
        return "looks at all positions at once, so it cannot be slid"
    if isinstance(layer, layers.RNN | layers.Bidirectional):
        return "a recurrent layer carries what it saw from position to position, so it cannot be slid"
    if isinstance(layer, layers.Permute):
        return "turns the axes, so what follows has no reach over positions that is known"
    if isinstance(layer, layers.GroupNormalization):
        return "normalises over all positions together, so it cannot be slid"
    if isinstance(layer, layers.CenterCrop | layers.RandomCrop | layers.Resizing):
        return "makes every image one size, so no image gives more than one cell; accepted: the model behind it"
    return "its reach over positions is not known"


def _is_of_keras(activation: Callable) -> bool:
    """Whether a function is one of keras.activations, or their counterpart in keras.ops."""
    name = getattr(activation, "__name__", "")
    return getattr(activation, "__module__", "").startswith("keras.src.") and hasattr(keras.activations, name)


def _takes_channels(step: Step, layout: Layout) -> bool:
    """Whether a step is an index into a map that takes some of its channels, at all positions: x[..., ::-1]."""
    if type(step.layer).__name__ != "GetItem" or len(step.output_shape) != layout.rank:
        return False
    key = step.node.arguments.args[1]
    key = list(key) if isinstance(key, tuple | list) else [key]
    if Ellipsis not in key:
        key.append(Ellipsis)
    at = key.index(Ellipsis)
    key[at : at + 1] = [slice(None)] * (layout.rank - len(key) + 1)
    return all(part == slice(None) for axis, part in enumerate(key) if axis != layout.channel)


def _constants(step: Step) -> list[tuple[int, ...]]:
    """The shapes of the arrays that a step takes beside its tensors; plain numbers are none."""
    if isinstance(step.layer, layers.Rescaling):
        given = [step.layer.scale, step.layer.offset]
    else:
        arguments = step.node.arguments
        given = [
            each
            for each in (*arguments.args, *arguments.kwargs.values())
            if not isinstance(each, str | None)
            and type(step.layer).__name__ in _MERGING_OPERATIONS
            and not any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(each))
        ]
    shapes = (tuple(each.shape) if hasattr(each, "shape") else np.shape(each) for each in given)
    return [shape for shape in shapes if shape]


def _slides(step: Step, kernel, strides, dilation, padding: str, axes: int) -> tuple[Slide, ...]:
    if padding not in ("same", "valid", "causal"):
        raise InputError(f"layer {step.path!r}: padding {padding!r}; accepted: same, valid, causal")
    sides = zip(_per_axis(kernel, axes), _per_axis(strides, axes), _per_axis(dilation, axes), strict=True)
    return tuple(Slide(k, s, d, padding == "same", padding == "causal") for k, s, d in sides)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)[:axes]


def _refuse_last_axis(step: Step, layout: Layout) -> None:
    """Dense layers and softmax activations work along the last axis, which are columns where channels come first."""
    if not layout.channels_first or len(step.output_shape) != layout.rank:
        return
    if isinstance(step.layer, layers.Dense) or is_along_last_axis(step.layer):
        raise InputError(f"layer {step.path!r}: works along the last axis, and the channels are axis 1 here")


def _refuse_spatial_axis(step: Step, layout: Layout) -> None:
    """Normalisation, softmax or concatenation along rows or columns is not local."""
    rank = len(step.output_shape)
    if type(step.layer).__name__ in _AXIS_OPERATIONS and step.layer.axis is None:
        raise InputError(f"layer {step.path!r}: works along all axes; accepted: the channels, axis {layout.channel}")
    wrong = [axis for axis in axes_of(step.layer, rank) if axis != layout.channel]
    if wrong and rank == layout.rank:
        raise InputError(
            f"layer {step.path!r}: works along axis {wrong[0]}; accepted: the channels, axis {layout.channel}"
        )


def _refuse_spatial_weights(step: Step, layout: Layout) -> None:
    """A slope of its own at every position belongs to maps of one size alone."""
    if isinstance(step.layer, layers.PReLU) and len(step.output_shape) == layout.rank:
        if any(side != 1 for side in layout.sides((None, *step.layer.alpha.shape))):
            shared = list(range(1, layout.rank))[layout.channels_first :][: layout.axes]
            raise InputError(
                f"layer {step.path!r}: has weights of its own at every position, {tuple(step.layer.alpha.shape)}; "
                f"accepted: PReLU with shared_axes={shared}"
            )
