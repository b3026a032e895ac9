"""The conductor: one experiment from its config to a run directory with model, numbers and pictures."""

import contextlib
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from PIL import Image

from zoo import data, dense_plots, label_plots, model_files, plots
from zoo.builder import build
from zoo.calibration import Calibration, calibrate_on_images
from zoo.card import PIXEL_TYPES, Card, attach, card
from zoo.classes import normal
from zoo.config import Config
from zoo.config.data import DataConfig
from zoo.config.experiment import CanvasConfig
from zoo.convert.conversion import convert, convolutionalize
from zoo.count_evaluation import CountCalibration, calibrate_counts, evaluate_counts
from zoo.data import Dataset, make_canvas
from zoo.data.faults import noted_since
from zoo.data.form import ImageForm
from zoo.data.splits import RecordedSplit
from zoo.dense_evaluation import calibrate_on_scenes, evaluate_dense
from zoo.environment import describe_environment, timestamp
from zoo.errors import InputError, Interrupted, quoted, refuse
from zoo.evaluation import CanvasEvaluation, evaluate, evaluate_canvas
from zoo.files import replacing, write_json
from zoo.made_by import MadeBy
from zoo.network.network import Network
from zoo.network.positions import pair
from zoo.objects.marked import Scenes
from zoo.pictures import as_pixel
from zoo.progress import aligned, note, say
from zoo.run_directory import check_finished, held, numbered, read_evaluation, read_json
from zoo.scanning.summary import Summary
from zoo.settings import own_settings
from zoo.training import Diverged, joined, start, train
from zoo.training.distribution import Job
from zoo.training.precision import resolve

# Pixel sizes that differ by this factor at most are the same.
_SAME_SIZE = 1.01


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, and what `evaluation.json` holds."""

    folder: Path
    evaluation: dict[str, Any]

    def summary(self) -> str:
        """The outcome and where it lies, in a few lines."""
        result = self.evaluation
        lines = []
        if "accuracy" in result:
            lines.append(f"test accuracy {result['accuracy']:.2%} on {result['n']:,} images, loss {result['loss']:.4f}")
        if counts := self.count_errors():
            shown = ", ".join(f"{name} {error:.2f}" for name, error in counts.items())
            lines.append(f"mean absolute error of the counts in {result['dense']['n_images']:,} whole images: {shown}")
        elif "dense" in result:
            classes = result["dense"]["classes"].items()
            shown = ", ".join(f"{name} {each['f1']:.3f}" for name, each in classes if each["f1"] is not None)
            lines.append(f"F1 of the objects in {result['dense']['n_images']:,} whole images: {shown}")
        if "canvas_accuracy" in result:
            canvas = result["canvas"]
            lines.append(
                f"canvas accuracy {result['canvas_accuracy']:.0%} of {canvas['n']} places "
                f"({canvas['crops_accuracy']:.0%} as crops)"
            )
        pictures = ", ".join(path.name for path in sorted(self.folder.glob("*.png")))
        return "\n".join([*lines, f"run directory: {self.folder}", f"pictures: {pictures}"])

    @property
    def headline(self) -> dict[str, float]:
        """The numbers that several seeds are compared by."""
        result = self.evaluation
        if errors := self.count_errors():
            return {f"mean_absolute_error of {name}": error for name, error in errors.items()}
        return {key: result[key] for key in ("accuracy", "loss", "canvas_accuracy") if key in result}

    def count_errors(self) -> dict[str, float]:
        """Of a counter the mean absolute error of each class's counts; nothing of a classifier."""
        if "accuracy" in self.evaluation:
            return {}
        return {name: each["mean_absolute_error"] for name, each in self.evaluation["dense"]["counts"].items()}


