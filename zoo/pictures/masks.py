"""Regions of interest: pictures of which only matters what is 0."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import refuse
from zoo.pictures.arrays import check_finite, form_of, release
from zoo.pictures.picture import Picture, open_picture
from zoo.pictures.wanted import Wanted


class Mask:
    """A region of interest (H, W, 1): `mask[rows, columns]` -> (h, w, 1), true inside, where a channel is not 0.

    `name` begins errors about it. `notes`: what the user should know of what was read so far, a line each, as a
    picture's.
    """

    dtype = np.dtype(bool)

    def __init__(self, source: Any, name: str):
        """Take (H, W) or (H, W, C), an array or what is read by slices like one."""
        self._source, self.name, self.shape = source, name, (*source.shape[:2], 1)

    @property
    def notes(self) -> tuple[str, ...]:
        """Such as that the first of several images is read; none where it is an array."""
        return self._source.notes if isinstance(self._source, Picture) else ()

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region, (h, w, 1) bool.

        Raises:
            InputError: where the file is broken, or values are not finite.
        """
        values = check_finite(np.asarray(self._source[region]), self.name)
        release(self._source)
        return (values != 0).reshape(*values.shape[:2], -1).any(-1, keepdims=True)


@contextmanager
def open_mask(mask: Any, size: tuple[int, int]) -> Iterator[Mask]:
    """Open a region of interest in an image of `size` (height, width): a file, or an array (H, W), (H, W, 1 or 3).

    The alpha of a file is no part of it.

    Raises:
        InputError: where the file cannot be read, the mask is not of the image's size, or has other channels, so that
            one of them may be an alpha; where an array has masked values.
    """
    if isinstance(mask, str | Path):
        with open_picture(mask, Wanted(mask=True)) as picture:
            _check_size(picture.shape, size, f"mask {mask}")
            yield Mask(picture, f"mask {mask}")
        return
    shape, dtype = form_of(mask, "mask")
    _check_size(shape, size, "mask")
    if len(shape) not in (2, 3) or len(shape) == 3 and shape[2] not in (1, 3):
        refuse("mask", f"shape {shape}", "(H, W), (H, W, 1) or (H, W, 3), without alpha")
    if dtype.kind not in "buif" or np.ma.is_masked(mask):
        what = "masked values" if np.ma.is_masked(mask) else f"{dtype} samples"
        refuse("mask", what, "booleans, whole numbers or floats")
    yield Mask(mask, "mask")


def _check_size(received: Any, size: tuple[int, int], name: str) -> None:
    if tuple(received[:2]) != tuple(size):
        refuse(name, received, f"{tuple(size)}, the image's height and width")
