"""Every file gives the same pixels, or the same refusal, by every way that the product reads a picture."""

import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tifffile
from conftest import command, some_by_default
from pictures_corpus import NOT_FOR_THE_MODEL, READ, REFUSED, RGB, RGBA, SHAPE
from PIL import Image

from zoo import evaluation, model_files
from zoo.card import Card, attach
from zoo.config import Config
from zoo.convert.conversion import convolutionalize
from zoo.data import ImageForm, load
from zoo.data.class_folders import ImageFile
from zoo.data.faults import noted_since
from zoo.data.folder import FolderImages, OpenedFile, read_folder
from zoo.errors import InputError
from zoo.large_images import influence, scan, scanner_of, score_boxes
from zoo.pictures import Choice, Wanted, check_array, open_mask, read_picture, write_tiled
from zoo.scanning.options import Options

TOLD = Wanted(3, "uint8")
CONFIG = Config.model_validate(
    {
        "name": "pictures",
        "train": {"epochs": 1, "batch_size": 1, "optimizer": {"name": "adamw", "learning_rate": 1e-3}},
        "data": {"name": "image_folder", "dir": "."},
        "model": {
            "family": "nin",
            "num_classes": 2,
            "image_size": SHAPE,
            "channels": 3,
            "mlpconvs": [{"kernel": 3, "filters": [4]}],
        },
    }
)

FORM = ImageForm.of(CONFIG)

# The notes of pictures, which `zoo.scan` tells as warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def model():
    """A classifier of single pixels, whose scores are their channels."""
    image = keras.Input((1, 1, 3))
    made = keras.Model(image, keras.layers.Dense(3, use_bias=False)(keras.layers.Flatten()(image)))
    made.layers[-1].set_weights([np.eye(3, dtype=np.float32)])
    return attach(made, Card(image_size=(1, 1), dtype="uint8", class_names=("r", "g", "b")))


@pytest.fixture(scope="module")
def ways(model, tmp_path_factory):
    """How pixels are read, by name; each gives (12, 10, 3)."""
    converted, patch = convolutionalize(model), pytest.MonkeyPatch()
    boxes = [(row, column, row + 1, column + 1) for row in range(SHAPE[0]) for column in range(SHAPE[1])]
    whole, seen = keras.Input((None, None, 3)), []
    average = keras.Model(whole, keras.layers.GlobalAveragePooling2D()(whole))
    attach(average, Card(dtype="uint8", pooling="global"))
    real = evaluation.predict
    patch.setattr(evaluation, "predict", lambda model, images: seen.append(images[0]) or real(model, images))

    def predicted(path):
        list(evaluation.predict_files(average, [path]))
        return seen.pop()

    def tiled(path):
        written = write_tiled(path, tmp_path_factory.mktemp("tiled") / "a.tif")
        return read_picture(written, TOLD)[0]

    def one_cell(path):
        return np.array([[influence(converted, path, (row, 7)).scores for row in range(0, SHAPE[0], 5)]])

    def folder(path):
        return FolderImages([OpenedFile(ImageFile(path, 0, path.name), "0", np.dtype(np.uint8), SHAPE[:2])], FORM)[:1][
            0
        ]

    yield {
        "scan": lambda path: np.array(scan(converted, path).scores),
        "scan, tiles": lambda path: np.array(scan(converted, path, tile=5).scores),
        "predict": predicted,
        "regions": lambda path: score_boxes(model, path, boxes, "crops").scores.reshape(*SHAPE, 3),
        "plot": one_cell,
        "tile": tiled,
        "folder": folder,
    }
    patch.undo()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("file") / name
            {**READ, **REFUSED, **NOT_FOR_THE_MODEL}[name][0](made[name])
        return made[name]

    return get


@pytest.mark.parametrize("name", some_by_default(READ, *list(READ)[::3]))
def test_the_same_pixels_by_every_way(file, ways, name):
    path, pixels = file(name), READ[name][1]
    for way, read in ways.items():
        expected = pixels[None, ::5, 7] if way == "plot" else pixels
        np.testing.assert_array_equal(read(path), expected, err_msg=way)
    with open_mask(path, SHAPE) as mask:
        np.testing.assert_array_equal(mask[:, :][..., 0], pixels.any(-1))
        np.testing.assert_array_equal(mask[3:7, 2:9][..., 0], pixels[3:7, 2:9].any(-1))


def refusals(path, ways):
    """What each way says, on one line that holds the name that was given."""
    for way, read in ways.items():
        with pytest.raises(InputError) as raised:
            read(path)
        text = str(raised.value)
        assert "\n" not in text and len(text) <= 500, way
        assert str(path) in text or way == "tile", way
        yield way, text


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_refusal_by_every_way(file, ways, name):
    def mask(path):
        with open_mask(path, SHAPE) as inside:
            inside[:, :]

    for way, text in refusals(file(name), {**ways, "mask": mask}):
        assert REFUSED[name][1] in text or way == "tile", way


@pytest.mark.parametrize("name", NOT_FOR_THE_MODEL)
def test_the_same_refusal_to_a_model(file, ways, name):
    # The folder of a training takes samples of any type, as the model learns from them.
    typed = name.startswith(("deep", "float"))
    for way, text in refusals(file(name), {way: ways[way] for way in ways if not (way == "folder" and typed)}):
        assert NOT_FOR_THE_MODEL[name][1] in text or way == "tile", (way, text)


