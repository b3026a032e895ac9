"""Single images: decoding by content, channels, and the size that a model was trained on."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import InputError

if TYPE_CHECKING:
    import tifffile

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"


def read_image(path: str | Path, channels: int | None = None) -> np.ndarray:
    """Read a PNG, JPEG, BMP, TIFF or .npy file, known by its content: (H, W, C), uint8 or uint16 (.npy: float32 too).

    JPEG's EXIF orientation is applied, palettes become RGB, 1-bit images 0 and 255, and the alpha of a PNG is dropped.

    Args:
        path: the file.
        channels: the channels wanted (see `to_channels`); None takes them as they are.

    Raises:
        InputError: where the file is missing, broken, too large, of another format or of other channels.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_array = file.read(len(_NPY)) == _NPY
            file.seek(0)
            content = b"" if is_array else file.read()
    except OSError as error:
        raise InputError(f"image {path}: cannot be read ({error.strerror})") from None
    if is_array:
        image = _read_npy(path)
    else:
        with quiet():
            image = decode(content, path)
    return image if channels is None else to_channels(image, channels, f"image {path}")


def decode(content: bytes, path: Path) -> np.ndarray:
    """Decode a file's content: (H, W, C) uint8 or uint16; `path` is named in errors.

    Raises:
        InputError: see `read_image`.
    """
    try:
        if content.startswith(_TIFF):
            return _decode_tiff(content, path)
        if content.startswith(_PNG) and stored_dtype(content, path) == np.uint16:
            return _decode_png16(content, path)
        return _decode_pillow(content, path)
    except InputError:
        raise
    # Decoders raise what they like on broken content: OSError, SyntaxError, struct.error, codecs' own errors.
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"image {path}: broken or truncated ({cause})") from None


def stored_dtype(content: bytes, path: Path) -> np.dtype:
    """The type of a file's samples, from its header: uint8, or uint16 for 16-bit PNG and TIFF."""
    if content.startswith(_PNG):
        return np.dtype(np.uint16 if content[24:25] == b"\x10" else np.uint8)
    if not content.startswith(_TIFF):
        return np.dtype(np.uint8)
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            wide = page.bitspersample > 8 and page.photometric.name != "PALETTE"
    except Exception as error:
        raise InputError(f"image {path}: broken or truncated ({' '.join(str(error).split())})") from None
    return np.dtype(np.uint16 if wide else np.uint8)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep decoders' warnings and logs from the user; both are the process's, so enter it outside of threads."""
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def any_size() -> Iterator[None]:
    """Decode PNG, JPEG and BMP files of any size, where their user knows that they are no decompression bombs."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def to_channels(image: np.ndarray, channels: int, name: str) -> np.ndarray:
    """Bring (..., H, W, C) to `channels`: grey is repeated, alpha dropped, RGB that is grey throughout made grey.

    Raises:
        InputError: where that is not enough, beginning with `name`.
    """
    received = image.shape[-1]
    if received == channels:
        return image
    if received in (2, 4) and channels in (1, 3):
        image = image[..., :-1]
    if image.shape[-1] == 1 and channels == 3:
        image = np.repeat(image, 3, axis=-1)
    elif image.shape[-1] == 3 and channels == 1 and (image == image[..., :1]).all():
        image = image[..., :1]
    if image.shape[-1] != channels:
        colour = " in colour" if received in (3, 4) and channels == 1 else ""
        raise InputError(f"{name}: received {received} channels{colour}; accepted: {channels} (model.channels)")
    return image


def fit_image(
    image: np.ndarray, size: tuple[int, int], resize: bool = False, fill: float | Sequence[float] = 0
) -> np.ndarray:
    """Bring an image to a size: (H, W, C) -> (h, w, C), same type.

    Without `resize` no pixel is changed: rows and columns beyond the size are cut off evenly at both sides, missing
    ones are added evenly (an odd one: at the bottom or right). With `resize` the image is scaled, keeping its aspect,
    until it just covers the size, and then cropped in the centre; bilinear, with anti-aliasing where it shrinks.

    Args:
        image: uint8, uint16 or float32.
        size: (height, width).
        resize: scale instead of cropping and padding.
        fill: the value of added pixels, one or one a channel; rounded for whole-number images.
    """
    if image.shape[:2] == tuple(size):
        return image
    if resize:
        return _resize(image, size)
    for axis, wanted in enumerate(size):
        if (extra := image.shape[axis] - wanted) > 0:
            image = image.take(range(extra // 2, extra // 2 + wanted), axis)
    fitted = np.empty((*size, image.shape[-1]), image.dtype)
    fitted[...] = as_pixel(fill, image.dtype)
    top, left = ((wanted - now) // 2 for wanted, now in zip(size, image.shape, strict=False))
    fitted[top : top + image.shape[0], left : left + image.shape[1]] = image
    return fitted


def as_pixel(value: float | Sequence[float], dtype: np.dtype) -> np.ndarray:
    """One value, or one a channel, as a pixel of an image of type `dtype`: rounded and clipped for whole numbers."""
    pixel = np.atleast_1d(np.asarray(value, np.float64))
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        pixel = np.clip(np.rint(pixel), limits.min, limits.max)
    return pixel.astype(dtype)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    top, left = (height - size[0] / scale) / 2, (width - size[1] / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
    # Channel by channel in 32-bit float, which holds 16-bit samples exactly; Pillow has no 16-bit RGB.
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR, box)) for plane in planes]
    values = np.stack(resized, axis=-1)
    return np.rint(values).astype(image.dtype) if image.dtype.kind in "iu" else values


def _read_npy(path: Path) -> np.ndarray:
    """Map the file, so that a large one is read where it is used."""
    try:
        image = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"image {path}: broken or truncated ({' '.join(str(error).split())})") from None
    dtype = check_array(image.shape, image.dtype, path)
    return (image if image.ndim == 3 else image[..., None]).astype(dtype, copy=False)


