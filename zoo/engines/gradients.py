"""What each pixel of an image changes a score by, for a network on its own grid or a finer one."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.engines.fragments import Fragments
from zoo.errors import refuse
from zoo.network.finer import FinerGeometry, finer_geometry
from zoo.network.network import Network
from zoo.network.outputs import before_activation, without_activations
from zoo.network.positions import pair


def check_backend() -> None:
    """Check that Keras's backend has gradients.

    Raises:
        InputError: where it has none.
    """
    if keras.backend.backend() not in _GRADIENTS:
        refuse("influence", f"KERAS_BACKEND={keras.backend.backend()}", ", ".join(_GRADIENTS))


class PixelGradients:
    """The scores of a fully-convolutional network at one cell, and their gradient with respect to the pixels."""

    def __init__(self, network: Network, stride: int | tuple[int, int] | None = None):
        """Take the network, and the stride of a finer grid.

        Raises:
            InputError: for a backend without gradients, or a stride that is none of the network's.
        """
        check_backend()
        self.network, self._gradient = network, _GRADIENTS[keras.backend.backend()]
        geometry = None if stride is None else finer_geometry(network, stride)
        self._shifted: FinerGeometry | None = None
        if geometry is not None and geometry.padding_free:
            self._scores = Fragments(network, geometry).tensor
            self._before = Fragments(network, geometry, without_activations(network.graph)).tensor
        else:
            before, self._shifted = before_activation(network.graph), geometry
            self._scores = lambda images: network.model(images, training=False)
            self._before = lambda images: before(images)[0]

    @property
    def dtype(self) -> np.dtype:
        """The type of the pixels that it takes."""
        return np.dtype(np.float64 if self.network.model.inputs[0].dtype == "float64" else np.float32)

    def scores(self, pixels: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
        """The scores of a cell of the grid of pixels (h, w, C), as the model gives them: (classes,) float64."""
        return self._at(self._scores, pixels, cell)

    def before_activation(self, pixels: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
        """The same without a softmax or sigmoid at the end of the model."""
        return self._at(self._before, pixels, cell)

    def gradient(self, pixels: np.ndarray, cell: tuple[int, int], weights: np.ndarray) -> np.ndarray:
        """The gradient of the weighted sum of `before_activation`: (h, w, C) -> (h, w, C) float64."""
        shift, cell = self._shift(pixels, cell)
        weights = ops.convert_to_tensor(weights.astype(pixels.dtype))
        gradient = np.zeros(pixels.shape)
        gradient[shift] = self._gradient(
            lambda images: ops.sum(ops.cast(self._before(images)[(0, *cell)], pixels.dtype.name) * weights),
            pixels[shift][None],
        )[0]
        return gradient

    def _at(self, run: Callable[[Any], Any], pixels: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
        shift, cell = self._shift(pixels, cell)
        return ops.convert_to_numpy(run(ops.convert_to_tensor(pixels[shift][None])))[(0, *cell)].astype(np.float64)

    def _shift(self, pixels: np.ndarray, cell: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[int, int]]:
        """The part of the pixels that is run for a cell, and the cell's place in what comes out.

        On the finer grid of a padded network that is a shift of the image.
        """
        if self._shifted is None:
            return (slice(None), slice(None)), cell
        parts, places = [], []
        for axis, (side, index) in enumerate(zip(pixels.shape, cell, strict=False)):
            place, phase = divmod(index, self._shifted.phases[axis])
            first, length = list(self._shifted.shifts(side, axis))[phase]
            parts.append(slice(first, first + length))
            places.append(place)
        return pair(parts), pair(places)


def _tensorflow_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    # As a graph, which leaves out the kernels' gradients that nobody asks for: TensorFlow 2.21 crashes over those of a
    # strided 1x1 convolution on one image of even sides.
    def gradient(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            value = score(images)
        return tape.gradient(value, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    images = tf.constant(images)
    # Traced for this call alone, of which TensorFlow warns where it is left to trace.
    return tf.function(gradient, autograph=False).get_concrete_function(images)(images).numpy()


def _jax_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import jax

    return np.asarray(jax.grad(score)(images))


def _torch_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import torch

    images = keras.ops.convert_to_tensor(images).requires_grad_()
    (gradient,) = torch.autograd.grad(score(images), images, materialize_grads=True)
    return keras.ops.convert_to_numpy(gradient)


_GRADIENTS = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}
