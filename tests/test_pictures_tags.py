"""What a file's tags say beside its pixels: which image, how large a pixel is, what is told; and `zoo tile`."""

import os

import numpy as np
import pytest
import tifffile
import zarr
from conftest import command
from pictures_corpus import GREY, HALF, RGB, RGBA, ome, oriented, saved, tiff
from PIL import Image, ImageFile

from zoo.errors import InputError
from zoo.pictures import Choice, Wanted, list_pictures, open_picture, read_picture, stored_form, write_tiled

LARGE = np.random.default_rng(3).integers(0, 256, (64, 48, 3)).astype(np.uint8)


LABEL = LARGE[:20, :30]


def size_of(path, **choice):
    with open_picture(path, Wanted(), Choice(**choice)) as picture:
        return picture.pixel_size


def notes_of(path, channels=3):
    return read_picture(path, Wanted(channels))[1]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, (0.5, 0.5)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (72 / 2.54, 72 / 2.54), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({}, None),
        ({"description": "Aperio Image Library\n|AppMag = 20|MPP = 0.4990|Left = 1", "metadata": None}, (0.499, 0.499)),
        ({"description": "Aperio Image Library\n|AppMag = 40|MPP = 0,2520", "metadata": None}, (0.252, 0.252)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}, "photometric": None}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "pixel"}, "photometric": None}, None),
    ],
)
def test_size_of_a_pixel(tmp_path, options, size):
    tiff(tmp_path / "a.tif", **options)
    assert size_of(tmp_path / "a.tif") == (size and pytest.approx(size))


def test_size_of_a_pixel_in_ome_and_turned(tmp_path):
    units = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    ome(tmp_path / "a.ome.tif", **units)
    assert size_of(tmp_path / "a.ome.tif") == pytest.approx((0.25, 0.5))
    across = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    tiff(tmp_path / "b.tif", extratags=[(274, 3, 1, 6, True)], **across)
    assert size_of(tmp_path / "b.tif") == pytest.approx((0.25, 0.5))


def test_levels_of_ome_zarr(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    datasets = []
    for level in range(2):
        group.create_array(str(level), data=np.moveaxis(LARGE[:: 2**level, :: 2**level], -1, 0))
        scale = {"type": "scale", "scale": [1, 0.5 * 2**level, 250 * 2**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": "c"}, {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "nanometer"}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]
    assert size_of(tmp_path / "a.zarr", level=1) == pytest.approx((1, 0.5))
    with open_picture(tmp_path / "a.zarr", Wanted(3, "uint8")) as picture:
        assert picture.levels == ((64, 48), (32, 24)) and picture.pixel_size == pytest.approx((0.5, 0.25))
        with picture.at_level(1) as coarse:
            np.testing.assert_array_equal(coarse[:, :], LARGE[::2, ::2])
        with pytest.raises(InputError, match="level: received 2; accepted: 0 to 1"):
            picture.at_level(2)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """An Aperio slide: the picture, its thumbnail, a level, the label and the macro."""
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    with tifffile.TiffWriter(path) as file:
        about = "Aperio Image Library v1\n|AppMag = 20|MPP = 0.5"
        for pixels, more in (
            (LARGE, {"tile": (16, 16)}),
            (LARGE[::4, ::4], {}),
            (LARGE[::2, ::2], {"tile": (16, 16)}),
            (LARGE[:20, :30], {"subfiletype": 1}),
            (LARGE[:20, :31], {"subfiletype": 9}),
        ):
            file.write(pixels, photometric="rgb", metadata=None, description=about, **more)
    return path


def test_a_slide(slide):
    pixels, notes = read_picture(slide)
    np.testing.assert_array_equal(pixels, LARGE)
    assert not notes and size_of(slide) == (0.5, 0.5) and size_of(slide, level=1) == (1, 1)
    # Aperio's thumbnail bears the description of the picture.
    assert size_of(slide, series=1) is None
    for choice, part in (
        ({"level": 1}, LARGE[::2, ::2]),
        ({"series": 2}, LABEL),
        ({"page": 2}, LABEL),
    ):
        np.testing.assert_array_equal(read_picture(slide, Wanted(), Choice(**choice))[0], part)
    for choice, said in (({"series": 4}, "series: received 4; accepted: 0 to 3"), ({"level": 2}, "0 to 1")):
        with pytest.raises(InputError, match=said):
            read_picture(slide, Wanted(), Choice(**choice))


GT450 = "Aperio Leica Biosystems GT450 v1.0.1 \r\n48x64 [0,0,48x64] (16x16) JPEG/YCC Q=91|AppMag = 40|MPP = 0.263374"


@pytest.mark.parametrize("beside", ["thumbnail, label, macro", "thumbnail, macro", "thumbnail", "label", ""])
def test_slides_with_other_pages_beside_the_picture(tmp_path, beside):
    """Newer scanners leave label and macro without a description; programs that hide names take pages out."""
    pages = {"thumbnail": (LARGE[::4, ::4], {}), "label": (LARGE[:20, :30], {"subfiletype": 1}),
             "macro": (LARGE[:20, :31], {"subfiletype": 9})}  # fmt: skip
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:

        def write(pixels, about=None, **more):
            file.write(pixels, photometric="rgb", metadata=None, description=about, software=False, **more)

        write(LARGE, GT450, tile=(16, 16))
        if "thumbnail" in beside:
            write(*pages["thumbnail"][:1])
            write(LARGE[::2, ::2], GT450, tile=(16, 16))
        for name in ("label", "macro"):
            if name in beside:
                write(pages[name][0], **pages[name][1])
    pixels, notes = read_picture(tmp_path / "a.svs")
    np.testing.assert_array_equal(pixels, LARGE)
    assert not notes and size_of(tmp_path / "a.svs") == (0.263374, 0.263374)
    with open_picture(tmp_path / "a.svs") as picture:
        assert picture.levels == (((64, 48), (32, 24)) if "thumbnail" in beside else ((64, 48),))


def test_what_is_said(tmp_path):
    saved(tmp_path / "grey.png", GREY)
    assert notes_of(tmp_path / "grey.png") == ("is grey, repeated as red, green and blue",)
    saved(tmp_path / "rgba.png", RGBA)
    assert notes_of(tmp_path / "rgba.png") == ("its alpha is left out, which is not opaque everywhere",)
    assert notes_of(tmp_path / "rgba.png", 4) == ("its alpha is taken as channel 4 of 4",)
    saved(tmp_path / "opaque.png", np.concatenate([RGB, HALF * 0 + 255], -1))
    assert not notes_of(tmp_path / "opaque.png")
    tiff(tmp_path / "a.tif", RGBA, extrasamples=["assocalpha"])
    assert "stored multiplied by it" in notes_of(tmp_path / "a.tif")[0]
    ome(tmp_path / "a.ome.tif")
    assert notes_of(tmp_path / "a.ome.tif") == (
        "its three channels are not tagged as colours, and are taken in their order",
    )
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY] * 3), photometric="minisblack")
    assert notes_of(tmp_path / "pages.tif", 1) == (
        "holds 3 images, of which the first is read; --page 0 to 2 chooses one",
    )