@own_settings()
def run(config: Config, workdir: str | Path | None = None, fresh: bool = False) -> Result | None:
    """Train, evaluate, convert, scan and draw, in one run directory; go on where an unfinished run stopped.

    Args:
        config: the experiment.
        workdir: the run directory; default: runs/<name>-<digest of the config>.
        fresh: train anew in a numbered directory beside it.

    Returns:
        The result; None in all but the first process of a distributed training.

    Raises:
        InputError: for what is no Config, or where the directory holds another config's run, or another process is at
            work in it.
        zoo.errors.Interrupted: after Ctrl-C, with a checkpoint and `model.keras` of the last step.
    """
    if not isinstance(config, Config):
        refuse("config", quoted(config), "a Config, as `load_config` gives it")
    folder = Path(workdir) if workdir is not None else Path("runs") / f"{config.name}-{config.digest}"
    with contextlib.ExitStack() as together:
        job = together.enter_context(joined(config.train.distribute))
        if not job.first:
            if not job.any(False):
                _train(config, folder, job)
            return None
        if fresh:
            folder = numbered(folder)
        with held(folder, config, job):
            if (folder / "evaluation.json").is_file():
                job.any(True)
                result = Result(folder, read_evaluation(folder))
                note("this run is finished (--fresh trains anew)")
                say(result.summary())
                return result
            job.any(False)
            model, dataset, history = _train(config, folder, job)
            together.close()
            if config.train.distribute:
                # Its variables belong to all processes; those of the file to this one.
                model = model_files.load(folder)
            return _finish(model, dataset, history, config, folder)


def _train(config: Config, folder: Path, job: Job) -> tuple[keras.Model, Dataset, list[dict[str, float]]]:
    """Read the data, build and train the model; the first process writes `model.keras`, also where it is stopped."""
    start(config.seed, config.train.deterministic)
    dataset = data.load(config)
    environment = folder / "environment.json"
    before = read_json(environment) if job.first and environment.is_file() else None
    now = {"data_fingerprint": dataset.fingerprint, "test_fingerprint": dataset.test_fingerprint}
    if job.any(before is not None and any(before.get(key, value) != value for key, value in now.items())):
        raise InputError(f"run directory {str(folder)!r}: the data have changed since this run began; use a new one")
    if job.first:
        began = (before or {}).get("began") or timestamp()
        write_json(environment, {**describe_environment(dataset), "began": began})
    model = build(config.model, weights=config.train.weights)
    _describe_data(model, dataset, config)
    if job.first:
        for fault in dataset.faults:
            note(fault)
        held_out = f", {len(dataset.validation):,} for validation" if dataset.validation else ""
        say(
            f"{config.name}: {model.count_params():,} parameters, {len(dataset.train):,} training images{held_out}, "
            f"{len(dataset.test):,} for testing\ndata: {dataset.protocol}\nrun directory: {folder}"
        )
    try:
        history = train(model, dataset, config, folder, job)
    except (Interrupted, Diverged):
        if job.first:
            model_files.save(_without_auxiliary(model), folder / "model.keras")
        raise
    model = _without_auxiliary(model)
    if job.first:
        model_files.save(model, folder / "model.keras")
    return model, dataset, history


def _finish(model: keras.Model, dataset: Dataset, history: list, config: Config, folder: Path) -> Result:
    """Calibrate, evaluate, convert, scan and draw what was trained."""
    counter = dataset.scenes if config.train.target == "count" else None
    calibration = _calibrated(model, dataset, folder)
    evaluation = None if counter else evaluate(model, dataset.test, dataset.class_names)
    # Before any picture: scores that are rounding alone are found here.
    converted = _converted(model) if config.canvas else None
    _draw(model, history, evaluation.confusion if evaluation else None, dataset.class_names, folder)
    parts = [part.images for part in (dataset.train, dataset.validation, dataset.test) if part]
    late = noted_since(*parts)
    for fault in late:
        note(fault)
    report = {
        "config": config.name,
        "seed": config.seed,
        **(evaluation.to_dict() if evaluation else {}),
        "protocol": dataset.protocol,
        "weights": _which_weights(config),
        "epochs": len(history),
        "precision": resolve(config.train.precision),
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "unreadable": {"n": len(dataset.unreadable), "files": list(dataset.unreadable)},
        "faults": [fault.to_dict() for fault in (*dataset.faults, *late)],
    }
    if calibration is not None:
        report["calibration"] = calibration.to_dict()
    if counter is not None:
        counted = evaluate_counts(model, counter)
        dense_plots.counts(counted, folder / "dense.png")
        report["dense"] = counted.to_dict()
    elif dataset.scenes is not None:
        with _left_out("not evaluated on whole images"):
            dense = evaluate_dense(model, dataset.scenes)
            dense_plots.dense(dense, folder / "dense.png")
            report["dense"] = dense.to_dict()
    if converted is not None and config.canvas is not None:
        canvas = _canvas(model, converted, dataset, config, config.canvas, folder)
        report |= {"canvas_accuracy": canvas.accuracy, "canvas": canvas.to_dict()}
    environment = folder / "environment.json"
    write_json(environment, {**read_json(environment), "ended": timestamp()})
    # The last file: where it is there, the run is finished.
    write_json(folder / "evaluation.json", report)
    result = Result(folder, report)
    say(result.summary())
    return result


