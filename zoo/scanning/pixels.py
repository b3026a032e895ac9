"""Images as a model takes them: their channels, and samples of the type that it was trained on."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import InputError
from zoo.graph import check_one_image, trace
from zoo.images import read_image
from zoo.rasters import open_raster
from zoo.saving import card


class Pixels:
    """An image (H, W, C) that is read region by region: `pixels[rows, columns]` -> (h, w, C)."""

    def __init__(
        self,
        source: Any,
        mirrored: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
        file: str | Path | None = None,
    ):
        """Read `source`, (H, W, C) or (H, W), as if mirrored at its border.

        Args:
            source: an array, or what is read by slices like one.
            mirrored: rows and columns added, ((top, bottom), (left, right)); the outermost ones are not repeated.
            file: where `source` is read from, if it is known.
        """
        self.file = file
        self.source, self.dtype, self.mirrored = source, np.dtype(source.dtype), mirrored
        pairs = zip(source.shape, mirrored, strict=False)
        self._rows, self._columns = (np.pad(np.arange(side), added, "reflect") for side, added in pairs)
        self.shape = (len(self._rows), len(self._columns), source.shape[2] if len(source.shape) == 3 else 1)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region; what is read of a mapped file does not stay in memory."""
        rows, columns = self._rows[region[0]], self._columns[region[1]]
        top, left = rows.min(), columns.min()
        read = np.array(self.source[top : rows.max() + 1, left : columns.max() + 1])
        release(self.source)
        if np.any(self.mirrored):
            read = read[np.ix_(rows - top, columns - left)]
        return read if read.ndim == 3 else read[..., None]


def release(array: Any) -> None:
    """Give back the memory that holds what was read of a mapped file; other arrays stay as they are."""
    if isinstance(array, np.memmap) and array.mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)


@contextmanager
def open_pixels(model: keras.Model, image: Any) -> Iterator[Pixels]:
    """An image for a model, from an array, what is read by slices like one, or a file.

    Raises:
        InputError: where it cannot be read by regions, or has other channels or another sample type than the model's
            images; for a model that takes something else than one image.
    """
    if not isinstance(image, str | Path):
        check_pixels(model, image)
        yield image if isinstance(image, Pixels) else Pixels(image)
        return
    check_one_image(trace(model))
    with open_raster(image, model.inputs[0].shape[-1]) as raster:
        _check_samples(model, image, raster.dtype)
        yield Pixels(raster, file=image)


@contextmanager
def open_mask(mask: Any, size: tuple[int, int]) -> Iterator[Pixels]:
    """A region of interest in an image of `size` (height, width): an array (H, W), or a file; what is not 0 is inside.

    Raises:
        InputError: where the file cannot be read, or the mask is not of the image's size.
    """
    if isinstance(mask, str | Path):
        with open_raster(mask) as raster, open_mask(raster, size) as pixels:
            yield pixels
        return
    if tuple(getattr(mask, "shape", ()))[:2] != tuple(size):
        received = getattr(mask, "shape", type(mask).__name__)
        raise InputError(f"mask: received {received}; accepted: {size}, the image's height and width")
    yield Pixels(mask)


def read_pixels(model: keras.Model, path: str | Path) -> np.ndarray:
    """Read an image file for a model: (H, W, C).

    Raises:
        InputError: where it cannot be read, or has other channels or another sample type than the model's images; for
            a model that takes something else than one image.
    """
    check_one_image(trace(model))
    image = read_image(path, model.inputs[0].shape[-1])
    _check_samples(model, path, image.dtype)
    return image


def _check_samples(model: keras.Model, path: str | Path, dtype: np.dtype) -> None:
    trained = card(model).dtype
    if trained is not None and dtype != trained:
        raise InputError(f"image {path}: received {dtype} samples; accepted: {trained}, as the model was trained")


def check_pixels(model: keras.Model, image: Any) -> None:
    """See that an array, or what is read by slices like one, is an image for a model.

    Floats are taken as raw pixels of whichever type the model was trained on.

    Raises:
        InputError: for another shape, or samples of another type.
    """
    shape, channels = getattr(image, "shape", None), model.inputs[0].shape[-1]
    if shape is None or len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"image: received {type(image).__name__} of shape {shape}; accepted: (H, W) or (H, W, C)")
    if len(shape) == 3 and shape[2] != channels or len(shape) == 2 and channels != 1:
        raise InputError(f"image: received shape {tuple(shape)}; accepted: (H, W, {channels})")
    dtype, trained = np.dtype(image.dtype), card(model).dtype
    if dtype.kind not in "uif":
        raise InputError(f"image: received {dtype} samples; accepted: whole numbers or floats")
    if trained is not None and dtype in (np.uint8, np.uint16) and dtype != trained:
        raise InputError(f"image: received {dtype} samples; accepted: {trained}, as the model was trained, or floats")


def check_finite(pixels: np.ndarray) -> np.ndarray:
    """The pixels, if all of them are numbers.

    Raises:
        InputError: where some are not.
    """
    if not np.isfinite(pixels).all():
        raise InputError("image: received values that are not finite; accepted: numbers")
    return pixels
