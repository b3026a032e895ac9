"""How far two arrays differ, as one number."""

import numpy as np


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
