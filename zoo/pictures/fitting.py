"""Arrays brought to a model's channels and to the size that it was trained on."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import refuse


def to_channels(image: np.ndarray, channels: int, name: str) -> np.ndarray:
    """Bring (..., H, W, C) to `channels`: grey is repeated, and RGB that is grey throughout made grey.

    Raises:
        InputError: where that is not enough, beginning with `name`.
    """
    received = image.shape[-1]
    if received == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if received == 3 and channels == 1 and (image == image[..., :1]).all():
        return image[..., :1]
    if received != channels:
        colour = " in colour" if received == 3 and channels == 1 else ""
        refuse(name, f"{received} channels{colour}", f"{channels} (model.channels)")
    return image


def fit_image(
    image: np.ndarray, size: tuple[int, int], resize: bool = False, fill: float | Sequence[float] = 0
) -> np.ndarray:
    """Bring an image to a size: (H, W, C) -> (h, w, C), same type.

    Without `resize` no pixel is changed: rows and columns beyond the size are cut off evenly at both sides, missing
    ones are added evenly (an odd one: at the bottom or right). With `resize` the image is scaled, keeping its aspect,
    until it just covers the size, and then cropped in the centre; bilinear, with anti-aliasing where it shrinks.

    Args:
        image: uint8, uint16 or float32.
        size: (height, width).
        resize: scale instead of cropping and padding.
        fill: the value of added pixels, one or one a channel; rounded for whole-number images.
    """
    if image.shape[:2] == tuple(size):
        return image
    if resize:
        return _resize(image, size)
    for axis, wanted in enumerate(size):
        if (extra := image.shape[axis] - wanted) > 0:
            image = image.take(range(extra // 2, extra // 2 + wanted), axis)
    fitted = np.empty((*size, image.shape[-1]), image.dtype)
    fitted[...] = as_pixel(fill, image.dtype)
    top, left = ((wanted - now) // 2 for wanted, now in zip(size, image.shape, strict=False))
    fitted[top : top + image.shape[0], left : left + image.shape[1]] = image
    return fitted


def as_pixel(value: float | Sequence[float], dtype: np.dtype) -> np.ndarray:
    """One value, or one a channel, as a pixel of an image of type `dtype`: rounded and clipped for whole numbers."""
    pixel = np.atleast_1d(np.asarray(value, np.float64))
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        pixel = np.clip(np.rint(pixel), limits.min, limits.max)
    return pixel.astype(dtype)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    top, left = (height - size[0] / scale) / 2, (width - size[1] / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
    # Channel by channel in 32-bit float, which holds 16-bit samples exactly; Pillow has no 16-bit RGB.
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR, box)) for plane in planes]
    values = np.stack(resized, axis=-1)
    return np.rint(values).astype(image.dtype) if image.dtype.kind in "iu" else values
