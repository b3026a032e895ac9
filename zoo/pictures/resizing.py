"""Images of another size, read by regions of that size."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

# Samples of the source that are filtered at a time.
_AT_ONCE = 2**20


class Resized:
    """An image (H, W, C) or (H, W) scaled to another size and read by slices: `resized[rows, columns]`, float32.

    Pillow's bilinear filter in its 32-bit float mode, channel by channel: where it shrinks, its triangle is as wide as
    the pixels that go into one, so that nothing is skipped (anti-aliasing). Pixel i of a side of n, made from N, is
    centred at (i + 0.5) N / n - 0.5. Values are not rounded to whole numbers. A pixel is the same, bit for bit,
    whichever region it is read with, and only the pixels that go into a region are read.
    """

    def __init__(self, source: Any, size: tuple[int, int]):
        """Scale `source`, an array or what is read by slices like one, to `size` (height, width)."""
        self.source, self.dtype = source, np.dtype(np.float32)
        self.shape = (*size, *source.shape[2:])
        self._axes = [_Filter(side, made) for side, made in zip(source.shape, size, strict=False)]

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region, (h, w, C) or (h, w)."""
        (top, bottom, _), (left, right, _) = (
            part.indices(side) for part, side in zip(region, self.shape, strict=False)
        )
        pixels = np.empty((max(bottom - top, 0), max(right - left, 0), *self.shape[2:]), self.dtype)
        for rows, columns in self._parts(slice(top, bottom), slice(left, right)):
            pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = self._part(
                rows, columns
            )
        return pixels

    def spread(self, values: np.ndarray, region: tuple[slice, slice]) -> tuple[np.ndarray, tuple[slice, slice]]:
        """What a region's values (h, w, C) give to the source's pixels: the filter transposed.

        As a gradient with respect to this image is turned into one with respect to the source. Returns the values, and
        the region of the source that has them.
        """
        for axis, (along, part) in enumerate(zip(self._axes, region, strict=True)):
            values = along.spread(values, axis, part)
        down, across = (along.reads(part) for along, part in zip(self._axes, region, strict=True))
        return values, (down, across)

    def reach(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The source's pixels that go into those of a box (top, left, bottom, right), not clipped at the borders."""
        (top, bottom), (left, right) = (along.reach(box[axis], box[axis + 2]) for axis, along in enumerate(self._axes))
        return top, left, bottom, right

    def _parts(self, rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
        """Cut a region, so that a part is made of a bounded number of the source's pixels, or is one pixel."""
        samples = _AT_ONCE // int(np.prod(self.shape[2:], initial=1))
        across = self._axes[1].count_from(columns, samples // self._axes[0].taps)
        for left in range(columns.start, columns.stop, across):
            part = slice(left, min(left + across, columns.stop))
            down = self._axes[0].count_from(rows, samples // self._axes[1].length(part))
            for top in range(rows.start, rows.stop, down):
                yield slice(top, min(top + down, rows.stop)), part

    def _part(self, rows: slice, columns: slice) -> np.ndarray:
        """Filter along the rows, round to float32, and then along the columns, as Pillow does."""
        down, across = self._axes
        pixels = np.asarray(self.source[down.reads(rows), across.reads(columns)])
        return down(across(pixels, 1, columns), 0, rows)


class _Filter:
    """Pillow's bilinear weights along an axis: every one of `made` pixels is a weighted mean of some of `side`."""

    def __init__(self, side: int, made: int):
        self.side, self.made, self.ratio = side, made, side / made
        self.support = max(self.ratio, 1.0)
        # How many pixels go into one at most.
        self.taps = int(np.ceil(self.support)) * 2 + 1

    def __call__(self, pixels: np.ndarray, axis: int, wanted: slice) -> np.ndarray:
        """Make the `wanted` pixels of those that `reads` names: float32; added up in float64, in a fixed order."""
        if self.made == self.side:
            return pixels.astype(np.float32, copy=False)
        begin, total = self.reads(wanted).start, np.zeros(())
        for sources, weights in self._taps(wanted):
            taken = pixels.take(sources - begin, axis).astype(np.float64)
            total = total + taken * weights.reshape([-1 if each == axis else 1 for each in range(taken.ndim)])
        return total.astype(np.float32)

    def spread(self, values: np.ndarray, axis: int, wanted: slice) -> np.ndarray:
        """What the `wanted` pixels' values give to the source's pixels that `reads` names: the filter transposed."""
        if self.made == self.side:
            return values
        read, values = self.reads(wanted), np.moveaxis(values, axis, 0)
        total = np.zeros((read.stop - read.start, *values.shape[1:]))
        for sources, weights in self._taps(wanted):
            np.add.at(total, sources - read.start, values * weights.reshape(-1, *(1,) * (values.ndim - 1)))
        return np.moveaxis(total, 0, axis)

    def _taps(self, wanted: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Tap by tap, the source's pixel that goes into each wanted one, and what it weighs there."""
        first, last, centres = self._spans(wanted)
        weights = []
        for tap in range(int((last - first).max())):
            weight = np.maximum(1 - np.abs((first + tap - centres + 0.5) * (1 / self.support)), 0)
            weights.append(np.where(first + tap < last, weight, 0))
        whole = sum(weights)
        for tap, weight in enumerate(weights):
            yield np.minimum(first + tap, last - 1), weight / whole

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The source's pixels that go into pixels `first` to `last`, all of them taken for ones inside."""
        if self.made == self.side:
            return first, last
        begin, end = (first + 0.5) * self.ratio - self.support, (last - 0.5) * self.ratio + self.support
        return math.floor(begin + 0.5), math.floor(end + 0.5)

    def reads(self, wanted: slice) -> slice:
        """The source's pixels that go into the `wanted` ones."""
        if self.made == self.side:
            return wanted
        first, last, _ = self._spans(slice(wanted.start, wanted.start + 1))
        return slice(int(first[0]), int(self._spans(slice(wanted.stop - 1, wanted.stop))[1][0]))

    def length(self, wanted: slice) -> int:
        """How many of the source's pixels go into the `wanted` ones."""
        read = self.reads(wanted)
        return read.stop - read.start

    def count_from(self, wanted: slice, most: int) -> int:
        """How many of the `wanted` pixels can be made of `most` of the source's; at least one."""
        return max(min(int((most - self.taps) / self.ratio), wanted.stop - wanted.start), 1)

    def _spans(self, wanted: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each wanted pixel, the first and last (exclusive) of the source that go into it, and its centre there."""
        centres = (np.arange(wanted.start, wanted.stop) + 0.5) * self.ratio
        first = np.maximum((centres - self.support + 0.5).astype(np.int64), 0)
        last = np.minimum((centres + self.support + 0.5).astype(np.int64), self.side)
        return first, last, centres


def scaled_size(size: tuple[int, int], scale: float | tuple[float, float]) -> tuple[int, int]:
    """Height and width of an image of `size` at a scale, one for both axes or one for each: rounded, at least 1."""
    down, across = scale if isinstance(scale, tuple) else (scale, scale)
    return max(round(size[0] * down), 1), max(round(size[1] * across), 1)


@contextmanager
def at_size(image: Any, size: tuple[int, int]) -> Iterator[Any]:
    """An image at another size, read by slices: itself, or resized; of a pyramid, from the nearest finer level.

    Args:
        image: what is read by slices like an array; a pyramid has `levels` and `at_level`, as `Picture` has.
        size: (height, width).
    """
    levels = getattr(image, "levels", ())
    if tuple(size) == tuple(image.shape[:2]):
        yield image
    elif len(levels) < 2:
        yield Resized(image, size)
    else:
        with image.at_level(level_for(levels, size)) as level:
            yield Resized(level, size)


def level_for(levels: Sequence[tuple[int, int]], size: tuple[int, int]) -> int:
    """Which of a pyramid's `levels` (height, width) an image of `size` is best made from: the nearest finer one.

    That is the smallest one whose sides are both at least as long; the largest one where none is.
    """
    finer = [index for index, level in enumerate(levels) if all(np.greater_equal(level, size))]
    area = [int(height) * int(width) for height, width in levels]
    return min(finer, key=area.__getitem__) if finer else max(range(len(levels)), key=area.__getitem__)