def test_two_series(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for pixels in (RGB, LARGE):
            file.write(pixels, photometric="rgb", metadata={"axes": "YXS"})
    assert notes_of(tmp_path / "a.ome.tif") == (
        "holds 2 images, of which series 0 is read; --series 0 to 1 chooses one",
    )
    pixels, notes = read_picture(tmp_path / "a.ome.tif", Wanted(3), Choice(series=1))
    np.testing.assert_array_equal(pixels, LARGE)
    assert not notes


@pytest.mark.parametrize("claim", ["ome", "imagej", "shaped"])
def test_planes_that_no_file_holds(tmp_path, claim):
    about = {
        "ome": tifffile.OmeXml(),
        "imagej": "ImageJ=1.11a\nimages=1000000000\nslices=1000000000\n",
        "shaped": '{"shape": [1000000000, 12, 10]}',
    }
    about["ome"].addimage("uint8", (12, 10), (1, 1, 1, 12, 10, 1), axes="YX")
    about["ome"] = about["ome"].tostring().replace('SizeT="1"', 'SizeT="1000000000"')
    tifffile.imwrite(tmp_path / "a.tif", GREY, description=about[claim], metadata=None)
    with pytest.raises(InputError, match="000,000 planes; accepted"):
        read_picture(tmp_path / "a.tif")


def test_the_callers_settings_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    saved(tmp_path / "a.png", RGB)
    saved(tmp_path / "b.jpeg", LARGE)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[0], RGB)
    (tmp_path / "b.jpeg").write_bytes((tmp_path / "b.jpeg").read_bytes()[:-200])
    with pytest.raises(InputError, match="broken or truncated"):
        read_picture(tmp_path / "b.jpeg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS == 10


def test_tile_keeps_what_channels_mean_and_the_size_of_a_pixel(tmp_path):
    across = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    tiff(tmp_path / "a.tif", RGBA, extrasamples=["assocalpha"], extratags=[(274, 3, 1, 6, True)], **across)
    tiff(tmp_path / "b.tif", RGBA, photometric="minisblack", planarconfig="contig")
    for name, shown in (("a", np.rot90(RGBA, -1)), ("b", RGBA)):
        written = write_tiled(tmp_path / f"{name}.tif", tmp_path / "tiled.tif")
        with open_picture(tmp_path / f"{name}.tif", Wanted(alpha=True)) as before:
            with open_picture(written, Wanted(alpha=True)) as after:
                np.testing.assert_array_equal(after[:, :], shown)
                assert after.pixel_size == (before.pixel_size and pytest.approx(before.pixel_size))
                for about in ("shape", "colour", "alpha", "multiplied"):
                    assert getattr(after, about) == getattr(before, about)


def test_commands_take_another_page(capsys, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY[::-1]]), photometric="minisblack")
    code, out, _ = command(capsys, "tile", tmp_path / "a.tif", "-o", tmp_path / "b.tif")
    assert code == 0 and f"note: {tmp_path / 'a.tif'} holds 2 images" in out
    code, out, _ = command(capsys, "tile", tmp_path / "a.tif", "-o", tmp_path / "c.tif", "--page", 1)
    assert code == 0 and "note" not in out
    np.testing.assert_array_equal(read_picture(tmp_path / "c.tif")[0][..., 0], GREY[::-1])
    code, _, err = command(capsys, "tile", tmp_path / "a.tif", "-o", tmp_path / "d.tif", "--page", 2)
    assert code == 2 and "page: received 2; accepted: 0 to 1" in err


