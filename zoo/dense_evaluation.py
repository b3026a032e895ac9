"""A classifier on whole labelled images: answers by location, objects beside the labelled ones, the same by crops."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np

from zoo.calibration import Calibration, Reliability, fold_measured
from zoo.card import Card, Peaks, attach, card
from zoo.evaluation import predict
from zoo.layer_counts import total
from zoo.layer_table import describe
from zoo.objects.cell_labels import IGNORED
from zoo.objects.count_scores import CountScores, labelled_counts, score_counts
from zoo.objects.marked import Scene, Scenes
from zoo.objects.matching import RULE, Matches, ObjectScores, image_weights, interval, match, matched, score_objects
from zoo.objects.peaks import FoundObjects
from zoo.objects.thresholds import choose_peaks, usual_size
from zoo.progress import track
from zoo.scanning.grid import border_fill
from zoo.scanning.pixels import Pixels
from zoo.scanning.score_map import ScoreMap
from zoo.scene_scanner import SceneScanner, of_labelled_cells
from zoo.settings import own_settings

# The most grid cells that are compared with the classifier's answers to their crops, four batches of them.
_CROPS = 1024
# Numbers of all these crops together.
_CROP_NUMBERS = 2**28


@own_settings()
def calibrate_on_scenes(model: keras.Model, scenes: Scenes) -> Calibration | None:
    """Calibrate a classifier on its validation images, then find its thresholds there; both are in the model after it.

    The temperature is found on the labelled grid cells of `scenes.validation`, measured on those of `scenes.test`, and
    folded into the model's last kernel. The thresholds and distances of its classes go into its card's `peaks`.

    Returns:
        The calibration; None, with the reason said, where a temperature cannot be folded into this model.
    """
    scanner = SceneScanner(model, scenes)
    maps = [scanner.scan(scene) for scene in track(scenes.validation, "calibrating")]
    of_images = list(map(scanner.labelled, scenes.validation, maps))
    owners = np.repeat(np.arange(len(of_images)), [len(labels) for _, labels in of_images])
    on_test = _joined(scanner.labelled(scene, scanner.scan(scene)) for scene in scenes.test)
    measured = Calibration.measured("grid cells", _joined(of_images), on_test, owners)
    calibration = fold_measured(model, measured)
    if calibration is not None:
        maps = [replace(each, scores=each.scores / np.float32(calibration.temperature)) for each in maps]
    peaks = _peaks(scenes, maps)
    attach(model, Card.model_validate({**card(model).model_dump(), "peaks": peaks}))
    return calibration


def _joined(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = zip(*parts, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def _peaks(scenes: Scenes, maps: Sequence[ScoreMap]) -> dict[str, Peaks]:
    """The thresholds and distances with which validation images' objects are found best, by class."""
    # Every winner's peak, of which distances and margins are tried.
    finders = [replace(each, background=scenes.background, peaks={}).peak_finder() for each in maps]
    for each, finder in zip(maps, finders, strict=True):
        each.read_by(finder)
    images, tolerance = scenes.validation, scenes.tolerance or 0.0
    classes = _object_classes(scenes)
    # Labels alone, so training images tell it as well, also of a class that no validation image shows.
    scaled = [(scene.scanned_objects, scenes.scanned_tolerance(scene)) for scene in (*scenes.train, *images)]
    sizes = {name: usual_size(scaled, index) for name, index in classes.items()}
    return choose_peaks(
        lambda rules: [each.found(rules) for each in finders],
        [scene.objects for scene in images],
        classes,
        sizes,
        tolerance,
    )


def _object_classes(scenes: Scenes) -> dict[str, int]:
    return {name: index for index, name in enumerate(scenes.class_names) if name != scenes.background}


@dataclass(frozen=True)
class Accuracy:
    """The share of `n` grid cells whose largest score is that of their label, with its 95 % interval over images."""

    accuracy: float | None
    n: int
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, right: np.ndarray, total: np.ndarray) -> "Accuracy":
        """Of the cells that are right, and all, of each image, (images,) both."""
        if not total.sum():
            return cls(None, 0, None)
        weights = image_weights(len(total))
        with np.errstate(invalid="ignore"):
            shares = (weights @ right) / (weights @ total)
        return cls(float(shares[0]), int(total.sum()), interval(shares[1:]))


@dataclass(frozen=True)
class Locations:
    """Answers at every labelled grid cell of the images; cells in the ring about an object have no label.

    `overall` and `classes`: how many are right, whatever the thresholds. `reliability`: how far their probabilities can
    be relied on.
    """

    overall: Accuracy
    classes: dict[str, Accuracy]
    reliability: Reliability

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        classes = {name: asdict(each) for name, each in self.classes.items()}
        return {**asdict(self.overall), "classes": classes, **asdict(self.reliability)}


@dataclass(frozen=True)
class Cost:
    """What the scores of so many grid cells took: seconds, and multiply-adds (None where these are not known)."""

    cells: int
    seconds: float
    multiply_adds: int | None

    def to_dict(self) -> dict[str, Any]:
        """The cost as JSON holds it, and of one cell."""
        each = None if self.multiply_adds is None else self.multiply_adds / self.cells
        return {**asdict(self), "seconds_a_cell": self.seconds / self.cells, "multiply_adds_a_cell": each}


