"""Counts beside the true ones, image by image: their error, their bias, and how sure these are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.objects.marked import Scene, Scenes
from zoo.objects.matching import image_weights, interval


@dataclass(frozen=True)
class CountScores:
    """How far one class's counts are from the true ones, in objects an image.

    `mean_absolute_error`, and `bias`, the mean of found - true: each with its 95 % interval over images, None where
    there are fewer than two. `mean`: of the true counts. `training_mean`: that of the training images, and
    `training_mean_error` the mean absolute error of always saying it; None where it is not known.
    """

    mean_absolute_error: float
    bias: float
    intervals: dict[str, tuple[float, float] | None]
    mean: float
    training_mean: float | None
    training_mean_error: float | None

    @classmethod
    def of(cls, true: np.ndarray, found: np.ndarray, training_mean: float | None) -> "CountScores":
        """Of the true counts and those found, (images,) both."""
        errors = np.asarray(found, np.float64) - true
        weights = image_weights(len(errors))
        absolute, signed = (weights @ each / len(errors) for each in (np.abs(errors), errors))
        return cls(
            mean_absolute_error=float(absolute[0]),
            bias=float(signed[0]),
            intervals={"mean_absolute_error": interval(absolute[1:]), "bias": interval(signed[1:])},
            mean=float(np.mean(true)),
            training_mean=training_mean,
            training_mean_error=None if training_mean is None else float(np.abs(true - training_mean).mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them."""
        return asdict(self)


def labelled_counts(scenes: Sequence[Scene], num_classes: int) -> np.ndarray:
    """How many objects of each class are labelled in each image, (images, K)."""
    counts = [np.bincount(scene.objects.classes, minlength=num_classes) for scene in scenes]
    return np.array(counts, np.float64).reshape(-1, num_classes)


def training_means(scenes: Scenes) -> dict[str, float]:
    """The mean count of a training image by class; none where there is no training image."""
    if not scenes.train:
        return {}
    means = labelled_counts(scenes.train, len(scenes.class_names)).mean(0)
    return {name: float(mean) for name, mean in zip(scenes.class_names, means, strict=True)}


def score_counts(
    scenes: Scenes, true: np.ndarray, found: np.ndarray, means: Mapping[str, float] | None = None
) -> dict[str, CountScores]:
    """Score the counts of every class but the background.

    Args:
        scenes: what the images are of.
        true: (images, K).
        found: (images, K).
        means: the mean count of a training image by class; default: of `scenes.train`.
    """
    known = training_means(scenes) if means is None else means
    return {
        name: CountScores.of(true[:, index], found[:, index], known.get(name))
        for index, name in enumerate(scenes.class_names)
        if name != scenes.background
    }


def count_rows(counts: Mapping[str, CountScores]) -> list[tuple[str, ...]]:
    """Scores as texts, a row for each class, under their headings."""

    def text(scores: CountScores, key: str) -> str:
        bounds, value = scores.intervals[key], f"{getattr(scores, key):.2f}"
        return value if bounds is None else f"{value} ({bounds[0]:.2f} to {bounds[1]:.2f})"

    headings = ("", "objects an image", "mean absolute error", "bias", "error of the training mean")
    rows: list[tuple[str, ...]] = [headings]
    for name, each in counts.items():
        usual = "not known" if each.training_mean_error is None else f"{each.training_mean_error:.2f}"
        rows.append((name, f"{each.mean:.1f}", text(each, "mean_absolute_error"), text(each, "bias"), usual))
    return rows
