"""TIFF and BigTIFF: which image of the file, what its samples mean, and how its strips and tiles are read."""

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import listing, refuse
from zoo.pictures.jpegs import check_scans, check_tile_parts, ends_of, from_luma
from zoo.pictures.scale import tiff_pixel_size
from zoo.pictures.stored import Colour, Parts, Read, Stored, check_samples, has_colours
from zoo.pictures.wanted import Choice, Wanted, choose

if TYPE_CHECKING:
    import tifffile

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Photometric interpretations that are read, and how many samples are colours.
_COLOURS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3}
_JPEG = (6, 7, 34892, 33007)
# Aperio's JPEG 2000, of luma and chroma and of red, green and blue, whatever the photometric tag says.
_J2K_YCBCR, _J2K_RGB = 33003, 33005
_J2K = (_J2K_YCBCR, _J2K_RGB, 33004, 34712)
# Bytes that a byte can stand for, at the most, in Deflate, LZW and run lengths.
_DENSEST = {**dict.fromkeys((8, 32946, 50013), 1100), 5: 3000, 32773: 64}
# Pixels of a strip or tile.
_MOST_PIXELS = 2**31
# What a slide holds beside its picture, and the formats whose names tifffile sets, so that they need no note.
_BESIDE = {"label", "macro", "thumbnail", "overview", "map"}
_SLIDES = ("svs", "ndpi", "scn", "bif", "qpi", "philips", "avs", "indica")
# More planes than any microscope's, and few enough to be listed.
_MOST_PLANES = 2**20


