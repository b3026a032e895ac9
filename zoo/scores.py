"""Arrays of scores: as probabilities, and how far two of them differ. No backend is needed."""

from typing import Literal

import numpy as np
from scipy.special import entr

# "counts": the numbers of objects of each class in the window.
Outputs = Literal["logits", "probabilities", "sigmoid", "counts"]
# Shares of equal answers below this are those of another classifier, and what to do then.
LOW_AGREEMENT = 0.95
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


def to_probabilities(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Outputs of a model as probabilities: a softmax over the last axis of logits; others are theirs already."""
    return softmax(scores) if outputs == "logits" else scores.astype(np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64: (..., K) -> (..., K)."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def uncertainty(scores: np.ndarray, outputs: Outputs) -> np.ndarray:
    """The entropy of each place's probabilities as a share of the largest that there is, 0 to 1: (..., K) -> (...).

    The largest is log K, that of equal probabilities. Of sigmoids it is the mean over the classes, each of which is
    there or not, as a share of log 2.
    """
    probabilities = np.clip(to_probabilities(scores, outputs), 0, 1)
    if outputs == "sigmoid":
        return (entr(probabilities) + entr(1 - probabilities)).mean(-1) / np.log(2)
    return entr(probabilities).sum(-1) / np.log(max(scores.shape[-1], 2))


def answers(scores: np.ndarray) -> np.ndarray:
    """The class that each row of scores (n, K) is for; of a single score whether it is above 0."""
    return scores.argmax(-1) if scores.shape[-1] > 1 else scores[:, 0] > 0


def agreement(given: np.ndarray, expected: np.ndarray) -> float:
    """The share of rows of scores (n, K) that are for one class in both."""
    return float((answers(given) == answers(expected)).mean())


def lost(given: np.ndarray, expected: np.ndarray) -> dict[int, int]:
    """The classes, with how many rows each, that rows of the expected scores are for, and no row of the given ones."""
    if expected.shape[-1] == 1:
        return {}
    here, there = answers(given), answers(expected)
    return {int(index): int((there == index).sum()) for index in np.setdiff1d(there, here)}
