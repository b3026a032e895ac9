"""Peaks beside labelled objects: who matches whom, precision and recall at thresholds, average precision without.

Everything is pooled over images; how sure a number is, is measured by drawing the images anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from zoo.objects.marked import Objects

# How often images are drawn for an interval, by which seed, and how many numbers a part of the draws may take.
_DRAWS, _SEED, _AT_ONCE = 1000, 0, 2**22
_INTERVAL = (2.5, 97.5)

# The rule, in the words of reports.
RULE = (
    "by falling score, each peak to the nearest unused object of its class: inside its box, borders included, or "
    "within the tolerance from its point"
)


class Found(Protocol):
    """The n peaks of an image: their classes' indices, their scores, and y and x in pixels of the given image.

    Places are continuous: the centre of the first pixel is (0.5, 0.5).
    """

    @property
    def classes(self) -> np.ndarray:
        """The index of each one's class, (n,)."""

    @property
    def scores(self) -> np.ndarray:
        """The probability of each one's class, (n,)."""

    @property
    def centres(self) -> np.ndarray:
        """Where they are, (n, 2)."""


def match(found: Found, objects: Objects, tolerance: float = 0.0) -> np.ndarray:
    """Match the peaks of an image with its objects, greedily.

    By falling score (of equal ones from the top left on), each peak takes the nearest object of its class that is
    unused, and in whose box it lies, borders included, or from whose point it is at most `tolerance` pixels.

    Returns:
        For each peak its object's index, (n,); -1 of a false one.
    """
    taken = np.full(len(found.classes), -1)
    is_free = np.ones(len(objects), bool)
    points, reach = objects.are_points, objects.sides / 2
    for index in np.lexsort((found.centres[:, 1], found.centres[:, 0], -found.scores)):
        away = np.abs(objects.centres - found.centres[index])
        distance = np.hypot(away[:, 0], away[:, 1])
        near = np.where(points, distance <= tolerance, (away <= reach).all(-1))
        near &= is_free & (objects.classes == found.classes[index])
        if near.any():
            taken[index] = np.where(near, distance, np.inf).argmin()
            is_free[taken[index]] = False
    return taken


