"""Which pixels a tile of a grid reads, so that its cells come out as they do from the whole image.

docs/tiles.md says why they do, with a figure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from zoo.network.finer import FinerGeometry
from zoo.network.geometry import Geometry
from zoo.network.positions import Span
from zoo.network.program import Program


@dataclass(frozen=True)
class AxisPart:
    """What a tile takes of one axis: its `cells`, the `pixels` that it reads, and the place of the cells in its answer.

    That place is called `inner`: cells beyond it are computed and thrown away.
    """

    cells: slice
    pixels: slice
    inner: slice

    def moved(self, cells: int, pixels: int) -> "AxisPart":
        """The same part so many cells and pixels further on."""
        return AxisPart(_moved(self.cells, cells), _moved(self.pixels, pixels), self.inner)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


@dataclass(frozen=True)
class Tile:
    """The `cells` that a tile answers for, the `pixels` that it reads, and where in its answer those cells are."""

    cells: tuple[slice, slice]
    pixels: tuple[slice, slice]
    inner: tuple[slice, slice]

    @classmethod
    def of(cls, rows: AxisPart, columns: AxisPart) -> "Tile":
        """The tile of a part of each axis."""
        return cls((rows.cells, columns.cells), (rows.pixels, columns.pixels), (rows.inner, columns.inner))


def part_of(geometry: Geometry, axis: int, cell: int) -> AxisPart:
    """What a single cell takes of an axis."""
    return _part(geometry, axis, cell, cell + 1, _margins(geometry, axis))


def parts_of(geometry: Geometry, axis: int, step: int) -> list[AxisPart]:
    """An axis cut into parts of `step` cells, the last one of what is left."""
    cells, margins = geometry.grid_shape(*geometry.known_size)[axis], _margins(geometry, axis)
    return [_part(geometry, axis, first, min(first + step, cells), margins) for first in range(0, cells, step)]


# For cells `first` to `last`: how many pixels before and after them they can do without.
_Margins = Callable[[int, int], tuple[int, int]]


def _part(geometry: Geometry, axis: int, first: int, last: int, margins: _Margins) -> AxisPart:
    before, after = margins(first, last)
    skipped = before // geometry.stride[axis]
    pixels = slice(before, geometry.known_size[axis] - after)
    return AxisPart(slice(first, last), pixels, slice(first - skipped, last - skipped))


def _margins(geometry: Geometry, axis: int) -> _Margins:
    """What parts of an axis can do without."""
    if not geometry.bounded:
        return lambda first, last: (0, 0)
    if not isinstance(geometry, FinerGeometry):
        return _Cuts.of(geometry.program, axis, geometry.known_size[axis]).around
    stride, total = geometry.stride[axis], geometry.total_stride[axis]
    if geometry.padding_free:
        cells = geometry.grid_shape(*geometry.known_size)[axis]
        return lambda first, last: (first * stride, (cells - last) * stride)
    phases = total // stride
    shifts = [_Cuts.of(geometry.program, axis, side) for _, side in geometry.shifts(geometry.known_size[axis], axis)]
    spare = min(cuts.spare for cuts in shifts)
    shifts = [replace(cuts, spare=spare) for cuts in shifts]

    def around(first: int, last: int) -> tuple[int, int]:
        wanted = []
        for phase, cuts in enumerate(shifts):
            begin, end = (-((phase - cell) // phases) for cell in (first, last))
            if begin < end:
                wanted.append(cuts.around(begin, end))
        before = min(each for each, _ in wanted)
        return before, min(*(after for _, after in wanted), spare - before)

    return around


@dataclass(frozen=True)
class _Cuts:
    """Where an axis may be cut; cell i's field is [start + i * stride, start + i * stride + extent).

    Only multiples of `aligned` pixels are cut off. Maps that are padded begin at `latest` pixels at the latest, and end
    at `earliest` at the earliest. At most `spare` pixels can go with every map keeping a cell.
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
        reaches = program.values(Span(0, 1, 1, side), lambda move, spans: move.reach(spans), axis)
        padded = {key for each in program.instructions if each.moves[axis].pads for key in each.inputs}
        kept = [reaches[key] for key in padded | {program.image, program.grid}]
        grid = reaches[program.grid]
        return cls(
            grid.start,
            grid.stride,
            int(grid.extent),
            aligned=math.lcm(*(span.stride for span in reaches.values())),
            latest=max(span.start for span in kept),
            earliest=min(span.start + (span.known_size - 1) * span.stride + int(span.extent) for span in kept),
            spare=min((span.known_size - 1) * span.stride for span in reaches.values()),
        )

    def around(self, first: int, last: int) -> tuple[int, int]:
        """How many pixels before and after cells `first` to `last` they can do without."""
        begin = self.start + first * self.stride
        end = self.start + (last - 1) * self.stride + self.extent
        before = self._whole(min(begin - self.latest, self.spare))
        return before, self._whole(min(self.earliest - end, self.spare - before))

    def _whole(self, pixels: int) -> int:
        return max(pixels, 0) // self.aligned * self.aligned
