"""A counter on whole labelled images: what its map adds up to beside what is labelled, and what makes up for a bias."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from scipy.stats import t

from zoo.network.last_layer import fold_affine, linear_layer
from zoo.network.network import Network
from zoo.network.positions import pair
from zoo.objects.count_scores import CountScores, labelled_counts, score_counts
from zoo.objects.marked import Scene, Scenes
from zoo.objects.window_counts import is_even
from zoo.progress import say, track
from zoo.scanning.density import windows_of_pixel
from zoo.scene_scanner import SceneScanner
from zoo.settings import own_settings

# Validation images: with one there is none that a correction was not found on.
_FEWEST = 2


@dataclass(frozen=True)
class Correction:
    """What makes a class's counts right on validation images: a factor, and an offset in objects a window.

    A constant in every window is one in every pixel: what it adds to an image's count grows with the image's area.
    `before` and `after`: the mean absolute error of the counts of the test images, which had no part in it.
    """

    factor: float
    offset: float
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
            offset = f" and {each.offset:+.3g} a window" if each.offset else ""
            is_none = each.factor == 1 and not offset
            by = "left as it is" if is_none else f"by the factor {each.factor:.3f}{offset}"
            parts.append(f"{name} {by}: {f'{each.after:.2f}' if is_none else error}")
        return (
            f"counts calibrated on {self.n:,} validation images; mean absolute error of {self.n_test:,} test images: "
            f"{'; '.join(parts)}"
        )


@own_settings()
def calibrate_counts(model: keras.Model, scenes: Scenes) -> CountCalibration | None:
    """Find what makes the counts of the validation images right, and fold it into the model's last layer.

    Returns:
        The calibration; None, with the reason said, where fewer than two images are held out for it.
    """
    if len(scenes.validation) < _FEWEST:
        say(f"not calibrated: {len(scenes.validation)} images are held out for validation, and {_FEWEST} are needed")
        return None
    linear_layer(Network.of(model))
    scanner, classes = SceneScanner(model, scenes), len(scenes.class_names)
    found, windows = _counted(scanner, track(scenes.validation, "calibrating"))
    true = labelled_counts(scenes.validation, classes)
    fits = [find_correction(true[:, index], found[:, index], windows) for index in range(classes)]
    factors, offsets = map(np.array, zip(*fits, strict=True))
    found, windows = _counted(scanner, scenes.test)
    true = labelled_counts(scenes.test, classes)
    before, after = (np.abs(each - true).mean(0) for each in (found, found * factors + windows[:, None] * offsets))
    fold_affine(model, factors, offsets)
    numbers = zip(factors.tolist(), offsets.tolist(), before.tolist(), after.tolist(), strict=True)
    corrections = {name: Correction(*each) for name, each in zip(scenes.class_names, numbers, strict=True)}
    result = CountCalibration(corrections, len(scenes.validation), len(scenes.test))
    say(result.sentence())
    return result


def find_correction(true: np.ndarray, found: np.ndarray, windows: np.ndarray) -> tuple[float, float]:
    """The factor and the offset with which counts are nearest to the true ones, in the least squares.

    At first there is none. A factor alone, and then both, take its place where they surely make absolute errors smaller
    on images that they were not found on, each image in turn: where the 95 % interval (Student's) of the mean of what
    they gain is above 0. Without that caution few images made counts worse. A factor that is not above 0 is none.

    Args:
        true: the true counts, (n,), n >= 2.
        found: the sums of the maps, (n,).
        windows: what a constant 1 in every window adds to these, (n,).
    """
    best, errors = (1.0, 0.0), np.abs(found - true)
    for columns in (found[:, None], np.stack([found, windows], -1)):
        left_out = [_fitted(np.delete(columns, index, 0), np.delete(true, index)) for index in range(len(true))]
        now = np.abs((columns * left_out).sum(-1) - true)
        factor, offset = (*_fitted(columns, true), 0.0)[:2]
        gained = errors - now
        half = t.ppf(0.975, len(true) - 1) * gained.std(ddof=1) / np.sqrt(len(true))
        if factor > 0 and gained.mean() > half:
            best, errors = (float(factor), float(offset)), now
    return best


def _fitted(columns: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The factors (c,) of columns (n, c) whose sum is nearest to the true counts (n,)."""
    return np.linalg.lstsq(columns, true, rcond=None)[0]


def _counted(scanner: SceneScanner, images: Iterable[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """What the maps of images add up to, (n, K), and what those of a constant 1 would, (n,)."""
    counts, windows = [], []
    for scene in images:
        score_map = scanner.scan(scene)
        counts.append(list(score_map.counts().values()))
        windows.append(score_map.scanned.size / windows_of_pixel(score_map))
    return np.array(counts), np.array(windows)


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
    found, _ = _counted(scanner, track(images, "counting"))
    true = labelled_counts(images, len(scenes.class_names))
    geometry = scanner.network.geometry()
    return CountEvaluation(
        score_counts(scenes, true, found, training_means),
        tuple(map(ImageCounts, images, true, found)),
        scenes.class_names,
        is_even(pair(geometry.window), pair(geometry.stride)),
    )
