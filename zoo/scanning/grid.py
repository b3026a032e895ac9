"""Where the cells of a large image lie, with or without a border, and how their grid is cut into tiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from zoo.errors import quoted, refuse
from zoo.network.finer import finer_geometry
from zoo.network.geometry import Geometry
from zoo.network.positions import Pair, pair
from zoo.network.scannable import Scannable
from zoo.scanning.options import BorderRule
from zoo.scanning.pixels import Added, Fill
from zoo.scanning.tiles import AxisPart, Tile, part_of, parts_of


@dataclass(frozen=True)
class Grid:
    """The cells of an image of `image_size`, (height, width) in pixels.

    `geometry` is that of the scanned pixels: the image, and around it `added` rows and columns of pixels, `fill` says
    which. `flush` holds for each axis the geometry of the image without its first rows, whose last window ends with the
    image; None where no row of windows is added.
    """

    image_size: Pair
    geometry: Geometry
    added: Added = ((0, 0), (0, 0))
    fill: Fill = "reflect"
    flush: tuple[Geometry | None, Geometry | None] = (None, None)

    @classmethod
    def of(
        cls,
        network: Scannable,
        size: Pair,
        border: BorderRule = "none",
        stride: int | tuple[int, int] | None = None,
    ) -> "Grid":
        """The grid of a network on an image of `size` (height, width).

        Args:
            network: a converted model's.
            size: (height, width) in pixels.
            border: what becomes of the pixels at the border that no window covers. "none": nothing, the grid is as the
                model gives it. "reflect": the image is mirrored at its border, the outermost row not repeated, by the
                smallest number of rows and columns with which all pixels are covered, at the bottom and right unless
                the grid begins inside the image. "shift": where pixels at the bottom (right) are not covered, a row
                (column) of windows is added that ends with the image; it is the last one of the grid of the image
                without as many rows at its top, so that a padding-free model gives what it gives to the crops. "full":
                the image is extended at its end to the next multiple of the stride, and then by window - stride on each
                side, so that windows lie all around every pixel: where window / stride is a whole number, as many as
                its square. Added pixels are what training put there (`fill` of the card), mirrored ones where that is
                not known; an image that is too small for that is mirrored several times.
            stride: pixels between neighbouring cells, a divisor of the network's stride; default: that itself.

        Raises:
            InputError: for "shift" where no grid of this model ends with the image; for "full" where cells have no
                window, or the card's fill has other channels; for another stride (see
                `zoo.network.finer.finer_geometry`).
        """

        def geometry_at(sides: Pair) -> Geometry:
            return network.geometry(sides) if stride is None else finer_geometry(network, stride, sides)

        if border in ("reflect", "full"):
            fewest = _for_all_windows if border == "full" else _to_cover_all
            added = pair(fewest(geometry_at, size, axis) for axis in range(2))
            whole = pair(side + sum(each) for side, each in zip(size, added, strict=True))
            return cls(size, geometry_at(whole), added, border_fill(network) if border == "full" else "reflect")
        plain = geometry_at(size)
        if border == "shift":
            if not plain.bounded:
                refuse("border", "'shift' for a model with a block that pools over the whole image", "none, reflect")
            return cls(size, plain, flush=pair(_flush(geometry_at, plain, size, axis) for axis in range(2)))
        return cls(size, plain)

    @classmethod
    def that_fits(
        cls,
        network: Scannable,
        size: Pair,
        border: BorderRule = "none",
        stride: int | tuple[int, int] | None = None,
    ) -> "Grid":
        """The grid of a network on an image of `size`, if it has a cell; see `Grid.of`.

        Raises:
            InputError: where it has none, or a layer does not take the image; and as `Grid.of`.
        """
        if border != "full":
            check_fit(network, network.geometry(size))
        grid = cls.of(network, size, border, stride)
        check_fit(network, grid.geometry)
        return grid

    @property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """The first pixel of every row and of every column of windows, in the image's own coordinates."""
        cells = self.geometry.grid_shape(*self.geometry.known_size)
        starts = []
        for axis, (number, flush) in enumerate(zip(cells, self.flush, strict=True)):
            first = self.geometry.known_offset[axis] - self.added[axis][0]
            last = [] if flush is None else [self.image_size[axis] - flush.window_sides[axis]]
            starts.append(np.append(first + self.geometry.stride[axis] * np.arange(number), np.array(last, int)))
        return pair(starts)

    @property
    def window(self) -> tuple[float, float]:
        """The sides of a window, infinite where it is the whole image."""
        return pair(self.geometry.window)

    def cell_box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The crop that a cell stands for, (top, left, bottom, right), half-open; the window is finite."""
        (tops, lefts), (height, width) = self.starts, self.geometry.window_sides
        top, left = int(tops[row]), int(lefts[column])
        return top, left, top + height, left + width

    @property
    def shape(self) -> Pair:
        """Rows and columns of cells."""
        return pair(len(starts) for starts in self.starts)

    @property
    def all_cells(self) -> np.ndarray:
        """Every cell as one to be scanned, (rows, cols) bool, in no memory."""
        return np.broadcast_to(True, self.shape)

    @property
    def other_function(self) -> str:
        """A sentence where cells come from another function than the trained one, of all or the added ones; or empty.

        See `zoo.network.geometry.Geometry.other_function`.
        """
        geometries = (each for each in (self.geometry, *self.flush) if each is not None)
        return next(filter(None, (each.other_function(*each.known_size) for each in geometries)), "")

    def cells_of(self, tile: int) -> Pair:
        """Rows and columns of cells that a tile of side `tile` answers for."""
        return pair(max(tile // stride, 1) for stride in self.geometry.stride)

    def tile_size(self, tile: int) -> Pair:
        """The largest height and the largest width of the pixels that tiles of side `tile` read."""
        return pair(max(part.pixels.stop - part.pixels.start for part in parts) for parts in self._parts(tile))

    def tiles(self, tile: int) -> Iterator[Tile]:
        """Cut the grid into tiles of side `tile`, whose cells come out as they do from the whole.

        Added rows and columns of windows are tiles of their own, cut from the pixels whose grid they end. Why no tile
        leaves a trace in the scores: docs/tiles.md.
        """
        for rows, columns in product(*self._parts(tile)):
            yield Tile.of(rows, columns)

    def tile_of(self, row: int, column: int) -> Tile:
        """The tile of a single cell."""
        return Tile.of(self._part_of(0, row), self._part_of(1, column))

    def cut(self, axis: int, cell: int) -> int:
        """How many rows of pixels come before those of whose grid a cell is part: none but for an added one."""
        flush = self._flush_of(axis, cell)
        return 0 if flush is None else self.image_size[axis] - flush.known_size[axis]

    def _flush_of(self, axis: int, cell: int) -> Geometry | None:
        """The geometry whose grid an added cell ends; None for one that is not added."""
        return self.flush[axis] if cell >= self.shape[axis] - 1 else None

    def _parts(self, tile: int) -> list[list[AxisPart]]:
        """For each axis, what its tiles take of it."""
        axes = []
        for axis, (flush, step) in enumerate(zip(self.flush, self.cells_of(tile), strict=True)):
            parts = parts_of(self.geometry, axis, step)
            added = [] if flush is None else [self._part_of(axis, self.shape[axis] - 1)]
            axes.append([*parts, *added])
        return axes

    def _part_of(self, axis: int, cell: int) -> AxisPart:
        """What a single cell takes of an axis."""
        flush = self._flush_of(axis, cell)
        if flush is None:
            return part_of(self.geometry, axis, cell)
        last = flush.grid_shape(*flush.known_size)[axis] - 1
        return part_of(flush, axis, last).moved(cell - last, self.cut(axis, cell))


def last_end(geometry: Geometry, axis: int) -> float:
    """Where along an axis the last window ends; infinite where the window is."""
    cells = geometry.grid_shape(*geometry.known_size)[axis]
    return geometry.known_offset[axis] + (cells - 1) * geometry.stride[axis] + geometry.window[axis]


def _for_all_windows(geometry_at: Callable[[Pair], Geometry], size: Pair, axis: int) -> Pair:
    """How many pixels before and after an axis give every pixel of it windows all around; see `Grid.of`."""
    geometry, side = geometry_at(size), size[axis]
    if np.isinf(geometry.window[axis]):
        refuse("border", "'full' for a model whose cells have no window", "none")
    around = max(geometry.window_sides[axis] - geometry.stride[axis], 0)
    before, after = around, -side % geometry.stride[axis] + around
    while True:
        larger = geometry_at(_resized(size, axis, before + side + after))
        # A grid that begins, or ends, inside its image needs more.
        if (inside := larger.known_offset[axis]) > before - around:
            before = around + inside
        elif last_end(larger, axis) < before + side:
            after += 1
        else:
            return before, after + larger.fitting(*larger.known_size)[axis] - larger.known_size[axis]


def border_fill(network: Scannable) -> Fill:
    """What training put beyond an image's border.

    Raises:
        InputError: where the card holds values of other channels.
    """
    fill = network.card.fill
    if fill is None or fill == "reflect":
        return "reflect"
    if len(fill) not in (1, network.channels):
        refuse("border", f"'full' for a model whose card has the fill {quoted(fill)}", f"{network.channels} channels")
    return tuple(fill)


def _to_cover_all(geometry_at: Callable[[Pair], Geometry], size: Pair, axis: int) -> Pair:
    """The fewest pixels before and after an axis with which windows cover all of it."""
    added = 0
    while True:
        larger = geometry_at(_resized(size, axis, size[axis] + added))
        if larger.fits(*larger.known_size):
            for before in range(added + 1):
                if larger.known_offset[axis] <= before and last_end(larger, axis) >= before + size[axis]:
                    return before, added - before
        added += 1


def _flush(geometry_at: Callable[[Pair], Geometry], plain: Geometry, size: Pair, axis: int) -> Geometry | None:
    """The geometry of the image without its first rows, whose last window ends with the image; None if none misses."""
    if last_end(plain, axis) >= size[axis]:
        return None
    for cut in range(1, plain.stride[axis] + 1):
        smaller = geometry_at(_resized(size, axis, size[axis] - cut))
        if smaller.fits(*smaller.known_size) and last_end(smaller, axis) == size[axis] - cut:
            return smaller
    refuse("border", f"'shift'; no grid of this model ends with {size[axis]} pixels", "none, reflect")


def _resized(size: Pair, axis: int, side: int) -> Pair:
    return (side, size[1]) if axis == 0 else (size[0], side)


def check_fit(network: Scannable, geometry: Geometry) -> None:
    """Check that at least one window lies in the image, and every layer takes it.

    Raises:
        InputError: naming what is accepted.
    """
    height, width = geometry.known_size
    window = network.card.window
    if window is not None and (height < window[0] or width < window[1]):
        accepted = f"at least one window of {window[0]} x {window[1]}"
    elif not geometry.fits(height, width):
        least = network.smallest_image
        accepted = f"sides that every layer fits, from {least[0]} x {least[1]} on" if least else "a larger one"
    else:
        return
    refuse("image", f"{height} x {width} pixels", accepted)
