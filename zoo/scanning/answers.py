"""One answer for a whole image from the cells of its map."""

import numpy as np

from zoo.errors import InputError
from zoo.scanning.merging import Merge, Merged, merged_outputs
from zoo.scanning.score_map import ScoreMap
from zoo.scores import Outputs, check_no_counts, to_probabilities


def answer(score_map: ScoreMap, how: Merge = "average-probabilities") -> np.ndarray:
    """One answer for the whole image from all cells of its map: probabilities (classes,) in float64.

    Cells that were not scanned count for nothing. Where the model ends in a sigmoid, read sigmoid for softmax.

    Args:
        score_map: the cells.
        how: "average-logits": the mean of the cells' logits, then the softmax: a geometric mean, in which one cell that
            is sure a class is absent weighs much. "average-probabilities": the softmax of each cell, then the mean: the
            share of the image that each class has. The two differ. "maximum-logits": for each class its largest logit
            of all cells, then the softmax. "maximum-probabilities": for each class its largest probability of all
            cells: whether it is anywhere; these do not sum to 1.

    Raises:
        InputError: for another `how`, a map of which no cell was scanned, or a counter's, which counts objects instead.
    """
    answering = Answering(score_map.outputs, how)
    score_map.read_by(answering)
    return answering.probabilities


class Answering:
    """A reader of scores (see `ScoreMap.read_by`) that makes one answer of them; see `answer`."""

    side = 1

    def __init__(self, outputs: Outputs, how: Merge):
        """Take what the scores are, and how to merge them.

        Raises:
            InputError: for another `how`, and for a counter, which `ScoreMap.counts` answers for.
        """
        check_no_counts("answer", outputs)
        self._merged, self._outputs = Merged(outputs, how), merged_outputs(outputs, how)
        self._cells = 0

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        cells = scores[scanned]
        if len(cells):
            self._merged.add(cells, np.broadcast_to(True, len(cells)))
            self._cells += len(cells)

    @property
    def probabilities(self) -> np.ndarray:
        """The answer: (classes,) float64.

        Raises:
            InputError: where no cell was scanned.
        """
        if not self._cells:
            raise InputError("answer: received a map of which no cell was scanned; accepted: at least one")
        return to_probabilities(self._merged.scores, self._outputs)
