"""Arrays of scores: as probabilities, and how far two of them differ. No backend is needed."""

from typing import Literal

import numpy as np

Outputs = Literal["logits", "probabilities", "sigmoid"]


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
