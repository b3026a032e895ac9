"""A run directory: who may train in it, what a refused or killed run leaves, and what a finished one holds."""

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.config import Config, load_config
from zoo.errors import InputError
from zoo.files import is_trace, replacing, sweep
from zoo.schema import FIRST_FORM
from zoo.training.distribution import Job

# What a run writes before its first checkpoint, as patterns; folders come after what is in them.
_FIRST = (
    *("config.yaml", "environment.json"),
    *("tensorboard/*/events.out.tfevents.*", "tensorboard/*", "tensorboard"),
    *("checkpoints/.*step-*.npz*", "checkpoints"),
)
# The names of all files that a run writes, those of version 1 too.
_FILES = (
    r"(config\.yaml|(environment|evaluation)\.json|model\.keras|history\.csv|step-\d+\.npz"
    r"|(curves|confusion|filters|canvas|canvas_input|scene|scene_input|dense)\.png)"
)
# Keys of evaluation.json that version 1 called otherwise.
_RENAMED = {"scene": "canvas", "scene_accuracy": "canvas_accuracy"}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def held(folder: Path, config: Config, job: Job) -> Iterator[None]:
    """Hold the run directory for this config and this process; where that is refused, all processes end."""
    made = [parent for parent in folder.parents if not parent.exists()]
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
            for parent in made:
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            advice = "what was saved before is kept, and with more room the same command goes on from there"
            raise OSError(error.errno, f"{error.strerror}; {advice}", error.filename) from error


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
    """Make the directory this config's, or check that it already is; one in which nothing was trained is anyone's."""
    path = folder / "config.yaml"
    if path.is_file() and not _began(folder):
        _check_own(path)
    elif path.is_file():
        # Loaded, not only read: a key that is newer than the run has its default in both.
        if difference := first_difference(load_config(path), config):
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
        config = load_config(path)
        if not others and path.read_text(encoding="utf-8") in (config.to_yaml(), config.to_yaml(FIRST_FORM)):
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


def first_difference(before: Config, now: Config) -> str:
    """Where two configs first differ, as `key: old there, new asked for`; empty where they are equal."""
    for key, old, new in differences(before.model_dump(mode="json"), now.model_dump(mode="json")):
        return f"{key}: {old!r} there, {new!r} asked for"
    return ""


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two sections differ: the key, in dots from the top, with both values; None where a key is missing."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            yield from differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield key, before, now


def numbered(folder: Path) -> Path:
    """`folder` itself where it is new, else the first of folder-2, folder-3 and so on that is."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def check_finished(folder: Path) -> None:
    """Check that a training in this directory came to its end.

    Raises:
        InputError: where it did not, or there is none.
    """
    if not (folder / "evaluation.json").is_file():
        raise InputError(f"run directory {str(folder)!r}: not finished; the command that trains it goes on")


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What a finished run reached, by today's keys."""
    return {_RENAMED.get(key, key): value for key, value in read_json(folder / "evaluation.json").items()}


def training_means_of(folder: Path) -> dict[str, float]:
    """The mean count of a training image by class, as a run holds it; of a run before counts, or unfinished, none."""
    if not (folder / "evaluation.json").is_file():
        return {}
    counts = read_evaluation(folder).get("dense", {}).get("counts", {})
    return {name: each["training_mean"] for name, each in counts.items()}


def test_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the test images that a run was made for; None where its files do not say."""
    path = folder / "environment.json"
    return read_json(path).get("test_fingerprint") if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; an InputError that names it where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); without it the command that trains the run goes on") from None
