"""Kinds of layers of Keras, by what they do to single numbers and axes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from zoo.network.keras_internals import is_from_keras

GlobalPooling = Literal["average", "max"]
# Layers that change images in training alone, and hand them on at inference.
AUGMENTATIONS = (
    layers.AugMix,
    layers.CutMix,
    layers.MixUp,
    layers.RandAugment,
    layers.RandomBrightness,
    layers.RandomColorDegeneration,
    layers.RandomColorJitter,
    layers.RandomContrast,
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomGrayscale,
    layers.RandomHue,
    layers.RandomInvert,
    layers.RandomPerspective,
    layers.RandomPosterization,
    layers.RandomRotation,
    layers.RandomSaturation,
    layers.RandomSharpness,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
)
# Layers whose `data_format` does not say where maps have their channels.
OF_ANY_LAYOUT = (layers.Flatten, *AUGMENTATIONS)
GLOBAL_POOLINGS: dict[type, GlobalPooling] = {
    layers.GlobalAveragePooling1D: "average",
    layers.GlobalAveragePooling2D: "average",
    layers.GlobalMaxPooling1D: "max",
    layers.GlobalMaxPooling2D: "max",
}
# What they are where their output has one position; of maxima, Keras 3.15 on TensorFlow ends the process.
ADAPTIVE_POOLINGS: dict[type, type[layers.Layer]] = {
    layers.AdaptiveAveragePooling1D: layers.GlobalAveragePooling1D,
    layers.AdaptiveAveragePooling2D: layers.GlobalAveragePooling2D,
}
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    *DEPTHWISE,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
POOLINGS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D)
PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D)
CROPPINGS = (layers.Cropping1D, layers.Cropping2D)
UPSAMPLINGS = (layers.UpSampling1D, layers.UpSampling2D)
MERGES = (
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Concatenate,
)
POINTWISE = (
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
ELEMENTWISE_OPERATIONS = {
    "Absolute", "Arctan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Exp2", "Expm1", "Floor", "Gelu",
    "HardShrink", "HardSigmoid", "HardSwish", "HardTanh", "LeakyRelu", "Log", "Log10", "Log1p", "Log2", "LogSigmoid",
    "LogicalNot", "Mish", "Negative", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign",
    "Silu", "Sin", "SoftShrink", "Softplus", "Softsign", "Sqrt", "Square", "Tanh", "TanhShrink", "Threshold",
}  # fmt: skip
# of several tensors or constants, number by number,
MERGING_OPERATIONS = {
    "Add", "Divide", "Equal", "FloorDivide", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr",
    "Maximum", "Minimum", "Mod", "Multiply", "NotEqual", "Power", "Subtract", "TrueDivide", "Where",
}  # fmt: skip
# along an axis, which those without one do not name, or name as None,
AXIS_OPERATIONS = {"Concatenate", "Flip", "LogSoftmax", "Normalize", "Repeat", "Softmax", "Split", "Take", "Unstack"}
# over an axis, of which one number is left,
REDUCTIONS = {"Amax", "Amin", "Logsumexp", "Max", "Mean", "Min", "Prod", "Std", "Sum", "Var"}
# and those that put every number in another place, and do nothing else to it.
_REARRANGING_OPERATIONS = {"ExpandDims", "Moveaxis", "Reshape", "Squeeze", "Swapaxes", "Transpose"}
_REARRANGEMENTS = (layers.Flatten, layers.Permute, layers.Reshape)
# Activations along the last axis; the others of keras.activations are of each number by itself.
_LAST_AXIS_ACTIVATIONS = {"glu", "log_softmax", "softmax", "sparsemax"}


def operation_in(layer: keras.Operation, names: set[str]) -> bool:
    """Whether a layer is an operation of keras.ops by one of these class names."""
    return type(layer).__name__ in names and is_from_keras(type(layer)) and not isinstance(layer, layers.Layer)


def is_elementwise(layer: keras.Operation) -> bool:
    """Whether a layer does the same to each number by itself at inference, wherever it stands."""
    if isinstance(layer, layers.Activation):
        return not is_along_last_axis(layer)
    if isinstance(layer, layers.Rescaling):
        return np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0
    if isinstance(layer, layers.PReLU):
        return math.prod(layer.alpha.shape) == 1
    plain = layers.ReLU | layers.LeakyReLU | layers.ELU
    return does_nothing(layer) or isinstance(layer, plain) or operation_in(layer, ELEMENTWISE_OPERATIONS)


def as_global_pooling(layer: keras.Operation) -> keras.Operation:
    """The global pooling that an adaptive average pooling to one position is, of its name; others as they are.

    Keras's own, on TensorFlow, fails in compiled graphs where one bin is the whole map, and where the sides are open.
    """
    # One with a `call` put on it is left as it is, and refused for that.
    is_plain = type(layer) in ADAPTIVE_POOLINGS and not {"call", "__call__"} & set(vars(layer))
    if not is_plain or set(layer.output_size) != {1}:
        return layer
    config = layer.get_config()
    del config["output_size"]
    return ADAPTIVE_POOLINGS[type(layer)].from_config({**config, "keepdims": True})


def does_nothing(layer: keras.Operation) -> bool:
    """Whether a layer does nothing at inference."""
    noise = layers.Dropout | layers.GaussianDropout | layers.GaussianNoise | layers.AlphaDropout
    return isinstance(layer, noise | layers.Identity | layers.ActivityRegularization)


def is_affine(layer: keras.Operation) -> bool:
    """Whether a layer scales and shifts each number, or each channel, by amounts of its own at inference."""
    return isinstance(layer, layers.BatchNormalization | layers.Normalization | layers.Rescaling)


def rearranges(layer: keras.Operation) -> bool:
    """Whether a layer puts every number in another place, and does nothing else to it."""
    return isinstance(layer, _REARRANGEMENTS) or operation_in(layer, _REARRANGING_OPERATIONS)


def moves_numbers(layer: keras.Operation) -> bool:
    """Whether a layer puts numbers in other places, or takes some of them, and does nothing else to them."""
    return rearranges(layer) or operation_in(layer, {"GetItem"})


def is_along_last_axis(layer: keras.Operation) -> bool:
    """Whether the layer's own activation works along the last axis, as a softmax does."""
    return getattr(getattr(layer, "activation", None), "__name__", None) in _LAST_AXIS_ACTIVATIONS


def is_of_keras(activation: Callable) -> bool:
    """Whether a function is one of keras.activations, or their counterpart in keras.ops."""
    return is_from_keras(activation) and hasattr(keras.activations, getattr(activation, "__name__", ""))


def index_parts(key: Any, rank: int) -> list[Any]:
    """The parts of an index into a tensor: one for each of its axes, and None for each new one.

    A model that was read from a file holds a list where its author gave a tuple.
    """
    parts = list(key) if isinstance(key, tuple | list) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(index for index, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (rank - sum(part is not None for part in parts) + 1)
    return parts


def axes_of(layer: keras.Operation, rank: int) -> tuple[int, ...]:
    """The axes, counted from the first, along which a layer normalises or joins; of others, none."""
    axis = getattr(layer, "axis", None)
    if axis is None:
        return ()
    return tuple(each % rank for each in (axis if isinstance(axis, list | tuple) else (axis,)))
