"""What a model reaches: on test images, and on a large canvas made of them."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import confusion_matrix

from zoo.data import Canvas, Split
from zoo.errors import InputError, refuse
from zoo.large_images import scan
from zoo.network.network import Network
from zoo.pictures import Choice
from zoo.predictions import Answer, answers_to
from zoo.scanning.pixels import Pixels
from zoo.scanning.regions import nearest_scores
from zoo.scanning.score_map import ScoreMap
from zoo.scores import expected_calibration_error, to_probabilities
from zoo.settings import own_settings

_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a split of `n` images.

    `loss` is the mean cross-entropy in nats, without label smoothing, and `expected_calibration_error` how far
    probabilities can be relied on. `confusion[i][j]` counts images of class i answered as class j. A class without
    images has the accuracy None.
    """

    accuracy: float
    loss: float
    n: int
    expected_calibration_error: float
    per_class_accuracy: dict[str, float | None]
    confusion: list[list[int]]

    def to_dict(self) -> dict:
        """The result as JSON holds it."""
        return asdict(self)


@own_settings()
def evaluate(model: keras.Model, split: Split, class_names: tuple[str, ...], views: bool = False) -> Evaluation:
    """Accuracy, loss and confusion of a classifier, (B, H, W, C) -> (B, K), on a split.

    Args:
        model: the classifier.
        split: images in the form that it takes, with their labels, such as `zoo.data.load(config).test`.
        class_names: a name for each of the K classes.
        views: answer by the mean scores over six views of each image; see `predict_views`.

    Raises:
        InputError: for a model with several outputs, one that counts, or another number of classes than there are
            names; for scores that are not finite.
    """
    network = Network.of(model)
    network.check_one_output()
    if network.units() != len(class_names):
        raise InputError(f"model: has {network.units()} outputs; accepted for this data: {len(class_names)}")
    logits = (predict_views if views else predict)(model, split.images)
    if not np.isfinite(logits).all():
        received = "scores of the test images that are not finite, as of a training that diverged"
        refuse(f"model {model.name!r}", received, "a model whose training did not; a lower learning rate may help")
    labels = np.asarray(split.labels)
    probabilities = to_probabilities(logits, network.outputs_are[0])
    chosen = probabilities[np.arange(len(labels)), labels]
    counts = confusion_matrix(labels, logits.argmax(-1), labels=range(len(class_names)))
    totals, right = counts.sum(1), counts.diagonal()
    return Evaluation(
        accuracy=float(right.sum() / len(labels)),
        loss=float(np.log(1 / np.maximum(chosen, np.finfo(np.float64).tiny)).mean()),
        n=len(labels),
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        per_class_accuracy={
            name: float(hits / total) if total else None
            for name, hits, total in zip(class_names, right, totals, strict=True)
        },
        confusion=counts.tolist(),
    )


@own_settings()
def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a classifier gives for raw images, logits as a rule, batch by batch: (n, H, W, C) -> (n, K) float32.

    Raises:
        InputError: for a model with several outputs.
    """
    Network.of(model).check_one_output()
    answers = []
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH], np.float32)
        (answer,) = keras.tree.flatten(model.predict_on_batch(batch))  # of a dict of one too
        answers.append(keras.ops.convert_to_numpy(answer))
    return np.concatenate(answers).reshape(len(images), -1)


def predict_views(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The mean of what a classifier gives for six views of raw images: (n, H, W, C) -> (n, K) float32.

    As they are, and shifted by a pixel up and left, and down and right, with mirrored borders; each mirrored left to
    right too. The shifted ones count half (Jordan 2024, arXiv:2404.00498, section 3.5).

    Raises:
        InputError: for a model with several outputs.
    """
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH])
        padded = np.pad(batch, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        places = ((batch, 1 / 2), (padded[:, :-2, :-2], 1 / 4), (padded[:, 2:, 2:], 1 / 4))
        parts.append(sum(share / 2 * (predict(model, x) + predict(model, x[:, :, ::-1])) for x, share in places))
    return np.concatenate(parts)


def predict_files(
    model: keras.Model,
    paths: Sequence[Path],
    choice: Choice = Choice(),  # noqa: B008 - frozen
    pixel_size: float | None = None,
) -> Iterator[Answer]:
    """Classify image files, or count in them, by a Keras model; see `zoo.predictions.answers_to`.

    Raises:
        InputError: see `zoo.predictions.answers_to`.
    """
    return answers_to(Network.of(model), partial(predict, model), paths, choice, pixel_size)


@dataclass(frozen=True)
class CanvasEvaluation:
    """A converted model on one large image, beside its source on the crops pasted there.

    `accuracy`: share of the `n` places whose nearest cell answers right; `crops_accuracy`: the source model on the
    pasted images by themselves; `agreement`: share of places where both give the same answer. Times in seconds, each
    the second of two calls, so that tracing is not counted.
    """

    accuracy: float
    crops_accuracy: float
    agreement: float
    n: int
    scan_seconds: float
    crops_seconds: float

    def to_dict(self) -> dict:
        """The result as JSON holds it."""
        return asdict(self)


@own_settings()
def evaluate_canvas(
    fcn: keras.Model, model: keras.Model, canvas: Canvas, crops: np.ndarray
) -> tuple[CanvasEvaluation, ScoreMap]:
    """Scan a canvas, and compare the nearest cell's answer at each pasted image with its label.

    Args:
        fcn: the converted model.
        model: its source.
        canvas: the large image, with boxes and labels.
        crops: the images that were pasted, (n, h, w, C).
    """
    # The images pasted there are at the model's scale.
    image = Pixels(canvas.image, given=Pixels(canvas.image))
    scanned, scan_seconds = _second_call(lambda: scan(fcn, image))
    logits, crops_seconds = _second_call(lambda: predict(model, crops))
    answers = nearest_scores(scanned, canvas.boxes).argmax(-1)
    alone = logits.argmax(-1)
    result = CanvasEvaluation(
        accuracy=float((answers == canvas.labels).mean()),
        crops_accuracy=float((alone == canvas.labels).mean()),
        agreement=float((answers == alone).mean()),
        n=len(canvas.labels),
        scan_seconds=scan_seconds,
        crops_seconds=crops_seconds,
    )
    return result, scanned


def _second_call(call):
    call()
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin
