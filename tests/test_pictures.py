import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from data_sets import one_line, random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.errors import InputError
from zoo.pictures import Choice, Wanted, open_picture, read_image, write_tiled
from zoo.pictures import stored as stored_module
from zoo.pictures import tiff as tiff_module

RGB = random_image(61, 83, 3)
DEEP = random_image(61, 83, 3, dtype=np.uint16)
GREY = RGB[..., 0]


def tiff(path, pixels=RGB, **options):
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(path / "a.tif", pixels, **options)
    return path / "a.tif"


def picture(path, name, pixels=RGB):
    Image.fromarray(pixels).save(path / name)
    return path / name


def npy(path, pixels):
    np.save(path / "a.npy", pixels)
    return path / "a.npy"


def zarr_array(path, pixels=RGB, **options):
    zarr.create_array(path / "a.zarr", data=pixels, **options)
    return path / "a.zarr"


# What writes a file, and the pixels that it holds.
FILES = {
    "png": (lambda path: picture(path, "a.png"), RGB),
    "bmp": (lambda path: picture(path, "a.bmp"), RGB),
    "tiff, one strip": (lambda path: tiff(path), RGB),
    "tiff, big endian": (lambda path: tiff(path, DEEP, byteorder=">", rowsperstrip=5), DEEP),
    "tiff, planes": (lambda path: tiff(path, DEEP, planarconfig="separate", photometric="rgb"), DEEP),
    "tiff, lzw strips": (lambda path: tiff(path, compression="lzw", rowsperstrip=7), RGB),
    "tiff, lzw planes": (
        lambda path: tiff(path, compression="lzw", rowsperstrip=7, planarconfig="separate", photometric="rgb"),
        RGB,
    ),
    "tiff, deflate strips": (lambda path: tiff(path, DEEP, compression="zlib", predictor=True, rowsperstrip=1), DEEP),
    "tiff, tiles": (lambda path: tiff(path, GREY, tile=(16, 32)), GREY[..., None]),
    "tiff, deflate tiles": (lambda path: tiff(path, compression="zlib", tile=(32, 16), bigtiff=True), RGB),
    "tiff, tiles of planes": (
        lambda path: tiff(path, DEEP, tile=(16, 32), planarconfig="separate", photometric="rgb", byteorder=">"),
        DEEP,
    ),
    "tiff, white is zero": (
        lambda path: tiff(path, 255 - GREY, photometric="miniswhite", compression="lzw", rowsperstrip=9),
        GREY[..., None],
    ),
    "tiff, white is zero, flat": (lambda path: tiff(path, 255 - GREY, photometric="miniswhite"), GREY[..., None]),
    "tiff, one bit": (
        lambda path: tiff(path, GREY > 99, photometric="minisblack", rowsperstrip=8),
        (GREY > 99)[..., None] * np.uint8(255),
    ),
    "npy": (lambda path: npy(path, DEEP), DEEP),
    "npy, grey": (lambda path: npy(path, GREY), GREY[..., None]),
    "npy, floats": (lambda path: npy(path, RGB / 7), (RGB / 7).astype(np.float32)),
    "npy, columns first": (lambda path: npy(path, np.asfortranarray(RGB)), RGB),
    "zarr 2": (lambda path: zarr_array(path, chunks=(16, 32, 3), zarr_format=2), RGB),
    "zarr 3": (lambda path: zarr_array(path, DEEP, chunks=(16, 32, 1)), DEEP),
    "zarr, shards": (lambda path: zarr_array(path, chunks=(8, 16, 3), shards=(32, 32, 3)), RGB),
    "zarr, grey floats": (lambda path: zarr_array(path, GREY / 7), (GREY / 7).astype(np.float32)[..., None]),
}
PALETTE = random_image(3, 256, seed=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = FILES[name][0](tmp_path_factory.mktemp("file"))
        return made[name]

    return get


def opening(path, channels=None, page=None, level=0, **options):
    return open_picture(path, Wanted(channels), Choice(page, None, level), **options)


def refusal(path, region=None, **options):
    with pytest.raises(InputError) as raised, opening(path, **options) as opened:
        assert region is not None
        opened[region]
    assert str(path) in str(raised.value)
    return one_line(raised)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_region_holds_what_was_written(written, name, data):
    pixels = FILES[name][1]
    rows, columns = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, side)] * 2)))) for side in pixels.shape[:2])
    with opening(written(name)) as opened:
        assert opened.shape == pixels.shape and opened.dtype == pixels.dtype
        region = opened[rows, columns]
        assert region.dtype == pixels.dtype and region.dtype.isnative
        np.testing.assert_array_equal(region, pixels[rows, columns])
        # The last row and column, and bounds beyond the image, as in NumPy.
        np.testing.assert_array_equal(opened[-1:, 80:999], pixels[-1:, 80:999])


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("zarr")])
def test_pixels_are_those_of_read_image(written, name):
    whole = read_image(written(name))
    with opening(written(name)) as opened:
        assert opened.dtype == whole.dtype
        np.testing.assert_array_equal(opened[:, :], whole)


