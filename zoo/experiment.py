"""The conductor: one experiment from its config to a run directory with model, numbers and pictures."""

import contextlib
import csv
import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from zoo import data, model_files, plots
from zoo.builder import build
from zoo.card import PIXEL_TYPES, Card, attach, card
from zoo.config import Config, load_config
from zoo.convert.conversion import convolutionalize
from zoo.data import Dataset, make_scene
from zoo.data.faults import noted_since
from zoo.environment import describe_environment
from zoo.errors import InputError, Interrupted
from zoo.evaluation import SceneEvaluation, evaluate, evaluate_scene
from zoo.files import is_trace, replacing, sweep, write_json
from zoo.network.network import Network
from zoo.progress import say
from zoo.scanning.summary import Summary
from zoo.settings import own_settings
from zoo.training import Diverged, joined, start, train
from zoo.training.distribution import Job
from zoo.training.precision import resolve

# What a run writes before its first checkpoint, as patterns; folders come after what is in them.
_FIRST = (
    *("config.yaml", "environment.json"),
    *("tensorboard/*/events.out.tfevents.*", "tensorboard/*", "tensorboard"),
    *("checkpoints/.*step-*.npz*", "checkpoints"),
)
# The names of all files that a run writes.
_FILES = (
    r"(config\.yaml|(environment|evaluation)\.json|model\.keras|history\.csv|step-\d+\.npz"
    r"|(curves|confusion|filters|scene|scene_input)\.png)"
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        InputError: where the directory holds another config's run, or another process is at work in it.
        zoo.errors.Interrupted: after Ctrl-C, with a checkpoint and `model.keras` of the last step.
    """
    folder = Path(workdir) if workdir is not None else Path("runs") / f"{config.name}-{config.digest}"
    with contextlib.ExitStack() as together:
        job = together.enter_context(joined(config.train.distribute))
        if not job.first:
            if not job.any(False):
                _train(config, folder, job)
            return None
        if fresh:
            folder = numbered(folder)
        with _held(folder, config, job):
            if (folder / "evaluation.json").is_file():
                job.any(True)
                result = Result(folder, _read_json(folder / "evaluation.json"))
                say(f"this run is finished (--fresh trains anew)\n{result.summary()}")
                return result
            job.any(False)
            model, dataset, history = _train(config, folder, job)
            together.close()
            if config.train.distribute:
                # Its variables belong to all processes; those of the file to this one.
                model = model_files.load(folder)
            return _finish(model, dataset, history, config, folder)


@contextlib.contextmanager
def _held(folder: Path, config: Config, job: Job) -> Iterator[None]:
    """Hold the run directory for this config and this process; the other processes hear where that is refused."""
    with contextlib.ExitStack() as held:
        try:
            _prepare(folder)
            held.enter_context(FileLock(folder / ".lock").acquire(timeout=0))
            _claim(folder, config)
        except Timeout:
            job.any(True)
            raise InputError(f"run directory {str(folder)!r}: another process is training in it") from None
        except (InputError, OSError):
            job.any(True)
            raise
        for place in (folder, folder / "checkpoints"):
            sweep(place, _FILES)
        try:
            yield
        except InputError:
            _withdraw(folder)
            raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            advice = "what was saved before is kept, and with more room the same command goes on from there"
            raise OSError(error.errno, f"{error.strerror}; {advice}", error.filename) from error


def _train(config: Config, folder: Path, job: Job) -> tuple[keras.Model, Dataset, list[dict[str, float]]]:
    """Read the data, build and train the model; the first process writes `model.keras`, also where it is stopped."""
    start(config.seed, config.train.deterministic)
    dataset = data.load(config)
    environment = folder / "environment.json"
    if job.any(job.first and environment.is_file() and _fingerprint(environment) != dataset.fingerprint):
        raise InputError(f"run directory {str(folder)!r}: the data have changed since this run began; use a new one")
    if job.first:
        write_json(environment, describe_environment(dataset))
    model = build(config.model, weights=config.train.weights)
    _describe_data(model, dataset)
    if job.first:
        for fault in dataset.faults:
            say(fault)
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
    """Evaluate, convert, scan and draw what was trained."""
    evaluation = evaluate(model, dataset.test, dataset.class_names)
    _draw(model, history, evaluation.confusion, dataset.class_names, folder)
    parts = [part.images for part in (dataset.train, dataset.validation, dataset.test) if part]
    late = noted_since(*parts)
    for fault in late:
        say(fault)
    report = {
        "config": config.name,
        "seed": config.seed,
        **evaluation.to_dict(),
        "protocol": dataset.protocol,
        "weights": _which_weights(config),
        "epochs": len(history),
        "precision": resolve(config.train.precision),
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "unreadable": {"n": len(dataset.unreadable), "files": list(dataset.unreadable)},
        "faults": [fault.to_dict() for fault in (*dataset.faults, *late)],
    }
    if config.scene:
        try:
            converted = convolutionalize(model)
        except InputError as error:
            say(f"no scene: {error}")
        else:
            scene = _scene(model, converted, dataset, config, folder)
            report |= {"scene_accuracy": scene.accuracy, "scene": scene.to_dict()}
    # The last file: its presence says that the run is finished.
    write_json(folder / "evaluation.json", report)
    result = Result(folder, report)
    say(result.summary())
    return result


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
    if not (folder / "evaluation.json").is_file():
        raise InputError(f"run directory {str(folder)!r}: not finished; the command that trains it goes on")
    model = model_files.load(folder)
    report = _read_json(folder / "evaluation.json")
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return _draw(model, history, report["confusion"], Network.of(model).class_names, folder)


def _draw(model: keras.Model, history: list, counts: list, class_names: tuple[str, ...], folder: Path) -> list[Path]:
    return [
        plots.curves(history, folder / "curves.png"),
        plots.confusion(counts, class_names, folder / "confusion.png"),
        *([plots.filters(model, folder / "filters.png")] if plots.first_convolution(model) else []),
    ]


def _describe_data(model: keras.Model, dataset: Dataset) -> None:
    """Write what the model is trained on into its card."""
    known = np.dtype(dataset.train.images.dtype).name
    about = {"class_names": dataset.class_names, "dtype": known if known in PIXEL_TYPES else None}
    attach(model, Card.model_validate({**card(model).model_dump(), **about}))


def _scene(
    model: keras.Model, converted: keras.Model, dataset: Dataset, config: Config, folder: Path
) -> SceneEvaluation:
    """Try the converted model on a large image made of test images, on the value that preprocessing maps to 0."""
    count = min(config.scene.count, len(dataset.test))
    chosen = np.random.default_rng(config.seed).choice(len(dataset.test), count, replace=False)
    images, labels = np.asarray(dataset.test.images[chosen]), dataset.test.labels[chosen]
    scene = make_scene(images, labels, config.scene.size, count, config.model.preprocess.mean, config.seed)
    result, score_map = evaluate_scene(converted, model, scene, images)
    plots.overlay(Summary(score_map, scene.image), folder / "scene.png", scene)
    if scene.image.dtype == np.uint8:
        picture = scene.image if scene.image.shape[-1] == 3 else scene.image[..., 0]
        with replacing(folder / "scene_input.png") as temporary:
            Image.fromarray(picture).save(temporary, format="png")
    return result


def _prepare(folder: Path) -> None:
    """Make the directory, unless it holds something that is no run."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run directory {str(folder)!r}: is a file; accepted: a new or empty directory")
    if folder.is_dir() and not (folder / "config.yaml").is_file() and not all(map(_is_trace, folder.iterdir())):
        raise InputError(f"run directory {str(folder)!r}: is not empty and no run; accepted: a new or empty directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"run directory {str(folder)!r}: a part of its path is a file") from None


def _claim(folder: Path, config: Config) -> None:
    """Make the directory this config's, or see that it already is; one in which nothing was trained is anyone's."""
    path = folder / "config.yaml"
    if path.is_file() and not _began(folder):
        _check_own(path)
    elif path.is_file():
        # Loaded, not only read: a key that is newer than the run has its default in both.
        difference = first_difference(*(each.model_dump(mode="json") for each in (load_config(path), config)))
        if difference:
            raise InputError(f"run directory {str(folder)!r}: holds another config's run: {difference}")
        return
    _remove_first(folder)
    with replacing(path) as temporary:
        temporary.write_text(config.to_yaml(), encoding="utf-8")


def _is_trace(path: Path) -> bool:
    """Whether a file is what a killed run left, or the lock of a run directory."""
    return path.name == ".lock" or is_trace(path, _FILES)


def _check_own(path: Path) -> None:
    """Check that the config of a run that did not begin is one that a run wrote, and alone: else it is a user's."""
    known = {each for pattern in _FIRST for each in path.parent.glob(pattern)}
    others = [each for each in path.parent.rglob("*") if each not in known and not _is_trace(each)]
    with contextlib.suppress(InputError):
        if not others and load_config(path).to_yaml() == path.read_text(encoding="utf-8"):
            return
    raise InputError(f"run directory {str(path.parent)!r}: holds files that are no run's; accepted: a new directory")


def _remove_first(folder: Path) -> None:
    """Remove what a run wrote before its first checkpoint, and no file of anybody else's beside it."""
    for pattern in _FIRST:
        for path in folder.glob(pattern):
            if not path.is_dir():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()


def _began(folder: Path) -> bool:
    return any(folder.glob("checkpoints/step-*.npz")) or (folder / "evaluation.json").is_file()


def _withdraw(folder: Path) -> None:
    """Leave nothing of a run that was refused before it began."""
    if not _began(folder):
        _remove_first(folder)
        (folder / ".lock").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def first_difference(before: Any, now: Any, key: str = "") -> str:
    """Where two configs first differ, as `key: old there, new asked for`; empty where they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            found = first_difference(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return ""
    return "" if before == now else f"{key}: {before!r} there, {now!r} asked for"


def numbered(folder: Path) -> Path:
    """`folder` itself where it is new, else the first of folder-2, folder-3 and so on that is."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _fingerprint(environment: Path) -> str | None:
    return _read_json(environment).get("data_fingerprint")


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; an InputError that names it where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); without it the command that trains the run goes on") from None
