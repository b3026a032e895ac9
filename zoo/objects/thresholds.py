"""From which score on, how far apart and how far inside peaks are objects: found on images held out for it."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from zoo.card import Peaks
from zoo.objects.marked import Objects
from zoo.objects.matching import Found, Matches, matched

# Distances and margins that are tried, as parts of a class's usual size. Of those that do equally well the least margin
# is chosen, and the distance nearest to the middle.
DISTANCES, MARGINS = (0.25, 0.5, 0.75, 1.0), (0.0, 0.125, 0.25)
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


def usual_size(objects: Sequence[tuple[Objects, float]], class_index: int) -> float:
    """The median over a class's objects of the square root of height times width; 0 where there is no object.

    Args:
        objects: those of each image, and its tolerance, of which a point's size is twice as much.
        class_index: the class's index.
    """
    sizes = [
        np.where(own.are_points, 2 * tolerance, np.sqrt(own.sides.prod(-1)))
        for own, tolerance in ((each.at(each.classes == class_index), tolerance) for each, tolerance in objects)
    ]
    together = np.concatenate(sizes) if sizes else np.zeros(0)
    return float(np.median(together)) if len(together) else 0.0


def choose_peaks(
    peaks_at: Callable[[Mapping[str, Peaks]], Sequence[Found]],
    objects: Sequence[Objects],
    classes: Mapping[str, int],
    sizes: Mapping[str, float],
    tolerance: float = 0.0,
) -> dict[str, Peaks]:
    """Choose each class's threshold, distance and margin: those with which the F1 of its peaks is largest.

    What an image's border cuts in half is labelled in some sets and not in others: the margin says which. A class of
    which no peak has an object keeps every peak: its threshold and margin are 0.

    Args:
        peaks_at: finds the peaks of the images by such rules, in pixels of the given images.
        objects: those of each image, in pixels of the given image.
        classes: the classes' indices by their names, the background left out.
        sizes: the usual size of each one's objects, in scanned pixels.
        tolerance: see `zoo.objects.matching.match`.
    """
    best: dict[str, tuple[tuple[float, ...], Peaks]] = {}
    for distance, margin in product(DISTANCES, MARGINS):
        tried = {
            name: Peaks(threshold=0, distance=distance * sizes[name], margin=margin * sizes[name]) for name in classes
        }
        images = list(zip(peaks_at(tried), objects, strict=True))
        matches = matched(images, max(classes.values()) + 1, tolerance)
        for name, index in classes.items():
            threshold, f1 = best_threshold(matches[index])
            rank = (f1, -margin, -math.fabs(distance - _MIDDLE))
            if name not in best or rank > best[name][0]:
                best[name] = rank, tried[name].model_copy(update={"threshold": threshold})
    return {name: peaks for name, (_, peaks) in best.items()}
