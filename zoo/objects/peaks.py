"""Objects of a score map: the peaks of its classes' probabilities, after non-maximum suppression. NumPy alone."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from zoo.card import Peaks
from zoo.objects.cell_classes import NONE, CellClasses
from zoo.scores import Outputs, to_probabilities

# The neighbours of a cell, in row order, without itself: those before it, and those after it.
_BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
_AFTER = ((0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class FoundObjects:
    """The n objects that were found in an image, by falling score; those of equal score by place.

    `classes`: (n,), the index of each one's class. `scores`: (n,), its probability. `centres`: (n, 2), its place, y and
    x in continuous pixels of the image that was given, the first one's centre being (0.5, 0.5). `cells`: (n, 2), row
    and column of its grid cell.
    """

    classes: np.ndarray
    scores: np.ndarray
    centres: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.classes)

    def of_any(self, classes: Sequence[int]) -> "FoundObjects":
        """Those of some classes."""
        own = np.isin(self.classes, classes)
        return FoundObjects(self.classes[own], self.scores[own], self.centres[own], self.cells[own])


@dataclass
class PeakFinder:
    """A reader of scores (see `zoo.scanning.score_map.ScoreMap.read_by`) that finds the peaks of a map.

    A peak is a cell of a class (see `zoo.objects.cell_classes.CellClasses`) whose probability of that class is the
    largest of the eight cells around it and its own. Of two that are 1 to the last bit, as a softmax of distant logits
    gives them, the one whose logit is further from the next class's is the larger; of equal ones the first in row
    order is. Cells count for nothing that were not scanned, lie beyond the grid, or have the middle of their window
    beyond the image, as a border makes some. Peaks whose place is less than their class's margin from the image's
    border are left out; then, of those that are less than its distance apart, those of lower scores, one after the
    other from the highest score on, in the same order. So the objects are the same however the map is cut into parts.
    Each class is looked at by itself.

    Parts come in the order of their rows, and of their columns within these, as `ScoreMap.blocks` gives them. The last
    two rows and columns of those before are kept, and the peaks.

    An object's place is the mean of the middles of the nine windows, weighted by their probabilities of its class. It
    lies nearer to labelled centres than the middle of the peak's own window, the more so the larger the stride is. A
    cell that counts for nothing is left out of the mean, and so is the one opposite.

    What ranks peaks asks for all of them: with `every_class` a cell is of each class that objects may have, whatever
    wins there, and thresholds are left aside.

    `cell_classes`: what makes a class of scores. `outputs`: what the scores are. `centres`: the middles of the windows,
    of rows (R,) and columns (S,), in pixels of the given image. `scale`: scanned pixels for each of those, (vertical,
    horizontal). `distance`: that of classes which have none of their own, in scanned pixels. `image_size`: (height,
    width) of the given image.
    """

    cell_classes: CellClasses
    outputs: Outputs
    centres: tuple[np.ndarray, np.ndarray]
    scale: tuple[float, float]
    distance: float
    image_size: tuple[float, float]
    every_class: bool = False
    side: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        """Begin with no peak."""
        self._rows_inside, self._columns_inside = inside_image(self.centres, self.image_size)
        self._found: list[tuple[np.ndarray, ...]] = []
        # Scores of cells before the part that comes: the two rows above it, of the whole grid, and of the rows that are
        # being read the last two, and the two columns at its left.
        self._above, self._below, self._left = (np.zeros((0, 0, 0)) for _ in range(3))

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        height, width = scanned.shape
        rows, columns = self._rows_inside[row : row + height], self._columns_inside[column : column + width]
        is_known = scanned & rows[:, None] & columns
        scores = np.where(is_known[..., None], scores, np.nan)
        if column == 0:
            self._begin_rows(row, scores)
        # With what comes before the part, those cells are decided that waited for neighbours in it.
        first = (row - len(self._above), column - self._left.shape[1])
        left = np.concatenate([self._above[:, first[1] : column], self._left])
        part = np.concatenate([self._above[:, column : column + width], scores])
        scores = np.concatenate([left, part], 1)
        grid = [len(each) for each in self.centres]
        ends = [end - (end < side) for end, side in zip((row + height, column + width), grid, strict=True)]
        self._find(scores, first, (max(row - 1, 0), max(column - 1, 0)), ends)
        self._below[:, column : column + width] = part[-len(self._below) :]
        self._left = scores[len(self._above) :, -2:]

    def _begin_rows(self, row: int, scores: np.ndarray) -> None:
        """Begin to read the rows from `row` on, after all columns of those before."""
        height, _, classes = scores.shape
        width = len(self.centres[1])
        self._above = self._below if row else np.zeros((0, width, classes), scores.dtype)
        self._below = np.empty((min(len(self._above) + height, 2), width, classes), scores.dtype)
        self._left = np.zeros((height, 0, classes), scores.dtype)

    def _find(self, scores: np.ndarray, first: Sequence[int], begins: Sequence[int], ends: Sequence[int]) -> None:
        """Keep the peaks among the cells from `begins` to `ends`, all of whose neighbours lie in `scores`.

        `first`: the cell of the grid that the scores begin with.
        """
        probabilities = to_probabilities(scores, self.outputs)
        inner = tuple(slice(begin - at, end - at) for begin, end, at in zip(begins, ends, first, strict=True))
        cells, classes = self._of_classes(scores[inner])
        cells = cells + [each.start for each in inner]
        # A border of cells that no probability is below.
        around = _bordered(probabilities)
        strengths = around if self.outputs != "logits" else _bordered(_unsaturated(probabilities, scores))
        own = strengths[cells[:, 0] + 1, cells[:, 1] + 1, classes]
        for steps, beats in ((_BEFORE, np.less), (_AFTER, np.less_equal)):
            for step in steps:
                at = cells + step + 1
                largest = beats(strengths[at[:, 0], at[:, 1], classes], own)
                cells, classes, own = cells[largest], classes[largest], own[largest]
        places = self._places(around, cells + 1, classes, cells + first)
        self._found.append((classes, own, cells + first, places))

    def _of_classes(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cells (n, 2) of scores (rows, cols, K) that are of a class, and the class of each, (n,)."""
        known = ~np.isnan(scores).any(-1)
        if self.every_class:
            cells, objects = np.argwhere(known), np.array(self.cell_classes.objects, int)
            return np.repeat(cells, len(objects), axis=0), np.tile(objects, len(cells))
        classes = self.cell_classes.of(scores, self.outputs)
        known &= classes != NONE
        return np.argwhere(known), classes[known]

    def _places(self, around: np.ndarray, at: np.ndarray, classes: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """The places of peaks: `cells` (n, 2) of the grid, which are `at` in the probabilities `around`."""
        middles = [np.pad(each, 1, mode="edge") for each in self.centres]

        def middle(step: tuple[int, int]) -> np.ndarray:
            return np.stack([each[index] for each, index in zip(middles, (cells + step + 1).T, strict=True)], -1)

        own = middle((0, 0))
        weight = around[at[:, 0], at[:, 1], classes]
        moved = np.zeros(own.shape)
        for step in _BEFORE:
            both = (step, (-step[0], -step[1]))
            chances = np.stack([around[at[:, 0] + y, at[:, 1] + x, classes] for y, x in both])
            chances = np.where(np.isfinite(chances).all(0), chances, 0)
            for chance, each in zip(chances, both, strict=True):
                weight = weight + chance
                moved += chance[:, None] * (middle(each) - own)
        return own + moved / weight[:, None]

    def found(self, rules: Mapping[str, Peaks] | None = None) -> FoundObjects:
        """The objects, once all parts are read; by the distances and margins of `rules` where these are given."""
        empty = (np.zeros(0, int), np.zeros(0), np.zeros((0, 2), int), np.zeros((0, 2)))
        classes, strengths, cells, places = map(np.concatenate, zip(empty, *self._found, strict=True))
        order = np.lexsort((classes, cells[:, 1], cells[:, 0], -strengths))
        classes, strengths, cells, places = (each[order] for each in (classes, strengths, cells, places))
        scores = np.minimum(strengths, 1)
        kept = np.zeros(len(classes), bool)
        for index in np.unique(classes):
            own = np.flatnonzero(classes == index)
            rule = self.rule(index) if rules is None else rules[self.cell_classes.class_names[index]]
            own = own[self._from_border(places[own]) >= rule.margin]
            kept[own[suppressed(places[own] * self.scale, rule.distance)]] = True
        return FoundObjects(classes[kept], scores[kept], places[kept], cells[kept])

    def _from_border(self, places: np.ndarray) -> np.ndarray:
        """How far places (n, 2) are from the nearest border of the image, in scanned pixels; below 0 beyond it."""
        return (np.minimum(places, np.subtract(self.image_size, places)) * self.scale).min(-1, initial=np.inf)

    def rule(self, class_index: int) -> Peaks:
        """What makes an object of a peak of a class."""
        own = self.cell_classes.peaks.get(self.cell_classes.class_names[class_index])
        return own or Peaks(threshold=0, distance=self.distance)


def _unsaturated(probabilities: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Probabilities, and where one is 1 to the last bit, 1 and how far its logit is from the next: (..., K)."""
    is_one = probabilities == 1
    if logits.shape[-1] < 2 or not is_one.any():
        return probabilities
    ordered = np.sort(logits[is_one.any(-1)].astype(np.float64), -1)
    strengths = probabilities.copy()
    strengths[is_one] += ordered[:, -1] - ordered[:, -2]
    return strengths


def _bordered(values: np.ndarray) -> np.ndarray:
    """Values (rows, cols, K) with a cell of minus infinity around them, and in place of NaN."""
    bordered = np.pad(values, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    np.copyto(bordered, -np.inf, where=np.isnan(bordered))
    return bordered


def inside_image(
    centres: tuple[np.ndarray, np.ndarray], image_size: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows and which columns of cells have the middle of their windows in the image, (R,) and (S,) bool."""
    rows, columns = ((each >= 0) & (each < side) for each, side in zip(centres, image_size, strict=True))
    return rows, columns


def suppressed(places: np.ndarray, distance: float) -> np.ndarray:
    """Greedy non-maximum suppression: the indices of the places (n, 2) that stay, each of which is first of its kind.

    A place stays where none that stays before it is less than `distance` away.
    """
    if distance <= 0:
        return np.arange(len(places))
    kept: list[int] = []
    # Those that stay, by squares of at least that side: the ones too near lie in the nine about a place.
    side = max(distance, 1.0)
    squares: defaultdict[tuple[float, float], list[tuple[float, float]]] = defaultdict(list)
    for index, (y, x) in enumerate(places.tolist()):
        row, column = y // side, x // side
        near = (place for down, across in product((-1, 0, 1), repeat=2)
                for place in squares.get((row + down, column + across), ()))  # fmt: skip
        if all(math.hypot(y - other[0], x - other[1]) >= distance for other in near):
            squares[row, column].append((y, x))
            kept.append(index)
    return np.array(kept, int)