def _calibrated(model: keras.Model, dataset: Dataset, folder: Path) -> Calibration | CountCalibration | None:
    """Calibrate a model that counts or knows a background, and write it anew; a resumed run begins from its checkpoint.

    None, with the reason said, where nothing is held out for it or a temperature has no place in the model.
    """
    known = card(model)
    if known.background is None and known.target == "class":
        return None
    if dataset.validation is None:
        note("not calibrated: no images are held out for validation")
        return None
    scenes = dataset.scenes
    with _left_out("not calibrated"):
        calibration: Calibration | CountCalibration | None
        if scenes is None:
            calibration = calibrate_on_images(model, dataset)
        elif known.target == "count":
            calibration = calibrate_counts(model, scenes)
        else:
            calibration = calibrate_on_scenes(model, scenes)
        model_files.save(model, folder / "model.keras")
        return calibration
    return None


@contextlib.contextmanager
def _left_out(what: str) -> Iterator[None]:
    """Leave out what cannot be done with a model, and say why.

    Raises:
        Diverged: where its scores are rounding alone.
    """
    try:
        yield
    except Diverged:
        raise
    except InputError as error:
        note(f"{what}: {error}")


def _converted(model: keras.Model) -> keras.Model | None:
    """The model for images of any size; None, with the reason printed, where it is none that can be converted."""
    with _left_out("no canvas"):
        return convolutionalize(model)
    return None


def _which_weights(config: Config) -> str:
    """Which of a training's weights are kept."""
    when = "best on validation" if config.train.patience else "last"
    return f"{when}, averaged" if config.train.ema else when


def _without_auxiliary(model: keras.Model) -> keras.Model:
    """The model with its first output alone; auxiliary heads serve training only."""
    if len(model.outputs) == 1:
        return model
    return attach(keras.Model(model.input, model.outputs[0], name=model.name), card(model))


@own_settings()
def redraw(folder: Path) -> list[Path]:
    """Draw the curves, the confusion and the filters of a finished run from its files.

    Raises:
        InputError: where the run is not finished.
    """
    folder = Path(folder)
    check_finished(folder)
    model = model_files.load(folder)
    report = read_evaluation(folder)
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return _draw(model, history, report.get("confusion"), Network.of(model).class_names, folder)


@own_settings()
def draw_labels(config: Config, path: Path, made_by: MadeBy | None = None) -> None:
    """Draw the labels of grid cells over training images of an experiment, and print what each part has of each class.

    Raises:
        InputError: for an experiment whose data are no scenes, or whose model cannot be slid.
    """
    if config.data.name != "scenes":
        refuse("data.name", config.data.name, "scenes, large images with labelled objects, with --cell-labels")
    if config.train.target == "count":
        refuse("train.target", "count, of which grid cells have numbers and no labels", "class, with --cell-labels")
    network = convert(Network.of(build(config.model))).network
    dataset = data.load(config)
    scenes = dataset.scenes
    if scenes is None:
        raise RuntimeError("scenes were read without their images")
    for fault in dataset.faults:
        note(fault)
    parts = {"training": scenes.train, "validation": scenes.validation, "test": scenes.test}
    rows = [["objects", *parts], ["images", *(f"{len(each):,}" for each in parts.values())]]
    for index, name in enumerate(scenes.class_names):
        counts = [sum(int((scene.objects.classes == index).sum()) for scene in each) for each in parts.values()]
        rows += [] if name == scenes.background else [[name, *(f"{count:,}" for count in counts)]]
    say(aligned(rows))
    geometry = network.geometry()
    label_plots.labels(scenes, pair(geometry.window_sides), pair(geometry.stride), path, made_by)


