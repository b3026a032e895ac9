"""JPEG and JPEG 2000 frames that have their end marker, and not the data before it."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.errors import InputError
from zoo.pictures import Choice, Wanted, read_image, read_picture

END = b"\xff\xd9"
NOISE = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE).resize((75, 61), Image.Resampling.BICUBIC))
CODED = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 95},
    "restarts": {"restart_marker_blocks": 3},
    "restarts of rows": {"restart_marker_rows": 1, "subsampling": 0},
    # Markers in a segment, such as a thumbnail has them.
    "comment": {"comment": END + b"\xff\xda", "exif": Image.Exif()},
}


def jpeg(pixels=SMOOTH, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("name", CODED)
def test_jpeg_files(tmp_path, name):
    content = jpeg(**CODED[name])
    # Bytes of ones may fill up before a marker.
    filled = content[:-2] + b"\xff\xff" + END
    for whole in (content, content + bytes(20), content + b"more" + END, filled):
        (tmp_path / "a.jpg").write_bytes(whole)
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), np.asarray(Image.open(io.BytesIO(content))))
    half = content[: len(content) // 2]
    zeros = bytes(len(content) - len(half))
    last_scan = content[: content.rindex(b"\xff\xda")]
    for cut in (half + END, content[:-12] + END, content[:-2], half + zeros, half + zeros + END, last_scan + END):
        (tmp_path / "a.jpg").write_bytes(cut)
        with pytest.raises(InputError, match="a.jpg: broken or truncated"):
            read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM" + bytes(12) + b"\x28\0\0\0"])
def test_a_file_of_a_known_format_that_is_cut_at_once_is_broken_not_unknown(tmp_path, start):
    for more in (b"", bytes(40), b"more"):
        (tmp_path / "a.jpg").write_bytes(start + more)
        with pytest.raises(InputError, match="a.jpg: broken or truncated"):
            read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"GIF89a" + bytes(40))
    with pytest.raises(InputError, match="a.jpg: unknown format"):
        read_image(tmp_path / "a.jpg")


def test_data_that_are_missing_in_the_middle(tmp_path):
    content = jpeg(restart_marker_blocks=3)
    restart = content.index(b"\xff\xd2")
    scans = jpeg(progressive=True)
    scan = [place for place in range(len(scans)) if scans[place : place + 2] == b"\xff\xc4"][3]
    for whole, marker in ((content, restart), (scans, scan)):
        (tmp_path / "a.jpg").write_bytes(whole[: marker - 8] + whole[marker:])
        with pytest.raises(InputError, match="its data end before its pixels do"):
            read_image(tmp_path / "a.jpg")


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB"]), st.sampled_from(list(CODED)), st.data())
def test_whole_jpeg_files_are_never_refused(tmp_path_factory, height, width, mode, name, data):
    value = data.draw(st.integers(0, 255))
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[: height // 2] = np.random.default_rng(value).integers(0, 256, (height // 2, width, 3))
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    Image.fromarray(pixels).convert(mode).save(path, **CODED[name])
    np.testing.assert_array_equal(read_image(path).squeeze(), np.asarray(Image.open(path)).squeeze())


def test_every_image_of_a_file_is_checked(tmp_path):
    more = Image.fromarray(255 - SMOOTH)
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[more])
    assert np.abs(read_picture(tmp_path / "a.jpg", Wanted(), Choice(page=1))[0] - (255.0 - SMOOTH)).mean() < 9
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:-40] + bytes(38) + END)
    read_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="a.jpg: broken or truncated"):
        read_picture(tmp_path / "a.jpg", Wanted(), Choice(page=1))


@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "jpeg"},
        {"compression": "jpeg", "compressionargs": {"outcolorspace": "ycbcr", "subsampling": (2, 2), "level": 80}},
        {"compression": "jpeg", "compressionargs": {"lossless": True}},
        {"compression": "jpeg", "planarconfig": "separate"},
        {"compression": "jpeg2000"},
        {"compression": "aperio_jp2000_rgb"},
    ],
)
def test_parts_of_a_tiff_file(tmp_path, options, layout):
    path, planar = tmp_path / "a.tif", "planarconfig" in options
    pixels = np.moveaxis(SMOOTH, -1, 0) if planar else SMOOTH
    tifffile.imwrite(path, pixels, photometric="rgb", **options, **layout)
    expected = tifffile.imread(path)
    np.testing.assert_array_equal(read_image(path), np.moveaxis(expected, 0, -1) if planar else expected)
    with tifffile.TiffFile(path) as file:
        begin, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    content = path.read_bytes()
    frame = content[begin : begin + count]
    for cut in (frame[: count * 9 // 10], frame[: count // 2], frame[:-5]):
        # Bytes after the end marker mean nothing.
        short = cut + END + bytes(count - len(cut) - 2)
        path.write_bytes(content[:begin] + short + content[begin + count :])
        with pytest.raises(InputError, match="(tile|strip) .*: broken or truncated"):
            read_image(path)
