"""Images as a model takes them: their channels, and samples of the type that it was trained on."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import InputError
from zoo.graph import check_one_image, trace
from zoo.images import read_image
from zoo.saving import card


def read_pixels(model: keras.Model, path: str | Path) -> np.ndarray:
    """Read an image file for a model: (H, W, C).

    Raises:
        InputError: where it cannot be read, or has other channels or another sample type than the model's images; for
            a model that takes something else than one image.
    """
    check_one_image(trace(model))
    image = read_image(path, model.inputs[0].shape[-1])
    trained = card(model).dtype
    if trained is not None and image.dtype != trained:
        raise InputError(f"image {path}: received {image.dtype} samples; accepted: {trained}, as the model was trained")
    return image


def check_pixels(model: keras.Model, image: Any) -> Any:
    """See that an array, or what is read by slices like one, is an image for a model, and give it three axes.

    Floats are taken as raw pixels of whichever type the model was trained on.

    Raises:
        InputError: for another shape, or samples of another type.
    """
    shape, channels = getattr(image, "shape", None), model.inputs[0].shape[-1]
    if shape is None or len(shape) not in (2, 3):
        raise InputError(f"image: received {type(image).__name__} of shape {shape}; accepted: (H, W) or (H, W, C)")
    if len(shape) == 3 and shape[2] != channels or len(shape) == 2 and channels != 1:
        raise InputError(f"image: received shape {tuple(shape)}; accepted: (H, W, {channels})")
    dtype, trained = np.dtype(image.dtype), card(model).dtype
    if dtype.kind not in "uif":
        raise InputError(f"image: received {dtype} samples; accepted: whole numbers or floats")
    if trained is not None and dtype in (np.uint8, np.uint16) and dtype != trained:
        raise InputError(f"image: received {dtype} samples; accepted: {trained}, as the model was trained, or floats")
    return image if len(shape) == 3 else np.asarray(image)[..., None]