def open_tiff(path: Path, wanted: Wanted, choice: Choice, cache: float, stack: ExitStack) -> Stored:
    """Open a TIFF file.

    Raises:
        InputError: where the file is broken, its samples are of another kind than grey, RGB, a palette or bands of
            8 or 16 bits or floats, or the image that is chosen is not there.
    """
    import tifffile

    name = f"image {path}"
    file = stack.enter_context(tifffile.TiffFile(path))
    _check_claims(file, name)
    series, planes, notes = _choose_planes(file, name, choice)
    levels = tuple((level.keyframe.imagelength, level.keyframe.imagewidth) for level in series.levels)
    full, series = series, series.levels[choose(name, "level", choice.level, len(levels))]
    keyframe = series.keyframe
    has_palette = _photometric(keyframe) == "PALETTE"
    as_indices = wanted.indices and keyframe.colormap is not None and has_colours(keyframe.colormap)
    palette = has_palette and not as_indices
    kind = "MINISBLACK" if has_palette and not palette else _photometric(keyframe)
    colour, alpha, multiplied = _check_meaning(keyframe, name, kind)
    samples = 3 + keyframe.samplesperpixel - 1 if palette else keyframe.samplesperpixel
    if len(planes) > 1:
        if samples > 1:
            refuse(name, f"{len(planes)} channels of {samples} samples each", "either")
        colour, samples = "bands", len(planes)
    shape = (keyframe.imagelength, keyframe.imagewidth, samples)
    dtype = (
        np.dtype(np.uint8) if palette else _own_dtype(keyframe, name) if has_palette else _dtype(keyframe, name, wanted)
    )
    readers = [
        _plane_reader(series, plane, name, path, (*shape[:2], samples // len(planes)), dtype, kind, cache)
        for plane in planes
    ]
    return Stored(
        shape,
        dtype,
        readers[0] if len(readers) == 1 else _together(readers),
        colour,
        alpha,
        multiplied,
        _orientation(keyframe),
        tiff_pixel_size(file, full, keyframe),
        tuple(notes),
        levels,
    )


def _together(readers: Sequence[Read]) -> Read:
    return lambda rows, columns: np.concatenate([read(rows, columns) for read in readers], axis=-1)


def _check_claims(file: "tifffile.TiffFile", name: str) -> None:
    """Check that descriptions claim no more planes than a file can hold, before anything is listed by them."""
    if (ome := file.ome_metadata) is not None:
        from xml.etree import ElementTree

        for pixels in ElementTree.fromstring(ome).iter():
            if pixels.tag.endswith("Pixels"):
                sizes = [abs(int(pixels.get(f"Size{axis}", 1))) for axis in "TZC"]
                _check_planes(name, math.prod(sizes))
    if file.is_imagej:
        metadata = file.imagej_metadata or {}
        _check_planes(name, max(int(metadata.get(each, 1)) for each in ("images", "slices", "frames", "channels")))


def _check_planes(name: str, count: int) -> None:
    if count > _MOST_PLANES:
        refuse(name, f"{count:,} planes", f"up to {_MOST_PLANES:,}")


def _choose_planes(
    file: "tifffile.TiffFile", name: str, choice: Choice
) -> tuple["tifffile.TiffPageSeries", list[int], list[str]]:
    """The series, those of its planes that are the picture's channels, and what is to be noted of the choice."""
    every = list(file.series)
    if not every:
        refuse(name, "a file without images", "one image")
    counts = [math.prod(series.shape) // math.prod(series.keyframe.shape) for series in every]
    for series, count in zip(every, counts, strict=True):
        _check_planes(name, count)
        # Planes that lie one after the other have a page for the first one alone, so nothing else bears the claim out.
        end = (series.dataoffset or 0) + count * series.keyframe.nbytes
        if series.dataoffset is not None and end > file.filehandle.size:
            raise ValueError(f"{count:,} planes end at byte {end:,}, the file at {file.filehandle.size:,}")
    if choice.series is not None:
        series = every[choose(name, "series", choice.series, len(every))]
        if choice.page is not None:
            return series, [choose(name, "page", choice.page, counts[choice.series])], []
        return _channels(series, name, [])
    if choice.page is not None:
        index, which = choose(name, "page", choice.page, sum(counts)), 0
        while index >= counts[which]:
            index, which = index - counts[which], which + 1
        return every[which], [index], []
    full = [number for number, series in enumerate(every) if not _is_reduced(series)] or [0]
    beside = [number for number in full if _is_beside(every[number])]
    # Where all have such names, they are the pictures.
    beside = beside if len(beside) < len(full) else []
    full = [number for number in full if number not in beside]
    notes = []
    if passed_over := [
        f"{number} ({every[number].name[:40]})" for number in beside if every[number].kind not in _SLIDES
    ]:
        notes.append(
            f"series {listing(passed_over, 3)}: passed over by name, as beside the picture; "
            f"--series 0 to {len(every) - 1} chooses one"
        )
    if len(full) > 1:
        notes.append(
            f"holds {len(full)} images, of which series {full[0]} is read; --series 0 to {len(every) - 1} chooses one"
        )
    return _channels(every[full[0]], name, notes)


def _is_reduced(series: "tifffile.TiffPageSeries") -> bool:
    return bool(series.keyframe.is_reduced or series.keyframe.is_mask)


def _is_beside(series: "tifffile.TiffPageSeries") -> bool:
    """Whether one of its name's words, whole, says that it lies beside the picture."""
    return not _BESIDE.isdisjoint(re.findall(r"[^\W\d_]+", series.name.lower()))


def _channels(
    series: "tifffile.TiffPageSeries", name: str, notes: list[str]
) -> tuple["tifffile.TiffPageSeries", list[int], list[str]]:
    """The planes that are channels of one image; of several images without names, the first."""
    keyframe = series.keyframe
    named = [each for each in zip(series.axes, series.shape, strict=True) if each[1] != 1]
    page = [each for each in zip(keyframe.axes, keyframe.shape, strict=True) if each[1] != 1]
    before, own = named[: len(named) - len(page)], named[len(named) - len(page) :]
    if [axis.replace("C", "S") for axis, _ in own] != [axis for axis, _ in page]:
        received = ", ".join(f"{axis} {side}" for axis, side in named)
        refuse(name, f"axes {received}", "Y, X and C")
    if math.prod(side for _, side in before) <= 1:
        return series, [0], notes
    others = [(axis, side) for axis, side in before if axis not in "CS"]
    count = math.prod(side for _, side in before)
    if any(axis not in "IQ" for axis, _ in others):
        received = ", ".join(f"{axis} {side}" for axis, side in named)
        refuse(name, f"axes {received}", f"one image, chosen by --page 0 to {count - 1}")
    if others:
        planes = math.prod(side for _, side in others)
        notes.append(f"holds {planes} images, of which the first is read; --page 0 to {count - 1} chooses one")
    index = np.arange(count).reshape([side for _, side in before])
    return series, index[tuple(slice(None) if axis in "CS" else 0 for axis, _ in before)].ravel().tolist(), notes


def _check_meaning(keyframe: "tifffile.TiffPage", name: str, kind: str) -> tuple[Colour, int | None, bool]:
    """What samples taken for a kind are: their colour, which is alpha, and whether colours are multiplied by it."""
    compression = int(keyframe.compression)
    if compression in (_J2K_YCBCR, _J2K_RGB) and keyframe.samplesperpixel >= 3:
        kind = "RGB"
    if keyframe.axes not in ("YX", "YXS", "SYX") or kind not in _COLOURS:
        refuse(name, f"axes {keyframe.axes}, {kind}", "one grey or RGB image")
    extra = keyframe.samplesperpixel - _COLOURS[kind]
    tags = [int(tag) for tag in keyframe.extrasamples or ()][:extra]
    # Decoders turn JPEG's luma and chroma into RGB where all samples lie together; no other decoder does.
    if kind == "YCBCR" and (compression not in _JPEG or keyframe.axes == "SYX" or extra):
        refuse(name, kind, "one grey or RGB image, or YCBCR in JPEG compression")
    if kind == "MINISBLACK" and compression in _JPEG and keyframe.axes == "YXS" and keyframe.samplesperpixel > 2:
        refuse(name, f"{keyframe.samplesperpixel} samples in JPEG", "tagged as RGB or YCBCR")
    if extra < 0:
        refuse(name, f"{kind} of {keyframe.samplesperpixel} samples", f"{_COLOURS[kind]}")
    first = 3 if kind == "PALETTE" else _COLOURS[kind]
    alphas = [index for index, tag in enumerate(tags) if tag in (1, 2)]
    alpha = first + alphas[0] if alphas else None
    plain = extra == (0 if alpha is None else 1)
    colour: Colour = ("grey" if _COLOURS[kind] == 1 and kind != "PALETTE" else "rgb") if plain else "bands"
    return colour, alpha, bool(alphas) and tags[alphas[0]] == 1


def _photometric(keyframe: "tifffile.TiffPage") -> str:
    """The name of what the samples mean, or the number of a meaning without one."""
    return getattr(keyframe.photometric, "name", str(keyframe.photometric)[:40])


def _own_dtype(keyframe: "tifffile.TiffPage", name: str) -> np.dtype:
    """The type that the samples have in the file."""
    if keyframe.dtype is None:
        refuse(name, f"{keyframe.bitspersample} bits a sample", "8 or 16")
    return keyframe.dtype


def _dtype(keyframe: "tifffile.TiffPage", name: str, wanted: Wanted) -> np.dtype:
    """The type that the samples are read as; 1-bit ones become 0 and 255."""
    bits, dtype = keyframe.bitspersample, _own_dtype(keyframe, name)
    if bits not in (1, 8, 16, 32, 64) or bits != 1 and bits != 8 * dtype.itemsize:
        refuse(name, f"{bits} bits a sample", "8 or 16")
    if bits == 1:
        return np.dtype(np.uint8)
    if dtype.kind != "f" and bits > 16 and not wanted.mask:
        refuse(name, f"{bits} bits a sample", "8 or 16 bits, or floats")
    if _photometric(keyframe) == "MINISWHITE" and dtype.kind != "u":
        refuse(name, f"{dtype} samples whose white is zero", "8 or 16 bits")
    if dtype.kind == "i" and not wanted.mask:
        refuse(name, f"{dtype} samples", "8 or 16 bits without sign, or floats")
    return check_samples(name, dtype, wanted.mask)


def _orientation(keyframe: "tifffile.TiffPage") -> int:
    value = keyframe.tags.valueof(274, default=1)
    return int(value) if value in range(1, 9) else 1


def _plane_reader(
    series: "tifffile.TiffPageSeries",
    plane: int,
    name: str,
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    kind: str,
    cache: float,
) -> Read:
    """What reads one plane, (h, w, C): from a map of the file where its samples lie there as an array."""
    keyframe, own = series.keyframe, _own_dtype(series.keyframe, name)
    planar = keyframe.axes == "SYX"
    page: tifffile.TiffPage | tifffile.TiffFrame
    offset: int | None
    if series.dataoffset is not None and keyframe.is_final:
        # All planes lie one after the other, in ImageJ's large files with a page for the first one alone.
        page, offset = keyframe, series.dataoffset + plane * keyframe.nbytes
    else:
        found = series.pages[plane]
        if found is None:
            refuse(f"{name}: page", plane, "another one, as it is not in the file")
        page = found
        offset = page.dataoffsets[0] if keyframe.is_final and page.is_contiguous else None
        path = Path(page.parent.filehandle.path)
    if offset is not None:

        def read(rows: slice, columns: slice) -> np.ndarray:
            stored = np.memmap(path, own.newbyteorder(page.parent.byteorder), "r", offset, keyframe.shape)
            samples = np.moveaxis(stored[:, rows, columns], 0, -1) if planar else stored[rows, columns]
            return np.ascontiguousarray(_pixels(samples.astype(own), keyframe, kind), dtype)

        read(slice(0, 1), slice(0, 1))
        return read
    _check_extent(page)
    side = _side(keyframe)
    if math.prod(side) >= _MOST_PIXELS:
        refuse(name, f"parts of {side[0]} x {side[1]} pixels", f"below {_MOST_PIXELS:,}")
    down, across = (math.ceil(whole / part) for whole, part in zip(shape, side, strict=False))
    pieces = keyframe.samplesperpixel if planar else 1

    def decode(i: int, j: int) -> np.ndarray:
        segments = [_segment(page, (piece * down + i) * across + j) for piece in range(pieces)]
        height, width = (min(part, whole - k * part) for part, whole, k in zip(side, shape, (i, j), strict=False))
        samples = np.concatenate([each[:height, :width] for each in segments], axis=-1)
        return _pixels(samples, keyframe, kind).astype(dtype, copy=False)

    what, held = (
        "tile" if keyframe.is_tiled else "strip",
        math.prod(side) * keyframe.samplesperpixel * own.itemsize,
    )
    return Parts(name, what, shape, dtype, side, decode, held if keyframe.is_tiled else 0).reader(cache)


def _side(keyframe: "tifffile.TiffPage") -> tuple[int, int]:
    """Height and width of a strip or tile."""
    if keyframe.is_tiled:
        return keyframe.tilelength, keyframe.tilewidth
    return min(keyframe.rowsperstrip, keyframe.imagelength), keyframe.imagewidth


def _check_extent(page: "tifffile.TiffPage | tifffile.TiffFrame") -> None:
    """Check that every strip or tile lies in the file, before hours of work find out."""
    missing = math.prod(_keyframe(page).chunked) - min(len(page.dataoffsets), len(page.databytecounts))
    if missing > 0:
        raise ValueError(f"{missing} strips or tiles are missing")
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max((begin + count for begin, count in places if count), default=0)
    size = page.parent.filehandle.size
    if end > size:
        raise ValueError(f"strips or tiles end at byte {end:,}, the file at {size:,}")


def _keyframe(page: "tifffile.TiffPage | tifffile.TiffFrame") -> "tifffile.TiffPage":
    """The page that has what one page of a series shares with others."""
    if page.keyframe is None:
        raise ValueError("a page whose form is not known")
    return page.keyframe


def _segment(page: "tifffile.TiffPage | tifffile.TiffFrame", index: int) -> np.ndarray:
    """Decode one strip or tile: (h, w, S); one that the file leaves out holds the value for no data."""
    keyframe, file = _keyframe(page), page.parent.filehandle
    content = None
    if page.databytecounts[index]:
        with file.lock:
            file.seek(page.dataoffsets[index])
            content = file.read(page.databytecounts[index])
        _check_frame(keyframe, content)

    def decode(content: bytes | None) -> tuple:
        return keyframe.decode(content, index, jpegtables=page.jpegtables, jpegheader=keyframe.jpegheader)

    samples, _, shape = decode(content)
    if samples is None:
        return np.full(shape[1:], keyframe.nodata, keyframe.dtype)
    # The parts of Hamamatsu's one large frame have a header made up for them, and no end of their own.
    if content is not None and int(keyframe.compression) in _JPEG and keyframe.jpegheader is None:
        check_scans(content, lambda padded: np.array_equal(decode(padded)[0], samples))
    return from_luma(samples[0]) if int(keyframe.compression) == _J2K_YCBCR and samples.shape[-1] >= 3 else samples[0]


def _check_frame(keyframe: "tifffile.TiffPage", content: bytes) -> None:
    """Check, before decoding, that a JPEG or JPEG 2000 frame fits its strip or tile, and that the bytes suffice.

    Of JPEG 2000 lengths are checked, so bytes that were overwritten are not found; of JPEG see `check_scans`.
    """
    if int(keyframe.compression) in _JPEG and keyframe.jpegheader is None:
        from tifffile.tifffile import jpeg_shape

        size = jpeg_shape(content)[1:3]
        ends_of(content)
    elif int(keyframe.compression) in _DENSEST:
        samples = 1 if keyframe.axes == "SYX" else keyframe.samplesperpixel
        held = math.prod(_side(keyframe)) * samples * keyframe.bitspersample // 8
        # The last strip has fewer rows.
        if keyframe.is_tiled and held > _DENSEST[int(keyframe.compression)] * len(content) + 4096:
            raise ValueError(f"{len(content):,} bytes for {held:,}")
        return
    elif int(keyframe.compression) in _J2K and (start := content.find(b"\xff\x4f\xff\x51")) >= 0:
        # The marker SIZ: its length and capabilities, then width and height of the reference grid.
        width, height = (int.from_bytes(content[start + at : start + at + 4], "big") for at in (8, 12))
        size = (height, width)
        check_tile_parts(content, start)
    else:
        return
    most = _side(keyframe)
    # Encoders fill their last blocks up.
    if any(side > 2 * limit + 64 for side, limit in zip(size, most, strict=True)):
        raise ValueError(f"a frame of {size[0]} x {size[1]} pixels for {most[0]} x {most[1]}")


def _pixels(samples: np.ndarray, keyframe: "tifffile.TiffPage", kind: str) -> np.ndarray:
    """Samples as pixels, by what they are taken for: (h, w) or (h, w, S) -> (h, w, C).

    Palettes become RGB, 1-bit samples 0 and 255, and white is the largest number.
    """
    samples = samples if samples.ndim == 3 else samples[..., None]
    if kind == "PALETTE":
        if keyframe.colormap is None:
            raise ValueError("a palette without colours")
        # Colours have 16 bits; some writers fill in 8.
        shift = 8 if keyframe.colormap.max() > 255 else 0
        colours = (np.moveaxis(keyframe.colormap[:, samples[..., 0]], 0, -1) >> shift).astype(np.uint8)
        return np.concatenate([colours, samples[..., 1:].astype(np.uint8)], axis=-1)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    if kind == "MINISWHITE":
        inverted = np.iinfo(samples.dtype).max - samples[..., :1]
        return np.concatenate([inverted, samples[..., 1:]], axis=-1)
    return samples
