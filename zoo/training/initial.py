"""What training begins with instead of random values (Jordan 2024, arXiv:2404.00498, sections 3.2 and 3.3).

A first layer that whitens patches of the training images, and convolutions that hand their inputs on.
"""

import keras
import numpy as np

from zoo.card import Preprocess
from zoo.data import Split
from zoo.models.blocks import WHITENING

# So many images make the covariance of their patches known well enough.
_IMAGES = 5000
# Added to the variance along an eigenvector, in units of preprocessed pixels, so that noise is not blown up.
_NOISE = 5e-4


def whiten(model: keras.Model, split: Split, preprocess: Preprocess, seed: int) -> None:
    """Give the whitening layer of `model`, where it has one, its filters, made from patches of training images.

    They are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue, and the
    negatives of all: so that after the ReLU nothing is lost.
    """
    if WHITENING not in (layer.name for layer in model.layers):
        return
    layer = model.get_layer(WHITENING)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:_IMAGES])
    images = (np.asarray(split.images[chosen], np.float32) - preprocess.mean) / preprocess.std
    size = layer.kernel_size
    patches = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))  # (n, H', W', C, h, w)
    rows = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, np.prod(layer.kernel.shape[:3])).astype(np.float32)
    values, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64) / len(rows))
    filters = vectors / np.sqrt(values + _NOISE)
    layer.kernel.assign(np.concatenate([filters, -filters], axis=1).reshape(layer.kernel.shape))


def begin_as_identity(model: keras.Model, seed: int) -> None:
    """Give convolutions below the head filters of which the first ones hand their inputs on, and make the head small.

    Of a kernel (h, w, inputs, filters) with odd sides, filter i of the first min(inputs, filters) is 1 at the centre of
    input i and 0 elsewhere; the others stay as they were drawn, of the size that PyTorch draws (Jordan 2024,
    arXiv:2404.00498, section 3.3). The kernel of the classes begins with the standard deviation 1 / inputs: a high rate
    of the biases needs small gradients at first.
    """
    rng = np.random.default_rng([seed, 1])
    for layer in model.layers:
        if layer.name == WHITENING or not layer.weights or not hasattr(layer, "kernel"):
            continue
        shape = layer.kernel.shape
        if layer.name in ("head_logits", "head_class_maps"):
            layer.kernel.assign(rng.normal(0, 1 / shape[-2], shape))
        elif isinstance(layer, keras.layers.Conv2D) and layer.groups == 1:
            bound = 1 / np.sqrt(np.prod(shape[:-1]))
            kernel = rng.uniform(-bound, bound, shape)
            handed = min(shape[-2:])
            kernel[..., :handed] = 0
            kernel[shape[0] // 2, shape[1] // 2, range(handed), range(handed)] = 1
            layer.kernel.assign(kernel)
