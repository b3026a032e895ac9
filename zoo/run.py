"""The conductor: one experiment from its config to a run directory with model, numbers and pictures."""

import csv
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import yaml
from filelock import FileLock, Timeout
from PIL import Image

from zoo import data, plots, saving
from zoo.build import build
from zoo.config import Config
from zoo.data import Dataset, make_scene
from zoo.dense.convert import convolutionalize
from zoo.errors import InputError, Interrupted
from zoo.evaluate import SceneEvaluation, evaluate, evaluate_scene
from zoo.training import start, train

_PACKAGES = ("bottleneck-zoo", "keras", "tensorflow", "jax", "numpy")


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, and what `evaluation.json` holds."""

    folder: Path
    evaluation: dict[str, Any]

    def summary(self) -> str:
        """The outcome and where it lies, in a few lines."""
        result = self.evaluation
        lines = [f"test accuracy {result['accuracy']:.2%} on {result['n']:,} images, loss {result['loss']:.4f}"]
        if "scene_accuracy" in result:
            scene = result["scene"]
            lines.append(
                f"scene accuracy {result['scene_accuracy']:.0%} of {scene['n']} places "
                f"({scene['crops_accuracy']:.0%} as crops)"
            )
        pictures = ", ".join(path.name for path in sorted(self.folder.glob("*.png")))
        return "\n".join([*lines, f"run directory: {self.folder}", f"pictures: {pictures}"])


def run(config: Config, workdir: str | Path | None = None, fresh: bool = False) -> Result:
    """Train, evaluate, convert, scan and draw, in one run directory; go on where an unfinished run stopped.

    Args:
        config: the experiment.
        workdir: the run directory; default: runs/<name>-<digest of the config>.
        fresh: train anew in a numbered directory beside it.

    Raises:
        InputError: where the directory holds another config's run, or another process is at work in it.
        zoo.errors.Interrupted: after Ctrl-C, with a checkpoint and `model.keras` of the last step.
    """
    folder = Path(workdir) if workdir is not None else Path("runs") / f"{config.name}-{config.digest}"
    if fresh:
        folder = _numbered(folder)
    _claim(folder, config)
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            finished = folder / "evaluation.json"
            if finished.is_file():
                result = Result(folder, json.loads(finished.read_text()))
                print(f"this run is finished (--fresh trains anew)\n{result.summary()}", flush=True)
                return result
            return _experiment(config, folder)
    except Timeout:
        raise InputError(f"run directory {str(folder)!r}: another process is training in it") from None


def _experiment(config: Config, folder: Path) -> Result:
    start(config.seed, config.train.deterministic)
    dataset = data.load(config)
    _write_json(folder / "environment.json", _environment(dataset))
    model = build(config.model, weights=config.train.weights)
    about = saving.card(model).model_copy(update={"class_names": dataset.class_names})
    saving.attach(model, about)
    held_out = f", {len(dataset.validation):,} for validation" if dataset.validation else ""
    print(
        f"{config.name}: {model.count_params():,} parameters, {len(dataset.train):,} training images{held_out}\n"
        f"run directory: {folder}",
        flush=True,
    )
    try:
        history = train(model, dataset, config, folder)
    except Interrupted:
        saving.save(model, folder / "model.keras")
        raise
    saving.save(model, folder / "model.keras")

    evaluation = evaluate(model, dataset.test, dataset.class_names)
    _draw(model, history, evaluation.confusion, dataset.class_names, folder)
    report = {
        "config": config.name,
        "seed": config.seed,
        **evaluation.to_dict(),
        "protocol": dataset.protocol,
        "weights": "last",
        "epochs": len(history),
        "data_fingerprint": dataset.fingerprint,
    }
    scene = _scene(model, dataset, config, folder)
    report |= {"scene_accuracy": scene.accuracy, "scene": scene.to_dict()}
    # The last file: its presence says that the run is finished.
    _write_json(folder / "evaluation.json", report)
    result = Result(folder, report)
    print(result.summary(), flush=True)
    return result


def redraw(folder: Path) -> list[Path]:
    """Draw the curves, the confusion and the filters of a finished run from its files.

    Raises:
        InputError: where the run is not finished.
    """
    folder = Path(folder)
    if not (folder / "evaluation.json").is_file():
        raise InputError(f"run directory {str(folder)!r}: not finished; the command that trains it goes on")
    model = saving.load(folder)
    report = json.loads((folder / "evaluation.json").read_text())
    with (folder / "history.csv").open(newline="") as file:
        history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return _draw(model, history, report["confusion"], saving.class_names(model), folder)


def _draw(model: keras.Model, history: list, counts: list, class_names: tuple[str, ...], folder: Path) -> list[Path]:
    return [
        plots.curves(history, folder / "curves.png"),
        plots.confusion(counts, class_names, folder / "confusion.png"),
        plots.filters(model, folder / "filters.png"),
    ]


def _scene(model: keras.Model, dataset: Dataset, config: Config, folder: Path) -> SceneEvaluation:
    """Convert the head, and try it on a large image made of test images, on the value that preprocessing maps to 0."""
    converted = convolutionalize(model)
    count = min(config.scene.count, len(dataset.test))
    chosen = np.random.default_rng(config.seed).choice(len(dataset.test), count, replace=False)
    images, labels = np.asarray(dataset.test.images[chosen]), dataset.test.labels[chosen]
    scene = make_scene(images, labels, config.scene.size, count, config.model.preprocess.mean, config.seed)
    result, score_map = evaluate_scene(converted, model, scene, images)
    plots.overlay(score_map, scene.image, folder / "scene.png", scene=scene)
    if scene.image.dtype == np.uint8:
        picture = scene.image if scene.image.shape[-1] == 3 else scene.image[..., 0]
        with saving.replacing(folder / "scene_input.png") as temporary:
            Image.fromarray(picture).save(temporary, format="png")
    return result


def _claim(folder: Path, config: Config) -> None:
    """Make the directory this config's, or see that it already is."""
    path = folder / "config.yaml"
    if path.is_file():
        before = yaml.safe_load(path.read_text())
        difference = _first_difference(before, config.model_dump(mode="json"))
        if difference:
            raise InputError(f"run directory {str(folder)!r}: holds another config's run: {difference}")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"run directory {str(folder)!r}: is not empty and no run; accepted: a new or empty directory")
    with saving.replacing(path) as temporary:
        temporary.write_text(config.to_yaml())


def _first_difference(before: Any, now: Any, key: str = "") -> str:
    """Where two configs first differ, as `key: old there, new asked for`; empty where they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            found = _first_difference(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return ""
    return "" if before == now else f"{key}: {before!r} there, {now!r} asked for"


def _numbered(folder: Path) -> Path:
    """`folder` itself where it is new, else the first of folder-2, folder-3 and so on that is."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _environment(dataset: Dataset) -> dict[str, Any]:
    """What the run ran on."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "backend": keras.backend.backend(),
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with saving.replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
