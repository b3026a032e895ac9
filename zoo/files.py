"""The one writer: what is checked before work, temporary names and renames, what killed writers left, JSON.

The rule for what is there already: an output names the command that made it, and from which inputs; the same command on
the same inputs may replace it; anything else needs leave to overwrite, which is never leave to write over what the
command reads.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.errors import InputError
from zoo.made_by import MadeBy, can_be_signed, json_text, key_of, maker_of, sign

_SPECIAL = {
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
}


def check_output(path: str | Path, what: str = "output", ending: str = "", folder: bool = False) -> Path:
    """Check, before any work, that a file (or a `folder` of files) can be written at `path`, and return it.

    Raises:
        InputError: beginning with `what`, for another ending, or where something of the other kind is in the way: a
            folder for a file, a device, a pipe or a socket.
    """
    path = Path(path)
    if not path.name.endswith(ending):
        raise InputError(f"{what} {str(path)!r}: accepted: a name that ends in {ending}")
    try:
        if path.exists():
            _check_kind(path, what, folder)
        target = _target(path)
        if target.is_symlink():
            raise InputError(f"{what} {str(path)!r}: is a link that leads back to itself; accepted: the path of a file")
        above = next(parent for parent in target.parents if parent.exists())
    except OSError as error:
        raise InputError(f"{what} {_shown(path)}: {error.strerror}; accepted: a path that can be written") from None
    if not above.is_dir():
        raise InputError(f"{what} {str(path)!r}: {str(above)!r} is a file; accepted: a folder to write into")
    return path


def _check_kind(path: Path, what: str, folder: bool) -> None:
    mode = path.stat().st_mode
    for is_kind, name in _SPECIAL.items():
        if is_kind(mode):
            raise InputError(f"{what} {str(path)!r}: is {name}; accepted: the path of a file")
    if path.is_dir() != folder:
        received, accepted = ("a file", "a folder") if folder else ("a folder", "the path of a file")
        raise InputError(f"{what} {str(path)!r}: is {received}; accepted: {accepted}")


def _shown(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


def _target(path: Path) -> Path:
    """What a path leads to: a symbolic link stays, and the file that it names is written."""
    return Path(os.path.realpath(path))


@dataclass(frozen=True)
class Output:
    """A file or a folder that a command writes; `what` names it in errors.

    `owner`: the file whose maker answers for this one, which has no room for its own (the .bin beside an .xml).
    `equal`: a file without room for a maker, which may be replaced by its equal (see `check_equal`). `maker`: what made
    it before, where that is not known by the command's own record.
    """

    path: Path
    what: str = "output"
    ending: str = ""
    folder: bool = False
    owner: Path | None = None
    equal: bool = False
    maker: MadeBy | None = None


def check_outputs(outputs: Iterable[Output]) -> None:
    """Check that files can be written where they are to be, before anything is known of their origin.

    Raises:
        InputError: see `check_output`.
    """
    for each in outputs:
        check_output(each.path, each.what, each.ending, each.folder)


@contextlib.contextmanager
def writing(
    outputs: Iterable[Output], made_by: MadeBy, inputs: Iterable[str | Path] = (), overwrite: bool = False
) -> Iterator[None]:
    """Check a command's outputs before its work, and keep other processes from them until it is done.

    Args:
        outputs: what it will write.
        made_by: the command and what it reads; what it made before may be replaced.
        inputs: the files and folders that it reads, which are never written over, nor into.
        overwrite: replace other files too.

    Raises:
        InputError: naming the output, where it cannot be written, is an input, is not this command's and may not be
            overwritten, or where another process is writing it.
        OSError: naming the output, where its folder cannot be written.
    """
    outputs, inputs = list(outputs), [Path(each) for each in inputs]
    check_outputs(outputs)
    for each in outputs:
        check_not_read(each.path, each.what, inputs)
    with contextlib.ExitStack() as held:
        for each in outputs:
            held.enter_context(_alone(each.path, each.what))
            # Nobody else writes it from here on.
            if not overwrite and os.path.lexists(_target(each.path)):
                _check_own(each, each.maker or made_by)
        yield


def check_not_read(path: Path, what: str, inputs: Iterable[str | Path]) -> None:
    """Check that an output is none of the inputs, lies in none of them, and holds none of them.

    Raises:
        InputError: naming both.
    """
    target = _target(path)
    for each in inputs:
        read = _target(Path(each))
        same = target == read or (target.exists() and read.exists() and target.samefile(read))
        if same or read in target.parents or target in read.parents:
            raise InputError(f"{what} {str(path)!r}: is read by this command ({each}); accepted: another path")


def _check_own(output: Output, made_by: MadeBy) -> None:
    """Check that what is there was made by this command from these inputs."""
    target = _target(output.path)
    if output.equal and not can_be_signed(target):
        return
    maker = maker_of(output.owner if output.owner is not None else target)
    if maker == made_by and (output.owner is None or maker.beside.get(target.name) == key_of(target)):
        return
    if maker is None or output.owner is not None:
        there = "is there already, and was not made by this command"
    elif maker.command != made_by.command:
        there = f"is there already, made by `{maker.command}`"
    else:
        changed = [name for name in made_by.inputs if maker.inputs.get(name) != made_by.inputs[name]]
        there = f"is there already, made from another {changed[0] if changed else 'input'}"
    raise InputError(f"{output.what} {str(output.path)!r}: {there}; accepted: another path, or --overwrite")


def check_equal(path: str | Path, text: str, overwrite: bool = False, what: str = "output") -> None:
    """Check that a file which has no room for its maker holds nothing else than what is to be written there.

    Raises:
        InputError: where it holds something else, and may not be overwritten.
    """
    path = Path(path)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        there = "is there already, and holds something else than this command writes"
        raise InputError(f"{what} {str(path)!r}: {there}; accepted: another path, or --overwrite")


@contextlib.contextmanager
def _alone(path: Path, what: str = "output") -> Iterator[None]:
    """Keep other processes from `path`, and remove what killed ones left there; re-entered freely in one thread."""
    target = _target(path)
    made = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=0, is_singleton=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if not Path(lock.lock_file).exists():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None
        raise InputError(f"{what} {str(path)!r}: another process is writing it; accepted: another path") from None
    except OSError as error:
        _remove_empty(made)
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    try:
        if lock.lock_counter == 1:
            _clear(target)
        yield
    finally:
        if lock.lock_counter == 1:
            # While it is held: who waits for it finds the file gone, and makes a new one.
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for an output which was not written, the innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def replacing(path: str | Path, made_by: MadeBy | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it at the end; after an error neither is touched nor left over.

    What is written there may be a file or a folder; a folder takes the place of one. A symbolic link stays, and what it
    leads to is replaced.

    Args:
        path: what to replace.
        made_by: what made it, written into it.

    Raises:
        InputError: where `path` is a folder and a file was written, lies below a file, or another process writes it.
        OSError: naming `path`, where it cannot be written.
    """
    path = Path(path)
    check_output(path, folder=path.is_dir())
    with _alone(path):
        target = _target(path)
        temporary = _temporary(target)
        try:
            yield temporary
            if made_by is not None:
                sign(temporary, made_by)
            check_output(path, folder=temporary.is_dir())
            rename(temporary, target)
        except OSError as error:
            if error.filename not in (None, str(temporary), temporary):
                raise
            # Writers of arrays and archives name the temporary file, or none at all.
            cause = error.strerror or " ".join(str(error).split())
            raise OSError(error.errno or errno.EIO, cause, str(path)) from error
        finally:
            remove(temporary)


