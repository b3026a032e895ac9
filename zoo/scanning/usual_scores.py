"""What most cells of a map are like, so that what stands out can be shown."""

from typing import Any

import numpy as np

from zoo.pictures import release

# Numbers of a score map that its median cell is taken from.
_SAMPLED = 2**20


def usual_scores(scores: Any, scanned: np.ndarray) -> tuple[np.ndarray, float]:
    """The median cell's scores, (classes,), and how far from them a cell stands out.

    That distance is the 95th percentile, or a quarter of the largest one where fewer cells stand out. Large maps are
    sampled evenly. The scores, (rows, cols, classes), are an array or what is read by slices like one.
    """
    step = int(np.ceil(np.sqrt(np.prod(scores.shape) / _SAMPLED)))
    sample = np.asarray(scores[::step, ::step])[scanned[::step, ::step]].astype(np.float64)
    release(scores)
    if not len(sample):
        return np.zeros(scores.shape[-1]), 0.0
    median = np.median(sample, axis=0)
    distance = np.linalg.norm(sample - median, axis=-1)
    return median, max(np.percentile(distance, 95), distance.max() / 4)