def check_array(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> np.dtype:
    """See that a stored array is an image, and return the type that it is read as.

    Raises:
        InputError: naming `path`, for another shape or sample type.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"image {path}: received shape {tuple(shape)}; accepted: (H, W) or (H, W, C)")
    if dtype not in (np.uint8, np.uint16) and dtype.kind != "f":
        raise InputError(f"image {path}: received {dtype}; accepted: uint8, uint16 or float")
    return np.dtype(np.float32) if dtype.kind == "f" else dtype


def _decode_png16(content: bytes, path: Path) -> np.ndarray:
    """Pillow reduces 16-bit RGB to 8 bits without a word, hence libpng."""
    import imagecodecs

    width, height = struct.unpack(">II", content[16:24])
    if width * height > _most_pixels():
        raise _too_large(path)
    image = imagecodecs.png_decode(content)
    image = image if image.ndim == 3 else image[..., None]
    return image[..., :-1] if image.shape[-1] in (2, 4) else image


def _decode_tiff(content: bytes, path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        series, page = file.series[0], file.pages.first
        check_tiff(page, series.axes, path)
        image = series.asarray()
    return tiff_pixels(np.moveaxis(image, 0, -1) if series.axes == "SYX" else image, page)


def check_tiff(page: "tifffile.TiffPage", axes: str, path: Path) -> None:
    """See that a TIFF's samples are grey or RGB of 8 or 16 bits, or of 1 bit, or a palette's.

    Raises:
        InputError: naming `path`, for others.
    """
    kind = page.photometric.name
    # JPEG decoders turn luma and chroma into RGB; no other decoder does.
    readable = ["MINISBLACK", "MINISWHITE", "RGB", "PALETTE", *(["YCBCR"] if "JPEG" in page.compression.name else [])]
    if axes not in ("YX", "YXS", "SYX") or kind not in readable:
        raise InputError(f"image {path}: received axes {axes}, {kind}; accepted: one grey or RGB image")
    if kind != "PALETTE" and page.bitspersample not in (1, 8, 16):
        raise InputError(f"image {path}: received {page.bitspersample} bits a sample; accepted: 8 or 16")
    if page.dtype not in (np.uint8, np.uint16, bool):
        raise InputError(f"image {path}: received {page.dtype} samples; accepted: 8 or 16 bits")


def tiff_pixels(samples: np.ndarray, page: "tifffile.TiffPage") -> np.ndarray:
    """A TIFF's samples as pixels: (H, W) or (H, W, S) -> (H, W, C) uint8 or uint16.

    Palettes become RGB, 1-bit samples 0 and 255, and white is the largest number.
    """
    kind = page.photometric.name
    if kind == "PALETTE":
        # A page of one sample has no axis of samples, but its strips and tiles have.
        indices = samples if samples.ndim == 2 else samples[..., 0]
        return (np.moveaxis(page.colormap[:, indices], 0, -1) >> 8).astype(np.uint8)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    if kind == "MINISWHITE":
        samples = np.iinfo(samples.dtype).max - samples
    return samples if samples.ndim == 3 else samples[..., None]


def _decode_pillow(content: bytes, path: Path) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP")) as file:
            ImageOps.exif_transpose(file, in_place=True)
            grey = file.mode in ("1", "L", "LA")
            wanted = "L" if grey else "RGB"
            image = file if file.mode == wanted else file.convert(wanted)
            width, height = image.size
            pixels = np.empty((height, width, len(wanted)), np.uint8)
            # In bands: Pillow hands out its pixels by way of two copies.
            for top in range(0, height, 256):
                band = np.asarray(image.crop((0, top, width, min(top + 256, height))))
                pixels[top : top + 256] = band.reshape(-1, width, len(wanted))
    except UnidentifiedImageError:
        raise InputError(f"image {path}: unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    return pixels


def _most_pixels() -> float:
    """Where Pillow refuses an image as a decompression bomb."""
    from PIL import Image

    return np.inf if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _too_large(path: Path) -> InputError:
    return InputError(
        f"image {path}: over {_most_pixels():,} pixels; accepted at that size: TIFF and .npy; "
        f"convert it once by: zoo tile {path} -o {path.stem}.tif"
    )
