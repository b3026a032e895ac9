"""A picture as its file holds it, before it is turned upright and brought to a model's channels."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.errors import refuse
from zoo.pictures.decoding import broken

# Bytes of decoded strips, tiles or chunks that an open picture keeps: three rows of tiles 1,024 pixels high across a
# picture of 30,000 pixels in RGB. A file with larger parts would decode one of them anew for every region.
CACHE = 256 * 2**20
# Strips, tiles or chunks: those of a picture of 2,000,000 pixels a side in tiles of 256.
MOST_PARTS = 2**26

# What the channels other than alpha are; "bands" are those that the file says no more about.
Colour = Literal["grey", "rgb", "bands"]
Read = Callable[[slice, slice], np.ndarray]


@dataclass(frozen=True)
class Stored:
    """A picture (H, W, C) in a file, upside down or mirrored as it may lie there.

    `read(rows, columns)` gives pixels (h, w, C). `alpha`: which channel says how opaque a pixel is, None where none
    does. `multiplied`: whether the colours are stored multiplied by it. `orientation`: 1 to 8, of EXIF and TIFF tag
    274. `pixel_size`: rows' and columns' distance in micrometres. `notes`: what the user should know. `levels`: height
    and width of every level of the pyramid.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Read
    colour: Colour
    alpha: int | None = None
    multiplied: bool = False
    orientation: int = 1
    pixel_size: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    levels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Parts:
    """A picture that is stored in strips, tiles or chunks of `side` (height, width): `decode(i, j)` gives one.

    `stored` is the bytes of one as it is decoded, where that is more than its pixels have.
    """

    name: str
    what: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    side: tuple[int, int]
    decode: Callable[[int, int], np.ndarray]
    stored: int = 0

    def reader(self, cache: float = CACHE) -> Read:
        """Read regions, keeping `cache` bytes of the parts that were used last.

        Raises:
            InputError: where one part alone has more bytes, or there are too many parts to be true.
        """
        count = math.prod(math.ceil(side / part) for side, part in zip(self.shape, self.side, strict=False))
        if count > MOST_PARTS:
            refuse(self.name, f"{count:,} {self.what}s", f"up to {MOST_PARTS:,}")
        height, width = (min(part, side) for part, side in zip(self.side, self.shape, strict=False))
        size = max(height * width * self.shape[2] * self.dtype.itemsize, self.stored)
        whole = math.prod(self.shape) * self.dtype.itemsize
        # No part needs to be much larger than the picture, however much may be kept.
        most = min(cache, max(CACHE, 2 * whole))
        if size > most:
            path = Path(self.name.removeprefix("image "))
            converted = "" if most < cache else f"; convert it once by: zoo tile {path} -o {path.stem}-tiled.tif"
            refuse(
                self.name,
                f"{self.what}s of {self.side[0]} x {self.side[1]} pixels, {size / 2**20:,.0f} MiB",
                f"up to {most / 2**20:,.0f} MiB{converted}",
            )
        kept = CACHE if cache == math.inf else cache
        part = lru_cache(max(int(kept // max(size, 1)), 1))(self._part)

        def read(rows: slice, columns: slice) -> np.ndarray:
            pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.shape[2]), self.dtype)
            for i, down, along in _covering(rows, self.side[0]):
                for j, across, beside in _covering(columns, self.side[1]):
                    pixels[down, across] = part(i, j)[along, beside]
            return pixels

        return read

    def _part(self, i: int, j: int) -> np.ndarray:
        with broken(f"{self.name}: {self.what} {i}, {j}"):
            return self.decode(i, j)


def _covering(wanted: slice, side: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis, the parts that hold `wanted`: index, where it goes in the region, and what of the part."""
    for index in range(wanted.start // side, math.ceil(wanted.stop / side) if wanted.stop > wanted.start else 0):
        begin, end = max(wanted.start, index * side), min(wanted.stop, (index + 1) * side)
        yield index, slice(begin - wanted.start, end - wanted.start), slice(begin - index * side, end - index * side)


def check_samples(name: str, dtype: np.dtype, mask: bool = False) -> np.dtype:
    """The type that samples of a stored type are read as: uint8 and uint16 as they are, floats as float32.

    In a mask, booleans and all whole numbers count as well, and stay what they are.

    Raises:
        InputError: beginning with `name`, for any other type.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind == "f":
        return np.dtype(np.float32)
    if native in (np.uint8, np.uint16) or mask and native.kind in "biu":
        return native
    accepted = "whole numbers, booleans or floats" if mask else "uint8, uint16 or float"
    refuse(name, f"{dtype}", accepted)


def check_shape(name: str, shape: tuple[int, ...], channels: int | None) -> None:
    """Check that an array without names for its axes is a picture: (H, W) or (H, W, C).

    Raises:
        InputError: beginning with `name`, for another number of axes, an empty one, or channels that come first.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        refuse(name, f"shape {tuple(shape)}", "(H, W) or (H, W, C)")
    if len(shape) == 3 and shape[0] <= 4 < shape[1] and shape[2] > 4 and shape[2] != channels:
        refuse(
            name, f"shape {tuple(shape)}, whose channels seem to come first", "(H, W, C), numpy.moveaxis(image, 0, -1)"
        )


def has_colours(palette: np.ndarray) -> bool:
    """Whether a palette, (3, n), has an entry that is not grey."""
    return bool((palette != palette[:1]).any())
