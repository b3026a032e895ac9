"""Layers that scale and shift at inference: what they fold into the weights beside them."""

import keras
import numpy as np
from keras import layers


def is_affine(layer: keras.Operation) -> bool:
    """Whether a layer scales and shifts each number, or each channel, by amounts of its own at inference."""
    return isinstance(layer, layers.BatchNormalization | layers.Normalization | layers.Rescaling)


def scale_and_shift(layer: layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """What such a layer does to each number at inference: x * scale + shift, in float64, one or as many of both."""
    as_array = lambda value: np.asarray(keras.ops.convert_to_numpy(value), np.float64)  # noqa: E731
    if isinstance(layer, layers.Rescaling):
        return as_array(layer.scale).reshape(-1), as_array(layer.offset).reshape(-1)
    if isinstance(layer, layers.Normalization):
        mean, deviation = as_array(layer.mean), np.maximum(np.sqrt(as_array(layer.variance)), keras.config.epsilon())
        scale, shift = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
        return scale.reshape(-1), shift.reshape(-1)
    scale = 1 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * as_array(layer.gamma)
    shift = -as_array(layer.moving_mean) * scale
    return scale, shift + as_array(layer.beta) if layer.center else shift
