"""What takes the scores of a map part by part, so that several take them in one pass; see `ScoreMap.read_by`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from zoo.errors import refuse
from zoo.objects.cell_classes import NONE
from zoo.scores import Outputs, uncertainty


class Reader(Protocol):
    """What takes the scores of a map part by part, in the order of rows and, within these, of columns.

    `side`: parts begin at multiples of so many cells.
    """

    side: int

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part: its first row and column, the scores, and which of its cells were scanned."""


class Wins:
    """A reader of scores that counts how many cells are of each class.

    Attributes:
        counts: how many of each class, (classes,).
        cells: how many cells there are, those of no class too.
    """

    side = 1

    def __init__(
        self,
        classes: int,
        classes_of: Callable[[np.ndarray], np.ndarray],
        counted: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        """Begin at zero.

        Args:
            classes: how many there are.
            classes_of: gives the classes of scores, (..., K) -> (...).
            counted: which rows and which columns of cells count, bool; default: all.
        """
        self._classes_of, self._counted = classes_of, counted
        self.counts, self.cells = np.zeros(classes, int), 0

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        classes = self._classes_of(scores[_only_counted(row, column, scanned, self._counted)])
        self.counts += np.bincount(classes[classes != NONE], minlength=len(self.counts))
        self.cells += len(classes)


class Uncertainty:
    """A reader of scores that takes the mean of their uncertainty (see `zoo.scores.uncertainty`).

    It is over the cells at which the background is not the most probable class; 0 where it is everywhere.
    """

    side = 1

    def __init__(self, outputs: Outputs, background: int | None, counted: tuple[np.ndarray, np.ndarray] | None = None):
        """Begin without a cell.

        Args:
            outputs: what the scores are.
            background: the index of the class that stands for nothing; None where there is none.
            counted: see `Wins`.
        """
        self._outputs, self._background, self._counted = outputs, background, counted
        self._sum, self._cells = 0.0, 0

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        scores = scores[_only_counted(row, column, scanned, self._counted)]
        if self._background is not None:
            scores = scores[scores.argmax(-1) != self._background]
        self._sum += float(uncertainty(scores, self._outputs).sum())
        self._cells += len(scores)

    @property
    def mean(self) -> float:
        """The mean of the cells so far, 0 to 1."""
        return self._sum / max(self._cells, 1)


def _only_counted(
    row: int, column: int, scanned: np.ndarray, counted: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """The scanned cells of a part that begins at (row, column), of the rows and columns that count."""
    if counted is None:
        return scanned
    (rows, columns), (height, width) = counted, scanned.shape
    return scanned & rows[row : row + height, None] & columns[column : column + width]


def check_known(scores: np.ndarray, scanned: np.ndarray, row: int = 0, column: int = 0) -> None:
    """Check that scores are finite where cells were scanned; the first cell is (row, column) of the map.

    Raises:
        InputError: naming a cell of which they are not.
    """
    broken = ~np.isfinite(scores).all(-1) & scanned
    if broken.any():
        first = np.argwhere(broken)[0] + (row, column)
        received = f"values that are not finite at cell {first[0]},{first[1]}"
        refuse("scores", received, "finite ones of all cells that were scanned")