@pytest.mark.parametrize("options", [{"tile": (16, 32)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_compression(tmp_path, options, subsampling):
    ramp = np.arange(83)[None, :, None] * np.array([1, 2, 3]) // 2 + np.arange(61)[:, None, None]
    coded = {"level": 95, "outcolorspace": "ycbcr", "subsampling": subsampling}
    path = tiff(tmp_path, ramp.astype(np.uint8), compression="jpeg", compressionargs=coded, **options)
    by_pillow = np.asarray(Image.open(path).convert("RGB"))
    with opening(path) as opened:
        region = opened[13:50, 30:83]
        np.testing.assert_array_equal(region, read_image(path)[13:50, 30:83])
    np.testing.assert_allclose(region.astype(int), by_pillow[13:50, 30:83], atol=1)
    # The last block is filled up with zeros, and its pixels ring.
    np.testing.assert_allclose(region[:, :50].astype(int), ramp[13:50, 30:80], atol=8)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "lzw", "rowsperstrip": 4}])
def test_palette(tmp_path, options):
    path = tiff(tmp_path, GREY, photometric="palette", colormap=PALETTE.astype(np.uint16) * 257, **options)
    with opening(path) as opened:
        assert opened.shape == (61, 83, 3) and opened.dtype == np.uint8
        np.testing.assert_array_equal(opened[5:40, 9:], np.moveaxis(PALETTE[:, GREY[5:40, 9:]], 0, -1))


def test_jpeg_and_16_bit_png_files(tmp_path, written):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    whole = read_image(tmp_path / "a.jpg")
    with opening(tmp_path / "a.jpg") as opened:
        assert opened.shape == (83, 61, 3)
        np.testing.assert_array_equal(opened[3:80, 5:60], whole[3:80, 5:60])
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "deep.png")
    with opening(tmp_path / "deep.png") as opened:
        assert opened.dtype == np.uint16
        np.testing.assert_array_equal(opened[3:60, 5:60], DEEP[3:60, 5:60, :1])


def test_channels(tmp_path, written):
    with opening(written("tiff, tiles"), channels=3) as opened:
        assert opened.shape == (61, 83, 3)
        np.testing.assert_array_equal(opened[3:5, :], np.repeat(GREY[3:5, :, None], 3, -1))
    rgba = tiff(tmp_path, random_image(61, 83, 4), photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16))
    with opening(rgba, channels=3) as opened:
        np.testing.assert_array_equal(opened[1:50, 2:60], random_image(61, 83, 4)[1:50, 2:60, :3])
    assert "received 3 channels in colour; accepted: 1" in refusal(rgba, (slice(0, 5), slice(0, 5)), channels=1)
    assert "received 3 channels; accepted: 5" in refusal(written("npy"), channels=5)
    # Whether colours are grey throughout is seen where they are read.
    text = refusal(written("tiff, deflate tiles"), (slice(0, 5), slice(0, 5)), channels=1)
    assert "received 3 channels in colour; accepted: 1" in text


def test_pages(tmp_path):
    stack, other = random_image(4, 20, 30), random_image(9, 8, 3, seed=1)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in stack:
            file.write(plane, compression="lzw", metadata=None)
        file.write(other, metadata=None)
    # One page's header for four planes, as ImageJ writes large stacks.
    tifffile.imwrite(tmp_path / "imagej.tif", stack.astype(np.uint16), imagej=True, truncate=True)
    tifffile.imwrite(tmp_path / "ome.ome.tif", stack, metadata={"axes": "CYX"}, photometric="minisblack", tile=(16, 16))
    for name in ("a.tif", "imagej.tif", "ome.ome.tif"):
        for page in range(4):
            with opening(tmp_path / name, page=page) as opened:
                np.testing.assert_array_equal(opened[3:19, 7:30], stack[page, 3:19, 7:30, None])
    with opening(tmp_path / "a.tif", page=4) as opened:
        np.testing.assert_array_equal(opened[:, :], other)
    assert refusal(tmp_path / "a.tif", page=5).endswith("page: received 5; accepted: 0 to 4")
    assert refusal(tmp_path / "a.tif", page=-1).endswith("page: received -1; accepted: 0 to 4")
    assert refusal(tmp_path / "a.tif", level=1).endswith("level: received 1; accepted: 0")
    assert refusal(picture(tmp_path, "a.png"), page=1).endswith("page: received 1; accepted: 0")


