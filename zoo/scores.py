"""Arrays of scores: as probabilities, and how far two of them differ. No backend is needed."""

from typing import Literal

import numpy as np

from zoo.errors import refuse

# "counts": the numbers of objects of each class in the window.
Outputs = Literal["logits", "probabilities", "sigmoid", "counts"]
# Of the expected calibration error.
_BINS = 15
# Shares of equal answers below this are those of another classifier, and what to do then.
LOW_AGREEMENT = 0.95
# Two numbers of objects that are further apart than this round to different ones.
_HALF = 0.5
WAY_OUT = "train with `model.padding=valid`, and every cell is the classifier's own answer to its crop"


def relative_error(given: np.ndarray, wanted: np.ndarray) -> float:
    """max|given - wanted| / max|wanted|, infinite where a value is not finite.

    Raises:
        ValueError: where the shapes differ.
    """
    if given.shape != wanted.shape:
        raise ValueError(f"shapes {given.shape} and {wanted.shape} differ")
    difference = np.abs(given.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
    scale = np.abs(wanted.astype(np.float64)).max(initial=0.0)
    error = float(difference / scale) if scale else float(difference)
    return error if np.isfinite(error) else float("inf")


def check_no_counts(what: str, outputs: Outputs) -> None:
    """Check that scores are of classes, each of which is there or not, and no numbers of objects.

    Raises:
        InputError: beginning with `what`, where they are such numbers.
    """
    if outputs == "counts":
        refuse(what, "the numbers of objects that a counter gives", "the scores of a classifier")


def to_probabilities(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Outputs of a classifier as probabilities: a softmax over the last axis of logits; others are theirs already.

    Raises:
        InputError: for a counter's.
    """
    check_no_counts("probabilities", outputs)
    return softmax(scores) if outputs == "logits" else scores.astype(np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64: (..., K) -> (..., K)."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """How far the winner's probability is from the share of right answers, in 15 bins of equal width, (n, K) and (n,).

    Each bin, open below and closed above, counts by its share of the n answers (Guo et al. 2017, arXiv:1706.04599,
    section 3.1).
    """
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, right.astype(float), _BINS) - np.bincount(bins, confidence, _BINS)
    return float(np.abs(gaps).sum() / len(labels))


def uncertainty(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """The entropy of each place's probabilities as a share of the largest that there is, 0 to 1: (..., K) -> (...).

    The largest is log K, that of equal probabilities. Of sigmoids it is the mean over the classes, each of which is
    there or not, as a share of log 2.
    """
    probabilities = np.clip(to_probabilities(scores, outputs), 0, 1)
    if outputs == "sigmoid":
        return (_surprise(probabilities) + _surprise(1 - probabilities)).mean(-1) / np.log(2)
    return _surprise(probabilities).sum(-1) / np.log(max(scores.shape[-1], 2))


def _surprise(probabilities: np.ndarray) -> np.ndarray:
    """-p log p, which is 0 where p is."""
    return -probabilities * np.log(np.where(probabilities > 0, probabilities, 1))


def answers(scores: np.ndarray) -> np.ndarray:
    """The class that each row of scores (n, K) is for; of a single score whether it is above 0."""
    return scores.argmax(-1) if scores.shape[-1] > 1 else scores[:, 0] > 0


def same_answers(given: np.ndarray, expected: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Which rows of scores (n, K) say the same in both: they are for one class, or count to within half an object."""
    if outputs == "counts":
        return (np.abs(given - expected) < _HALF).all(-1)
    return answers(given) == answers(expected)


def agreement(given: np.ndarray, expected: np.ndarray, outputs: Outputs) -> float:
    """The share of rows of scores (n, K) that say the same in both; see `same_answers`."""
    return float(same_answers(given, expected, outputs).mean())


def lost(given: np.ndarray, expected: np.ndarray, outputs: Outputs) -> dict[int, int]:
    """The classes, with how many rows each, that rows of the expected scores are for, and no row of the given ones.

    Nothing of a model that counts, or has a single score.
    """
    if outputs == "counts" or expected.shape[-1] == 1:
        return {}
    here, there = answers(given), answers(expected)
    return {int(index): int((there == index).sum()) for index in np.setdiff1d(there, here)}