def test_pictures_of_a_folder(tmp_path):
    saved(tmp_path / "a.png", RGB)
    tiff(tmp_path / "b.svs")
    np.save(tmp_path / "c.npy", RGB)
    zarr.create_array(tmp_path / "d", data=RGB)
    (tmp_path / "broken.PNG").write_bytes(b"")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    saved(tmp_path / ".q.png", RGB)
    (tmp_path / ".sub").mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\0\0\1Bud1")
    Image.fromarray(RGB).save(tmp_path / "bitmap", "BMP")
    (tmp_path / "BMI.csv").write_text("BMI,age,height\n22,31,180\n")
    (tmp_path / "notes.txt").write_text("BM")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = list_pictures(tmp_path)
    assert [path.name for path in found.pictures] == ["a.png", "b.svs", "bitmap", "broken.PNG", "c.npy", "d"]
    no_pictures = "4 that are no pictures: BMI.csv, folder/, notes.txt and 1 more"
    assert found.note == f"left out {no_pictures}; 3 hidden: ._a.png, .q.png, .sub/"
    with pytest.raises(InputError, match="received a device or pipe"):
        read_picture(tmp_path / "pipe")


def test_type_of_samples_from_the_header(tmp_path):
    saved(tmp_path / "a.png", RGB, exif=oriented(3))
    tiff(tmp_path / "b.tif", RGB.astype(np.uint16))
    tiff(tmp_path / "c.tif", RGB.astype(np.float16))
    kinds = [stored_form(tmp_path / name)[0] for name in ("a.png", "b.tif", "c.tif")]
    assert kinds == [np.uint8, np.uint16, np.float32]


@pytest.mark.parametrize("ending", ["jpeg", "png"])
def test_the_form_of_a_file_is_that_of_its_picture(tmp_path, ending):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{ending}"
        Image.fromarray(RGB).save(path, exif=exif)
        picture = read_picture(path)[0]
        assert stored_form(path) == (picture.dtype, picture.shape[:2])


def test_whole_words_say_what_lies_beside_a_picture(tmp_path):
    def read(*names):
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
            for value, name in enumerate(names):
                file.write(np.full((8, 9), value, np.uint8), photometric="minisblack", metadata={"Name": name})
        pixels, notes = read_picture(tmp_path / "a.ome.tif")
        return pixels.max(), " | ".join(notes)

    for name in ("Macrophages 1", "Bitmap", "roadmap", "Unlabelled"):
        number, said = read(name, "second")
        assert number == 0 and said.startswith("holds 2 images, of which series 0 is read")
    passed_over = "series 0 (slide_label 2): passed over by name, as beside the picture; --series 0 to 1 chooses one"
    assert read("slide_label 2", "second") == (1, passed_over)
    number, said = read("Map of A", "Map of B")
    assert number == 0 and said.startswith("holds 2 images, of which series 0 is read")


@pytest.mark.parametrize("inside", ["", "1/"])
def test_several_multiscales(tmp_path, inside):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    if inside:
        root.attrs["bioformats2raw.layout"] = 3
        about = [{"axes": list("yx"), "datasets": [{"path": "only"}]}]
        root.create_group("0", attributes={"multiscales": about}).create_array("only", data=GREY + 1)
    group = root.create_group("1") if inside else root
    axes = [{"name": name} for name in "yx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": path}]} for path in ("full", "other")]
    group.create_array("full", data=GREY)
    group.create_array("other", data=GREY // 2)
    images = [GREY, GREY // 2] if not inside else [GREY + 1, GREY, GREY // 2]
    most = len(images) - 1
    pixels, notes = read_picture(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels[..., 0], images[0])
    assert notes == (f"holds {len(images)} images, of which series 0 is read; --series 0 to {most} chooses one",)
    for series, image in enumerate(images):
        pixels, notes = read_picture(tmp_path / "a.zarr", choice=Choice(series=series))
        np.testing.assert_array_equal(pixels[..., 0], image)
        assert not notes
    with pytest.raises(InputError, match=f"series: received {len(images)}; accepted: 0 to {most}"):
        read_picture(tmp_path / "a.zarr", choice=Choice(series=len(images)))
