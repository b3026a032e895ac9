"""What a counter's map adds up to: counts by class, and the density of objects; see docs/counting.md."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from zoo.errors import refuse
from zoo.network.geometry import Geometry
from zoo.network.positions import pair
from zoo.objects.window_counts import is_even, windows_per_pixel
from zoo.scanning.options import BorderRule
from zoo.scanning.overlay import DENSEST, Placed, blended, cells_of_picture, palette
from zoo.scanning.thumbnails import factor_for
from zoo.scores import Outputs

# Numbers of a density map that are kept, one a class and one more of each square: a page of 20 MB has room for them.
_KEPT = 2**21
# Sums are of multiples of this, so that they are exact, and the same however a map is cut into parts.
_STEP = 2.0**-24
# What is told of numbers of objects in a part of an image.
OF_DENSITY = (
    "the counts are estimates: sums of the density over each box, and an object's lies all about it, as far as the "
    "windows that hold it reach"
)
# Square micrometres of a square millimetre.
_MM2 = 1e6


class Counted(Placed, Protocol):
    """What is needed of a counter's map to add it up: `zoo.scanning.score_map.ScoreMap` has it."""

    @property
    def scores(self) -> Any:
        """How many objects of each class are in each cell's window, (rows, cols, classes)."""

    @property
    def outputs(self) -> Outputs:
        """What the scores are."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of objects."""

    @property
    def geometry(self) -> Geometry:
        """Where the cells lie in what was scanned."""

    @property
    def border(self) -> BorderRule:
        """What became of the pixels at the image's border."""

    @property
    def not_scanned(self) -> int:
        """How many cells were not scanned."""

    @property
    def stride(self) -> tuple[float, float]:
        """Pixels of the given image between neighbouring cells."""

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """The size in micrometres of one of these pixels, where known."""

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's and each column's own pixels begin, and where the last one's end, not rounded."""


def windows_of_pixel(counted: Counted) -> float:
    """In how many windows a pixel lies that is far from every border, by which sums of the map are divided.

    Raises:
        InputError: for a map that is no counter's, or whose cells have no window.
    """
    if counted.outputs != "counts":
        refuse("density", "a map of a model that does not count", "that of one trained with train.target=count")
    if not np.isfinite(counted.geometry.window).all():
        refuse(
            "density", "a map whose cells have no window", "that of a model without a pooling over all pixels inside"
        )
    return windows_per_pixel(pair(counted.geometry.window_sides), pair(counted.geometry.stride))


def why_approximate(counted: Counted) -> tuple[str, ...]:
    """Why the counts of true numbers would not be exact: a sentence's part for each reason; none where they would be.

    They are where each pixel lies in equally many windows that were scanned.
    """
    window, stride = pair(counted.geometry.window_sides), pair(counted.geometry.stride)
    reasons = []
    if not is_even(window, stride):
        sides, steps = (" x ".join(map(str, each)) for each in (window, stride))
        reasons.append(f"the window of {sides} pixels is no multiple of the stride of {steps}")
    if counted.border != "full":
        reasons.append(f"with the border {counted.border!r} pixels near it lie in fewer windows, or more, than others")
    if counted.not_scanned:
        reasons.append(f"{counted.not_scanned} cells were not scanned")
    return tuple(reasons)


def density_unit(counted: Counted) -> tuple[float, str]:
    """What objects in a cell's own pixels are multiplied by to give a density, and its unit for people to read."""
    down, across = counted.stride
    if counted.pixel_size is None:
        return 1.0, f"objects per {down:g} x {across:g} pixels"
    height, width = counted.pixel_size
    return _MM2 / (down * height * across * width), "objects per mm²"


def shares_between(edges: np.ndarray, begin: float, end: float, side: int) -> np.ndarray:
    """Which part of each cell's own pixels lies from `begin` to `end` along an axis: edges (n + 1,) -> (n,), 0 to 1.

    What lies beyond the image, of `side` pixels, belongs to its outermost pixels: the windows there hold what is near
    the border. So parts of an image add up to the whole one.
    """
    low = np.maximum(edges[:-1], begin if begin > 0 else -np.inf)
    high = np.minimum(edges[1:], end if end < side else np.inf)
    return np.clip(high - low, 0, None) / np.diff(edges)


