"""Where the cells of a large image lie, with or without a border, and how their grid is cut into tiles."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, product
from typing import Literal, get_args

import keras
import numpy as np

from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.network.moves import Span
from zoo.network.network import geometry
from zoo.network.program import Program
from zoo.scanning.finer import FinerGeometry, finer_geometry

Border = Literal["none", "reflect", "shift"]


@dataclass(frozen=True)
class Tile:
    """The `cells` that a tile answers for, the `pixels` that it reads, and where in its answer those cells are."""

    cells: tuple[slice, slice]
    pixels: tuple[slice, slice]
    inner: tuple[slice, slice]


@dataclass(frozen=True)
class Layout:
    """The grid of an image of `image_size`, (height, width) in pixels.

    `geometry` is that of the scanned pixels: the image, and around it `mirrored` rows and columns of pixels, ((top,
    bottom), (left, right)). `flush` holds for each axis the geometry of the image without its first rows, whose last
    window ends with the image; None where no row of windows is added.
    """

    image_size: tuple[int, int]
    geometry: Geometry
    mirrored: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    flush: tuple[Geometry | None, Geometry | None] = (None, None)

    @property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """The first pixel of every row and of every column of windows, in the image's own coordinates."""
        grid = self.geometry.grid_shape(*self.geometry.image_size)
        found = []
        for axis, (cells, flush) in enumerate(zip(grid, self.flush, strict=True)):
            first = self.geometry.offset[axis] - self.mirrored[axis][0]
            starts = first + self.geometry.stride[axis] * np.arange(cells)
            last = [] if flush is None else [self.image_size[axis] - flush.window[axis]]
            found.append(np.append(starts, np.array(last, int)))
        return tuple(found)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        rows, columns = (len(starts) for starts in self.starts)
        return rows, columns

    @property
    def other_function(self) -> str:
        """A sentence where cells come from another function than the trained one, of all or the added ones; or empty.

        See `zoo.network.geometry.Geometry.other_function`.
        """
        placed = (each for each in (self.geometry, *self.flush) if each is not None)
        return next(filter(None, (each.other_function(*each.image_size) for each in placed)), "")

    def tile_size(self, tile: int) -> tuple[int, int]:
        """The largest height and the largest width of the pixels that tiles of side `tile` read."""
        height, width = (max(pixels.stop - pixels.start for _, pixels, _ in parts) for parts in self._parts(tile))
        return height, width

    def tiles(self, tile: int) -> Iterator[Tile]:
        """Cut the grid, so that every part's cells come out as they do from the whole.

        A part's pixels hold the whole field of its cells, begin at a multiple of every layer's stride, and end as many
        pixels before the end, so that strided SAME layers pad a part as they pad the image. Added rows and columns of
        windows are parts of their own, cut from the pixels whose grid they end.
        """
        for parts in product(*self._parts(tile)):
            yield Tile(*zip(*parts, strict=True))

    def _parts(self, tile: int) -> list[list[tuple[slice, slice, slice]]]:
        """For each axis the parts: cells, pixels, and where in the answer the cells are."""
        axes = []
        for axis, cells in enumerate(self.geometry.grid_shape(*self.geometry.image_size)):
            step = max(tile // self.geometry.stride[axis], 1)
            left_out = _left_out(self.geometry, axis)
            parts = []
            for first in range(0, cells, step):
                last = min(first + step, cells)
                pixels, inner = _part(self.geometry, axis, first, last, left_out(first, last))
                parts.append((slice(first, last), pixels, inner))
            flush = self.flush[axis]
            if flush is not None:
                there = flush.grid_shape(*flush.image_size)[axis]
                pixels, inner = _part(flush, axis, there - 1, there, _left_out(flush, axis)(there - 1, there))
                cut = self.image_size[axis] - flush.image_size[axis]
                parts.append((slice(cells, cells + 1), slice(pixels.start + cut, pixels.stop + cut), inner))
            axes.append(parts)
        return axes


def lay_out(
    fcn: keras.Model,
    size: tuple[int, int],
    border: Border = "none",
    stride: int | tuple[int, int] | None = None,
) -> Layout:
    """The grid of `fcn` on an image of `size` (height, width).

    Args:
        fcn: a converted model.
        size: (height, width) in pixels.
        border: what becomes of the pixels at the border that no window covers. "none": nothing, the grid is as the
            model gives it. "reflect": the image is mirrored at its border, the outermost row not repeated, by the
            smallest number of rows and columns with which all pixels are covered, at the bottom and right unless the
            grid begins inside the image. "shift": where pixels at the bottom (right) are not covered, a row (column)
            of windows is added that ends with the image; it is the last one of the grid of the image without as many
            rows at its top, so that a padding-free model gives what it gives to the crops.
        stride: pixels between neighbouring cells, a divisor of the network's stride; default: that itself.

    Raises:
        InputError: for another border, or "shift" where no grid of this model ends with the image; for another stride
            (see `zoo.scanning.finer.finer_geometry`).
    """
    if border not in get_args(Border):
        raise InputError(f"border: received {border!r}; accepted: {', '.join(get_args(Border))}")

    def place(whole: tuple[int, int]) -> Geometry:
        return geometry(fcn, whole) if stride is None else finer_geometry(fcn, stride, whole)

    placed = place(size)
    if border == "reflect":
        mirrored = tuple(_mirrored(place, size, axis) for axis in range(2))
        whole = tuple(side + sum(added) for side, added in zip(size, mirrored, strict=True))
        return Layout(size, place(whole), mirrored)
    if border == "shift":
        if not placed.bounded:
            raise InputError(
                "border: received 'shift'; accepted for a model with a block that pools over the whole image: 'none', "
                "'reflect'"
            )
        return Layout(size, placed, flush=tuple(_flush(place, placed, axis) for axis in range(2)))
    return Layout(size, placed)


def tile_of(placed: Geometry, *cell: int) -> Tile:
    """The part of an image that a single cell needs, cut as `Layout.tiles` cuts."""
    parts = []
    for axis, index in enumerate(cell):
        left_out = _left_out(placed, axis)(index, index + 1)
        parts.append((slice(index, index + 1), *_part(placed, axis, index, index + 1, left_out)))
    return Tile(*zip(*parts, strict=True))


def last_end(placed: Geometry, axis: int) -> int:
    """Where along an axis the last window ends."""
    cells = placed.grid_shape(*placed.image_size)[axis]
    return placed.offset[axis] + (cells - 1) * placed.stride[axis] + placed.window[axis]


# For cells `first` to `last`: how many pixels before and behind them they can do without.
_LeftOut = Callable[[int, int], tuple[int, int]]


def _part(placed: Geometry, axis: int, first: int, last: int, left_out: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels that cells `first` to `last` are computed from, and where in the answer they are."""
    before, behind = left_out
    skipped = before // placed.stride[axis]
    return slice(before, placed.image_size[axis] - behind), slice(first - skipped, last - skipped)


def _left_out(placed: Geometry, axis: int) -> _LeftOut:
    """What parts of an axis leave out."""
    if not placed.bounded:
        return lambda first, last: (0, 0)
    if not isinstance(placed, FinerGeometry):
        return _Cuts.of(placed.program, axis, placed.image_size[axis]).around
    stride, total = placed.stride[axis], placed.total_stride[axis]
    if placed.padding_free:
        cells = placed.grid_shape(*placed.image_size)[axis]
        return lambda first, last: (first * stride, (cells - last) * stride)
    phases = total // stride
    shifts = [_Cuts.of(placed.program, axis, length) for _, length in placed.shifts(placed.image_size[axis], axis)]
    spare = min(cuts.spare for cuts in shifts)
    shifts = [replace(cuts, spare=spare) for cuts in shifts]

    def around(first: int, last: int) -> tuple[int, int]:
        wanted = []
        for phase, cuts in enumerate(shifts):
            begin, end = (-((phase - cell) // phases) for cell in (first, last))
            if begin < end:
                wanted.append(cuts.around(begin, end))
        before = min(each for each, _ in wanted)
        return before, min(*(behind for _, behind in wanted), spare - before)

    return around


@dataclass(frozen=True)
class _Cuts:
    """Where an axis may be cut: cell i's field is [start + i * stride, start + i * stride + extent).

    Cut by multiples of `aligned`, all maps keep their cells, fewer at both ends, and their padding. A cell is what it
    was if no padding came nearer to it: where rows are added to a map, those of the map itself that a cell looks at
    must be in it. They are, if the cell's field begins as far behind the cut as the `latest` beginning of such a map
    lies behind the image's, and ends as far before it as the `earliest` end does. At most `spare` pixels can go with
    every map keeping a cell.
    """

    start: int
    stride: int
    extent: int
    aligned: int
    latest: int
    earliest: int
    spare: int

    @classmethod
    def of(cls, program: Program, axis: int, side: int) -> "_Cuts":
        """The cuts of an axis of `side` pixels."""
        found = program.values(Span(0, 1, 1, side), lambda move, spans: move.reach(spans), axis)
        padded = {key for each in program.instructions if each.moves[axis].pads for key in each.inputs}
        kept = [found[key] for key in padded | {program.image, program.grid}]
        grid = found[program.grid]
        return cls(
            grid.start,
            grid.stride,
            int(grid.extent),
            aligned=math.lcm(*(span.stride for span in found.values())),
            latest=max(span.start for span in kept),
            earliest=min(span.start + (span.size - 1) * span.stride + int(span.extent) for span in kept),
            spare=min((span.size - 1) * span.stride for span in found.values()),
        )

    def around(self, first: int, last: int) -> tuple[int, int]:
        """How many pixels before and behind cells `first` to `last` they can do without."""
        begin = self.start + first * self.stride
        end = self.start + (last - 1) * self.stride + self.extent
        before = self._whole(min(begin - self.latest, self.spare))
        return before, self._whole(min(self.earliest - end, self.spare - before))

    def _whole(self, pixels: int) -> int:
        return max(pixels, 0) // self.aligned * self.aligned


def _mirrored(place: Callable[[tuple[int, int]], Geometry], size: tuple[int, int], axis: int) -> tuple[int, int]:
    """The fewest pixels before and after an axis with which windows cover all of it."""
    for added in count():
        placed = place(_resized(size, axis, size[axis] + added))
        if not placed.fits(*placed.image_size):
            continue
        for before in range(added + 1):
            if placed.offset[axis] <= before and last_end(placed, axis) >= before + size[axis]:
                return before, added - before


def _flush(place: Callable[[tuple[int, int]], Geometry], placed: Geometry, axis: int) -> Geometry | None:
    """The geometry of the image without its first rows, whose last window ends with the image; None if none misses."""
    size = placed.image_size
    if last_end(placed, axis) >= size[axis]:
        return None
    for cut in range(1, placed.stride[axis] + 1):
        shifted = place(_resized(size, axis, size[axis] - cut))
        if shifted.fits(*shifted.image_size) and last_end(shifted, axis) == size[axis] - cut:
            return shifted
    raise InputError(
        f"border: received 'shift'; no grid of this model ends with {size[axis]} pixels; accepted: none, reflect"
    )


def _resized(size: tuple[int, int], axis: int, side: int) -> tuple[int, int]:
    return (side, size[1]) if axis == 0 else (size[0], side)
