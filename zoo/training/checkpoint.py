"""Checkpoints that hold all of a training's state: weights, optimizer, metrics, random states, step and history.

One .npz file a checkpoint, written to a temporary name and renamed; the newest two are kept, and a damaged newest
falls back to the one before.
"""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from zoo.archives import read_arrays
from zoo.errors import InputError
from zoo.files import replacing
from zoo.training.distribution import ALONE, Job

_KEPT = 2


@dataclass
class Progress:
    """How far a training is: `step` batches done, the logs of each finished epoch, and the best weights so far.

    `best` holds the model's weights of the epoch with the lowest validation loss, where the recipe asks for them.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)


def _state(trainer: keras.Model) -> dict[str, list[keras.Variable]]:
    metrics = trainer.metrics_variables
    known = {id(variable) for variable in metrics}
    return {
        # With the random layers' seed states, which `weights` leaves out.
        "model": [variable for variable in trainer.variables if id(variable) not in known],
        "optimizer": list(trainer.optimizer.variables),
        "metrics": list(metrics),
    }


def save(folder: Path, trainer: keras.Model, progress: Progress) -> Path:
    """Write the state of `trainer` as `step-N.npz`, then remove all but the newest two."""
    arrays = {
        f"{part}/{index}": keras.ops.convert_to_numpy(variable)
        for part, variables in _state(trainer).items()
        for index, variable in enumerate(variables)
    }
    arrays |= {f"best/{index}": value for index, value in enumerate(progress.best)}
    record = json.dumps({"step": progress.step, "history": progress.history})
    path = folder / f"step-{progress.step:09d}.npz"
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.array(record), **arrays)
    for old in _newest_first(folder)[_KEPT:]:
        old.unlink()
    return path


def restore(folder: Path, trainer: keras.Model, job: Job = ALONE) -> tuple[Progress, list[np.ndarray]] | None:
    """Put the newest readable checkpoint into `trainer`; None where there is none.

    Returns the progress and the values of the metrics, which Keras resets when an epoch begins. Of several processes
    the first one reads, and the others receive all but the history and the best weights.
    """
    state = _state(trainer)
    shapes = {f"{part}/{index}": tuple(each.shape) for part in state for index, each in enumerate(state[part])}
    newest = _read(folder, shapes) if job.first else None
    exists, step = job.from_first(np.array([newest is not None, newest[0].step if newest else 0])).tolist()
    if not exists:
        return None
    progress, arrays = newest or (Progress(step), {})
    values = {
        name: arrays[name] if job.first else keras.ops.convert_to_numpy(variable)
        for part, variables in state.items()
        for name, variable in ((f"{part}/{index}", variable) for index, variable in enumerate(variables))
    }
    values = job.from_first(values)
    for part in ("model", "optimizer"):
        for index, variable in enumerate(state[part]):
            variable.assign(values[f"{part}/{index}"])
    return progress, [values[f"metrics/{index}"] for index in range(len(state["metrics"]))]


def _read(folder: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[Progress, dict[str, np.ndarray]] | None:
    """The newest checkpoint that can be read and holds arrays of these names and shapes."""
    for path in _newest_first(folder):
        try:
            arrays = read_arrays(path, f"checkpoint {path}")
            record = json.loads(str(arrays.pop("about")))
            progress = Progress(int(record["step"]), list(record["history"]))
            for name, shape in shapes.items():
                if arrays[name].shape != shape:
                    raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
        except (InputError, KeyError, TypeError, ValueError) as error:
            warnings.warn(f"checkpoint {path} is damaged and passed over ({error})", stacklevel=2)
            continue
        progress.best = [arrays[name] for name in sorted(arrays, key=_number) if name.startswith("best/")]
        return progress, arrays
    return None


def _number(name: str) -> int:
    """The number at the end of an array's name."""
    return int(name.rpartition("/")[2])


def restore_metrics(trainer: keras.Model, values: list[np.ndarray]) -> None:
    """Set the running metrics of an epoch that goes on."""
    for variable, value in zip(trainer.metrics_variables, values, strict=True):
        variable.assign(value)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.npz"), reverse=True)