def _draw(
    model: keras.Model, history: list, counts: list | None, class_names: tuple[str, ...], folder: Path
) -> list[Path]:
    return [
        plots.curves(history, folder / "curves.png"),
        *([plots.confusion(counts, class_names, folder / "confusion.png")] if counts else []),
        *([plots.filters(model, folder / "filters.png")] if plots.first_convolution(model) else []),
    ]


def _describe_data(model: keras.Model, dataset: Dataset, config: Config) -> None:
    """Write what the model is trained on into its card."""
    pixels = np.dtype(dataset.train.images.dtype).name
    trained_on: dict[str, Any] = {
        "class_names": dataset.class_names,
        "dtype": pixels if pixels in PIXEL_TYPES else None,
        **({} if dataset.scenes is None else scale_of(config.data, dataset.scenes)),
        "fill": training_fill(dataset, config),
        "target": config.train.target,
    }
    if dataset.scenes is not None:
        trained_on["background"] = dataset.scenes.background
    elif config.data.background is not None:
        trained_on["background"] = normal(config.data.background)
    attach(model, Card.model_validate({**card(model).model_dump(), **trained_on}))


def scale_of(data: DataConfig, scenes: Scenes) -> dict[str, float | None]:
    """The scale that a model sees labelled images at, and their pixels' size then, as its card holds them.

    The size is known by the config, or where all training images state one and it is the same.
    """
    if data.pixel_size is not None:
        return {"scale": None, "pixel_size": data.pixel_size}
    sizes = [None if each.pixel_size is None else np.divide(each.pixel_size, each.scale) for each in scenes.train]
    known = [size for size in sizes if size is not None]
    same = len(known) == len(sizes) > 0 and np.max(known) <= np.min(known) * _SAME_SIZE
    return {"scale": data.scale or 1.0, "pixel_size": float(np.mean(known)) if same else None}


def training_fill(dataset: Dataset, config: Config) -> tuple[float, ...] | Literal["reflect"] | None:
    """What training puts beyond an image's border; None where it never does."""
    form, train = ImageForm.of(config), dataset.train
    if dataset.scenes is not None:
        return tuple(as_pixel(dataset.scenes.fill, train.images.dtype).tolist())
    if config.train.augment.reflect:
        return "reflect"
    if config.train.augment.shift:
        return form.fill
    padded = not form.resize and isinstance(train, RecordedSplit) and (train.records.sizes < form.size).any()
    return tuple(as_pixel(form.fill, train.images.dtype).tolist()) if padded else None


def _canvas(
    model: keras.Model, converted: keras.Model, dataset: Dataset, config: Config, asked: CanvasConfig, folder: Path
) -> CanvasEvaluation:
    """Try the converted model on a large image made of test images, on the value that preprocessing maps to 0."""
    count = min(asked.count, len(dataset.test))
    chosen = np.random.default_rng(config.seed).choice(len(dataset.test), count, replace=False)
    images, labels = np.asarray(dataset.test.images[chosen]), dataset.test.labels[chosen]
    canvas = make_canvas(images, labels, asked.size, count, config.model.preprocess.mean, config.seed)
    result, score_map = evaluate_canvas(converted, model, canvas, images)
    plots.overlay(Summary(score_map, canvas.image), folder / "canvas.png", canvas)
    if canvas.image.dtype == np.uint8:
        picture = canvas.image if canvas.image.shape[-1] == 3 else canvas.image[..., 0]
        with replacing(folder / "canvas_input.png") as temporary:
            Image.fromarray(picture).save(temporary, format="png")
    return result