@pytest.mark.parametrize("way", ["predict", "scan", "regions", "plot", "tile"])
def test_every_command_tells_what_was_noted(capsys, model, tmp_path, way):
    model_files.save(model, tmp_path / "m.keras")
    Image.fromarray(RGBA).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right\n1,1,2,2\n")
    network, image = tmp_path / "m.keras", tmp_path / "a.png"
    arguments = {
        "predict": (network, image),
        "scan": (network, image, "-o", tmp_path / "out"),
        "regions": (network, image, tmp_path / "boxes.csv", "-o", tmp_path / "out.csv"),
        "plot": (network, "--cell", "1,1", "--image", image, "-o", tmp_path / "out.png"),
        "tile": (image, "-o", tmp_path / "out.tif"),
    }
    code, out, err = command(capsys, way, *arguments[way])
    assert code == 0, err
    assert ("its alpha is left out, which is not opaque everywhere" in out) == (way != "tile")


def test_the_reader_imports_no_framework():
    code = "import sys, zoo.pictures, zoo.cli; print({'keras', 'tensorflow', 'jax', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_arrays_that_cannot_be_the_models_pixels(model):
    for image, text in (
        (RGB / 255, "received values from 0 to 1 only"),
        (RGB / 255 * 2 - 1, "received values from -"),
        (RGB * 2.0, "accepted: raw pixels from 0 to 255"),
        (RGB.astype(np.int64) - 5, "accepted: raw pixels from 0 to 255"),
        (np.ma.masked_less(RGB, 50), "masked values"),
        (RGBA, r"accepted: (H, W, 3)"),
        (np.moveaxis(RGB, -1, 0), "channels seem to come first"),
        (np.where(RGB > 99, np.nan, RGB), "not finite"),
    ):
        with pytest.raises(InputError) as raised:
            scan(model, image)
        assert text in str(raised.value)
    for image in (RGB.astype(np.float64), RGB.astype(np.int64), np.zeros((4, 4, 3)), np.ma.masked_less(RGB, 0)):
        np.testing.assert_array_equal(scan(model, image).scores, np.asarray(image))


def test_arrays_of_other_libraries():
    foreign = SimpleNamespace(shape=RGB.shape, dtype="torch.uint8", __getitem__=RGB.__getitem__)
    for image in (
        foreign,
        SimpleNamespace(shape=None, dtype="uint8"),
        SimpleNamespace(shape=(4, None)),
        [[1]],
        None,
        3,
    ):
        for what, check in (("image", lambda image: check_array(image, Wanted())), ("mask", open_a_mask)):
            with pytest.raises(InputError, match=rf"^{what}: received [\w.]+; accepted: a file, or a NumPy array"):
                check(image)


def open_a_mask(mask):
    with open_mask(mask, SHAPE):
        pass


def test_notes_of_a_mask(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RGB[..., 0]] * 3), photometric="minisblack")
    Image.fromarray(RGBA).save(tmp_path / "a.png")
    for name, note in (("a.tif", "holds 3 images, of which the first is read"), ("a.png", "its alpha is left out")):
        with open_mask(tmp_path / name, SHAPE) as mask:
            mask[:, :]
            assert [text.startswith(note) for text in mask.notes] == [True]
    with open_mask(RGB, SHAPE) as mask:
        assert mask.notes == ()


def test_the_choice_of_a_picture_is_part_of_what_is_scanned_only_where_it_is_made(model, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RGB, RGB[::-1]]), photometric="rgb")
    plain = scanner_of(model).made_from(tmp_path / "a.tif")
    assert not {"page", "series", "level"} & {*plain}
    scanner = scanner_of(model, Options(choice=Choice(page=1)))
    assert scanner.made_from(tmp_path / "a.tif") == {**plain, "page": 1}
    np.testing.assert_array_equal(scanner(tmp_path / "a.tif").scores, RGB[::-1])


@pytest.mark.parametrize("name", ["page", "series", "level"])
def test_an_array_is_a_single_image_as_a_npy_file_is(model, tmp_path, name):
    np.save(tmp_path / "a.npy", RGB)
    for image in (RGB, tmp_path / "a.npy"):
        with pytest.raises(InputError, match=rf"^image.*: {name}: received 1; accepted: 0$"):
            scan(model, image, choice=Choice(**{name: 1}))
        np.testing.assert_array_equal(scan(model, image, choice=Choice(**{name: 0})).scores, RGB)


def test_notes_of_a_training_are_counted(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(2):
                Image.fromarray(RGB[index:, :, 0]).save(tmp_path / part / name / f"{part}{name}{index}.png")
    data = CONFIG.data.model_copy(update={"dir": tmp_path})
    faults = [fault for fault in read_folder(data, FORM, CONFIG.model.num_classes).faults if fault.kind == "note"]
    assert [str(fault) for fault in faults][0].startswith("8 images: is grey, repeated as red, green and blue: test/a/")


def test_notes_of_images_that_are_decoded_when_asked_for_are_told_then(tmp_path, monkeypatch):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(2):
                Image.fromarray(RGB[index:, :, 0]).save(tmp_path / part / name / f"{part}{name}{index}.png")
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"dir": tmp_path, "validation": 0.5})})
    monkeypatch.setattr("zoo.data.folder.IN_MEMORY", 0)
    monkeypatch.setattr("zoo.data.splits.IN_MEMORY", 0)
    data = load(config)
    assert not [fault for fault in data.faults if fault.kind == "note"]
    images = [part.images for part in (data.train, data.validation, data.test)]
    for each in images:
        each[:]
    (fault,) = noted_since(*images)
    assert str(fault).startswith("8 images: is grey, repeated as red, green and blue: test/a/")
