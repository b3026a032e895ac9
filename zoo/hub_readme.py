"""The README of a finished run for a model hub: metadata that the hub reads, and what a user has to know.

Every figure is one of the run's own files; what these do not say, the README does not say. The hub calls such a README
a model card (Mitchell et al. 2019, arXiv:1810.03993); `zoo.card` is what travels inside a model's file.
"""

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from zoo import model_files
from zoo.config import Config, load_config
from zoo.config.sources import TFDS
from zoo.environment import machine
from zoo.errors import InputError, listing
from zoo.network.network import Network
from zoo.run_directory import check_finished, read_evaluation, read_json
from zoo.shipped import DataSource, index

_RATES = ("precision", "recall", "f1", "average_precision")


@dataclass(frozen=True)
class FinishedRun:
    """What the files of a run say: its config, `evaluation.json`, `environment.json`, and the model as a network."""

    config: Config
    report: dict[str, Any]
    environment: dict[str, Any]
    network: Network

    @classmethod
    def read(cls, run: Path) -> "FinishedRun":
        """Read them.

        Raises:
            InputError: where the run is not finished, or a file of it cannot be read.
        """
        check_finished(run)
        network = Network.of(model_files.load(run))
        return cls(load_config(run / "config.yaml"), read_evaluation(run), read_json(run / "environment.json"), network)

    @property
    def data_name(self) -> str:
        """The data set's name; of a user's own data that of their folder or file."""
        data = self.config.data
        return data.dir.name if data.source.dir and data.dir is not None else data.name

    @property
    def source(self) -> DataSource | None:
        """Where published data come from, as far as that is known."""
        return index().data.get(self.config.data.name)

    @property
    def is_published(self) -> bool:
        """Whether others have the same data under the same name."""
        return self.source is not None or self.config.data.source is TFDS

    @property
    def counts(self) -> bool:
        """Whether the model counts objects, instead of naming classes."""
        return self.network.card.target == "count"

    @property
    def size(self) -> str:
        """The sides of the images that it was trained on, in words."""
        return " × ".join(map(str, self.network.training_size or ()))

    @property
    def time(self) -> str:
        """How long it took, with its interruptions, in words."""
        began, ended = (self.environment.get(key) for key in ("began", "ended"))
        if began is None or ended is None:
            return "not recorded"
        seconds = (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)).total_seconds()
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"

    @cached_property
    def calibration(self) -> dict[str, Any] | None:
        """What a temperature was found on, and what it made of the test part; None where there is none."""
        found = self.report.get("calibration")
        return found if found and "temperature" in found else None


@dataclass(frozen=True)
class Metric:
    """A result as the hub's metadata have it: the metric's identifier, its name for people, and the value."""

    type: str
    name: str
    value: float


def metrics(run: FinishedRun) -> dict[str, list[Metric]]:
    """The results of a run on its test part, by the hub's name of the task."""
    report, dense = run.report, run.report.get("dense", {})
    single, found = [], []
    if "accuracy" in report:
        single += [Metric("accuracy", "Accuracy", report["accuracy"]), Metric("loss", "Cross-entropy", report["loss"])]
    error = report.get("expected_calibration_error")
    if error is None and run.calibration is not None:
        error = run.calibration["after"]["expected_calibration_error"]
    if error is not None:
        single.append(Metric("expected_calibration_error", "Expected calibration error", error))
    for name, each in dense.get("classes", {}).items():
        if each["f1"] is not None:
            found.append(Metric("f1", f"F1 of {name}", each["f1"]))
    for name, each in dense.get("counts", {}).items():
        found.append(Metric("mean_absolute_error", f"Error of the count of {name}", each["mean_absolute_error"]))
    return {task: each for task, each in (("image-classification", single), ("object-detection", found)) if each}


def metadata(run: FinishedRun, licence: str | None) -> dict[str, Any]:
    """The YAML at the README's head, as the hub reads it."""
    dataset = {"type": run.config.data.name, "name": run.data_name, "split": "test"}
    tasks = metrics(run)
    results = [
        {
            "task": {"type": task},
            "dataset": dict(dataset),
            "metrics": [{"type": each.type, "value": each.value, "name": each.name} for each in found],
        }
        for task, found in tasks.items()
    ]
    return {
        **({} if licence is None else {"license": licence}),
        "library_name": "keras",
        "pipeline_tag": next(iter(tasks), "image-classification"),
        "tags": ["keras", "bottleneck-zoo", run.config.model.family, "fully-convolutional"],
        **({"datasets": [run.config.data.name]} if run.is_published else {}),
        "metrics": list(dict.fromkeys(each.type for found in tasks.values() for each in found)),
        "model-index": [{"name": run.config.name, "results": results}],
    }