@dataclass(frozen=True)
class Matches:
    """One class's peaks in several images, by falling score, and its objects there.

    A peak's match does not depend on those with smaller scores, so a threshold leaves the matches above it as they are.

    `scores`: (p,). `hits`: (p,) bool, whether each has an object. `images`: (p,), the index of each one's image.
    `objects`: (images,), how many there are.
    """

    scores: np.ndarray
    hits: np.ndarray
    images: np.ndarray
    objects: np.ndarray

    def counts(self, threshold: float) -> np.ndarray:
        """Hits, false peaks and missed objects of each image, with the peaks from `threshold` on: (images, 3)."""
        kept = self.scores >= threshold
        hits, false = (
            np.bincount(self.images[kept & which], minlength=len(self.objects)) for which in (self.hits, ~self.hits)
        )
        return np.stack([hits, false, self.objects - hits], axis=-1)

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision and recall with the peaks from each score on, and these scores, falling, each once: (s,) all."""
        last = self._last_of_equal
        right = np.cumsum(self.hits)[last]
        return right / (last + 1), right / max(self.objects.sum(), 1), self.scores[last]

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The area under the curve of precision and recall, (d,); NaN where there is no object.

        All points are interpolated, as in PASCAL VOC from 2010 on: at each recall the precision is the largest at that
        recall or above (Everingham et al. 2015, doi:10.1007/s11263-014-0733-5, section 3.2.1). Peaks of equal scores
        come together.

        Args:
            weights: how often each image counts, (d, images); default: once.
        """
        weights = np.ones((1, len(self.objects)), int) if weights is None else weights
        step = max(_AT_ONCE // max(len(self.scores), 1), 1)
        parts = [self._areas(weights[first : first + step]) for first in range(0, len(weights), step)]
        return np.concatenate(parts)

    def _areas(self, weights: np.ndarray) -> np.ndarray:
        last, of_peaks = self._last_of_equal, weights[:, self.images]
        right = np.cumsum(of_peaks * self.hits, axis=-1)[:, last]
        precision = right / np.maximum(np.cumsum(of_peaks, axis=-1)[:, last], 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=-1)[:, ::-1]
        total = weights @ self.objects
        gained = np.diff(right, axis=-1, prepend=0) / np.maximum(total, 1)[:, None]
        return np.where(total > 0, (gained * precision).sum(-1), np.nan)

    @property
    def _last_of_equal(self) -> np.ndarray:
        """The index of the last peak of each score."""
        return np.flatnonzero(np.append(np.diff(self.scores) != 0, True)) if len(self.scores) else np.zeros(0, int)


def matched(images: Sequence[tuple[Found, Objects]], classes: int, tolerance: float = 0.0) -> list[Matches]:
    """Match the peaks of several images with their objects; the matches of each of so many classes.

    Args:
        images: each one's peaks and objects, both in pixels of the given image.
        classes: how many classes there are.
        tolerance: see `match`.
    """
    hits = [match(found, objects, tolerance) >= 0 for found, objects in images]
    each = [
        (found.classes, found.scores, hit, np.full(len(hit), index))
        for index, ((found, _), hit) in enumerate(zip(images, hits, strict=True))
    ]
    joined = [np.concatenate(part) for part in zip(*each, strict=True)] if each else [np.zeros(0)] * 4
    owners, scores, hit, of_images = joined
    order = np.argsort(-scores, kind="stable")
    totals = [np.bincount(objects.classes, minlength=classes) for _, objects in images]
    result = []
    for index in range(classes):
        own = order[owners[order] == index]
        numbers = np.array([total[index] for total in totals], int)
        result.append(Matches(scores[own], hit[own].astype(bool), of_images[own].astype(int), numbers))
    return result


@dataclass(frozen=True)
class ObjectScores:
    """How well objects are found; a number is None where it is not defined.

    `precision`, `recall`, `f1`: of the peaks at `threshold` (None over several classes, which have their own).
    `average_precision`: of the class's peaks at every score, whatever wins there (None where classes are pooled). `n`:
    how many objects there are, `found` peaks, of which `hits` have an object. `intervals`: 95 % intervals of these four
    over images, None where there are fewer than two images.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    n: int
    found: int
    hits: int
    threshold: float | None
    intervals: dict[str, tuple[float, float] | None]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them."""
        return asdict(self)


_RATES = ("precision", "recall", "f1", "average_precision")


def score_objects(
    matches: Mapping[str, Matches], thresholds: Mapping[str, float], curves: Mapping[str, Matches]
) -> tuple[dict[str, ObjectScores], ObjectScores, ObjectScores]:
    """Score every class; then all peaks together ("micro"), and the mean over the classes with objects ("macro").

    Intervals are percentiles of a bootstrap: images are drawn with replacement, 1,000 times, by a fixed seed, the same
    ones for all classes.

    Args:
        matches: those of each class, all of the same images.
        thresholds: the least score of each class's peaks.
        curves: those of each class's peaks at every score, of the same images, for the average precision.
    """
    weights = image_weights(len(next(iter(matches.values())).objects))
    counts = {name: each.counts(thresholds[name]) for name, each in matches.items()}
    # (4, 1 + draws) for each class.
    rates = {
        name: np.stack([*_rates(weights @ counts[name]), curves[name].average_precision(weights)]) for name in matches
    }
    by_class = {name: _scores(rates[name], counts[name].sum(0), thresholds[name]) for name in matches}
    pooled = np.sum(list(counts.values()), axis=0)
    together = np.stack([*_rates(weights @ pooled), np.full(len(weights), np.nan)])
    with_objects = [rates[name] for name, each in matches.items() if each.objects.sum()]
    mean = _mean(np.array(with_objects)) if with_objects else np.full_like(together, np.nan)
    total = pooled.sum(0)
    return by_class, _scores(together, total, None), _scores(mean, total, None)


def image_weights(images: int) -> np.ndarray:
    """How often each image counts: once, in the first row; then in each of 1,000 draws, (1,001, images).

    Of fewer than two images there is the first row alone.
    """
    once = np.ones((1, images), int)
    if images < 2:
        return once
    drawn = np.random.default_rng(_SEED).multinomial(images, np.full(images, 1 / images), size=_DRAWS)
    return np.concatenate([once, drawn])


def interval(drawn: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of a number over draws, of those where it is defined; None where it is nowhere."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return None
    low, high = np.percentile(known, _INTERVAL)
    return float(low), float(high)


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of hits, false peaks and missed objects: (d, 3) -> (d,) each; NaN for 0 of 0."""
    hits, false, missed = counts.T
    with np.errstate(invalid="ignore"):
        return hits / (hits + false), hits / (hits + missed), 2 * hits / (2 * hits + false + missed)


def _mean(rates: np.ndarray) -> np.ndarray:
    """The mean over classes, of those where a rate is defined: (classes, 4, d) -> (4, d)."""
    known = ~np.isnan(rates)
    with np.errstate(invalid="ignore"):
        return np.where(known, rates, 0).sum(0) / known.sum(0)


def _scores(rates: np.ndarray, counts: np.ndarray, threshold: float | None) -> ObjectScores:
    """The first column of `rates` (4, 1 + draws), with intervals over the others."""
    numbers: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, values in zip(_RATES, rates, strict=True):
        is_known = not np.isnan(values[0])
        numbers[name] = float(values[0]) if is_known else None
        intervals[name] = interval(values[1:]) if is_known else None
    hits, false, missed = counts.tolist()
    return ObjectScores(
        **numbers, n=hits + missed, found=hits + false, hits=hits, threshold=threshold, intervals=intervals
    )
