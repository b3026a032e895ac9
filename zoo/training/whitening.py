"""The first layer's filters that whiten patches of the training images (Jordan 2024, arXiv:2404.00498, section 3.2)."""

import keras
import numpy as np

from zoo.card import Preprocess
from zoo.data import Split
from zoo.models.nin import WHITENING

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
