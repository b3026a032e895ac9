"""What a scan was made from, as text that JSON holds: the model, the image, the mask and the options."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import InputError
from zoo.graph import trace
from zoo.scanning.pixels import Pixels, release

# Says that cells are left out one by one. Version 1 left out whole tiles beside a mask, and no cell at any scale.
RULE = {"cells": "by cell"}


class FolderKey(str):
    """What a folder is as text; `version_1`: what that version wrote, which saw nothing of the files inside."""

    version_1: str


def model_key(fcn: keras.Model) -> str:
    """What a model computes as text: a hash of its layers, their settings and weights, without their names."""
    found = hashlib.blake2b(digest_size=8)
    for step in trace(fcn).steps:
        config = step.layer.get_config() if isinstance(step.layer, keras.Layer) else {}
        settings = {key: value for key, value in config.items() if key != "name"}
        found.update(json.dumps([type(step.layer).__name__, settings], default=str, sort_keys=True).encode())
        for weight in getattr(step.layer, "weights", ()):
            found.update(np.asarray(weight).tobytes())
    return found.hexdigest()


def image_key(image: Any, strip: int = 2**24) -> str:
    """What an image is as text: name, size and time of a file, those of all files of a folder, or a hash of all pixels.

    Args:
        image: a path, or what is read by slices, (H, W, ...), in strips.
        strip: bytes that are read at a time.
    """
    if isinstance(image, Pixels):
        image = image.source if image.file is None else image.file
    if isinstance(image, str | Path):
        return _folder_key(Path(image)) if Path(image).is_dir() else _file_key(Path(image))
    found = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=8)
    rows = max(strip // (int(np.prod(image.shape[1:])) * np.dtype(image.dtype).itemsize), 1)
    for top in range(0, image.shape[0], rows):
        found.update(np.ascontiguousarray(image[top : top + rows]).data)
        release(image)
    return found.hexdigest()


def difference(there: dict, here: dict) -> str | None:
    """The first key of `here` that has another value in `there`, which was stored; None where both are of one scan."""
    for key, value in here.items():
        if there.get(key) not in (value, getattr(value, "version_1", value)):
            return key
    return None


def _file_key(path: Path) -> str:
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None
    return f"{path.name}, {about.st_size} bytes, {about.st_mtime_ns}"


def _folder_key(folder: Path) -> FolderKey:
    found, count, size = hashlib.blake2b(digest_size=8), 0, 0
    for name, about in sorted(_files(folder, "")):
        found.update(json.dumps([name, about]).encode())
        count, size = count + 1, size + about[0]
    key = FolderKey(f"{folder.name}, {count} files, {size} bytes, {found.hexdigest()}")
    key.version_1 = _file_key(folder)
    return key


def _files(folder: Path, above: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every file below a folder: its path there, and (size, time)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(Path(entry.path), f"{above}{entry.name}/")
            else:
                about = entry.stat()
                yield f"{above}{entry.name}", (about.st_size, about.st_mtime_ns)
