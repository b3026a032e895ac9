"""Two models on the same test images: what was gained and lost, class by class, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import keras
import numpy as np
from scipy.stats import binomtest

from zoo import data, model_files
from zoo.card import card
from zoo.classes import difference, normal
from zoo.config import load_config
from zoo.data import Dataset, Fault, ImageForm
from zoo.errors import InputError, refuse
from zoo.evaluation import predict
from zoo.network.network import Network
from zoo.progress import aligned
from zoo.run_directory import test_fingerprint

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Change:
    """Two accuracies on the same `n` images, and `low` to `high`, the interval of `difference` = `new` - `old`.

    `gained` images only the new model has right, `lost` only the old one.
    """

    n: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    gained: int
    lost: int


@dataclass(frozen=True)
class Comparison:
    """A new model beside an old one on one test set; a class without images has None.

    The overall interval has 95 % confidence; those of the classes have it for all classes together (Bonferroni).
    `p_value` is McNemar's, exact and two-sided. `regressions` names what fell: the accuracy over all images by more
    than `tolerance`, or a class by more than `tolerance` with its interval below 0. `faults`: the data set's.
    """

    tolerance: float
    overall: Change
    classes: dict[str, Change | None]
    p_value: float
    regressions: tuple[str, ...]
    faults: tuple[Fault, ...] = ()

    def to_dict(self) -> dict:
        """The result as JSON holds it."""
        method = "paired; Bonett and Price 2012, 95 % overall and for all classes together; exact McNemar test"
        own = {"regressions": list(self.regressions), "faults": [fault.to_dict() for fault in self.faults]}
        return {**asdict(self), **own, "method": method}

    def table(self) -> str:
        """A line for each class under one for all, in percent, and the gate's verdict."""
        rows = [("class", "images", "old", "new", "difference", "95 % interval", "gained", "lost")]
        for name, row in [("all", self.overall), *self.classes.items()]:
            if row is None:
                rows.append((name, "0", *6 * ("",)))
                continue
            interval = f"{row.low:+.2%} to {row.high:+.2%}"
            numbers = (f"{row.old:.2%}", f"{row.new:.2%}", f"{row.difference:+.2%}", interval)
            rows.append((name, str(row.n), *numbers, str(row.gained), str(row.lost)))
        verdict = "; ".join(self.regressions) or "none"
        return "\n".join(
            [
                aligned(rows),
                f"exact McNemar test over all images: p = {self.p_value:.2g}; the classes' intervals hold together",
                f"regressions beyond {self.tolerance:.2%}: {verdict}",
            ]
        )


def compare(
    old_right: np.ndarray, new_right: np.ndarray, labels: np.ndarray, class_names: Sequence[str], tolerance: float
) -> Comparison:
    """Set two models' answers beside each other.

    Args:
        old_right: (n,) bool, whether the old model has each image right.
        new_right: (n,) bool, the new model's.
        labels: (n,) whole numbers, the true classes.
        class_names: a name for each class.
        tolerance: the fall in accuracy that is still accepted, a share.
    """
    members = [labels == index for index in range(len(class_names))]
    shown = sum(bool(mask.any()) for mask in members)
    overall = _change(old_right, new_right, CONFIDENCE)
    classes = {
        name: _change(old_right[mask], new_right[mask], 1 - (1 - CONFIDENCE) / shown) if mask.any() else None
        for name, mask in zip(class_names, members, strict=True)
    }
    fallen = [("all images", overall)] if -overall.difference > tolerance else []
    fallen += [(name, row) for name, row in classes.items() if row and -row.difference > tolerance and row.high < 0]
    discordant = overall.gained + overall.lost
    return Comparison(
        tolerance,
        overall,
        classes,
        float(binomtest(overall.gained, discordant).pvalue) if discordant else 1.0,
        tuple(f"{name} {row.difference:+.2%}" for name, row in fallen),
    )