@dataclass(frozen=True)
class Crops:
    """The classifier on the crops of `n` labelled grid cells, drawn at random from all images alike.

    `accuracy`: the share that it answers right; `accuracy_by_location`: the share of these cells that the map has
    right. `agreement`: the share for which both give the same answer.
    """

    accuracy: float
    accuracy_by_location: float
    agreement: float
    n: int


@dataclass(frozen=True)
class SceneResult:
    """An image, the objects found in it, and for each of these the labelled one's index, -1 of a false one."""

    scene: Scene
    found: FoundObjects
    matches: np.ndarray

    @property
    def missed(self) -> np.ndarray:
        """Which labelled objects were not found, (n,) bool."""
        return ~np.isin(np.arange(len(self.scene.objects)), self.matches)

    @property
    def errors(self) -> int:
        """How many objects were missed, and how many found where there is none."""
        return int(self.missed.sum() + (self.matches < 0).sum())


@dataclass(frozen=True)
class DenseEvaluation:
    """A classifier on `n_images` whole images that it was not trained on.

    `classes`: how well the objects of each are found, with the card's `peaks`; `micro`: of all together; `macro`: the
    mean over classes. `counts`: how far the numbers of their peaks are from those of labelled objects. `tolerance`: in
    pixels of the given image, None where no object is a point. `by_location`: the answers at labelled grid cells.
    `crops`: the same by crops, None where the model gives a map alone. `dense_cost` and `crops_cost`: of the scans of
    all images, in one pass each, and of the crops.

    `images` and `curves` are what the picture needs: each image's result, and each class's peaks at every score.
    """

    n_images: int
    classes: dict[str, ObjectScores]
    counts: dict[str, CountScores]
    micro: ObjectScores
    macro: ObjectScores
    peaks: dict[str, Peaks]
    tolerance: float | None
    by_location: Locations
    crops: Crops | None
    dense_cost: Cost
    crops_cost: Cost | None
    class_names: tuple[str, ...]
    images: tuple[SceneResult, ...]
    curves: dict[str, Matches]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return {
            "n_images": self.n_images,
            "classes": {name: each.to_dict() for name, each in self.classes.items()},
            "counts": {name: each.to_dict() for name, each in self.counts.items()},
            "micro": self.micro.to_dict(),
            "macro": self.macro.to_dict(),
            "peaks": {name: each.model_dump() for name, each in self.peaks.items()},
            "rule": RULE,
            "tolerance": self.tolerance,
            "accuracy_by_location": self.by_location.to_dict(),
            "crops": None if self.crops is None else asdict(self.crops),
            "cost": {
                "dense": self.dense_cost.to_dict(),
                "crops": None if self.crops_cost is None else self.crops_cost.to_dict(),
            },
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The classes' numbers as texts, under their headings."""

        def text(value: float | None, bounds: tuple[float, float] | None) -> str:
            if value is None:
                return "none"
            return f"{value:.3f}" if bounds is None else f"{value:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"

        rates = ("precision", "recall", "f1", "average_precision")
        rows: list[tuple[str, ...]] = [("", "objects", *(rate.replace("_", " ") for rate in rates))]
        for name, each in (*self.classes.items(), ("all together", self.micro)):
            numbers = (text(getattr(each, rate), each.intervals[rate]) for rate in rates)
            rows.append((name, f"{each.n:,}", *numbers))
        return rows

    def sentences(self) -> str:
        """What is not of objects, for people to read, in lines."""
        place = self.by_location
        lines = [
            f"accuracy by location {place.overall.accuracy:.2%} of {place.overall.n:,} labelled grid cells "
            f"({', '.join(f'{name} {each.accuracy:.1%}' for name, each in place.classes.items() if each.n)})"
        ]
        if self.crops is not None and self.crops_cost is not None:
            slower = (self.crops_cost.seconds / self.crops_cost.cells) / (
                self.dense_cost.seconds / self.dense_cost.cells
            )
            lines.append(
                f"by crops {self.crops.accuracy:.2%} of {self.crops.n:,} of them, the same answer at "
                f"{self.crops.agreement:.2%}; a cell takes {slower:.1f} times as long as in the map"
            )
        return "\n".join(lines)


@own_settings()
def evaluate_dense(
    model: keras.Model,
    scenes: Scenes,
    images: Sequence[Scene] | None = None,
    training_means: Mapping[str, float] | None = None,
) -> DenseEvaluation:
    """Scan whole images, and compare what is found with what is labelled.

    Args:
        model: a classifier of one window, with the scenes' classes, and the thresholds of its card.
        scenes: what the images are of.
        images: which to evaluate on; default: `scenes.test`.
        training_means: the mean count of a training image by class; default: of `scenes.train`.

    Raises:
        InputError: where the model cannot be converted, or an image does not fit it.
    """
    images = scenes.test if images is None else images
    scanner, known = SceneScanner(model, scenes), card(model)
    classes, tolerance = _object_classes(scenes), scenes.tolerance or 0.0
    scanner.scan(images[0])  # so that tracing is not counted
    results, ranked, cells, crops = [], [], [], _CropSample(scanner, len(images))
    seconds, scanned, macs = 0.0, 0, []
    for scene in track(images, "evaluating"):
        begin = time.perf_counter()
        score_map = scanner.scan(scene)
        seconds += time.perf_counter() - begin
        scanned += score_map.scanned.size
        macs.append(scanner.macs(score_map))
        finder = replace(score_map, background=scenes.background, peaks=known.peaks).peak_finder()
        of_every_class = replace(finder, every_class=True)
        score_map.read_by(finder, of_every_class)
        objects = finder.found()
        results.append(SceneResult(scene, objects, match(objects, scene.objects, tolerance)))
        ranked.append((of_every_class.found(), scene.objects))
        labels = scanner.labels(scene, score_map)
        cells.append(of_labelled_cells(score_map, labels))
        crops.add(scene, score_map, labels)
    matches, curves = (
        {name: of_classes[index] for name, index in classes.items()}
        for of_classes in (
            matched(each, len(scenes.class_names), tolerance)
            for each in ([(result.found, result.scene.objects) for result in results], ranked)
        )
    )
    thresholds = {name: known.peaks[name].threshold if name in known.peaks else 0.0 for name in classes}
    by_class, micro, macro = score_objects(matches, thresholds, curves)
    peaks = np.array([np.bincount(each.found.classes, minlength=len(scenes.class_names)) for each in results])
    beside, crops_cost = crops.compared(model)
    return DenseEvaluation(
        n_images=len(images),
        classes=by_class,
        counts=score_counts(scenes, labelled_counts(images, len(scenes.class_names)), peaks, training_means),
        micro=micro,
        macro=macro,
        peaks=known.peaks,
        tolerance=scenes.tolerance,
        by_location=_locations(cells, scenes.class_names),
        crops=beside,
        dense_cost=Cost(scanned, seconds, total(macs)),
        crops_cost=crops_cost,
        class_names=scenes.class_names,
        images=tuple(results),
        curves=curves,
    )


def _locations(cells: Sequence[tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...]) -> Locations:
    """The accuracy of each image's labelled cells: scores (n, K) and labels (n,)."""
    classes = len(class_names)
    totals = np.array([np.bincount(labels, minlength=classes) for _, labels in cells])
    right = np.array([np.bincount(labels[scores.argmax(-1) == labels], minlength=classes) for scores, labels in cells])
    by_class = {name: Accuracy.of(right[:, index], totals[:, index]) for index, name in enumerate(class_names)}
    return Locations(Accuracy.of(right.sum(1), totals.sum(1)), by_class, Reliability.of(*_joined(cells)))


class _CropSample:
    """Labelled grid cells of several images, as many of each, with their crops."""

    def __init__(self, scanner: SceneScanner, images: int):
        """Draw cells of so many images."""
        height, width = scanner.network.window or (1, 1)
        numbers = height * width * scanner.network.channels
        self._fill = border_fill(scanner.network)
        self._of_each = max(min(_CROPS, _CROP_NUMBERS // numbers) // images, 1)
        self._crops: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._labels: list[int] = []

    def add(self, scene: Scene, score_map: ScoreMap, labels: np.ndarray) -> None:
        """Take cells of an image, whose labels are (rows, cols)."""
        cells = np.argwhere(labels != IGNORED)
        drawn = np.random.default_rng(len(self._labels)).permutation(len(cells))[: self._of_each]
        height, width = map(int, score_map.geometry.window)
        around = Pixels(scene.pixels).extended_by(((height, height), (width, width)), self._fill)
        middles = [each * by for each, by in zip(score_map.centres, scene.scale, strict=True)]
        for row, column in cells[drawn]:
            top, left = (
                round(each[at] + side / 2)
                for each, at, side in zip(middles, (row, column), (height, width), strict=True)
            )
            self._crops.append(around[top : top + height, left : left + width])
            self._scores.append(np.asarray(score_map.scores[row, column]))
            self._labels.append(int(labels[row, column]))

    def compared(self, model: keras.Model) -> tuple[Crops | None, Cost | None]:
        """The classifier's answers to the crops beside those of the map; None of a model that gives a map."""
        if len(model.outputs[0].shape) != 2 or not self._labels:
            return None, None
        crops, labels, dense = np.stack(self._crops), np.array(self._labels), np.stack(self._scores).argmax(-1)
        predict(model, crops[:256])  # so that tracing is not counted
        begin = time.perf_counter()
        answers = predict(model, crops).argmax(-1)
        seconds = time.perf_counter() - begin
        macs = describe(model).macs
        beside = Crops(
            accuracy=float((answers == labels).mean()),
            accuracy_by_location=float((dense == labels).mean()),
            agreement=float((answers == dense).mean()),
            n=len(labels),
        )
        return beside, Cost(len(labels), seconds, None if macs is None else macs * len(labels))
