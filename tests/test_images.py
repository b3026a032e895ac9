import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from data_sets import one_line, random_image
from PIL import Image

from zoo.data import fit_image, read_image
from zoo.errors import InputError
from zoo.pictures import to_channels


def written(path, pixels, **options):
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, **options)
    elif pixels.dtype == np.uint16:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
@pytest.mark.parametrize(
    "name, options",
    [
        ("a.png", {}),
        ("a.npy", {}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "lzw", "byteorder": ">"}),
        ("a.tif", {"compression": "zlib", "bigtiff": True, "tile": (16, 16)}),
        ("a.bmp", {}),
    ],
)
def test_lossless_round_trip(tmp_path, name, options, shape, dtype):
    if name == "a.bmp" and dtype == np.uint16:
        pytest.skip("BMP has no 16-bit samples")
    pixels = random_image(*shape, dtype=dtype)
    image = read_image(written(tmp_path / name, pixels, **options))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels.reshape(7, 5, -1))


def test_planar_tiff(tmp_path):
    pixels = random_image(3, 7, 5)
    path = written(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path), np.moveaxis(pixels, 0, -1))


def test_inverted_and_palette_tiff(tmp_path):
    pixels = random_image(7, 5)
    np.testing.assert_array_equal(
        read_image(written(tmp_path / "a.tif", pixels, photometric="miniswhite"))[..., 0], 255 - pixels
    )
    colours = random_image(3, 256)
    path = written(tmp_path / "b.tif", pixels, photometric="palette", colormap=colours.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path), np.moveaxis(colours[:, pixels], 0, -1))


def test_one_bit_images(tmp_path):
    pixels = random_image(7, 5) > 127
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", ~pixels, photometric="miniswhite")
    for name in ("a.png", "a.tif", "b.tif"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image[..., 0], pixels * 255)


def test_palette_png_is_rgb_and_alpha_is_dropped(tmp_path):
    palette = Image.fromarray(random_image(7, 5, 3)).quantize(16)
    palette.save(tmp_path / "a.png", transparency=b"\x00\x80")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(palette.convert("RGB")))
    rgba = random_image(7, 5, 4)
    np.testing.assert_array_equal(read_image(written(tmp_path / "b.png", rgba)), rgba[..., :3])
    deep = random_image(7, 5, 4, dtype=np.uint16)
    np.testing.assert_array_equal(read_image(written(tmp_path / "c.png", deep)), deep[..., :3])
    np.testing.assert_array_equal(read_image(written(tmp_path / "d.tif", rgba), 3), rgba[..., :3])


def test_jpeg_orientation(tmp_path):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    image = read_image(tmp_path / "a.jpg").astype(int)
    # Orientation 6 turns clockwise: the left edge becomes the top.
    assert image.shape == (24, 16, 3) and image[:8].min() > 240 and image[8:].max() < 15


def test_format_is_known_by_content(tmp_path):
    pixels = random_image(7, 5, dtype=np.uint16)
    written(tmp_path / "a.tif", pixels).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg")[..., 0], pixels)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.bmp", "a.tif", "lzw.tif", "a.npy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(tmp_path, name, share):
    dtype = np.uint16 if name == "deep.png" else np.uint8
    options = {"compression": "lzw"} if name == "lzw.tif" else {}
    path = written(tmp_path / name, random_image(40, 30, 3, dtype=dtype), **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError) as raised:
        read_image(path)
    assert one_line(raised).startswith(f"image {path}: ")