def counts_in(counted: Counted, scanned: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Estimates of how many objects of each class have their centres in boxes: (n, 4) -> (n, classes) float64.

    They are the sums of the density over the boxes (top, left, bottom, right), in pixels of the given image, of which
    a cell at a box's edge gives the part that lies inside. An object is spread over all windows that it lies in.
    `scanned`: which cells were, (rows, cols).
    """
    windows = windows_of_pixel(counted)
    sums = np.zeros((len(boxes), counted.scores.shape[-1]))
    # Rounded a little, as what a scale multiplies is not quite a whole number.
    for index, box in enumerate(np.round(np.asarray(boxes, np.float64), 6)):
        shares = [
            shares_between(counted.edges[axis], box[axis], box[axis + 2], counted.image_size[axis]) for axis in range(2)
        ]
        down, across = (slice(*_from_to(np.flatnonzero(each))) for each in shares)
        numbers = np.where(scanned[down, across, None], counted.scores[down, across], 0).astype(np.float64)
        sums[index] = np.einsum("r,s,rsk->k", shares[0][down], shares[1][across], numbers) / windows
    return sums


class Density:
    """A reader of a counter's scores (see `ScoreMap.read_by`) that adds them up, and keeps the density of objects.

    The numbers kept are sums over squares of `square` cells a side, so few that memory is bounded.

    Attributes:
        square: the cells a side of a square.
        values: how many objects the squares' own pixels have, (rows, cols, classes) float64. They sum to the counts.
        cells: how many cells of each square were scanned, (rows, cols).
    """

    side = 1

    def __init__(self, counted: Counted):
        """Begin at zero, in squares of as few cells as there is room for.

        Raises:
            InputError: see `windows_of_pixel`.
        """
        self._counted, self._each = counted, windows_of_pixel(counted)
        rows, columns, classes = counted.scores.shape
        self.square = 1
        while -(-rows // self.square) * -(-columns // self.square) * (classes + 1) > _KEPT:
            self.square += 1
        shape = -(-rows // self.square), -(-columns // self.square)
        self.values, self.cells = np.zeros((*shape, classes)), np.zeros(shape, int)
        self._steps = [0] * classes

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        numbers = np.where(scanned[..., None], scores, 0).astype(np.float64)
        steps = np.rint(numbers / _STEP).sum((0, 1)).tolist()
        self._steps = [sum_ + int(more) for sum_, more in zip(self._steps, steps, strict=True)]
        part, begins = [], []
        for first, extent in zip((row, column), scanned.shape, strict=True):
            squares = np.arange(first // self.square, -(-(first + extent) // self.square))
            part.append(slice(squares[0], squares[-1] + 1))
            begins.append(np.maximum(squares * self.square - first, 0))
        self.values[*part] += _by_squares(numbers, begins) / self._each
        self.cells[*part] += _by_squares(scanned.astype(int), begins)

    @property
    def counts(self) -> dict[str, float]:
        """How many objects of each class there are."""
        names = self._counted.class_names
        return {name: steps * _STEP / self._each for name, steps in zip(names, self._steps, strict=True)}

    @property
    def most_counted(self) -> int:
        """The class of which there are most."""
        return int(np.argmax(self._steps))

    def of_cells(self, class_index: int) -> np.ndarray:
        """A class's objects in a cell's own pixels, the mean of each square, (rows, cols); NaN where none was scanned.

        Numbers below 0, which a counter may give, are kept.
        """
        return np.where(self.cells, self.values[..., class_index] / np.maximum(self.cells, 1), np.nan)

    def largest(self, class_index: int) -> float:
        """The largest of `of_cells` and 0."""
        return float(np.nanmax(self.of_cells(class_index), initial=0))

    def over(
        self, below: np.ndarray, class_index: int | None = None, most: int | None = None, opacity: float | None = None
    ) -> np.ndarray:
        """The density of a class over its image: (h, w, 3 or 1) in 0 to 255 -> RGB (h, w, 3) uint8.

        A cell's own pixels have the class's colour, as opaque as the density is, beside the largest one.

        Args:
            below: the image, at most `most` pixels a side.
            class_index: the class; default: that of which there are most.
            most: see `below`; None: the image as it is.
            opacity: of the largest density; default: 0.65.
        """
        index = self.most_counted if class_index is None else class_index
        strength = np.nan_to_num(self.beside_largest(index, most))
        colours, which = palette(len(self._counted.class_names)), np.broadcast_to(index, strength.shape)
        return blended(below, strength * (DENSEST if opacity is None else opacity), colours, which)

    def beside_largest(self, class_index: int, most: int | None = None) -> np.ndarray:
        """The density of a class beside the largest one, 0 to 1, at the pixels of a picture of its image: (h, w).

        The picture has at most `most` pixels a side. NaN is where no cell is, or none was scanned.
        """
        rows, columns = cells_of_picture(self._counted, factor_for(self._counted.image_size, most))
        known = (rows >= 0)[:, None] & (columns >= 0)
        shares = np.clip(self.of_cells(class_index) / (self.largest(class_index) or 1), 0, 1)
        squares = np.ix_(np.maximum(rows, 0) // self.square, np.maximum(columns, 0) // self.square)
        return np.where(known, shares[squares], np.nan)


def _from_to(cells: np.ndarray) -> tuple[int, int]:
    """The first of some rising cells, and the one after the last; of none the same twice."""
    return (int(cells[0]), int(cells[-1]) + 1) if len(cells) else (0, 0)


def _by_squares(values: np.ndarray, begins: Sequence[np.ndarray]) -> np.ndarray:
    """Sums of cells that begin at some rows and columns: (h, w, ...) -> (rows, cols, ...)."""
    return np.add.reduceat(np.add.reduceat(values, begins[0], 0), begins[1], 1)