@contextlib.contextmanager
def replacing_all(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` for a writer of several files: each takes its name beside `path` at the end.

    `path` itself comes last, so that it is there only where the others are. See `replacing` for the errors.
    """
    path = Path(path)
    with replacing(path) as temporary:
        working = temporary.with_name(f"{temporary.name}-all")
        try:
            working.mkdir()
            yield working
            parts = [part for part in working.iterdir() if part.name != path.name]
            if parts and path.exists():
                # Never beside the parts of another.
                remove(_target(path))
            for part in parts:
                rename(part, _target(path.with_name(part.name)))
            (working / path.name).rename(temporary)
        finally:
            remove(working)


def rename(temporary: Path, target: Path) -> None:
    """Rename, also a folder over one that is not empty, which is kept aside until the new one is there."""
    if not (temporary.is_dir() and target.is_dir()):
        os.replace(temporary, target)
        return
    aside = _temporary(target, "old-")
    try:
        os.replace(target, aside)
        os.replace(temporary, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary(target: Path, kind: str = "") -> Path:
    """A name beside `target` for what is written, or set aside, by this process; it keeps the ending."""
    return target.with_name(f".{os.getpid()}.zoo-{kind}{target.name}")


def _temporaries(names: str) -> str:
    """A regular expression for the temporary names of files of these `names`, by any process."""
    return rf"\.\d+\.zoo-(old-)?({names})(-all)?"


def _clear(target: Path) -> None:
    """Remove what killed writers left of `target`, which is held; what one set aside takes its place again."""
    for left in target.parent.glob(".*"):
        if not re.fullmatch(_temporaries(re.escape(target.name)), left.name):
            continue
        if ".zoo-old-" in left.name and not os.path.lexists(target):
            os.replace(left, target)
        else:
            remove(left)


def is_trace(path: Path, names: str) -> bool:
    """Whether a file is a temporary one or a lock of this module, of version 1 too, which only a killed writer leaves.

    `names`: a regular expression for the names of what is written there.
    """
    return re.fullmatch(rf"{_temporaries(names)}|\.\d+-({names})|\.({names})\.lock", path.name) is not None


def sweep(folder: Path, names: str) -> None:
    """Remove from `folder` what killed writers left of files of these `names`, which this process holds alone."""
    for left in folder.glob(".*"):
        if is_trace(left, names):
            remove(left)


def write_json(path: str | Path, content: Any, made_by: MadeBy | None = None) -> Path:
    """Write a JSON file, whole or not at all."""
    with replacing(path, made_by) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")
    return Path(path)
