"""Images that are read region by region, so that their file may be larger than memory."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import InputError
from zoo.files import check_output, replacing
from zoo.images import any_size, check_array, check_tiff, quiet, read_image, tiff_pixels, to_channels
from zoo.progress import track

if TYPE_CHECKING:
    import tifffile

# Bytes of decoded strips, tiles or chunks that an open image keeps: three rows of tiles 1,024 pixels high across an
# image of 30,000 pixels in RGB. A file with larger parts would decode one of them anew for every region.
CACHE = 256 * 2**20

_TILE = 512

_Read = Callable[[slice, slice], np.ndarray]


class Raster:
    """An image (H, W, C) in a file: `raster[rows, columns]` reads the pixels of two slices, (h, w, C).

    `shape` is (H, W, C), `dtype` the type of its samples: uint8, uint16, or float32 from arrays.
    """

    def __init__(self, name: str, shape: tuple[int, int, int], dtype: np.dtype, read: _Read, channels: int | None):
        """Read by `read`, as images of `shape`; then brought to `channels` (see `zoo.images.to_channels`)."""
        if channels is not None:
            to_channels(np.zeros((1, 1, shape[2]), np.uint8), channels, name)
        self.shape = shape if channels is None else (*shape[:2], channels)
        self.dtype = np.dtype(dtype)
        self._name, self._read = name, read

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Read the pixels of a region, (h, w, C).

        Raises:
            InputError: where the file is broken there, or has colours and grey is wanted.
        """
        rows, columns = (slice(*part.indices(side)) for part, side in zip(region, self.shape, strict=False))
        if rows.step != 1 or columns.step != 1:
            raise InputError(f"{self._name}: received a region with steps {rows.step}, {columns.step}; accepted: 1")
        with _broken(self._name):
            pixels = self._read(rows, columns)
        return to_channels(pixels, self.shape[2], self._name)


@contextmanager
def open_raster(
    path: str | Path, channels: int | None = None, page: int = 0, level: int = 0, cache: float = CACHE
) -> Iterator[Raster]:
    """Open an image file for reading by regions, known by its content.

    TIFF and BigTIFF of strips or tiles, .npy files, and Zarr arrays are read where a region lies, and nowhere else;
    PNG, JPEG and BMP files whole, within Pillow's limit for decompression bombs. Pixels are those of
    `zoo.images.read_image`.

    Args:
        path: the file, or the folder of a Zarr array or group.
        channels: the channels wanted (see `zoo.images.to_channels`); None takes them as they are.
        page: which image of a TIFF with several, counted through the file.
        level: which level of a pyramid: TIFF's (SubIFDs, or reduced pages) or the multiscales of a Zarr group;
            0 is the full image.
        cache: bytes of decoded strips, tiles or chunks kept, and the most that one of them may have; infinite: one of
            any size, or those that the default keeps.

    Raises:
        InputError: where the file is missing, broken, of another format, samples or channels, too large to be read
            whole, or has parts larger than the cache; then it names the command that converts it.
    """
    path = Path(path)
    name = f"image {path}"
    with ExitStack() as stack:
        with _broken(name), quiet():
            if path.is_dir():
                shape, dtype, read = _open_zarr(path, page, level, cache)
            elif (kind := _kind(path)) == "TIFF":
                shape, dtype, read = _open_tiff(path, page, level, cache, stack)
            else:
                _choose(name, "page", page, 1)
                _choose(name, "level", level, 1)
                shape, dtype, read = _open_npy(path) if kind == "npy" else _whole(read_image(path))
        yield Raster(name, shape, dtype, read, channels)


def write_tiled(path: str | Path, output: str | Path, page: int = 0, level: int = 0, progress: bool = False) -> Path:
    """Write an image of any size as a tiled BigTIFF (Deflate), which `open_raster` reads by regions.

    The strips, tiles or chunks of `path` are decoded whole, so it takes as much memory as the largest of them;
    PNG, JPEG and BMP files as much as twice their pixels. `progress` shows a bar, on a terminal.

    Raises:
        InputError: where `path` is no image (see `open_raster`), or `output` does not end in .tif.
    """
    import tifffile

    output = check_output(output, "output", ".tif")
    with any_size(), open_raster(path, None, page, level, math.inf) as raster, replacing(output) as temporary:
        height, width, channels = raster.shape
        if raster.dtype.kind == "f":
            raise InputError(f"image {path}: received {raster.dtype} samples; accepted: 8 or 16 bits")
        corners = list(product(range(0, height, _TILE), range(0, width, _TILE)))
        shown = track(corners, "writing", len(corners)) if progress else corners
        tifffile.imwrite(
            temporary,
            (raster[top : top + _TILE, left : left + _TILE] for top, left in shown),
            shape=raster.shape if channels > 1 else raster.shape[:2],
            dtype=raster.dtype,
            tile=(_TILE, _TILE),
            photometric="rgb" if channels >= 3 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            compression="zlib",
            predictor=True,
            bigtiff=True,
        )
    return output


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None
    if start == b"\x93NUMPY":
        return "npy"
    return "TIFF" if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else "other"


