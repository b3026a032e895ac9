"""Layers that scale and shift at inference: what they fold into the weights beside them."""

import keras
import numpy as np
from keras import layers

from zoo.network.layer_kinds import axes_of


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


def scales_and_shifts(layer: layers.Layer, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`scale_and_shift` for every number of an input of `shape`, without batch."""
    axes = axes_of(layer, len(shape) + 1)
    given = [layer.scale, layer.offset] if isinstance(layer, layers.Rescaling) else scale_and_shift(layer)
    spread = []
    for values in (np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in given):
        sides = values.shape[max(values.ndim - len(shape), 0) :]  # an axis of the batch, of 1, may come first
        if axes and values.size > 1:
            sides = tuple(side if axis in axes else 1 for axis, side in enumerate(shape, start=1))
        spread.append(np.broadcast_to(values.reshape(sides), shape))
    return spread[0], spread[1]
