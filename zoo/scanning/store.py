"""Scores on disk, written tile by tile, and the journal from which an interrupted scan goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from zoo.errors import InputError
from zoo.files import check_output, replacing
from zoo.graph import trace
from zoo.pictures import release
from zoo.scanning.pixels import Pixels

ENDINGS = (".npy", ".zarr")


class Store:
    """A score map (rows, cols, classes) in a `.npy` file or a `.zarr` folder that is filled tile by tile.

    Until it is whole it lies beside `path` as `<name>.part`, with a journal `<name>.journal`: a line of JSON that says
    what is scanned, and a line for every tile whose scores have reached the disk.
    """

    def __init__(self, path: str | Path):
        """Name the output; nothing is written.

        Raises:
            InputError: for another ending than .npy and .zarr, or where something else is in the way.
        """
        self.path = Path(path)
        if self.path.suffix not in ENDINGS:
            raise InputError(f"output {str(path)!r}: accepted: a name that ends in {' or '.join(ENDINGS)}")
        check_output(self.path, folder=self.path.suffix == ".zarr")
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.journal = self.path.with_name(f"{self.path.name}.journal")
        self.done: set[int] = set()

    def beside(self, name: str) -> "Store":
        """The store of a part of this one's work, beside it."""
        return Store(self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}"))

    def unfinished(self, about: dict) -> int | None:
        """The tile's side of the unfinished scan at this output, whose `done` tiles are read; None if there is none.

        Raises:
            InputError: naming the difference, where that scan is about something else.
        """
        if not (self.journal.is_file() and self.part.exists()):
            return None
        first, *lines = self.journal.read_text().split("\n")
        try:
            there, side = json.loads(first)
        except ValueError:
            return None
        for key in about:
            if there.get(key) != about[key]:
                raise InputError(
                    f"output {str(self.path)!r}: holds an unfinished scan whose {key} is {there.get(key)}, here it is "
                    f"{about[key]}; accepted: the same scan, another output, or this one without {self.journal.name}"
                )
        # The last line is whole only where a line's end follows it.
        self.done = {int(line) for line in lines[:-1]}
        return side

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from this output.

        Raises:
            InputError: where one is at work on it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            with FileLock(lock).acquire(timeout=0):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
        except Timeout:
            raise InputError(f"output {str(self.path)!r}: another process is writing it") from None

    def open(
        self, about: dict, tile: int, shape: tuple[int, int, int], dtype: np.dtype, chunks: tuple[int, int]
    ) -> None:
        """Go on with the unfinished scan at this output, or begin one in tiles of `tile` pixels a side.

        Raises:
            OSError: where the disk has no room.
        """
        if self.unfinished(about) is None:
            self._begin([about, tile], shape, dtype, chunks)
        else:
            # Without the line that was cut short, which the next one would be appended to.
            with replacing(self.journal) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in (json.dumps([about, tile]), *sorted(self.done))))
        if self.path.suffix == ".npy":
            self._at = np.load(self.part, mmap_mode="r").offset
        else:
            import zarr

            self._array = zarr.open_array(self.part, mode="r+")
        self._shape, self.dtype = shape, np.dtype(dtype)

    def _begin(self, first: list, shape: tuple[int, int, int], dtype: np.dtype, chunks: tuple[int, int]) -> None:
        self.done = set()
        self.journal.unlink(missing_ok=True)
        _remove(self.part)
        try:
            if self.path.suffix == ".npy":
                with self.part.open("wb") as file:
                    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
                    np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
                    file.flush()
                    size = file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
                    file.truncate(size)
                    # All the room at once: a full disk is told before the work, not after half of it.
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, size)
            else:
                import zarr

                sides = tuple(min(chunk, side) for chunk, side in zip(chunks, shape, strict=False))
                zarr.create_array(
                    self.part, shape=shape, chunks=(*sides, shape[2]), dtype=dtype, fill_value=float("nan")
                )
        except OSError as error:
            _remove(self.part)
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
        with self.journal.open("w") as file:
            file.write(json.dumps(first) + "\n")
            _to_disk(file)

    def write(self, index: int, cells: tuple[slice, slice], scores: np.ndarray | float) -> None:
        """Write the scores of tile `index`, and then its line of the journal."""
        if self.path.suffix == ".npy":
            self._write_rows(cells, scores)
        else:
            self._array[cells] = scores
        with self.journal.open("a") as file:
            file.write(f"{index}\n")
            _to_disk(file)
        self.done.add(index)

    def _write_rows(self, cells: tuple[slice, slice], scores: np.ndarray | float) -> None:
        """Write to the file, not through a map of it, where a full disk would end the process."""
        rows, columns = cells
        _, width, classes = self._shape
        shape = (rows.stop - rows.start, columns.stop - columns.start, classes)
        values = np.ascontiguousarray(np.broadcast_to(scores, shape), self.dtype)
        with self.part.open("r+b") as file:
            for row, line in enumerate(values, rows.start):
                file.seek(self._at + (row * width + columns.start) * classes * self.dtype.itemsize)
                file.write(line.data)
            _to_disk(file)

    def finish(self) -> Any:
        """Give the whole map its name, and open it to be read: a memory-mapped array, or a Zarr one."""
        if self.path.suffix == ".zarr":
            _remove(self.path)
        os.replace(self.part, self.path)
        self.journal.unlink()
        return self._read(self.path)

    def read(self) -> Any:
        """Open the map as far as it is written, which keeps its temporary name."""
        return self._read(self.part)

    def discard(self) -> None:
        """Remove what was written."""
        self.journal.unlink(missing_ok=True)
        _remove(self.part)

    def _read(self, path: Path) -> Any:
        if self.path.suffix == ".npy":
            return np.load(path, mmap_mode="r")
        import zarr

        return zarr.open_array(path, mode="r")


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
    """What an image is as text: name, size and time of a file, or a hash of all pixels, read in strips.

    Args:
        image: a path, or what is read by slices, (H, W, ...).
        strip: bytes that are read at a time.
    """
    if isinstance(image, Pixels):
        image = image.source if image.file is None else image.file
    if isinstance(image, str | Path):
        about = Path(image).stat()
        return f"{Path(image).name}, {about.st_size} bytes, {about.st_mtime_ns}"
    found = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=8)
    rows = max(strip // (int(np.prod(image.shape[1:])) * np.dtype(image.dtype).itemsize), 1)
    for top in range(0, image.shape[0], rows):
        found.update(np.ascontiguousarray(image[top : top + rows]).data)
        release(image)
    return found.hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
