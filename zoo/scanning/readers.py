"""What takes the scores of a map part by part, so that several take them in one pass; see `ScoreMap.read_by`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from zoo.objects.cell_classes import NONE


class Reader(Protocol):
    """What takes the scores of a map part by part, in the order of rows and, within these, of columns.

    `side`: parts begin at multiples of so many cells.
    """

    side: int

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part: its first row and column, the scores, and which of its cells were scanned."""


class Wins:
    """A reader of scores that counts how many cells are of each class: `counts`, (classes,)."""

    side = 1

    def __init__(self, classes: int, classes_of: Callable[[np.ndarray], np.ndarray]):
        """Begin at zero; `classes_of` gives the classes of scores, (..., K) -> (...)."""
        self._classes_of, self.counts = classes_of, np.zeros(classes, int)

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        classes = self._classes_of(scores[scanned])
        self.counts += np.bincount(classes[classes != NONE], minlength=len(self.counts))
