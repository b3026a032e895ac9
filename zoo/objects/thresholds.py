"""From which score on, and how far apart, peaks are objects: found on images that were held out for it."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zoo.card import Peaks
from zoo.objects.marked import Objects
from zoo.objects.matching import Found, Matches, matched

# Distances that are tried, as parts of a class's usual size; of those that do equally well, the nearest to the middle.
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
_MIDDLE = 0.5


def best_threshold(matches: Matches) -> tuple[float, float]:
    """The threshold with which the F1 of a class's peaks is largest, and that F1; 0 both where no peak has an object.

    Candidates lie midway between neighbouring scores, the last one between the smallest score and 0. Of those that do
    equally well it is the largest.
    """
    _, _, scores = matches.curve()
    if not matches.hits.any():
        return 0.0, 0.0
    last = np.searchsorted(-matches.scores, -scores, side="right")
    right = np.cumsum(matches.hits)[last - 1]
    f1 = 2 * right / (last + matches.objects.sum())
    best = int(f1.argmax())
    below = np.append(scores[1:], 0.0)
    return float((scores[best] + below[best]) / 2), float(f1[best])


def usual_size(objects: Sequence[Objects], class_index: int, tolerance: float) -> float:
    """The median of the square roots of height times width, of a point 2 `tolerance`; 0 where there is no object."""
    own = [each.at(each.classes == class_index) for each in objects]
    sides = np.concatenate([each.sides for each in own]) if own else np.zeros((0, 2))
    points = np.concatenate([each.are_points for each in own]) if own else np.zeros(0, bool)
    if not len(sides):
        return 0.0
    return float(np.median(np.where(points, 2 * tolerance, np.sqrt(sides[:, 0] * sides[:, 1]))))


def choose_peaks(
    peaks_at: Callable[[Mapping[str, Peaks]], Sequence[Found]],
    objects: Sequence[Objects],
    names: Mapping[str, int],
    scale: float,
    tolerance: float = 0.0,
) -> dict[str, Peaks]:
    """Choose each class's threshold and distance: those with which the F1 of its peaks is largest.

    A class of which no peak has an object keeps every peak: its threshold is 0.

    Args:
        peaks_at: finds the peaks of the images with such thresholds and distances, in pixels of the given images.
        objects: those of each image, in pixels of the given image.
        names: the classes' indices by their names, the background left out.
        scale: scanned pixels a pixel of the given image.
        tolerance: see `zoo.objects.matching.match`.
    """
    sizes = {name: scale * usual_size(objects, index, tolerance) for name, index in names.items()}
    best: dict[str, tuple[tuple[float, float], Peaks]] = {}
    for fraction in FRACTIONS:
        tried = {name: Peaks(threshold=0, distance=fraction * size) for name, size in sizes.items()}
        images = list(zip(peaks_at(tried), objects, strict=True))
        matches = matched(images, max(names.values()) + 1, tolerance)
        for name, index in names.items():
            threshold, f1 = best_threshold(matches[index])
            rank = (f1, -math.fabs(fraction - _MIDDLE))
            if name not in best or rank > best[name][0]:
                best[name] = rank, Peaks(threshold=threshold, distance=tried[name].distance)
    return {name: peaks for name, (_, peaks) in best.items()}
