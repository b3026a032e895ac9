"""A picture: upright, with the channels that are wanted, read region by region."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError, refuse
from zoo.pictures import tiff, whole, zarrs
from zoo.pictures.arrays import MAGIC, check_finite, open_npy
from zoo.pictures.decoding import MOST_PIXELS, broken, decoders
from zoo.pictures.fitting import to_channels
from zoo.pictures.stored import CACHE, Stored
from zoo.pictures.wanted import Choice, Wanted, choose

# Samples of a picture that is read whole.
_MOST_SAMPLES = 2**32
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")
# Orientation of EXIF and TIFF: whether rows and columns change places, and then which of them are counted backwards.
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class Picture:
    """A picture (H, W, C) in a file: `picture[rows, columns]` reads the pixels of two slices, (h, w, C).

    `shape` is (H, W, C) as it is seen, `dtype` the type of the samples: uint8, uint16 or float32. `colour`: "grey",
    "rgb" or "bands", of the channels other than alpha; `alpha`: which channel is alpha, `multiplied`: whether the
    colours are multiplied by it; both only where alpha is kept. `pixel_size`: the distance of rows and of columns in
    micrometres, None where the file does not state it. `levels`: (H, W) of each level of its pyramid.
    """

    def __init__(self, path: Path, stored: Stored, wanted: Wanted, choice: Choice, cache: float):
        """Show `stored` as it is wanted.

        Raises:
            InputError: where its channels or samples are others.
        """
        self.path, self.name = path, f"image {path}"
        self._stored, self._wanted, self._choice, self._cache = stored, wanted, choice, cache
        self._turned, self._upwards, self._leftwards = _UPRIGHT[stored.orientation]
        self._notes = dict.fromkeys(stored.notes)
        self._size = (stored.shape[1], stored.shape[0]) if self._turned else stored.shape[:2]
        count, self.dtype = stored.shape[2], stored.dtype
        self.colour, self.alpha, self.multiplied = stored.colour, stored.alpha, stored.multiplied
        keeps_alpha = wanted.alpha or wanted.channels == count
        if self.alpha is not None and wanted.channels == count:
            self._notes[f"its alpha is taken as channel {self.alpha + 1} of {count}"] = None
        self._dropped = None if keeps_alpha else self.alpha
        if self._dropped is not None:
            count, self.alpha = count - 1, None
        self._check(count)
        self.shape = (*self._size, wanted.channels or count)

    def _check(self, count: int) -> None:
        wanted = self._wanted
        if wanted.channels is not None:
            if count == 4 and wanted.channels == 3:
                refuse(self.name, "4 channels, of which none is tagged as alpha", "3 (model.channels)")
            to_channels(np.zeros((1, 1, count), np.uint8), wanted.channels, self.name)
            if count == 1 and wanted.channels == 3:
                self._notes["is grey, repeated as red, green and blue"] = None
            if count == 3 == wanted.channels and self.colour == "bands":
                self._notes["its three channels are not tagged as colours, and are taken in their order"] = None
        if wanted.mask and count not in (1, 3):
            refuse(self.name, f"a mask of {count} channels", "1 or 3, and tagged alpha")
        if wanted.dtype is not None and self.dtype != wanted.dtype:
            refuse(self.name, f"{self.dtype} samples", f"{wanted.dtype}, as the model was trained")

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was read so far, a line each; what each is about is not in it."""
        return tuple(self._notes)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """The distance of rows and of columns in micrometres, None where the file does not state it."""
        size = self._stored.pixel_size
        return size[::-1] if size is not None and self._turned else size

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level of the picture's pyramid, the full one first."""
        return tuple(size[::-1] if self._turned else size for size in self._stored.levels)

    def at_level(self, level: int) -> AbstractContextManager["Picture"]:
        """Open another level of the same pyramid.

        Raises:
            InputError: where there is none of that number.
        """
        choice = replace(self._choice, level=choose(self.name, "level", level, len(self.levels)))
        return open_picture(self.path, self._wanted, choice, self._cache)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read the pixels of a region, (h, w, C).

        Raises:
            InputError: where the file is broken there, or has colours and grey is wanted.
        """
        rows, columns = (slice(*part.indices(side)) for part, side in zip(region, self.shape, strict=False))
        if rows.step != 1 or columns.step != 1:
            refuse(self.name, f"a region with steps {rows.step}, {columns.step}", "1")
        rows, columns = (slice(part.start, max(part.start, part.stop)) for part in (rows, columns))
        backwards = (
            _backwards(rows, self._size[0]) if self._upwards else rows,
            _backwards(columns, self._size[1]) if self._leftwards else columns,
        )
        with decoders(), broken(self.name):
            pixels = self._stored.read(*(backwards[::-1] if self._turned else backwards))
        pixels = pixels.swapaxes(0, 1) if self._turned else pixels
        pixels = pixels[:: -1 if self._upwards else 1, :: -1 if self._leftwards else 1]
        if self._dropped is not None:
            self._see_alpha(pixels[..., self._dropped])
            pixels = np.delete(pixels, self._dropped, axis=-1)
        if self._wanted.channels is not None:
            pixels = to_channels(pixels, self._wanted.channels, self.name)
        return np.ascontiguousarray(pixels)

    def _see_alpha(self, alpha: np.ndarray) -> None:
        opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        if (alpha != opaque).any():
            more = ", and its colours are stored multiplied by it" if self.multiplied else ""
            self._notes[f"its alpha is left out, which is not opaque everywhere{more}"] = None


def _backwards(part: slice, side: int) -> slice:
    return slice(side - part.stop, side - part.start)


@contextmanager
def open_picture(
    path: str | Path,
    wanted: Wanted = Wanted(),  # noqa: B008 - frozen
    choice: Choice = Choice(),  # noqa: B008 - frozen
    cache: float = CACHE,
    most: float = MOST_PIXELS,
) -> Iterator[Picture]:
    """Open a picture for reading by regions; its format is known by the content.

    TIFF and BigTIFF of strips or tiles, .npy files, and Zarr arrays are read where a region lies, and nowhere else;
    PNG, JPEG and BMP files whole. Pixels are what the file's own tags say: upright, in RGB or grey or as bands,
    palettes as RGB, 1-bit images as 0 and 255, floats as float32. Alpha is what is tagged as such, and dropped where
    the channels that are wanted do not include it.

    Args:
        path: the file, or the folder of a Zarr array or group.
        wanted: the channels and the type of samples.
        choice: which image of the file.
        cache: bytes of decoded strips, tiles or chunks kept, and the most that one of them may have; infinite: one of
            any size, or those that the default keeps.
        most: pixels of a file that is read whole; more is taken for a decompression bomb.

    Raises:
        InputError: where the file is missing, broken, of another format, samples or channels, too large to be read
            whole, or has parts larger than the cache; then it names the command that converts it.
    """
    path = Path(path)
    name = f"image {path}"
    with ExitStack() as stack:
        with decoders(), broken(name):
            kind = _kind(path)
            if kind == "zarr":
                stored = zarrs.open_zarr(path, wanted, choice, cache)
            elif kind == "tiff":
                stored = tiff.open_tiff(path, wanted, choice, cache, stack)
            elif kind == "npy":
                stored = open_npy(path, wanted, choice)
            else:
                stored = whole.open_whole(path, wanted, choice, most)
        yield Picture(path, stored, wanted, choice, cache)


def read_picture(
    path: str | Path,
    wanted: Wanted = Wanted(),  # noqa: B008 - frozen
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a picture whole: its pixels (H, W, C), and what the user should know about them.

    Raises:
        InputError: see `open_picture`; where it is too large, or has values that are not finite.
    """
    with open_picture(path, wanted, choice, math.inf) as picture:
        return read_whole(picture, picture.name), picture.notes


