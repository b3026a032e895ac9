"""JPEG and JPEG 2000: frames that are cut short, which decoders fill up with grey without a word; luma and chroma."""

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np

_END = b"\xff\xd9"
# Among the data of a scan an escaped byte is no marker; further bytes of ones may come before one.
_MARKER = re.compile(rb"\xff+[^\x00\xff]")
# Bits of no meaning, the first of them ones where decoders fill up with zeros; every restart marker is among them
# twice, so that one of them is that which a decoder waits for.
_NOISE = np.random.default_rng(0).integers(1, 255, 256, np.uint8).tobytes()
_PADDING = b"\xfe" + b"".join(_NOISE + bytes((0xFF, 0xD0 + number % 8)) for number in range(16)) + _NOISE
_BRIEF = b"\xfe" + _NOISE[:32]
_RESTARTS = range(0xD0, 0xD8)


def check_scans(content: bytes, same: Callable[[bytes], bool]) -> None:
    """Check that a frame has its end marker, and before it the data of all its pixels.

    Noise is put before every marker that ends data: of a restart, of a scan or of all. No decoder reads it where the
    data suffice, and `same`, which decodes what it is given, finds the same pixels; else the noise becomes pixels.
    Bytes that were overwritten, such as by zeros, are found where they do not suffice for as many pixels.

    Raises:
        ValueError: where the end marker, scans or data are missing.
    """
    *inner, end = ends_of(content)
    parts = [content[begin:stop] for begin, stop in pairwise([0, *inner, end])]
    if not same(_BRIEF.join(parts) + _PADDING + _END):
        raise ValueError("its data end before its pixels do")


def ends_of(content: bytes) -> list[int]:
    """Where the markers lie that end data of the first frame, the end marker last.

    Raises:
        ValueError: where there is none, or scans are missing before it.
    """
    place, progressive, wanted, missing, ends = 2, False, set(), None, []
    while match := _MARKER.search(content, place):
        marker, place = content[match.end() - 1], match.end()
        if missing is not None:
            ends.append(match.start())
        if marker == _END[1] and missing is not None:
            if missing:
                raise ValueError("its scans end before its pixels do")
            return ends
        if marker in (0x01, 0xD8, 0xD9, *_RESTARTS):
            continue
        # Thumbnails lie in segments.
        segment = content[place + 2 : place + int.from_bytes(content[place : place + 2], "big")]
        place += 2 + len(segment)
        if marker in (0xC0, 0xC1, 0xC2):
            progressive = marker == 0xC2
            wanted = {(component, number) for component in segment[6::3] for number in range(64)}
        elif marker == 0xDA:
            missing = (wanted if missing is None else missing) - _sent(segment, progressive)
    raise ValueError("a frame without its end")


def _sent(scan: bytes, progressive: bool) -> set[tuple[int, int]]:
    """Of which components which coefficients have all their bits once a scan is read, by the scan's header."""
    first, last, bits = scan[-3:]
    numbers = range(64) if not progressive else range(first, last + 1) if not bits & 15 else ()
    return {(component, number) for component in scan[1:-3:2] for number in numbers}


def check_tile_parts(content: bytes, start: int) -> None:
    """Check that a JPEG 2000 codestream, which begins at `start`, ends where the lengths of its tile-parts say.

    Raises:
        ValueError: where it does not.
    """
    place = start + 2
    # Segments of the main header, up to the first marker SOT, whose length is that of a tile-part, 0 up to the end.
    while 0 <= place < len(content) and content[place : place + 2] != b"\xff\x90":
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    while content[place : place + 2] == b"\xff\x90":
        length = int.from_bytes(content[place + 6 : place + 10], "big")
        place = place + length if length else content.rfind(b"\xff\xd9")
    if content[place : place + 2] != b"\xff\xd9" or place < start:
        raise ValueError("a frame without its end")


def from_luma(pixels: np.ndarray) -> np.ndarray:
    """Luma and chroma of a full range (JFIF's) as red, green and blue; further samples stay: (h, w, S) uint8."""
    from PIL import Image

    height, width = pixels.shape[:2]
    content = np.ascontiguousarray(pixels[..., :3], np.uint8)
    colours = Image.frombuffer("YCbCr", (width, height), content, "raw", "YCbCr", 0, 1).convert("RGB")
    return np.concatenate([np.asarray(colours), pixels[..., 3:]], axis=-1)
