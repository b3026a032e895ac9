"""A counter on whole labelled images: what its map adds up to beside what is labelled, and what makes up for a bias."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from zoo.network.last_layer import fold_affine, linear_layer
from zoo.network.network import Network
from zoo.network.positions import pair
from zoo.objects.count_scores import CountScores, labelled_counts, score_counts
from zoo.objects.marked import Scene, Scenes
from zoo.objects.window_counts import is_even
from zoo.progress import note, say, track
from zoo.scene_scanner import SceneScanner
from zoo.settings import own_settings

# Validation images: one says nothing of chance.
_FEWEST = 2
# How far from 1 the factors were that test images asked for (root mean square of 25 counters: docs/counting.md).
_USUAL = 0.03


@dataclass(frozen=True)
class Correction:
    """By what a class's counts are multiplied.

    `before` and `after`: the mean absolute error of the counts of the test images, which had no part in it.
    """

    factor: float
    before: float
    after: float


@dataclass(frozen=True)
class CountCalibration:
    """The correction of each class's counts, found on `n` validation images and measured on `n_test` test images."""

    classes: dict[str, Correction]
    n: int
    n_test: int

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return asdict(self)

    def sentence(self) -> str:
        """The result for people to read."""
        parts = []
        for name, each in self.classes.items():
            error = f"{each.before:.2f} before, {each.after:.2f} after"
            parts.append(f"{name} by the factor {each.factor:.3f}: {error}")
        return (
            f"counts calibrated on {self.n:,} validation images; mean absolute error of {self.n_test:,} test images: "
            f"{'; '.join(parts)}"
        )


@own_settings()
def calibrate_counts(model: keras.Model, scenes: Scenes) -> CountCalibration | None:
    """Find what the counts of the validation images are short of, and fold the factors into the model's last layer.

    Returns:
        The calibration; None, with the reason said, where fewer than two images are held out for it.
    """
    if len(scenes.validation) < _FEWEST:
        note(f"not calibrated: {len(scenes.validation)} images are held out for validation, and {_FEWEST} are needed")
        return None
    linear_layer(Network.of(model))
    scanner, classes = SceneScanner(model, scenes), len(scenes.class_names)
    found = _counted(scanner, track(scenes.validation, "calibrating"))
    true = labelled_counts(scenes.validation, classes)
    factors = np.array([find_factor(true[:, index], found[:, index]) for index in range(classes)])
    found, true = _counted(scanner, scenes.test), labelled_counts(scenes.test, classes)
    before, after = (np.abs(each - true).mean(0) for each in (found, found * factors))
    fold_affine(model, factors)
    numbers = zip(factors.tolist(), before.tolist(), after.tolist(), strict=True)
    corrections = {name: Correction(*each) for name, each in zip(scenes.class_names, numbers, strict=True)}
    result = CountCalibration(corrections, len(scenes.validation), len(scenes.test))
    say(result.sentence())
    return result


def find_factor(true: np.ndarray, found: np.ndarray) -> float:
    """By what a class's counts are multiplied: what they are short of the true ones, less what may be chance in that.

    Images n >= 2 suggest the factor sum(true) / sum(found), with a variance that their residuals tell. It is drawn
    towards 1 as the mean of a normal distribution about 1 would be, whose variance is `_USUAL`'s, or what the distance
    from 1 has beyond chance, where that is more (empirical Bayes). 1 where nothing is labelled, or nothing is found.

    Args:
        true: the true counts, (n,).
        found: the sums of the maps, (n,).
    """
    if true.sum() <= 0 or found.sum() <= 0:
        return 1.0
    distance = true.sum() / found.sum() - 1
    by_chance = len(true) * np.var(true - (1 + distance) * found, ddof=1) / found.sum() ** 2
    usual = max(_USUAL**2, distance**2 - by_chance)
    return float(1 + distance * usual / (usual + by_chance))


def _counted(scanner: SceneScanner, images: Iterable[Scene]) -> np.ndarray:
    """What the maps of images add up to, (n, K)."""
    return np.array([list(scanner.scan(scene).counts().values()) for scene in images])


@dataclass(frozen=True)
class ImageCounts:
    """The labelled and the found number of each class's objects in an image, (K,) both."""

    scene: Scene
    labelled: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class CountEvaluation:
    """A counter on whole images that it was not trained on.

    `counts`: how far each class's are from the labelled ones. `images`: of each image. `is_exact`: whether true numbers
    of windows would add up to the count, which they do where the window is a multiple of the stride.
    """

    counts: dict[str, CountScores]
    images: tuple[ImageCounts, ...]
    class_names: tuple[str, ...]
    is_exact: bool

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return {
            "target": "count",
            "n_images": len(self.images),
            "counts": {name: each.to_dict() for name, each in self.counts.items()},
            "is_exact": self.is_exact,
            "images": [
                {
                    "image": each.scene.name,
                    "labelled": dict(zip(self.class_names, each.labelled.tolist(), strict=True)),
                    "found": dict(zip(self.class_names, each.found.tolist(), strict=True)),
                }
                for each in self.images
            ],
        }


@own_settings()
def evaluate_counts(
    model: keras.Model,
    scenes: Scenes,
    images: Sequence[Scene] | None = None,
    training_means: Mapping[str, float] | None = None,
) -> CountEvaluation:
    """Scan whole images, and compare what their maps add up to with what is labelled.

    Args:
        model: a counter of one window, with the scenes' classes.
        scenes: what the images are of.
        images: which to evaluate on; default: `scenes.test`.
        training_means: the mean count of a training image by class; default: of `scenes.train`.

    Raises:
        InputError: where the model cannot be converted, an image does not fit it, or scores are not finite.
    """
    images = scenes.test if images is None else images
    scanner = SceneScanner(model, scenes)
    found = _counted(scanner, track(images, "counting"))
    true = labelled_counts(images, len(scenes.class_names))
    geometry = scanner.network.geometry()
    return CountEvaluation(
        score_counts(scenes, true, found, training_means),
        tuple(map(ImageCounts, images, true, found)),
        scenes.class_names,
        is_even(pair(geometry.window), pair(geometry.stride)),
    )
