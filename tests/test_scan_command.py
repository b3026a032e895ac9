import json

import keras
import numpy as np
import pytest
from conftest import SCAN_FILES, command, randomize
from keras import layers
from PIL import Image

import zoo as package
import zoo.pictures.picture
from zoo.scanning.store import Store


@pytest.fixture
def folder(tmp_path):
    """Three images, a broken one, one that is too small, and what is no image."""
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("a.png", "b.png", "c.jpg", "small.png")):
        size = (5, 5) if name == "small.png" else (41, 30)
        pixels = np.random.default_rng(index).integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.png").write_text("no image")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def scores(folder):
    with np.load(folder / "scores.npz") as saved:
        return saved["scores"]


def test_a_folder_is_scanned_and_what_fails_is_told_at_the_end(capsys, model_file, folder, tmp_path):
    code, out, err = command(capsys, "scan", model_file, folder, "-o", tmp_path / "out")
    assert code == 2
    first, second, last = err.splitlines()
    assert "broken.png" in first and "unknown format" in first
    assert "small.png: image: received 5 x 5 pixels" in second
    assert last == "zoo: 2 of 5 images could not be scanned; the lines above say why"
    own = ["a", "b", "c", "uncertainty.csv", "uncertainty.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == own
    for name in ("a.png", "b.png", "c.jpg"):
        own = tmp_path / "out" / name[0]
        assert sorted(path.name for path in own.iterdir()) == SCAN_FILES
        wanted = package.scan(package.load(model_file), folder / name).scores
        np.testing.assert_array_equal(scores(own), wanted)


@pytest.mark.extended
def test_several_images_go_on_where_they_were(capsys, monkeypatch, model_file, folder, tmp_path):
    real, images = Store.write, [folder / "a.png", folder / "b.png"]

    def write(self, *rest):
        if self.path.parent.name == "b" and len(self.done) == 2:
            raise KeyboardInterrupt
        real(self, *rest)

    monkeypatch.setattr(Store, "write", write)
    code, out, err = command(capsys, "scan", model_file, *images, "-o", tmp_path / "out", "--tile", 10)
    assert code == 130 and "zoo: interrupted; 2 of 12 tiles are kept" in err and err.count("\n") == 1
    monkeypatch.setattr(Store, "write", real)
    code, out, err = command(capsys, "scan", model_file, *images, "-o", tmp_path / "out", "--tile", 10)
    assert code == 0 and "a.png: is there already" in out and "b.png: is there" not in out
    for name in "ab":
        wanted = package.scan(package.load(model_file), folder / f"{name}.png", tile=10).scores
        np.testing.assert_array_equal(scores(tmp_path / "out" / name), wanted)
    code, out, err = command(
        capsys, "scan", model_file, *images, "-o", tmp_path / "out", "--tile", 10, "--border", "shift"
    )
    assert code == 2 and "is there already, made from another border" in err and "is there already, " in err
    again = ["--tile", 10, "--border", "shift", "--overwrite"]
    code, out, err = command(capsys, "scan", model_file, *images, "-o", tmp_path / "out", *again)
    assert code == 0 and "is there already" not in out


def test_images_of_one_name_keep_apart(capsys, model_file, folder, tmp_path):
    Image.open(folder / "a.png").save(folder / "a.bmp")
    code, *_ = command(capsys, "scan", model_file, folder / "a.png", folder / "a.bmp", "-o", tmp_path / "out")
    assert code == 0 and sorted(path.name for path in (tmp_path / "out").glob("a*")) == ["a.bmp", "a.png"]
    code, _, err = command(capsys, "scan", model_file, folder / "a.png", folder / "a.png", "-o", tmp_path / "out")
    assert code == 2 and "images: received 2 named 'a.png'" in err
    (tmp_path / "empty").mkdir()
    code, _, err = command(capsys, "scan", model_file, tmp_path / "empty", "-o", tmp_path / "out")
    assert code == 2 and "has no image" in err


def test_mask_border_and_format_by_command(capsys, model_file, folder, tmp_path):
    mask = np.zeros((41, 30), np.uint8)
    mask[:8, :8] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    common = ["--tile", 10, "--border", "shift"]
    code, out, _ = command(
        capsys, "scan", model_file, folder / "a.png", "-o", tmp_path / "one", *common, "--format", "zarr",
        "--mask", tmp_path / "masks",
    )  # fmt: skip
    assert code == 0 and "cells not scanned: 200 of 216 (outside the mask)" in out
    import zarr

    given = np.asarray(zarr.open_array(tmp_path / "one" / "scores.zarr", mode="r"))
    wanted = package.scan(package.load(model_file), folder / "a.png", tile=10, border="shift").scores
    known = ~np.isnan(given).any(-1)
    np.testing.assert_array_equal(given[known], wanted[known])
    assert known[:4, :4].all() and known.sum() == 16
    np.testing.assert_array_equal(np.load(tmp_path / "one" / "scanned.npy"), known)
    about = json.loads((tmp_path / "one" / "geometry.json").read_text())
    assert about["scores"] == "scores.zarr" and about["last_cell_box"] == [33, 22, 41, 30]
    two = [folder / "a.png", folder / "b.png", "-o", tmp_path / "two", "--mask", tmp_path / "masks"]
    code, _, err = command(capsys, "scan", model_file, *two)
    assert code == 2 and "has no mask named b.*" in err and (tmp_path / "two" / "a" / "scores.npz").is_file()


@pytest.mark.extended
def test_stride_scales_and_answer_by_command(capsys, model_file, folder, tmp_path):
    options = ["--stride", 1, "--scales", "1,1.5", "--merge", "maximum-probabilities", "--answer", "average-logits"]
    code, out, _ = command(capsys, "scan", model_file, folder / "a.png", "-o", tmp_path / "out", *options, "--tile", 16)
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["answer.json", *SCAN_FILES]
    model = package.load(model_file)
    image = np.asarray(Image.open(folder / "a.png"))
    wanted = package.scan(model, image, stride=1, scales=[1, 1.5], merge="maximum-probabilities", tile=16)
    assert wanted.scores.shape == (34, 23, 10)
    np.testing.assert_array_equal(scores(tmp_path / "out"), wanted.scores)
    about = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert about["stride"] == [1, 1] and about["outputs"] == "probabilities" and about["other_function"] is None
    assert about["made_from"]["scales"] == [1.0, 1.5] and about["made_from"]["stride"] == [1, 1]
    found = json.loads((tmp_path / "out" / "answer.json").read_text())
    probabilities = package.answer(wanted, "average-logits")
    np.testing.assert_allclose(list(found["probabilities"].values()), probabilities, rtol=1e-6)
    assert found["class"] == str(probabilities.argmax()) and found["probability"] == max(
        found["probabilities"].values()
    )
    assert found["answer"] == "average-logits"
    assert f"answer, average-logits: {found['class']} {found['probability']:.1%}\n" in out
    code, out, _ = command(capsys, "scan", model_file, folder / "a.png", "-o", tmp_path / "out", "--overwrite")
    assert code == 0 and not (tmp_path / "out" / "answer.json").exists() and "answer," not in out


@pytest.mark.extended
def test_another_picture_or_answer_of_images_that_are_there(capsys, model_file, folder, tmp_path):
    images = [folder / "a.png", folder / "b.png", "-o", tmp_path / "out"]
    command(capsys, "scan", model_file, *images)
    for options in (["--class", "3"], ["--answer", "maximum-logits"], ["--format", "npy"]):
        code, out, err = command(capsys, "scan", model_file, *images, *options)
        assert code == 2 and "--overwrite" in err
        code, out, err = command(capsys, "scan", model_file, *images, *options, "--overwrite")
        assert code == 0 and "is there already" not in out
        assert command(capsys, "scan", model_file, *images, *options)[1].count("is there already") == 2


def test_a_file_is_decoded_once(capsys, monkeypatch, model_file, folder, tmp_path):
    read, decoded = zoo.pictures.picture.whole.open_whole, []
    monkeypatch.setattr(
        zoo.pictures.picture.whole, "open_whole", lambda path, *more: (decoded.append(path), read(path, *more))[1]
    )
    assert command(capsys, "scan", model_file, folder / "c.jpg", "-o", tmp_path / "out")[0] == 0
    assert decoded == [folder / "c.jpg"]


def test_a_size_that_makes_another_function_is_told(capsys, tmp_path):
    """A 3x3 SAME convolution of stride 2 beside a 1x1: 40 pixels pad it at the end alone, 41 at both."""
    image = keras.Input((40, 40, 1))
    x = layers.Add()([layers.Conv2D(4, 3, 2, "same")(image), layers.Conv2D(4, 1, 2, "same")(image)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    file = package.save(model, tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (51, 60), np.uint8)
    np.save(tmp_path / "odd.npy", pixels)
    np.save(tmp_path / "even.npy", pixels[:50])
    notes = {}
    for name in ("odd", "even"):
        code, out, _ = command(capsys, "scan", file, tmp_path / f"{name}.npy", "-o", tmp_path / name)
        notes[name] = json.loads((tmp_path / name / "geometry.json").read_text())["other_function"]
        assert code == 0 and (f"note: {notes[name]}\n" in out) == (name == "odd")
    assert notes["even"] is None and notes["odd"].startswith("at 51 x 60 pixels branches")
    assert "height 2k + 0, width 2k + 0" in notes["odd"]
    # Flush with an odd border, the last row is that of an odd image.
    shifted = package.scan(model, pixels[:50], border="shift")
    assert not shifted.other_function
    assert package.scan(model, pixels, stride=1).other_function == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--stride", "3"], "stride: received 3; accepted: a divisor of the network's stride 2 x 2: 1, 2"),
        (["--stride", "two"], "'two' is not a valid integer"),
        (["--scales", "1,big"], "scales: received ['1', 'big']; accepted: numbers above 0"),
        (["--scales", "0.1"], "scale 0.1: image: received 4 x 3 pixels; accepted: at least one window of 8 x 8"),
        (["--scales", "1", "--merge", "mean"], "unknown merge 'mean'"),
        (["--answer", "average"], "did you mean 'average-"),
        (["--border", "mirror"], "border: received 'mirror'; accepted: none, reflect, shift"),
        (["--memory", "much"], "memory: received 'much'"),
        (["--memory", "1MiB"], "memory: received 1 MiB; accepted: at least"),
        (["--memory", "8GiB", "--tile", "20"], "accepted: one of the two"),
        (["--mask", "gone.png"], "gone.png"),
        (["--format", "csv"], "'csv' is not one of"),
    ],
)
def test_a_users_mistake_is_one_line(capsys, model_file, folder, tmp_path, options, text):
    code, _, err = command(capsys, "scan", model_file, folder / "a.png", "-o", tmp_path / "out", *options)
    assert code == 2 and text in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_large_picture_is_drawn_smaller_in_the_images_own_pixels(model_file, tmp_path):
    """Every block of 3 x 3 pixels is their mean, coloured by the cell of the block's middle pixel."""
    model = package.load(model_file)
    image = np.random.default_rng(0).integers(0, 256, (64, 47, 1), np.uint8)
    result = package.scan(model, image)
    assert result.factor(22) == 3 and result.factor(64) == 1
    picture = result.overlay(image, side=22, opacity=0.0)
    assert picture.shape == (22, 16, 3)
    for row, column in ((0, 0), (20, 7), (21, 15)):
        block = image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        assert abs(picture[row, column, 0] - block.mean()) <= 0.51
    whole = result.overlay(np.zeros_like(image), class_index=2)
    small = result.overlay(np.zeros_like(image), class_index=2, side=22)
    np.testing.assert_array_equal(small[:21, :15], whole[1:63:3, 1:45:3])


@pytest.mark.extended
def test_masks_are_pictures_of_the_images_own_name(capsys, model_file, folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    inside = np.ones(np.asarray(Image.open(folder / "a.png")).shape[:2], np.uint8)
    Image.fromarray(inside).save(masks / "a.png")
    (masks / "a.json").write_text("{}")
    line = ("scan", model_file, folder / "a.png", "-o", tmp_path / "out", "--mask")
    assert command(capsys, *line, masks)[0] == 0
    (masks / "a.png").rename(masks / "a.bmp")
    Image.fromarray(inside).save(masks / "a.tif")
    code, _, err = command(capsys, *line, masks)
    assert code == 2 and "2 masks named a.*; accepted: one mask for every image" in err
    both = ("scan", model_file, folder / "a.png", folder / "b.png", "-o", tmp_path / "both", "--mask", masks / "a.tif")
    code, _, err = command(capsys, *both)
    assert code == 2 and "accepted: a folder of masks" in err
    import zarr

    zarr.create_array(tmp_path / "mask.zarr", data=inside)
    assert command(capsys, *line[:-3], "-o", tmp_path / "zarr", "--mask", tmp_path / "mask.zarr")[0] == 0


def test_a_diverged_model_is_told_as_such(capsys, model_file, folder, tmp_path):
    model = package.load(model_file)
    weights = model.get_weights()
    weights[-2][:] = np.nan
    model.set_weights(weights)
    package.save(model, tmp_path / "nan.keras")
    for line in (
        ("scan", tmp_path / "nan.keras", folder / "a.png", "-o", tmp_path / "out"),
        ("convert", tmp_path / "nan.keras", "-o", tmp_path / "fcn.keras"),
        ("plot", tmp_path / "nan.keras", "--cell", "1,1", "--image", folder / "a.png", "-o", tmp_path / "p.png"),
    ):
        code, _, err = command(capsys, *line)
        assert code == 2 and "not finite" in err and "diverge" in err and err.count("\n") == 1, err
