"""Large images in files: those of a folder, and their pixels at the scale that a model sees."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from zoo.config.data import DataConfig
from zoo.config.sources import SOURCES
from zoo.data.faults import Fault, fault, unreadable_refusal
from zoo.data.splits import IN_MEMORY
from zoo.errors import InputError, listing, quoted, refuse
from zoo.objects.marked import Pair
from zoo.pictures import Wanted, at_size, check_finite, decoders, list_pictures, open_picture, scaled_size, stored_form
from zoo.pictures.scale import scale_to
from zoo.progress import track

_THREADS = 4
# Bytes of a file, and rows of an image, that are read at a time.
_PIECE, _BAND = 2**20, 1024
Size = tuple[int, int]


class ScaledPixels:
    """The pixels (h, w, C) of an image file at another size, read by slices: `pixels[rows, columns]`.

    Samples are of the file's type, rounded where that is of whole numbers. The file is opened for each reading.
    """

    def __init__(self, path: Path, channels: int, size: Size, dtype: np.dtype):
        """Scale the image in `path`, brought to `channels`, to `size` (height, width)."""
        self.path, self.dtype, self.shape = path, dtype, (*size, channels)
        # What was noted of the image so far, and the size of its pixels that the file states, once it was opened.
        self.notes: set[str] = set()
        self.pixel_size: Pair | None = None

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read a region, (h, w, C).

        Raises:
            InputError: see `zoo.pictures.open_picture`.
        """
        (pixels,) = self.read([region])
        return pixels

    def read(self, regions: Sequence[tuple[slice, slice]]) -> Iterator[np.ndarray]:
        """Read several regions, for which the file is opened once.

        Raises:
            InputError: see `zoo.pictures.open_picture`.
        """
        with open_picture(self.path, Wanted(self.shape[2])) as picture:
            with at_size(picture, self.shape[:2]) as pixels:
                for region in regions:
                    yield self._as_stored(pixels[region])
            self.notes.update(picture.notes)
            self.pixel_size = picture.pixel_size

    def bands(self) -> list[tuple[slice, slice]]:
        """The regions that together are all of it."""
        height, width = self.shape[:2]
        return [np.s_[top : min(top + _BAND, height), 0:width] for top in range(0, height, _BAND)]

    def whole(self) -> np.ndarray:
        """Read all of it, (h, w, C).

        Raises:
            InputError: see `zoo.pictures.open_picture`.
        """
        pixels, bands = np.empty(self.shape, self.dtype), self.bands()
        for band, read in zip(bands, self.read(bands), strict=True):
            pixels[band] = read
        return pixels

    def _as_stored(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype == self.dtype:
            return check_finite(pixels, f"image {self.path}")
        return np.rint(pixels).astype(self.dtype)


@dataclass(frozen=True)
class SceneFile:
    """An image file of a folder, opened.

    `name`: its path below the folder. `digest`: the SHA-256 of its content. `image_size`: (height, width) as it is;
    `pixels`: at the scale that a model sees, an array where all images of the set fit the memory. `scale` and
    `pixel_size`: see `zoo.objects.marked.Scene`. `notes`: what the reader noted.
    """

    name: str
    digest: str
    image_size: Size
    pixels: np.ndarray | ScaledPixels
    scale: Pair
    pixel_size: Pair | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Header:
    """What is known of an image before its pixels are read: `made` is its (height, width) at the wanted scale."""

    name: str
    path: Path
    dtype: np.dtype
    size: Size
    made: Size
    pixel_size: Pair | None


@dataclass(frozen=True)
class _Problem:
    """An image file that cannot be read, and why."""

    name: str
    text: str


def image_names(folder: Path, labels: Path) -> tuple[list[str], list[Fault]]:
    """The images below a folder, by their paths below it, and faults about what is left out.

    Images below the folder of the labels, where that is another, are masks, and none of them.

    Raises:
        InputError: where it is no folder, cannot be read, or holds no image.
    """
    if not folder.is_dir():
        refuse("data.dir", quoted(str(folder)), SOURCES["scenes"].dir)
    names: list[str] = []
    left_out: list[str] = []
    hidden: list[str] = []
    folders = [folder]
    while folders:
        listed = list_pictures(folders.pop())
        names += [path.relative_to(folder).as_posix() for path in listed.pictures]
        hidden += [path.relative_to(folder).as_posix() for path in listed.hidden]
        for path in listed.left_out:
            if path.resolve() == labels.resolve():
                continue
            if path.is_dir():
                folders.append(path)
            elif path.suffix.lower() not in (".xml", ".csv", ".json", ".geojson"):
                left_out.append(path.relative_to(folder).as_posix())
    if not names:
        refuse("data.dir", f"{quoted(str(folder))}, which holds no image", SOURCES["scenes"].dir)
    return sorted(names), [
        *fault("left out", "hidden items", "are left out", hidden),
        *fault("left out", "files", "are left out, being no images", left_out),
    ]


def open_files(
    data: DataConfig, names: Sequence[str], channels: int, window: Size, pixel_size: float | None = None
) -> tuple[list[SceneFile], tuple[str, ...]]:
    """Open images at the scale that `data` asks for, in the order of their content's hashes; and those left out.

    Args:
        data: the data section.
        names: paths below `data.dir`.
        channels: how many a model takes.
        window: (height, width) of what a model sees of them.
        pixel_size: that of a trained model's pixels in micrometres, where it is known: an image that states its own is
            brought to it whatever `data` says, as in a scan.

    Raises:
        InputError: naming the images that cannot be read, where `data.unreadable` does not leave them out; that state
            no pixel size, where `data.pixel_size` asks for it, or one too far from it; that are of several types of
            samples, or smaller than the window at their scale.
    """
    folder, skip = data.given_dir(), data.unreadable == "skip"
    headers, problems = _together(
        partial(_header, folder, data, data.pixel_size or pixel_size), names, "reading image files"
    )
    _refuse_unless(problems, skip)
    _check(headers, data, window)
    held = sum(math.prod(each.made) * channels * each.dtype.itemsize for each in headers) <= IN_MEMORY
    files, more = _together(partial(_opened, channels=channels, held=held, whole=skip), headers, "decoding images")
    problems += more
    _refuse_unless(problems, skip)
    if not files:
        refuse("data.dir", f"{quoted(str(folder))}, of which no image can be read", SOURCES["scenes"].dir)
    skipped = tuple(sorted(each.name for each in problems))
    return sorted(files, key=lambda each: (each.digest, each.name)), skipped


def _together(use, items: Sequence, text: str) -> tuple[list, list[_Problem]]:
    """What `use` makes of each item, several at a time, and what cannot be read."""
    with decoders(), ThreadPoolExecutor(_THREADS) as pool:
        results = list(track(pool.map(use, items), text, len(items)))
    problems = [each for each in results if isinstance(each, _Problem)]
    return [each for each in results if not isinstance(each, _Problem)], problems


def _refuse_unless(problems: Sequence[_Problem], skip: bool) -> None:
    if problems and not skip:
        raise unreadable_refusal(problems[0].text, [each.name for each in problems[1:]])


def _header(folder: Path, data: DataConfig, pixel_size: float | None, name: str) -> _Header | _Problem:
    path = folder / name
    try:
        if pixel_size is None:
            (dtype, size), stated = stored_form(path), None
        else:
            with open_picture(path) as picture:
                dtype, size, stated = picture.dtype, picture.shape[:2], picture.pixel_size
    except InputError as error:
        return _Problem(name, str(error))
    scale: float | Pair = data.scale or 1.0
    if pixel_size is not None and stated is not None:
        scale = scale_to(stated, pixel_size, f"image {name}")
    return _Header(name, path, dtype, size, scaled_size(size, scale), stated)


def _check(headers: Sequence[_Header], data: DataConfig, window: Size) -> None:
    """Check that images state what is asked for, are of one type of samples, and hold a window."""
    if data.pixel_size is not None and (without := [each.name for each in headers if each.pixel_size is None]):
        received = f"{data.pixel_size:g}, of which {len(without):,} of {len(headers):,} files state no pixel size"
        refuse("data.pixel_size", f"{received} ({listing(without, 3)})", "data.scale in its place")
    for each in headers:
        if each.dtype != headers[0].dtype:
            received = f"{each.dtype} samples, but {headers[0].name} {headers[0].dtype}"
            refuse(f"image {each.path}", received, "one type for all")
    small = [each for each in headers if any(np.less(each.made, window))]
    if small:
        height, width = small[0].made
        scaled = "" if small[0].made == small[0].size else f" at its scale of {height / small[0].size[0]:.3g}"
        more = f", like {listing([each.name for each in small[1:]], 3)}" if len(small) > 1 else ""
        refuse(
            f"image {small[0].name}",
            f"{height} x {width} pixels{scaled}{more}",
            f"at least the model's window, {window[0]} x {window[1]} (model.image_size)",
        )


def _opened(header: _Header, channels: int, held: bool, whole: bool) -> SceneFile | _Problem:
    """Open an image: its pixels in an array where all are `held`; with `whole`, it is decoded in any case."""
    scaled = ScaledPixels(header.path, channels, header.made, header.dtype)
    pixels: np.ndarray | ScaledPixels = scaled
    try:
        with _readable(header.path):
            digest = _content_digest(header.path)
        if held:
            pixels = scaled.whole()
        else:
            for _ in scaled.read(scaled.bands() if whole else [np.s_[:1, :1]]):
                pass
    except InputError as error:
        return _Problem(header.name, str(error))
    scale = (header.made[0] / header.size[0], header.made[1] / header.size[1])
    return SceneFile(header.name, digest, header.size, pixels, scale, scaled.pixel_size, tuple(sorted(scaled.notes)))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None


def _content_digest(path: Path) -> str:
    """The SHA-256 of a file, or of the files of a folder, whose names count."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file():
            with each.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            content.update(f"{each.relative_to(path).as_posix()} {digest}\n".encode())
    return content.hexdigest()