def readme_text(run: FinishedRun, licence: str | None) -> str:
    """The README, as Markdown; `licence` is that of the weights, None where none is stated."""
    head = yaml.safe_dump(metadata(run, licence), sort_keys=False, allow_unicode=True, width=1000)
    sections = {
        "Use": _use(run),
        "Results": _results(run),
        "Data": _data(run),
        "Training": _training(run),
        "Limits": _limits(run),
        "Licence": "No licence of the weights is stated." if licence is None else f"The weights: {licence}.",
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    return f"---\n{head}---\n\n# {_plain(run.config.name)}\n\n{_summary(run)}\n\n{text}\n"


def _plain(text: object) -> str:
    r"""Text of a user's as Markdown shows it, letter by letter: `\*` for `*`."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", str(text))


def _table(rows: Iterable[Sequence[object]]) -> str:
    """Rows, the titles first, as a Markdown table."""
    titles, *others = rows
    lines = [titles, ["---"] * len(titles), *others]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _summary(run: FinishedRun) -> str:
    known, model = run.network.card, run.network.model
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    names = listing([*map(_plain, known.class_names)], 20)
    channels = "1 channel" if run.network.channels == 1 else f"{run.network.channels} channels"
    what = "The numbers of objects in windows" if run.counts else "The classes of images"
    return (
        f"{what} of {run.size} pixels with {channels}: {names}. A convolutional net of the family "
        f"{_plain(run.config.model.family)} with {trainable:,} trainable parameters, made by the bottleneck zoo of "
        f"layers of Keras alone. It takes raw samples ({known.dtype or 'numbers'}); preprocessing is inside it."
    )


def _use(run: FinishedRun) -> str:
    commands = ["zoo scan FOLDER large.tif -o scanned", "zoo export FOLDER -o exported --format saved_model"]
    if not run.counts:
        commands.insert(0, "zoo predict FOLDER image.png")
    shown = "\n".join(f"    {command}" for command in commands)
    gives = "numbers of objects" if run.counts else "logits"
    return (
        f"`FOLDER` is where these files are:\n\n{shown}\n\n`zoo.load(FOLDER)` gives the model with its classes. "
        '`keras.saving.load_model("model.keras")` loads it with Keras alone: (batch, height, width, channels) to '
        f"{gives}."
    )


def _results(run: FinishedRun) -> str:
    report, dense, parts = run.report, run.report.get("dense", {}), []
    if "accuracy" in report:
        error = report.get("expected_calibration_error")
        reliability = "not measured" if error is None else f"{error:.2%} (15 bins; Guo et al. 2017, section 3.1)"
        images = "crops of test images" if "dense" in report else "test images"
        parts.append(
            f"On {report['n']:,} {images}: accuracy {report['accuracy']:.2%}, cross-entropy {report['loss']:.4f} nats, "
            f"expected calibration error {reliability}."
        )
        rows = [("class", images, "accuracy")]
        for (name, share), row in zip(report["per_class_accuracy"].items(), report["confusion"], strict=True):
            rows.append((_plain(name), f"{sum(row):,}", "none" if share is None else f"{share:.2%}"))
        parts.append(_table(rows))
    if run.calibration is not None:
        of, n, n_test = (run.calibration[key] for key in ("of", "n", "n_test"))
        before, after = (run.calibration[key]["expected_calibration_error"] for key in ("before", "after"))
        parts.append(
            f"Its probabilities were calibrated on {n:,} {of} of the validation part, by the temperature "
            f"{run.calibration['temperature']:.3f}: expected calibration error {before:.2%} before, {after:.2%} after, "
            f"on {n_test:,} of the test part."
        )
    if dense.get("classes"):
        parts.append(f"Objects in {dense['n_images']:,} whole test images, with 95 % intervals over images:")
        titles = ("class", "objects", *(rate.replace("_", " ").replace("f1", "F1") for rate in _RATES))
        parts.append(_table([titles, *(_found(name, each) for name, each in dense["classes"].items())]))
    if dense.get("counts"):
        parts.append(f"Counts of objects in {dense['n_images']:,} whole test images:")
        titles = ("class", "mean absolute error", "bias")
        errors = [(each["mean_absolute_error"], each["bias"]) for each in dense["counts"].values()]
        shown = [(f"{error:.2f}", f"{bias:+.2f}") for error, bias in errors]
        parts.append(
            _table([titles, *((_plain(name), *each) for name, each in zip(dense["counts"], shown, strict=True))])
        )
    return "\n\n".join(parts)


def _found(name: str, scores: dict[str, Any]) -> list[str]:
    """A row of how well a class's objects are found."""
    row = [_plain(name), f"{scores['n']:,}"]
    for rate in _RATES:
        value, bounds = scores[rate], scores["intervals"][rate]
        interval = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
        row.append("none" if value is None else f"{value:.3f}{interval}")
    return row


def _data(run: FinishedRun) -> str:
    source, report = run.source, run.report
    about = f"{_plain(run.data_name)}, the user's own. Their licence is not stated."
    if run.is_published:
        about = f"`{run.config.data.name}` of tensorflow-datasets, where its licence is to be found."
    if source is not None:
        about = f"`{run.config.data.name}`: {source.title}, {source.url}. Licence of the data: {source.licence}."
    faults = "; ".join(_plain(each["text"]) for each in report.get("faults", ()))
    found = f" Faults that were found in them, and left as they are: {faults}." if faults else ""
    prints = f"`{report['data_fingerprint']}`, of the test part `{report['test_fingerprint']}`"
    protocol = _plain(report["protocol"])
    return f"{about} {protocol[:1].upper()}{protocol[1:]}.{found}\n\nFingerprint (SHA-256): {prints}."


def _training(run: FinishedRun) -> str:
    report, environment = run.report, run.environment
    rows = [
        ("what", "value"),
        ("config", "`config.yaml`"),
        ("seed", report["seed"]),
        ("epochs", report["epochs"]),
        ("weights kept", report["weights"]),
        ("computed in", report["precision"]),
        ("hardware", _plain(machine(environment))),
        ("time", run.time),
        ("ended", environment.get("ended", "not recorded")),
        ("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
    ]
    return f"{_table(rows)}\n\n`zoo train config.yaml` trains it again where the data are at hand."


def _limits(run: FinishedRun) -> str:
    known = run.network.card
    lines = [f"An answer is for a window of {run.size} pixels.", _seen_at(run), *_slid(run)]
    if known.background is not None:
        lines.append(
            f"The class {_plain(known.background)} stands for nothing: a scan ends with the objects of the others, "
            "peaks of their probabilities above thresholds that were found on validation images."
        )
    if run.counts:
        lines.append("A scan's map adds up to the number of objects; that in a part of the image is an estimate.")
    else:
        lines.append("It answers with one of its classes whatever an image shows.")
    return "\n".join(f"- {line}" for line in lines)


def _seen_at(run: FinishedRun) -> str:
    """The scale that images are seen at."""
    known = run.network.card
    if known.scale is not None:
        size = "" if known.pixel_size is None else f", {known.pixel_size:g} µm a pixel"
        return f"Images are scaled by {known.scale:g} first{size}; it was trained on objects of their size alone."
    if known.pixel_size is not None:
        return f"Images are brought to {known.pixel_size:g} µm a pixel; one that states no pixel size is refused."
    return "Images are taken as they are; it was trained on things of the training images' size alone."


def _slid(run: FinishedRun) -> list[str]:
    """What a scan of a larger image means."""
    try:
        shape = run.network.geometry(run.network.training_size)
    except InputError as error:
        return [f"It cannot be slid over a larger image: {_plain(error)}."]
    if math.inf in shape.window or not shape.bounded:
        return ["A block in it pools over the whole image, so that a scan's answers are not those to crops."]
    stride = " × ".join(map(str, shape.stride))
    lines = [f"A scan gives an answer every {stride} pixels, each for the window about it."]
    if shape.padding_free:
        return [*lines, "It has no padding: each grid cell of a scan is exactly the answer to its crop."]
    lines.append(
        "It pads: at the border of a crop it sees zeros where a larger image has pixels, so its map is not its crops' "
        "answers. `zoo convert FOLDER -o fcn.keras --image IMAGE` measures on your images how often both agree."
    )
    if "agreement" in (canvas := run.report.get("canvas", {})):
        lines.append(
            f"On a canvas of {canvas['n']:,} pasted test images the nearest grid cell answered as the classifier did "
            f"on the image itself at {canvas['agreement']:.0%} of the places."
        )
    return lines
