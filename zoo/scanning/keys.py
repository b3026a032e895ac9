"""What images are as text, by which a scan finds what it was made from again."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.pictures import other_files
from zoo.scanning.pixels import Pixels, release

# Says that cells are left out one by one. Version 1 left out whole tiles beside a mask, and no cell at any scale.
RULE = {"cells": "by cell"}


class FilesKey(str):
    """What several files are as text; `version_1`: what that version wrote, which saw their folder or the first."""

    version_1: str


def image_key(image: Any, strip: int = 2**24) -> str:
    """What an image is as text: name, size and time of a file, those of all its files, or a hash of all pixels.

    Args:
        image: a path, or what is read by slices, (H, W, ...), in strips.
        strip: bytes that are read at a time.

    Raises:
        InputError: where a file of it cannot be read.
    """
    if isinstance(image, Pixels):
        image = image.given or image
        image = image.source if image.file is None else image.file
    if isinstance(image, str | Path):
        path = Path(image)
        key = _file_key(path)
        if path.is_dir():
            return _files_key(path, key, _files(path, path, ""))
        others = other_files(path)
        named = [(name, _size_and_time(path, file)) for name, file in others.items()]
        return _files_key(path, key, [(path.name, _size_and_time(path, path)), *named]) if others else key
    digest = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=8)
    rows = max(strip // (int(np.prod(image.shape[1:])) * np.dtype(image.dtype).itemsize), 1)
    for top in range(0, image.shape[0], rows):
        digest.update(np.ascontiguousarray(image[top : top + rows]).data)
        release(image)
    return digest.hexdigest()


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first name of `here` that has another value in `there`, which was stored; None where both are of one scan."""
    for name, value in here.items():
        if there.get(name) not in (value, getattr(value, "version_1", value)):
            return name
    return None


def made_from_at(made_from: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """What the part of one scale is made from, of a scan at several that is made from `made_from`."""
    # Without a mask all cells of every scale are scanned, as version 1 did.
    dropped = RULE if made_from["mask"] is None else {}
    return {**{name: value for name, value in made_from.items() if name not in dropped}, "scale": scale}


def _file_key(path: Path) -> str:
    size, time = _size_and_time(path, path)
    return f"{path.name}, {size} bytes, {time}"


def _files_key(path: Path, version_1: str, files: Iterable[tuple[str, tuple[int, int]]]) -> FilesKey:
    digest, count, size = hashlib.blake2b(digest_size=8), 0, 0
    for name, size_and_time in sorted(files):
        digest.update(json.dumps([name, size_and_time]).encode())
        count, size = count + 1, size + size_and_time[0]
    key = FilesKey(f"{path.name}, {count} files, {size} bytes, {digest.hexdigest()}")
    key.version_1 = version_1
    return key


def _files(image: Path, folder: str | Path, above: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every file below a folder of `image`: its path there, and what it is; links to folders are not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise _unread(image, error) from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(image, entry.path, f"{above}{entry.name}/")
        else:
            # A link that leads nowhere, or to a folder, is what it is itself.
            yield f"{above}{entry.name}", _size_and_time(image, entry.path, os.path.isfile(entry.path))


def _size_and_time(image: Path, file: str | Path, follow: bool = True) -> tuple[int, int]:
    """Size and time of a file of `image`, or of a link itself."""
    try:
        status = os.stat(file, follow_symlinks=follow)
    except OSError as error:
        raise _unread(image, error) from None
    return status.st_size, status.st_mtime_ns


def _unread(image: Path, error: OSError) -> InputError:
    return InputError(f"image {image}: cannot be read ({error.strerror})")
