"""What takes the scores of a map part by part, so that several take them in one pass; see `ScoreMap.read_by`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from zoo.errors import refuse
from zoo.objects.cell_classes import NONE


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
        if self._counted is not None:
            (rows, columns), (height, width) = self._counted, scanned.shape
            scanned = scanned & rows[row : row + height, None] & columns[column : column + width]
        classes = self._classes_of(scores[scanned])
        self.counts += np.bincount(classes[classes != NONE], minlength=len(self.counts))
        self.cells += len(classes)


def check_known(scores: np.ndarray, scanned: np.ndarray, row: int = 0, column: int = 0) -> None:
    """Check that scores are finite where cells were scanned; the first cell is (row, column) of the map.

    Raises:
        InputError: naming the first cell where they are not.
    """
    broken = ~np.isfinite(scores).all(-1) & scanned
    if broken.any():
        first = np.argwhere(broken)[0] + (row, column)
        received = f"values that are not finite at cell {first[0]},{first[1]}"
        refuse("scores", received, "finite ones of all cells that were scanned")
