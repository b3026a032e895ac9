"""Several scores to one: those of a cell at several scales, or those of all cells of a map."""

from typing import Literal, get_args

import numpy as np

from zoo.errors import chosen
from zoo.scores import Outputs, check_no_counts, softmax, to_probabilities

Merge = Literal["average-logits", "average-probabilities", "maximum-logits", "maximum-probabilities"]
MERGES: tuple[Merge, ...] = get_args(Merge)


def check_merge(how: str) -> Merge:
    """Check that a way to merge is known, and return it.

    Raises:
        InputError: where it is not.
    """
    return chosen("merge", how, MERGES)


def merge(scores: np.ndarray, known: np.ndarray, outputs: Outputs, how: Merge) -> np.ndarray:
    """Merge the `known` scores over their first axis: (n, ..., K), (n, ...) -> (..., K) float64.

    Logits of a model that ends in a softmax or a sigmoid are those that give its probabilities; of a sigmoid, merged
    logits come back as probabilities. Where none is known, the result is NaN.

    Raises:
        InputError: for another `how`.
    """
    merged = Merged(outputs, how)
    merged.add(scores, known)
    return merged.scores


def merge_weights(before: np.ndarray, outputs: Outputs, how: Merge, class_index: int) -> np.ndarray:
    """What a class's merged score grows by with each score that is merged: (n, K) -> (n, K).

    Args:
        before: scores without the softmax or sigmoid at the end of the model.
        outputs: what the model gives.
        how: how they are merged. Of logits, it is the gradient itself; of probabilities, which may be too small for
            a number, up to a factor.
        class_index: the class.

    Raises:
        InputError: for another `how`.
    """
    check_merge(how)
    combine, _, of = how.partition("-")
    own, others = before[:, class_index], np.delete(before, class_index, axis=1)
    if outputs == "sigmoid":
        log_chance, log_rest = -np.logaddexp(0, -own), -np.logaddexp(0, own)
    else:
        total = np.logaddexp.reduce(before, axis=1)
        log_chance, log_rest = own - total, np.logaddexp.reduce(others, axis=1) - total
    weights, sizes = np.zeros(before.shape), np.zeros(len(before))
    weights[:, class_index] = 1
    if of == "probabilities" and (outputs == "sigmoid" or others.size):
        sizes = log_chance + log_rest  # p (1 - p), which may be too small for a number
        if outputs != "sigmoid":
            weights[:, np.arange(before.shape[1]) != class_index] = -softmax(others)
    if combine == "maximum":
        largest = (own if (of, outputs) == ("logits", "logits") else log_chance).argmax()
        sizes = np.where(np.arange(len(before)) == largest, sizes, -np.inf)
    share = np.exp(sizes - sizes.max())
    return weights * (share / len(before) if combine == "average" else share)[:, None]


def merged_outputs(outputs: Outputs, how: Merge) -> Outputs:
    """What merged scores are, of a model that gives `outputs`."""
    if outputs == "sigmoid":
        return outputs
    return "logits" if how.endswith("-logits") else "probabilities"


class Merged:
    """Scores merged part by part: each part over its first axis, and the parts with one another."""

    def __init__(self, outputs: Outputs, how: Merge):
        """Take what the scores are, and how to merge them.

        Raises:
            InputError: for another `how`, and of a counter, whose numbers are of windows, not of the image.
        """
        check_merge(how)
        check_no_counts("merge", outputs)
        self._outputs = outputs
        self._combine, _, self._of = how.partition("-")
        # What adds nothing to a sum, or to a maximum.
        self._values, self._count = np.array(0.0 if self._combine == "average" else -np.inf), np.array(0)

    def add(self, scores: np.ndarray, known: np.ndarray) -> None:
        """Merge the `known` ones of some more scores: (n, ..., K), (n, ...)."""
        as_values = to_probabilities if self._of == "probabilities" else _logits
        values, known = as_values(scores, self._outputs), known[..., None]
        if self._combine == "average":
            self._values = self._values + np.where(known, values, 0).sum(0)
        else:
            self._values = np.maximum(self._values, np.where(known, values, -np.inf).max(0))
        self._count = self._count + known.sum(0)

    @property
    def scores(self) -> np.ndarray:
        """The merged scores, (..., K) float64; see `merged_outputs` for what they are."""
        values = self._values / np.maximum(self._count, 1) if self._combine == "average" else self._values
        values = np.where(self._count, values, np.nan)
        return 1 / (1 + np.exp(-values)) if self._outputs == "sigmoid" and self._of == "logits" else values


def _logits(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Logits that give these scores, in float64; finite for probabilities of 0 and 1 too."""
    if outputs == "logits":
        return scores.astype(np.float64)
    limits = np.finfo(scores.dtype)
    logits = np.log(np.maximum(scores.astype(np.float64), float(limits.tiny)))
    if outputs == "sigmoid":
        logits -= np.log(np.maximum(1 - scores.astype(np.float64), float(limits.tiny)))
    return logits
