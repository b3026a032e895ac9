"""PNG, JPEG and BMP: files that are decoded whole."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import InputError, refuse
from zoo.pictures.jpegs import check_scans
from zoo.pictures.stored import Colour, Stored, has_colours
from zoo.pictures.wanted import Choice, Wanted, choose

if TYPE_CHECKING:
    from PIL import Image, ImageFile

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# Sizes of a BMP file's second header, which follows the first one of 14 bytes, of all its versions.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
# Bytes of pixels that a byte of the file can stand for: 1,032 in Deflate, fewer in JPEG and in BMP's run lengths.
DENSEST = 1100
_ORIENTATION = 0x0112
# Modes of Pillow that are read, and what they become.
_MODES: dict[str, tuple[Colour, str]] = {
    **{mode: ("grey", "L") for mode in ("1", "L")},
    "LA": ("grey", "LA"),
    **{mode: ("rgb", "RGB") for mode in ("RGB", "P")},
    **{mode: ("rgb", "RGBA") for mode in ("RGBA", "PA")},
}
_TRANSPARENT = {"1": "LA", "L": "LA", "RGB": "RGBA", "P": "RGBA"}


def is_whole(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 18 at least, is PNG, JPEG or BMP; "BM" alone begins texts too."""
    header = int.from_bytes(start[14:18], "little")
    return start.startswith((PNG, JPEG)) or start.startswith(b"BM") and header in _BMP_HEADERS


def open_whole(path: Path, wanted: Wanted, choice: Choice, most: float) -> Stored:
    """Open a PNG, JPEG or BMP file of up to `most` pixels; it is decoded here.

    Raises:
        InputError: where the file is broken, too large, or of another format or colour.
    """
    name = f"image {path}"
    for what, number in (("series", choice.series), ("level", choice.level)):
        choose(name, what, number or 0, 1)
    deep = _check_png(path, name)
    with _opened(path) as file:
        _check_size(path, name, file, most)
        count = getattr(file, "n_frames", 1)
        page = choose(name, "page", choice.page or 0, count)
        several = f"holds {count} images, of which the first is read; --page 0 to {count - 1} chooses one"
        notes = (several,) if count > 1 and choice.page is None else ()
        if page:
            file.seek(page)
        orientation = file.getexif().get(_ORIENTATION, 1)
        if deep and page:
            refuse(f"{name}: page", page, "0 with 16 bits a sample")
        if deep:
            pixels, colour, has_alpha = _deep(path)
        else:
            begin = file.tile[0].offset if file.tile else 0
            pixels, colour, has_alpha = _decoded(file, name, wanted.indices)
            if file.format in ("JPEG", "MPO"):
                _check_jpeg(path.read_bytes()[begin:], pixels)
    return Stored(
        pixels.shape,
        pixels.dtype,
        lambda rows, columns: pixels[rows, columns],
        colour,
        pixels.shape[2] - 1 if has_alpha else None,
        orientation=orientation if orientation in range(1, 9) else 1,
        notes=notes,
        levels=(pixels.shape[:2],),
    )


def _opened(path: Path) -> "ImageFile.ImageFile":
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path, formats=("PNG", "JPEG", "BMP"))
    except UnidentifiedImageError:
        with path.open("rb") as content:
            is_ours = is_whole(content.read(18))
        why = "broken or truncated" if is_ours else "unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy"
        raise InputError(f"image {path}: {why}") from None


def header(path: Path) -> tuple[np.dtype, tuple[int, int]]:
    """The type of a file's samples, and its height and width when upright; nothing is decoded."""
    with path.open("rb") as content:
        start = content.read(26)
    deep = start.startswith(PNG) and start[24:25] == b"\x10"
    with _opened(path) as file:
        # Of a PNG that does not say at its beginning how it lies, Pillow would decode all to find out.
        known = file.format != "PNG" or "exif" in file.info
        turned = known and file.getexif().get(_ORIENTATION, 1) in range(5, 9)
        return np.dtype(np.uint16 if deep else np.uint8), file.size if turned else file.size[::-1]


def _check_png(path: Path, name: str) -> bool:
    """Check that a PNG's parts are whole, by their checksums; whether its samples have 16 bits. Others pass."""
    from PIL import Image

    with path.open("rb") as file:
        start = file.read(26)
    if not start.startswith(PNG):
        return False
    # Pillow takes apart what it decodes without a look at the checksums of the pixels.
    with Image.open(path, formats=("PNG",)) as file:
        file.verify()
    return start[24:25] == b"\x10"


def _check_size(path: Path, name: str, file: "Image.Image", most: float) -> None:
    width, height = file.size
    if not width or not height:
        refuse(name, f"{height} x {width} pixels", "at least one")
    if width * height > most:
        raise InputError(
            f"{name}: over {most:,} pixels; accepted at that size: TIFF and .npy; "
            f"convert it once by: zoo tile {path} -o {path.stem}.tif"
        )
    if width * height // 8 > DENSEST * path.stat().st_size:
        raise InputError(f"{name}: broken or truncated (no file of this size holds {height} x {width} pixels)")


def _deep(path: Path) -> tuple[np.ndarray, Colour, bool]:
    """As `_decoded`, uint16: Pillow reduces 16-bit RGB to 8 bits without a word, hence libpng."""
    import imagecodecs

    pixels = imagecodecs.png_decode(path.read_bytes())
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels, "grey" if pixels.shape[2] < 3 else "rgb", pixels.shape[2] in (2, 4)


def _decoded(file: "Image.Image", name: str, indices: bool) -> tuple[np.ndarray, Colour, bool]:
    """Pixels (H, W, C) uint8, their colour, and whether the last channel is alpha; perhaps a palette's `indices`."""
    if file.mode not in _MODES:
        refuse(name, f"{file.mode}", "grey, RGB or a palette of 8 bits, or 16 bits in PNG")
    colour, mode = _MODES[file.mode]
    if indices and file.mode == "P" and has_colours(np.reshape(file.getpalette() or (), (-1, 3)).T):
        colour, mode = "grey", "P"
    elif "transparency" in file.info:
        mode = _TRANSPARENT.get(file.mode, mode)
    image = file if file.mode == mode else file.convert(mode)
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    for rows, band in _bands(image):
        pixels[rows] = band
    return pixels, colour, mode.endswith("A")


def _bands(image: "Image.Image") -> Iterator[tuple[slice, np.ndarray]]:
    """In bands, (h, W, C): Pillow hands out its pixels by way of two copies."""
    for top in range(0, image.height, 256):
        rows = slice(top, min(top + 256, image.height))
        band = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        yield rows, band.reshape(*band.shape[:2], -1)


def _check_jpeg(content: bytes, pixels: np.ndarray) -> None:
    from PIL import Image

    def same(padded: bytes) -> bool:
        with Image.open(BytesIO(padded), formats=("JPEG",)) as file:
            return all(np.array_equal(pixels[rows], band) for rows, band in _bands(file))

    check_scans(content, same)