@pytest.mark.parametrize("subifds", [2, None])
def test_levels_of_a_pyramid(tmp_path, subifds):
    images = [random_image(96 // step, 128 // step, 3, seed=step) for step in (1, 2, 4)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(images[0], subifds=subifds, tile=(32, 32), compression="zlib")
        for image in images[1:]:
            file.write(image, subfiletype=1, tile=(16, 16), compression="lzw")
    for level, image in enumerate(images):
        with opening(tmp_path / "a.tif", level=level) as opened:
            assert opened.shape == image.shape
            np.testing.assert_array_equal(opened[5:20, 3:31], image[5:20, 3:31])
    assert refusal(tmp_path / "a.tif", level=3).endswith("level: received 3; accepted: 0 to 2")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_groups(tmp_path, zarr_format):
    images = [random_image(96 // step, 128 // step, 3, seed=step) for step in (1, 2)]
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("only", data=images[0], chunks=(16, 16, 3))
    with opening(tmp_path / "g.zarr") as opened:
        np.testing.assert_array_equal(opened[5:20, 3:31], images[0][5:20, 3:31])
    group.create_array("other", data=images[1])
    assert "a Zarr group of arrays: only, other; accepted: the path of one array" in refusal(tmp_path / "g.zarr")
    with opening(tmp_path / "g.zarr" / "other") as opened:
        np.testing.assert_array_equal(opened[:, :], images[1])

    group = zarr.open_group(tmp_path / "ome.zarr", mode="w", zarr_format=zarr_format)
    scales = [{"axes": [{"name": name} for name in "tczyx"], "datasets": [{"path": "s0"}, {"path": "s1"}]}]
    group.attrs.update({"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}})
    for level, image in enumerate(images):
        stored = np.moveaxis(image, -1, 0)[None, :, None]
        group.create_array(f"s{level}", data=stored, chunks=(1, 1, 1, 16, 32))
        with opening(tmp_path / "ome.zarr", level=level) as opened:
            assert opened.shape == image.shape
            np.testing.assert_array_equal(opened[5:20, 3:31], image[5:20, 3:31])
    assert refusal(tmp_path / "ome.zarr", level=2).endswith("level: received 2; accepted: 0 to 1")
    group.create_array("deep", data=np.zeros((1, 3, 2, 8, 8), np.uint8))
    scales[0]["datasets"] = [{"path": "deep"}]
    group.attrs.update({"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}})
    assert "axes t 1, c 3, z 2, y 8, x 8; accepted: y, x and c" in refusal(tmp_path / "ome.zarr")


def count_decoded(monkeypatch):
    seen = []
    decode = tiff_module._segment
    monkeypatch.setattr(tiff_module, "_segment", lambda page, index: seen.append(index) or decode(page, index))
    return seen


def test_rows_of_regions_decode_each_part_once(tmp_path, monkeypatch):
    seen = count_decoded(monkeypatch)
    with opening(tiff(tmp_path, compression="lzw", rowsperstrip=5)) as opened:
        for top in range(0, 61, 12):
            for left in range(0, 83, 16):
                opened[max(top - 4, 0) : top + 16, left : left + 20]
    assert sorted(seen) == list(range(13))
    seen.clear()
    with opening(tiff(tmp_path, tile=(16, 16))) as opened:
        opened[20:30, 16:33]
    assert sorted(seen) == [7, 8]


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    seen = count_decoded(monkeypatch)
    strip = 5 * 83 * 3
    with opening(tiff(tmp_path, compression="lzw", rowsperstrip=5), cache=3.5 * strip) as opened:
        opened[:15, :9]
        opened[:15, 9:]
        assert seen == [0, 1, 2]
        opened[15:20, :]
        opened[5:15, :]
        assert seen == [0, 1, 2, 3]
        opened[:5, :]
        assert seen == [0, 1, 2, 3, 0]
    seen.clear()
    monkeypatch.setattr(stored_module, "CACHE", strip // 2)
    with opening(tmp_path / "a.tif", cache=math.inf) as opened:
        opened[:9, :9]
        opened[:9, 9:]
        assert seen == [0, 1, 0, 1]


SCAN = """
import resource, sys
from zoo.pictures import open_picture
for path in sys.argv[1:]:
    with open_picture(path, cache=2**24) as opened:
        for top in range(0, opened.shape[0], 512):
            for left in range(0, opened.shape[1], 512):
                assert not opened[max(top - 8, 0) : top + 520, max(left - 8, 0) : left + 520].any()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.extended
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Files of 512 and of 6,144 pixels a side, 1 and 108 MiB, none of them written in full."""
    paths = []
    for kind in ("tile", "strip", "flat", "npy", "zarr"):
        for side in (512, 6144):
            path = tmp_path / f"{side}.{kind}"
            paths.append(path)
            shape = (side, side, 3)
            if kind == "npy":
                np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            elif kind == "zarr":
                zarr.create_array(path, shape=shape, chunks=(256, 256, 3), dtype=np.uint8)
            elif kind == "flat":
                tifffile.memmap(path, shape=shape, dtype=np.uint8, photometric="rgb")
            else:
                part = np.zeros((256, 256 if kind == "tile" else side, 3), np.uint8)
                coded = tifffile.TIFF.COMPRESSORS[8](part.tobytes())
                count, cut = side // 256, {"rowsperstrip": 256}
                if kind == "tile":
                    count, cut = count**2, {"tile": (256, 256)}
                coded = iter([coded] * count)
                tifffile.imwrite(path, coded, shape=shape, dtype=np.uint8, compression=8, photometric="rgb", **cut)
    done = subprocess.run(
        [sys.executable, "-c", SCAN, *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    assert done.returncode == 0, done.stderr
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == len(paths) and max(peaks) - min(peaks) < 50, peaks


def test_parts_larger_than_the_cache_are_refused_with_a_command_that_converts_them(tmp_path):
    path = tiff(tmp_path, compression="lzw", rowsperstrip=61)
    text = refusal(path, cache=10_000)
    assert "received strips of 61 x 83 pixels" in text
    assert text.endswith(f"convert it once by: zoo tile {path} -o a-tiled.tif")
    # Uncompressed, one strip is read by regions all the same.
    with opening(tiff(tmp_path, rowsperstrip=61), cache=10_000) as opened:
        np.testing.assert_array_equal(opened[7:20, 9:30], RGB[7:20, 9:30])
    chunk = zarr_array(tmp_path, chunks=(61, 83, 3))
    assert "received chunks of 61 x 83" in refusal(chunk, cache=10_000)
    # One compressed strip over 20,000 x 20,000 pixels, at the default.
    tifffile.imwrite(
        path, iter([b"\0"]), shape=(20_000, 20_000, 3), dtype=np.uint8, compression="zlib", rowsperstrip=20_000
    )
    assert "strips of 20000 x 20000 pixels, 1,144 MiB; accepted: up to 256 MiB" in refusal(path)


@pytest.mark.parametrize("name", ["png", "tiff, lzw planes", "tiff, white is zero", "tiff, one bit", "npy", "zarr 3"])
def test_write_tiled_changes_no_pixel(tmp_path, written, name):
    path = write_tiled(written(name), tmp_path / "tiled.tif")
    assert os.listdir(tmp_path) == ["tiled.tif"]
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and file.pages.first.is_tiled
    np.testing.assert_array_equal(read_image(path), FILES[name][1])
    with opening(path) as opened:
        np.testing.assert_array_equal(opened[:, :], FILES[name][1])


def test_write_tiled_takes_what_is_too_large_to_be_read_whole(tmp_path, monkeypatch):
    path = picture(tmp_path, "a.png", random_image(600, 700, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    np.testing.assert_array_equal(read_image(path), random_image(600, 700, 3))
    text = refusal(path, most=200_000)
    assert "over 200,000 pixels; accepted at that size: TIFF and .npy" in text
    assert text.endswith(f"convert it once by: zoo tile {path} -o a.tif")
    with opening(write_tiled(path, tmp_path / "a.tif")) as opened:
        np.testing.assert_array_equal(opened[:, :], random_image(600, 700, 3))
    assert Image.MAX_IMAGE_PIXELS == 100_000


def test_write_tiled_refuses_floats_and_other_endings(tmp_path, written):
    with pytest.raises(InputError, match="float32 samples; accepted: 8 or 16 bits"):
        write_tiled(written("npy, floats"), tmp_path / "a.tif")
    with pytest.raises(InputError, match="accepted: a name that ends in .tif"):
        write_tiled(written("png"), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["png", "tiff, one strip", "tiff, lzw strips", "tiff, deflate tiles", "npy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_files_are_refused_when_opened(tmp_path, written, name, share, caplog):
    content = written(name).read_bytes()
    (tmp_path / "a").write_bytes(content[: int(share * len(content))])
    assert refusal(tmp_path / "a").startswith(f"image {tmp_path / 'a'}: ")
    assert not caplog.records


def test_a_broken_part_spoils_only_the_regions_that_need_it(tmp_path):
    path = tiff(tmp_path, compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[7], file.pages.first.databytecounts[7]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with opening(path) as opened:
        np.testing.assert_array_equal(opened[:16, :], RGB[:16])
        np.testing.assert_array_equal(opened[16:32, 32:], RGB[16:32, 32:])
    assert "tile 1, 1: broken or truncated" in refusal(path, (slice(0, 17), slice(0, 17)))
    with pytest.raises(InputError, match="tile 1, 1: broken or truncated"):
        write_tiled(path, tmp_path / "tiled.tif")
    assert os.listdir(tmp_path) == ["a.tif"]


def test_a_broken_chunk(tmp_path):
    path = zarr_array(tmp_path, chunks=(16, 32, 3))
    (path / "c" / "1" / "0" / "0").write_bytes(b"broken")
    assert "chunk 1, 0: broken or truncated" in refusal(path, (slice(0, 17), slice(0, 17)))


def test_left_out_tiles_hold_zeros(tmp_path):
    path = tmp_path / "a.tif"
    tiles = [np.ones((16, 16), np.uint8), None, None, np.full((16, 16), 4, np.uint8)]
    tifffile.imwrite(path, iter(tiles), shape=(32, 32), dtype=np.uint8, tile=(16, 16), compression="zlib")
    with opening(path) as opened:
        np.testing.assert_array_equal(
            opened[
                15:17,
                15:17,
            ][..., 0],
            [[1, 0], [0, 4]],
        )


def test_what_is_no_image(tmp_path):
    assert "cannot be read (No such file" in refusal(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("hello")
    assert "unknown format" in refusal(tmp_path / "text.tif")
    (tmp_path / "empty.tif").write_bytes(b"")
    assert "unknown format" in refusal(tmp_path / "empty.tif")
    (tmp_path / "folder").mkdir()
    assert "received a folder; accepted: an image file" in refusal(tmp_path / "folder")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(buffer.getvalue())
    assert "broken or truncated" in refusal(tmp_path / "pickle.npy")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path: tiff(path, np.zeros((40, 40), np.uint32)), "32 bits a sample; accepted: 8 or 16"),
        (lambda path: tiff(path, np.zeros((40, 40), np.int16)), "int16 samples; accepted: 8 or 16 bits"),
        (lambda path: tiff(path, np.zeros((40, 40, 4), np.uint8), photometric="separated"), "SEPARATED; accepted"),
        (lambda path: tiff(path, RGB, photometric="ycbcr", compression="zlib"), "YCBCR; accepted: one grey or RGB"),
        (lambda path: tiff(path, np.zeros((2, 32, 32), np.uint8), volumetric=True, tile=(2, 16, 16)), "axes ZYX"),
        (lambda path: npy(path, np.zeros((4, 4), complex)), "complex128; accepted: uint8, uint16 or float"),
        (lambda path: npy(path, np.zeros((2, 4, 4, 3), np.uint8)), r"shape (2, 4, 4, 3); accepted: (H, W)"),
        (lambda path: zarr_array(path, np.zeros((4, 4), np.int32)), "int32; accepted: uint8, uint16 or float"),
        (lambda path: zarr_array(path, np.zeros((2, 4, 4, 3), np.uint8)), r"shape (2, 4, 4, 3); accepted: (H, W)"),
    ],
)
def test_other_samples_are_refused(tmp_path, write, text):
    assert text in refusal(write(tmp_path))


def test_only_whole_regions_are_read(written):
    with opening(written("npy")) as opened, pytest.raises(InputError, match="steps 2, 1; accepted: 1"):
        opened[::2, :]
