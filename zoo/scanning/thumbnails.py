"""An image of any size as small pictures, all of them from one reading of it."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.pictures import release

# Samples that are read at a time, and the fewest rows: those of a file's tiles are read together.
_SAMPLES_AT_ONCE = 2**22
_ROWS_AT_ONCE = 256


class Thumbnail:
    """An image, `factor` times smaller: a pixel is the mean of a square of the image's, the last ones of what is left.

    Samples that are not uint8 are stretched to the picture's own range.
    """

    def __init__(self, image: Any, most: int | None = None, in_colour: bool = False):
        """Name the image, (H, W, C); nothing is read.

        Args:
            image: an array, or what is read by slices like one.
            most: pixels a side that the picture has at most; default: those of the image.
            in_colour: three channels, if the image has those of RGB; else, and else only, the mean of all channels.
        """
        self.factor = factor_for(image.shape[:2], most)
        self._dtype = np.dtype(image.dtype)
        self._colours = 3 if in_colour and image.shape[2] in (3, 4) else None
        self._rows, self._columns = (np.arange(0, side, self.factor) for side in image.shape[:2])
        self._heights, self._widths = (
            np.diff(begins, append=side)
            for begins, side in zip((self._rows, self._columns), image.shape[:2], strict=True)
        )
        self._sums = np.zeros((len(self._rows), len(self._columns), self._colours or 1))

    def add(self, top: int, strip: np.ndarray) -> None:
        """Take some rows of the image, (h, W, C), the first of which is `top`."""
        if self._colours is None:
            strip = strip.mean(-1, keepdims=True, dtype=None if strip.dtype == np.float64 else np.float32)
        else:
            strip = strip[..., : self._colours]
        strip = np.add.reduceat(strip, self._columns, 1, dtype=np.float64)
        first, last = top // self.factor, -(-(top + len(strip)) // self.factor)
        begins = np.maximum(self._rows[first:last] - top, 0)
        self._sums[first:last] += np.add.reduceat(strip, begins, 0)

    def _means(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The means of some rows of the picture at a time."""
        for top in range(0, len(self._rows), _ROWS_AT_ONCE):
            rows = slice(top, top + _ROWS_AT_ONCE)
            yield rows, self._sums[rows] / np.multiply.outer(self._heights[rows], self._widths)[..., None]

    @property
    def values(self) -> np.ndarray:
        """The picture, (h, w, 3 or 1) float32 in 0 to 255."""
        low, stretch = 0.0, 1.0
        if self._dtype != np.uint8:
            low = min(means.min() for _, means in self._means())
            high = max(means.max() for _, means in self._means())
            stretch = 255 / (high - low) if high > low else 0.0
        values = np.empty(self._sums.shape, np.float32)
        for rows, means in self._means():
            values[rows] = (means - low) * stretch
        return values

    @property
    def rgb(self) -> np.ndarray:
        """The picture, (h, w, 3) uint8."""
        values = np.round(self.values).astype(np.uint8)
        return np.repeat(values, 3 // values.shape[-1], axis=-1)


def factor_for(size: tuple[int, int], most: int | None) -> int:
    """How many pixels of an image of `size` one pixel of a picture of at most `most` a side stands for."""
    return 1 if most is None else math.ceil(max(size) / most)


def read_by(image: Any, *thumbnails: Thumbnail) -> None:
    """Read an image (H, W, C) once, in strips, into all thumbnails."""
    height, width, channels = image.shape
    step = max(_SAMPLES_AT_ONCE // (width * channels), _ROWS_AT_ONCE)
    for top in range(0, height, step):
        strip = np.asarray(image[top : min(top + step, height), 0:width])
        for thumbnail in thumbnails:
            thumbnail.add(top, strip)
        release(image)


def view_below(image: Any, most: int | None = None, in_colour: bool = False) -> np.ndarray:
    """An image (H, W, C) of any depth as what colours lie over, at most `most` pixels a side: (h, w, 3 or 1) float32.

    Its values are 0 to 255; there are three channels where they are asked for, and the image has those of RGB.
    """
    thumbnail = Thumbnail(image, most, in_colour)
    read_by(image, thumbnail)
    return thumbnail.values


def grey_view(image: Any, most: int | None = None) -> np.ndarray:
    """An image (H, W, C) of any depth as grey values 0 to 255, at most `most` pixels a side: (h, w) float32."""
    return view_below(image, most)[..., 0]
