"""Arrays as pictures: .npy files, and what is at hand as an array or is read by slices like one."""

import mmap
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import refuse
from zoo.pictures.stored import Colour, Stored, check_samples, check_shape
from zoo.pictures.wanted import Choice, Wanted, check_single

MAGIC = b"\x93NUMPY"
_STRIP = 2**24


def open_npy(path: Path, wanted: Wanted, choice: Choice) -> Stored:
    """Map a .npy file, (H, W) or (H, W, C).

    Raises:
        InputError: where it is broken, or holds no picture.
    """
    name = f"image {path}"
    check_single(name, choice)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    check_shape(name, array.shape, wanted.channels)
    dtype = check_samples(name, array.dtype, wanted.mask)
    shape = (*array.shape[:2], array.shape[2] if array.ndim == 3 else 1)

    def read(rows: slice, columns: slice) -> np.ndarray:
        pixels = np.array(array[rows, columns], dtype)
        release(array)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    return Stored(shape, dtype, read, colour_of(shape[2]), levels=(shape[:2],))


def colour_of(channels: int) -> Colour:
    """What the channels of an array are: one is grey, three are red, green and blue, as documented."""
    return "grey" if channels == 1 else "rgb" if channels == 3 else "bands"


def release(array: Any) -> None:
    """Give back the memory that holds what was read of a mapped file; other arrays stay as they are."""
    if isinstance(array, np.memmap) and array.mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # NumPy's own, not in its stubs


def form_of(array: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type of an array, or of what is read by slices like one.

    Raises:
        InputError: beginning with `name`, where it has none that NumPy knows, as tensors of other libraries.
    """
    try:
        return tuple(operator.index(side) for side in array.shape), np.dtype(array.dtype)
    except (AttributeError, TypeError, ValueError):
        kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
        refuse(name, kind, "a file, or a NumPy array, numpy.asarray(...)")


def check_array(
    array: Any,
    wanted: Wanted,
    name: str = "image",
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> None:
    """Check that an array, or what is read by slices like one, is what a model takes: (H, W) or (H, W, C).

    Floats, and whole numbers of other types than uint8 and uint16, are raw pixels of whichever type the model was
    trained on, so they lie in that type's range, and are not all between 0 and 1; for that they are read once, strip
    by strip. Values that are not finite are left to who uses them.

    Raises:
        InputError: for another shape or type, other values, or masked ones; for a choice of another image than this.
    """
    check_single(name, choice)
    shape, dtype = form_of(array, name)
    if len(shape) not in (2, 3) or 0 in shape:
        refuse(name, f"{type(array).__name__} of shape {shape}", "(H, W) or (H, W, C)")
    check_shape(name, shape, wanted.channels)
    channels = shape[2] if len(shape) == 3 else 1
    if wanted.channels not in (None, channels):
        refuse(name, f"shape {shape}", f"(H, W, {wanted.channels})")
    if np.ma.is_masked(array):
        refuse(name, "an array with masked values", "one without, such as .filled(0)")
    if dtype.kind not in "uif":
        refuse(name, f"{dtype} samples", "whole numbers or floats")
    if wanted.dtype is None:
        return
    trained = np.dtype(wanted.dtype)
    if dtype.newbyteorder("=") in (np.uint8, np.uint16):
        if dtype.newbyteorder("=") != trained:
            refuse(name, f"{dtype} samples", f"{trained}, as the model was trained, or floats")
    elif trained.kind == "u":
        _check_range(array, trained, name)


def _check_range(array: Any, trained: np.dtype, name: str) -> None:
    low, high, any_finite = 0.0, 0.0, False
    for strip in _strips(array):
        finite = strip[np.isfinite(strip)]
        if finite.size:
            low, high, any_finite = min(low, float(finite.min())), max(high, float(finite.max())), True
    most = np.iinfo(trained).max
    accepted = f"raw pixels from 0 to {most}, as the model was trained on {trained}"
    if low < 0 or high > most:
        refuse(name, f"values from {low:g} to {high:g}", accepted)
    if any_finite and np.dtype(array.dtype).kind == "f" and 0 < high <= 1:
        refuse(name, "values from 0 to 1 only", accepted)


def _strips(array: Any) -> Iterator[np.ndarray]:
    bytes_a_row = int(np.prod(array.shape[1:])) * np.dtype(array.dtype).itemsize
    rows = max(_STRIP // max(bytes_a_row, 1), 1)
    for top in range(0, array.shape[0], rows):
        yield np.asarray(array[top : top + rows])
        release(array)


def check_finite(pixels: np.ndarray, name: str = "image") -> np.ndarray:
    """The pixels, if all of them are numbers.

    Raises:
        InputError: beginning with `name`, where some are not.
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        refuse(name, "values that are not finite", "numbers")
    return pixels
