"""Several scores to one, and one answer for a whole image from the cells of its map."""

from typing import Literal, get_args

import numpy as np

from zoo.errors import InputError, unknown
from zoo.scanning.score_map import ScoreMap
from zoo.scores import Outputs, to_probabilities

Pooling = Literal["average-logits", "average-probabilities", "maximum-logits", "maximum-probabilities"]
POOLINGS = get_args(Pooling)


def answer(score_map: ScoreMap, how: Pooling = "average-probabilities") -> np.ndarray:
    """One answer for the whole image from all cells of its map: probabilities (classes,) in float64.

    Cells that were not scanned count for nothing. Where the model ends in a sigmoid, read sigmoid for
    softmax.

    Args:
        score_map: the cells.
        how: "average-logits": the mean of the cells' logits, then the softmax: a geometric mean, in which one cell that
            is sure a class is absent weighs much. "average-probabilities": the softmax of each cell, then the mean: the
            share of the image that each class has. The two differ. "maximum-logits": for each class its largest logit
            of all cells, then the softmax. "maximum-probabilities": for each class its largest probability of all
            cells: whether it is anywhere; these do not sum to 1.

    Raises:
        InputError: for another `how`, or a map of which no cell was scanned.
    """
    combine, what = _parts(how)
    pooled, count = None, 0
    for *_, block, scanned in score_map.blocks():
        cells = block[scanned]
        if len(cells):
            values = _values(cells, score_map.outputs, what)
            part = [values.sum(0)] if combine == "average" else [values.max(0)]
            part += [] if pooled is None else [pooled]
            pooled, count = sum(part) if combine == "average" else np.maximum.reduce(part), count + len(cells)
    if not count:
        raise InputError("answer: received a map of which no cell was scanned; accepted: at least one")
    pooled = pooled / count if combine == "average" else pooled
    return to_probabilities(*_outputs(pooled, score_map.outputs, what))


def pool(scores: np.ndarray, known: np.ndarray, outputs: Outputs, how: Pooling) -> tuple[np.ndarray, Outputs]:
    """Pool the `known` scores over their first axis: (n, ..., K), (n, ...) -> (..., K) float64, what they are then.

    Logits of a model that ends in a softmax or a sigmoid are those that give its probabilities; of a sigmoid, pooled
    logits come back as probabilities. Where none is known, the result is NaN.

    Raises:
        InputError: for another `how`.
    """
    combine, what = _parts(how)
    values = _values(scores, outputs, what)
    known, count = known[..., None], known.sum(0)[..., None]
    if combine == "average":
        pooled = np.where(known, values, 0).sum(0) / np.maximum(count, 1)
    else:
        pooled = np.where(known, values, -np.inf).max(0)
    pooled = np.where(count, pooled, np.nan)
    return _outputs(pooled, outputs, what)


def check_pooling(how: str) -> None:
    """See that a way to pool is known.

    Raises:
        InputError: where it is not.
    """
    if how not in POOLINGS:
        raise InputError(unknown("pooling", how, POOLINGS))


def _parts(how: str) -> tuple[str, str]:
    """How values are combined, and of what they are."""
    check_pooling(how)
    combine, _, what = how.partition("-")
    return combine, what


def _values(scores: np.ndarray, outputs: Outputs, what: str) -> np.ndarray:
    return to_probabilities(scores, outputs) if what == "probabilities" else _logits(scores, outputs)


def pooled_outputs(outputs: Outputs, how: Pooling) -> Outputs:
    """What `pool` gives."""
    return "sigmoid" if outputs == "sigmoid" else _parts(how)[1]


def _outputs(pooled: np.ndarray, outputs: Outputs, what: str) -> tuple[np.ndarray, Outputs]:
    """Pooled values as they are handed out, and what they are then."""
    if outputs == "sigmoid":
        return (1 / (1 + np.exp(-pooled)) if what == "logits" else pooled), "sigmoid"
    return pooled, what


def _logits(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Logits that give these scores, in float64; finite for probabilities of 0 and 1 too."""
    if outputs == "logits":
        return scores.astype(np.float64)
    limits = np.finfo(scores.dtype)
    logits = np.log(np.maximum(scores.astype(np.float64), float(limits.tiny)))
    if outputs == "sigmoid":
        logits -= np.log(np.maximum(1 - scores.astype(np.float64), float(limits.tiny)))
    return logits
