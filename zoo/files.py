"""The one writer: what is checked before work, temporary names and renames, what killed writers left, JSON."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import InputError


def check_output(path: str | Path, what: str = "output", ending: str = "", folder: bool = False) -> Path:
    """See, before any work, that a file (or a `folder` of files) can be written at `path`, and return it.

    Raises:
        InputError: beginning with `what`, for another ending, or where something of the other kind is in the way.
    """
    path = Path(path)
    if not path.name.endswith(ending):
        raise InputError(f"{what} {str(path)!r}: accepted: a name that ends in {ending}")
    if path.exists() and path.is_dir() != folder:
        received, accepted = ("a file", "a folder") if folder else ("a folder", "the path of a file")
        raise InputError(f"{what} {str(path)!r}: is {received}; accepted: {accepted}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{what} {str(path)!r}: {str(above)!r} is a file; accepted: a folder to write into")
    return path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it at the end; after an error neither is touched nor left over.

    Raises:
        InputError: where `path` is a folder, or lies below a file.
        OSError: naming `path`, where it cannot be written.
    """
    path = check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary):
            raise
        # Writers of arrays and archives name the temporary file, or none at all.
        cause = error.strerror or " ".join(str(error).split())
        raise OSError(error.errno or errno.EIO, cause, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove from `folder` what writers that were killed left there."""
    for temporary in folder.glob(".[0-9]*-*"):
        temporary.unlink()


def write_json(path: str | Path, content: Any) -> Path:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Path(path)