def read_whole(picture: Any, name: str) -> np.ndarray:
    """All pixels (H, W, C) of what is read by slices.

    Raises:
        InputError: beginning with `name`, where it is too large, or has values that are not finite.
    """
    if math.prod(picture.shape) > _MOST_SAMPLES:
        size = " x ".join(map(str, picture.shape))
        refuse(name, f"{size} samples", f"up to {_MOST_SAMPLES:,} where it is read whole")
    return check_finite(picture[:, :], name)


def read_image(path: str | Path, channels: int | None = None) -> np.ndarray:
    """Read a picture whole, (H, W, C), with `channels` if they are given; see `read_picture`."""
    return read_picture(path, Wanted(channels))[0]


def stored_form(path: str | Path) -> tuple[np.dtype, tuple[int, int]]:
    """The type of a file's samples, and its (height, width), from its header.

    Raises:
        InputError: see `open_picture`.
    """
    path = Path(path)
    with broken(f"image {path}"):
        if _kind(path) == "other":
            return whole.header(path)
    with open_picture(path) as picture:
        return picture.dtype, picture.shape[:2]


def is_picture(path: Path) -> bool:
    """Whether a file, or a folder, is of a format that is read, by its content or else its ending.

    One that has the ending alone, or cannot be read, is refused when it is opened, and not passed over.
    """
    try:
        if path.is_dir():
            return any((path / each).is_file() for each in zarrs.METADATA)
        if path.exists() and not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(18)
    except OSError:
        return True
    known = start.startswith((*tiff.MAGIC, MAGIC)) or whole.is_whole(start)
    return known or path.suffix.lower() in _ENDINGS


def _kind(path: Path) -> str:
    try:
        if path.is_dir():
            return "zarr"
        if path.exists() and not path.is_file():
            refuse(f"image {path}", "a device or pipe", "a file")
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None
    if start.startswith(MAGIC):
        return "npy"
    return "tiff" if start.startswith(tiff.MAGIC) else "other"
