"""Where a scan keeps its scores: in memory, or on disk with the journal from which an interrupted scan goes on."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from zoo.errors import InputError, Interrupted
from zoo.files import Output, check_not_read, check_output, remove, rename, replacing, writing
from zoo.made_by import MadeBy, maker_of, sign
from zoo.scanning.keys import RULE, difference, made_from_at

ENDINGS = (".npy", ".zarr")
# How the first line of a journal begins.
_FIRST_LINE = '[{"model": '


class InMemory:
    """A score map (rows, cols, classes) in memory, with all that a scan asks of a `Store`."""

    path, made_from = None, None

    def __init__(self) -> None:
        """Make nothing yet."""
        self.done: set[int] = set()

    def at_scale(self, scale: float) -> "InMemory":
        """Another one, for one scale's part of this one's work."""
        return InMemory()

    def unfinished(self) -> None:
        """No scan is ever left unfinished here."""

    def is_whole(self) -> bool:
        """Whether nothing is left to do."""
        return False

    def open(self, tile: int, shape: tuple[int, int, int], dtype: np.dtype, chunks: tuple[int, int]) -> None:
        """Make room."""
        self._scores = np.empty(shape, dtype)

    def write(self, index: int, cells: tuple[slice, slice], scores: np.ndarray | float) -> None:
        """Keep the scores of tile `index`."""
        self._scores[cells] = scores
        self.done.add(index)

    def stopped(self, error: BaseException, tiles: int) -> NoReturn:
        """Raise what stopped a scan: nothing is kept."""
        raise error

    def finish(self) -> np.ndarray:
        """The whole map."""
        return self._scores

    read = finish

    def settle(self) -> None:
        """Nothing is left to do, and nothing to remove."""

    discard = settle


class Store:
    """A score map (rows, cols, classes) in a `.npy` file or a `.zarr` folder that is filled tile by tile.

    Until it is whole it lies beside `path` as `<name>.part`, with a journal `<name>.journal`: a line of JSON that says
    what is scanned, and a line for every tile whose scores have reached the disk.
    """

    def __init__(self, path: str | Path, overwrite: bool = False):
        """Name the output; nothing is written.

        Args:
            path: the file or folder.
            overwrite: replace what is there and is not the same scan's.

        Raises:
            InputError: for another ending than .npy and .zarr, or where something else is in the way.
        """
        self.path, self.overwrite = Path(path), overwrite
        if self.path.suffix not in ENDINGS:
            raise InputError(f"output {str(path)!r}: accepted: a name that ends in {' or '.join(ENDINGS)}")
        check_output(self.path, folder=self._is_folder)
        if self.path.is_symlink():
            # The room for the map is where the link leads to.
            self.path = Path(os.path.realpath(self.path))
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.journal = self.path.with_name(f"{self.path.name}.journal")
        self.done: set[int] = set()
        # What is scanned; see `zoo.scanning.keys`.
        self.made_from: Mapping[str, Any] = {}

    @property
    def _is_folder(self) -> bool:
        return self.path.suffix == ".zarr"

    def at_scale(self, scale: float) -> "Store":
        """The store of one scale's part of this one's work, beside it."""
        store = Store(self.path.with_name(f"{self.path.stem}-{scale:g}{self.path.suffix}"), self.overwrite)
        store.made_from = made_from_at(self.made_from, scale)
        return store

    @property
    def room(self) -> int | None:
        """Bytes that the disk has for scores; None where it is not known: they are compressed, or some are there."""
        if self._is_folder or self.path.exists() or any(self.path.parent.glob(f"{self.path.stem}*.journal")):
            return None
        return shutil.disk_usage(next(each for each in self.path.absolute().parents if each.is_dir())).free

    @contextmanager
    def held(self, made_from: Mapping[str, Any], inputs: Iterable[str | Path]) -> Iterator[None]:
        """Check that this output may be written by a scan of `inputs`, and keep other processes from it.

        Args:
            made_from: what is scanned.
            inputs: the files that it reads.

        Raises:
            InputError: where it is an input, another process is writing it, or what is there is another's.
        """
        self.made_from = made_from
        for each in (self.part, self.journal):
            check_not_read(each, "output", inputs)
        output = Output(self.path, folder=self._is_folder)
        with writing([output], self._made_by, inputs, self.overwrite):
            yield

    @property
    def _made_by(self) -> MadeBy:
        return MadeBy("zoo scan", self.made_from)

    def unfinished(self) -> int | None:
        """The tile's side of the unfinished scan at this output, whose `done` tiles are read; None if there is none.

        A scan whose map has its name, and that has not been settled, is one too. One of version 1 that left out other
        cells (see `zoo.scanning.keys.RULE`) is none.

        Raises:
            InputError: where what is there is no scan's, or that of something else, naming the difference.
        """
        self.done = set()
        if not self.journal.is_file():
            if os.path.lexists(self.part) or os.path.lexists(self.journal):
                self._refuse("holds {} of something else", self.part)
            return None
        first, *lines = self.journal.read_text(encoding="utf-8", errors="replace").split("\n")
        try:
            there, side = json.loads(first)
        except (ValueError, TypeError):
            # Of a scan that was killed while it wrote the first line, or no scan's.
            if not _FIRST_LINE.startswith(first[: len(_FIRST_LINE)]) and not first.startswith(_FIRST_LINE):
                self._refuse("holds {} of something else", self.journal)
            return None
        name = difference(there, self.made_from)
        if name is not None and name not in RULE:
            here = self.made_from[name]
            self._refuse(f"holds an unfinished scan whose {name} is {there.get(name)}, here it is {here}")
        if name is not None or not (self.part.exists() or self.is_whole()):
            return None
        # The last line is whole only where a line's end follows it.
        self.done = {int(line) for line in lines[:-1]}
        return side

    def _refuse(self, what: str, file: Path | None = None) -> None:
        """Refuse to begin where something else is; with leave to overwrite, go on."""
        if not self.overwrite:
            raise InputError(
                f"output {str(self.path)!r}: {what.format(file and file.name)}; accepted: the same scan, another "
                "output, or --overwrite"
            )

    def is_whole(self) -> bool:
        """Whether the map of this scan has its name, and nothing of it is left to do."""
        return not self.part.exists() and self.path.exists() and maker_of(self.path) == self._made_by

    def open(self, tile: int, shape: tuple[int, int, int], dtype: np.dtype, chunks: tuple[int, int]) -> None:
        """Go on with the unfinished scan at this output, or begin one in tiles of `tile` pixels a side.

        A folder's files hold `chunks` cells each, rows and columns.

        Raises:
            OSError: where the disk has no room.
        """
        first = [self.made_from, tile]
        if self.unfinished() is None or not self._fits(shape, dtype):
            self._begin(first, shape, dtype, chunks)
        else:
            # Without the line that was cut short, which the next one would be appended to.
            self._write_journal(first)
        if self._is_folder:
            import zarr

            self._array = zarr.open_array(self._there, mode="r+")
        else:
            self._at = np.load(self._there, mmap_mode="r").offset
        self._shape, self.dtype = shape, np.dtype(dtype)

    @property
    def _there(self) -> Path:
        """Where the map is: under its temporary name, or its own."""
        return self.part if self.part.exists() else self.path

    def _fits(self, shape: tuple[int, int, int], dtype: np.dtype) -> bool:
        """Whether the map that is there is whole, as far as its room goes."""
        try:
            there = self._read(self._there)
        except (OSError, ValueError, KeyError, EOFError):
            return False
        return there.shape == shape and there.dtype == dtype

    def _begin(self, first: list, shape: tuple[int, int, int], dtype: np.dtype, chunks: tuple[int, int]) -> None:
        """Make room for the map; the journal comes first, and says whose the rest is."""
        self.done = set()
        self._write_journal(first)
        remove(self.part)
        try:
            if self._is_folder:
                import zarr

                sides = tuple(min(chunk, side) for chunk, side in zip(chunks, shape, strict=False))
                zarr.create_array(
                    self.part, shape=shape, chunks=(*sides, shape[2]), dtype=dtype, fill_value=float("nan")
                )
                return
            with self.part.open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
                file.flush()
                size = file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
                file.truncate(size)
                # All the room at once: a full disk is reported before the work, not after half of it.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            self.discard()
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error

    def _write_journal(self, first: list) -> None:
        with replacing(self.journal) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in (json.dumps(first), *sorted(self.done)))
            _to_disk(file)

    def write(self, index: int, cells: tuple[slice, slice], scores: np.ndarray | float) -> None:
        """Write the scores of tile `index`, and then its line of the journal."""
        if not self._is_folder:
            self._write_rows(cells, scores)
        else:
            self._array[cells] = scores
        with self.journal.open("a", encoding="utf-8") as file:
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

    def stopped(self, error: BaseException, tiles: int) -> NoReturn:
        """Raise what stopped a scan of so many tiles, with how much is kept."""
        kept = f"{len(self.done)} of {tiles} tiles are kept, and the same scan goes on from there"
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror or error}; {kept}", str(self.path)) from error
        raise Interrupted(f"interrupted; {kept}") from None

    def finish(self) -> Any:
        """Give the whole map its name, and open it to be read: a memory-mapped array, or a Zarr one.

        The journal stays, by which the same scan finds its map as long as it is not settled.
        """
        if self.part.exists():
            sign(self.part, self._made_by)
            rename(self.part, self.path)
        return self._read(self.path)

    def settle(self) -> None:
        """Nothing is left to do: remove the journal."""
        self.journal.unlink(missing_ok=True)

    def read(self) -> Any:
        """Open the map as far as it is written, which keeps its temporary name."""
        return self._read(self._there)

    def discard(self) -> None:
        """Remove what was written."""
        remove(self.part)
        self.settle()

    def _read(self, path: Path) -> Any:
        if not self._is_folder:
            return np.load(path, mmap_mode="r")
        import zarr

        return zarr.open_array(path, mode="r")


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