def _change(old_right: np.ndarray, new_right: np.ndarray, confidence: float) -> Change:
    gained, lost = int((new_right & ~old_right).sum()), int((old_right & ~new_right).sum())
    low, high = paired_interval(gained, lost, len(old_right), confidence)
    n, accuracies = len(old_right), (float(old_right.mean()), float(new_right.mean()))
    return Change(n, *accuracies, (gained - lost) / n, low, high, gained, lost)


def paired_interval(gained: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """The interval of the difference of two proportions measured on the same `n` items.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data": Wald's interval after one item is added to each of the two counts of changes.
    """
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(up - down - half, -1.0), min(up - down + half, 1.0)


def compare_models(new: Path, old: Path, tolerance: float) -> Comparison:
    """Compare two models, each a run directory or a .keras file, on the test split of `new` (else of `old`).

    A run's model sees the images at its own size, scaled or cropped by its config; a .keras file's by the other model's
    config.

    Raises:
        InputError: where neither is a run, the classes or the test sets differ, or the images do not fit a model.
    """
    models = [model_files.load(path) for path in (new, old)]
    for path, model in zip((new, old), models, strict=True):
        if card(model).target == "count":
            refuse(f"model {str(path)!r}", "one that counts", "classifiers; `zoo evaluate --dense` measures counters")
    _check_classes(*(tuple(map(normal, Network.of(model).class_names)) for model in models))
    configs = {path: load_config(path / "config.yaml") for path in (new, old) if (path / "config.yaml").is_file()}
    if not configs:
        raise InputError(f"models {str(new)!r} and {str(old)!r}: are no runs; accepted: at least one run directory")
    recorded = {path: _test_fingerprint(path) for path in configs}
    _check_test_sets(recorded)
    source, *_ = configs.values()
    datasets: dict[ImageForm, Dataset] = {}
    right = []
    for path, model in zip((new, old), models, strict=True):
        form = ImageForm.of(configs.get(path, source))
        if form not in datasets:
            datasets[form] = data.read(source.data, form, source.model.num_classes, source.seed)
        dataset = datasets[form]
        if recorded.get(path, dataset.test_fingerprint) != dataset.test_fingerprint:
            raise InputError(f"run directory {str(path)!r}: the test images have changed since this run")
        right.append(_right(model, dataset, path))
    comparison = compare(right[1], right[0], dataset.test.labels, dataset.class_names, tolerance)
    # Each once: what is done to images of another size may differ between the models.
    faults = dict.fromkeys(fault for each in datasets.values() for fault in each.faults)
    return replace(comparison, faults=tuple(faults))


def _right(model: keras.Model, dataset: Dataset, path: Path) -> np.ndarray:
    check_images(model, dataset.test.images, "the test images", f"model {str(path)!r}")
    return predict(model, dataset.test.images).argmax(-1) == dataset.test.labels


def check_images(model: keras.Model, images: Any, what: str, which: str | None = None) -> None:
    """Check that a model takes images (n, H, W, C) as they are; `what` and `which` name them and it in errors.

    Raises:
        InputError: where it takes other sizes or channels.
    """
    received, accepted = images.shape[1:], model.input_shape[1:]
    if any(want not in (None, have) for have, want in zip(received, accepted, strict=True)):
        raise InputError(f"{which or f'model {model.name!r}'}: takes images of {accepted}, but {what} are {received}")


def _check_classes(new: tuple[str, ...], old: tuple[str, ...]) -> None:
    if differ := difference(new, old, "the new model", "the old one"):
        raise InputError(f"classes: {differ}; accepted: the same ones in the same order")


def _test_fingerprint(run: Path) -> str:
    """The fingerprint of the test images that a run was made for."""
    found = test_fingerprint(run)
    if found is None:
        raise InputError(
            f"run directory {str(run)!r}: names no test set; accepted in place of this run: its model.keras"
        )
    return found


def _check_test_sets(recorded: dict[Path, str]) -> None:
    if len({*recorded.values()}) > 1:
        names = " and ".join(f"{str(run)!r} ({fingerprint[:8]})" for run, fingerprint in recorded.items())
        raise InputError(f"run directories {names}: were made for different test images; accepted: the same ones")