def png_header(width, height, depth):
    """A PNG whose header promises more than any memory holds."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2, 0, 0, 0])
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:29] = header
    content[29:33] = imagecodecs.zlib_crc32(b"IHDR" + header).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("depth", [8, 16])
def test_over_large(tmp_path, depth):
    (tmp_path / "a.png").write_bytes(png_header(100_000, 100_000, depth))
    with pytest.raises(InputError) as raised:
        read_image(tmp_path / "a.png")
    assert "over 178,956,970 pixels; accepted at that size: TIFF and .npy" in one_line(raised)


def test_unsupported_images(tmp_path):
    with pytest.raises(InputError, match="cannot be read .No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="received a folder; accepted: an image file, or the folder of a Zarr array"):
        read_image(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "a.gif")
    with pytest.raises(InputError, match="unknown format; accepted: PNG, JPEG, BMP, TIFF and .npy"):
        read_image(tmp_path / "a.gif")
    with pytest.raises(InputError, match="axes Z 5, Y 7, X 9; accepted: one image, chosen by --page 0 to 4"):
        stack = written(tmp_path / "a.tif", random_image(5, 7, 9), photometric="minisblack", metadata={"axes": "ZYX"})
        read_image(stack)
    with pytest.raises(InputError, match="32 bits a sample; accepted: 8 or 16"):
        read_image(written(tmp_path / "wide.tif", np.zeros((7, 9), np.uint32)))
    with pytest.raises(InputError, match=r"received shape \(4,\); accepted"):
        read_image(written(tmp_path / "flat.npy", np.zeros(4, np.uint8)))
    with pytest.raises(InputError, match="received complex128; accepted: uint8, uint16 or float"):
        read_image(written(tmp_path / "complex.npy", np.zeros((4, 4), complex)))


@pytest.mark.parametrize(
    "received, channels, expected",
    [([7], 3, [7, 7, 7]), ([5, 5, 5], 1, [5]), ([1, 2, 3, 9], 4, [1, 2, 3, 9])],
)
def test_channels(received, channels, expected):
    image = np.array(received, np.uint16).reshape(1, 1, -1)
    np.testing.assert_array_equal(to_channels(image, channels, "image")[0, 0], expected)


@pytest.mark.parametrize("received, channels", [(3, 1), (3, 2), (5, 3), (1, 2), (2, 1), (2, 3), (4, 3)])
def test_channels_that_do_not_fit(tmp_path, received, channels):
    path = written(tmp_path / "a.npy", random_image(4, 4, received))
    with pytest.raises(InputError) as raised:
        read_image(path, channels)
    assert str(path) in one_line(raised) and f"received {received} channels" in str(raised.value)
    assert f"accepted: {channels} (model.channels)" in str(raised.value)


def test_fit_crops_rows_and_pads_columns():
    image = np.arange(10, dtype=np.uint8).reshape(5, 2, 1)
    fitted = fit_image(image, (2, 5), fill=[99.6])
    # Rows 1 and 2 of five; one column added at the left, two at the right.
    np.testing.assert_array_equal(fitted[..., 0], [[100, 2, 3, 100, 100], [100, 4, 5, 100, 100]])


def test_fit_fills_by_channel_and_type():
    image = np.zeros((1, 1, 3), np.uint8)
    np.testing.assert_array_equal(fit_image(image, (1, 2), fill=(-4, 12.4, 300))[0, 1], [0, 12, 255])
    assert fit_image(np.zeros((1, 1, 1), np.float32), (1, 2), fill=0.5)[0, 1, 0] == 0.5
    assert fit_image(np.zeros((1, 1, 1), np.uint16), (1, 2), fill=300)[0, 1, 0] == 300


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_covers_then_crops(dtype, channels):
    top = np.iinfo(dtype).max if dtype != np.float32 else 1.0
    image = np.zeros((4, 12, channels), dtype)
    image[:, 4:8] = top
    fitted = fit_image(image, (8, 8), resize=True)
    assert fitted.shape == (8, 8, channels) and fitted.dtype == dtype
    # Twice as large, the middle third fills the target; its edges blend with what was cut off.
    assert (fitted[:, 1:-1] == top).all() and (fitted[:, 0] >= top * 0.7).all()


@pytest.mark.parametrize("size", [(3, 7), (9, 2), (1, 1), (20, 20)])
def test_resize_keeps_a_constant_and_any_shape(size):
    fitted = fit_image(np.full((5, 6, 1), 40_000, np.uint16), size, resize=True)
    assert fitted.shape == (*size, 1) and (fitted == 40_000).all()