def _choose(name: str, what: str, received: int, count: int) -> int:
    if isinstance(received, bool) or not isinstance(received, int) or not 0 <= received < count:
        accepted = f"0 to {count - 1}" if count > 1 else "0"
        raise InputError(f"{name}: {what}: received {received!r}; accepted: {accepted}")
    return received


@contextmanager
def _broken(name: str) -> Iterator[None]:
    """Decoders raise what they like on broken content; the user gets one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: broken or truncated ({cause})") from None


def _whole(image: np.ndarray) -> tuple[tuple[int, ...], np.dtype, _Read]:
    return image.shape, image.dtype, lambda rows, columns: image[rows, columns]


def _open_npy(path: Path) -> tuple[tuple[int, ...], np.dtype, _Read]:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    dtype = check_array(stored.shape, stored.dtype, path)

    def read(rows: slice, columns: slice) -> np.ndarray:
        # Mapped anew each time: pages of a mapping that stays count as the process's memory.
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)[rows, columns].astype(dtype)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    return (*stored.shape, 1)[:3], dtype, read


@dataclass
class _Parts:
    """An image of `shape` (H, W, C) cut into parts of `side` (h, w), the last ones clipped at the image.

    `decode(i, j)` gives the part in row i and column j, (h, w, C).
    """

    path: Path
    what: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    side: tuple[int, int]
    decode: Callable[[int, int], np.ndarray]

    def reader(self, cache: float) -> _Read:
        """Read regions, keeping `cache` bytes of the parts that were used last.

        Raises:
            InputError: where one part alone has more bytes.
        """
        height, width = (min(part, side) for part, side in zip(self.side, self.shape, strict=False))
        size = height * width * self.shape[2] * self.dtype.itemsize
        if size > cache:
            raise InputError(
                f"image {self.path}: received {self.what}s of {height} x {width} pixels, {size / 2**20:,.0f} MiB; "
                f"accepted: up to {cache / 2**20:,.0f} MiB; convert it once by: "
                f"zoo tile {self.path} -o {self.path.stem}-tiled.tif"
            )
        part = lru_cache(max(int((CACHE if cache == math.inf else cache) // size), 1))(self._part)

        def read(rows: slice, columns: slice) -> np.ndarray:
            pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.shape[2]), self.dtype)
            for i, down, along in _covering(rows, self.side[0]):
                for j, across, beside in _covering(columns, self.side[1]):
                    pixels[down, across] = part(i, j)[along, beside]
            return pixels

        return read

    def _part(self, i: int, j: int) -> np.ndarray:
        with _broken(f"image {self.path}: {self.what} {i}, {j}"):
            return self.decode(i, j)


def _covering(wanted: slice, side: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis, the parts that hold `wanted`: index, where it goes in the region, and what of the part."""
    for index in range(wanted.start // side, math.ceil(wanted.stop / side) if wanted.stop > wanted.start else 0):
        begin, end = max(wanted.start, index * side), min(wanted.stop, (index + 1) * side)
        yield index, slice(begin - wanted.start, end - wanted.start), slice(begin - index * side, end - index * side)


def _open_tiff(
    path: Path, number: int, level: int, cache: float, stack: ExitStack
) -> tuple[tuple[int, ...], np.dtype, _Read]:
    import tifffile

    file = stack.enter_context(tifffile.TiffFile(path))
    page, offset = _tiff_page(file, f"image {path}", number, level)
    about = page.keyframe
    check_tiff(about, about.axes, path)
    palette = about.photometric.name == "PALETTE"
    size = (about.imagelength, about.imagewidth)
    shape = (*size, 3 if palette else about.samplesperpixel)
    dtype = np.dtype(np.uint16 if about.dtype == np.uint16 and not palette else np.uint8)
    planar = about.axes == "SYX"
    if offset is not None:

        def read(rows: slice, columns: slice) -> np.ndarray:
            stored = np.memmap(path, about.dtype.newbyteorder(file.byteorder), "r", offset, about.shape)
            samples = np.moveaxis(stored[:, rows, columns], 0, -1) if planar else stored[rows, columns]
            return np.ascontiguousarray(tiff_pixels(samples.astype(about.dtype), about))

        read(slice(0, 1), slice(0, 1))
        return shape, dtype, read
    _check_extent(page)
    side = (about.tilelength, about.tilewidth) if about.is_tiled else (about.rowsperstrip, about.imagewidth)
    down, across = (math.ceil(whole / part) for whole, part in zip(size, side, strict=True))

    def decode(i: int, j: int) -> np.ndarray:
        planes = [_tiff_segment(page, (plane * down + i) * across + j) for plane in range(shape[2] if planar else 1)]
        height, width = (min(part, whole - index * part) for part, whole, index in zip(side, size, (i, j), strict=True))
        samples = np.concatenate([plane[:height, :width] for plane in planes], axis=-1)
        return tiff_pixels(samples, about)

    parts = _Parts(path, "tile" if about.is_tiled else "strip", shape, dtype, side, decode)
    return shape, dtype, parts.reader(cache)


def _tiff_page(
    file: "tifffile.TiffFile", name: str, number: int, level: int
) -> tuple["tifffile.TiffPage | tifffile.TiffFrame", int | None]:
    """The page of an image at a level, and where its samples begin in the file, if they are stored as an array."""
    counts = [math.prod(series.shape) // math.prod(series.keyframe.shape) for series in file.series]
    index = _choose(name, "page", number, sum(counts))
    which = 0
    while index >= counts[which]:
        index -= counts[which]
        which += 1
    levels = file.series[which].levels
    series = levels[_choose(name, "level", level, len(levels))]
    about = series.keyframe
    if series.dataoffset is not None and about.is_final:
        # All its images lie one behind the other, in ImageJ's large files with a page for the first one alone.
        return about, series.dataoffset + index * about.nbytes
    page = series.pages[index]
    if page is None:
        raise InputError(f"{name}: page: received {number}; accepted: another one, as this one is not in the file")
    return page, page.dataoffsets[0] if about.is_final and page.is_contiguous else None


def _check_extent(page: "tifffile.TiffPage | tifffile.TiffFrame") -> None:
    """See that every strip or tile lies in the file, before hours of work find out."""
    missing = math.prod(page.keyframe.chunked) - min(len(page.dataoffsets), len(page.databytecounts))
    if missing > 0:
        raise ValueError(f"{missing} strips or tiles are missing")
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max((begin + count for begin, count in places if count), default=0)
    size = page.parent.filehandle.size
    if end > size:
        raise ValueError(f"strips or tiles end at byte {end:,}, the file at {size:,}")


def _tiff_segment(page: "tifffile.TiffPage | tifffile.TiffFrame", index: int) -> np.ndarray:
    """Decode one strip or tile: (h, w, S); one that the file leaves out holds the value for no data."""
    about, file = page.keyframe, page.parent.filehandle
    content = None
    if page.databytecounts[index]:
        with file.lock:
            file.seek(page.dataoffsets[index])
            content = file.read(page.databytecounts[index])
    samples, _, shape = about.decode(content, index, jpegtables=page.jpegtables, jpegheader=about.jpegheader)
    return np.full(shape[1:], about.nodata, about.dtype) if samples is None else samples[0]


def _open_zarr(path: Path, page: int, level: int, cache: float) -> tuple[tuple[int, ...], np.dtype, _Read]:
    import zarr

    name = f"image {path}"
    _choose(name, "page", page, 1)
    try:
        node = zarr.open(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"{name}: received a folder; accepted: an image file, or the folder of a Zarr array") from None
    array, axes = _zarr_array(node, name, level)
    stored = dict(zip(axes, array.shape, strict=True))
    if "y" not in stored or "x" not in stored or any(side != 1 for axis, side in stored.items() if axis not in "yxc"):
        sides = ", ".join(f"{axis} {side}" for axis, side in stored.items())
        raise InputError(f"{name}: received axes {sides}; accepted: y, x and c, and others of one entry")
    shape = (stored["y"], stored["x"], stored.get("c", 1))
    dtype = check_array(shape, array.dtype, path)
    side = tuple(array.chunks[axes.index(axis)] for axis in "yx")

    def decode(i: int, j: int) -> np.ndarray:
        rows, columns = (slice(index * part, (index + 1) * part) for index, part in zip((i, j), side, strict=True))
        region = {"y": rows, "x": columns, "c": slice(None)}
        pixels = array[tuple(region.get(axis, 0) for axis in axes)]
        order = [axis for axis in axes if axis in region]
        if "c" not in order:
            pixels, order = pixels[..., None], [*order, "c"]
        return pixels.transpose([order.index(axis) for axis in "yxc"]).astype(dtype, copy=False)

    return shape, dtype, _Parts(path, "chunk", shape, dtype, side, decode).reader(cache)


def _zarr_array(node: Any, name: str, level: int) -> tuple[Any, list[str]]:
    """The array of a level, and the names of its axes: of a single array, a group with one, or OME-Zarr multiscales."""
    import zarr

    if isinstance(node, zarr.Group):
        about = node.attrs.asdict()
        scales = about.get("ome", about).get("multiscales")
        if scales:
            paths = [entry["path"] for entry in scales[0]["datasets"]]
            array = node[paths[_choose(name, "level", level, len(paths))]]
            axes = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", "tczyx")]
            return array, axes
        arrays = dict(node.arrays())
        if len(arrays) != 1:
            received = ", ".join(sorted(arrays)[:5]) or "none"
            raise InputError(f"{name}: received a Zarr group of arrays: {received}; accepted: the path of one array")
        (node,) = arrays.values()
    _choose(name, "level", level, 1)
    if node.ndim not in (2, 3):
        raise InputError(f"{name}: received shape {node.shape}; accepted: (H, W) or (H, W, C)")
    return node, list("yxc"[: node.ndim])
