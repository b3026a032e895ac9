"""The folder for browsers: which models and runtimes it takes, and what is in it. Its page: tests/test_web_page.py."""

import hashlib
import json
import re

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers
from PIL import Image

import zoo
from zoo.card import Card, Peaks, attach
from zoo.errors import InputError
from zoo.exported.reading import opened
from zoo.exporting.web_page import MOST_SIDE, WebRuntime
from zoo.network.network import Network
from zoo.pictures import read_image
from zoo.scores import relative_error

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
GET_IT = "the folder of an unpacked onnxruntime-web: `npm pack onnxruntime-web` and `tar xf`"


def fake_runtime(folder, name="onnxruntime-web", version="1.30.0", files=FILES):
    """What looks like the package, whose files nothing can run."""
    (folder / "dist").mkdir(parents=True)
    about = {"name": name, "version": version, "license": "MIT"}
    (folder / "package.json").write_text(json.dumps(about))
    for file in files:
        (folder / "dist" / file).write_text(f"// {file}")
    return folder


def test_another_folder_than_a_runtimes_is_refused_saying_how_to_get_one(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "package.json").write_text("[]")
    fake_runtime(tmp_path / "node", name="onnxruntime-node")
    for name in ("gone", "file", "odd", "node", "node/dist"):
        with pytest.raises(InputError, match=f"runtime: received '.*{name}'; accepted: {GET_IT}"):
            WebRuntime.at(tmp_path / name)
    with pytest.raises(InputError, match=f"runtime: received none with the format web; accepted: {GET_IT}"):
        WebRuntime.at(None)
    old = fake_runtime(tmp_path / "old", version="1.14.0", files=FILES[1:])
    with pytest.raises(
        InputError, match="onnxruntime-web 1.14.0 without dist/ort.wasm.min.mjs; accepted: version 1.19"
    ):
        WebRuntime.at(old)
    known = WebRuntime.at(fake_runtime(tmp_path / "new"))
    assert (known.version, known.licence) == ("1.30.0", "MIT")


def fcn(*parts, shape=(None, None, 3), **known):
    x = image = keras.Input(shape)
    for part in parts or (layers.Conv2D(4, 3, 2), layers.Conv2D(3, 1)):
        x = part(x)
    return attach(keras.Model(image, x), Card(**known))


def two_outputs():
    image = keras.Input((None, None, 3))
    return keras.Model(image, [layers.Conv2D(2, 3)(image), layers.Conv2D(3, 3)(image)])


def global_block():
    image = keras.Input((None, None, 3))
    whole = layers.GlobalAveragePooling2D(keepdims=True)(image)
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Multiply()([image, whole])))


REFUSED = {
    "a classifier": (lambda: zoo.build("nin_digits"), "one answer for an image; accepted: the conversion of a class"),
    "one size": (lambda: fcn(shape=(20, 20, 3)), r"images of \(20, 20, 3\); accepted: the conversion of a classifier"),
    "one answer": (lambda: zoo.convolutionalize(zoo.build("nin_digits"), pooling="global"), "one answer for an image"),
    "channels first": (
        lambda: fcn(layers.Conv2D(2, 3, data_format="channels_first"), shape=(3, None, None)),
        r"images of \(3, None, None\); accepted: the conversion",
    ),
    "a counter": (lambda: fcn(target="count"), "a model that counts; accepted: a classifier's conversion"),
    "16 bits": (lambda: fcn(dtype="uint16"), "a model of uint16 images; accepted: one of uint8"),
    "floats": (lambda: fcn(dtype="float32"), "a model of float32 images; accepted: one of uint8"),
    "four channels": (lambda: fcn(shape=(None, None, 4)), "images of 4 channels; accepted: 1 or 3"),
    "several outputs": (two_outputs, "has 2 outputs"),
    "a sequence": (lambda: fcn(layers.Conv1D(2, 3), shape=(None, 2)), "accepted: one image"),
    "any reach": (lambda: fcn(layers.Conv2DTranspose(2, 2, 2)), "reach"),
    "a global block": (global_block, "a block that pools over the whole image; accepted: a model of local layers"),
    "a class that is none": (
        lambda: fcn(class_names=("a", "b", "c"), background="d"),
        "background: received the class 'd'; accepted: one of a, b, c",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_the_page_does_not_take(name, tmp_path):
    build, words = REFUSED[name]
    runtime = WebRuntime.at(fake_runtime(tmp_path / "package"))
    with pytest.raises(InputError, match=words):
        zoo.export(build(), tmp_path / "page", format="web", runtime=runtime)
    assert [each.name for each in tmp_path.iterdir()] == ["package"]


def test_a_runtime_belongs_to_the_format_and_examples_have_a_largest_size(tmp_path):
    runtime = WebRuntime.at(fake_runtime(tmp_path / "package"))
    with pytest.raises(InputError, match="'onnx': received a runtime for browsers; accepted: it with the format web"):
        zoo.export(fcn(), tmp_path / "a.onnx", format="onnx", runtime=runtime)
    with pytest.raises(InputError, match="runtime: received none"):
        zoo.export(fcn(), tmp_path / "page", format="web")
    wide = np.zeros((1, MOST_SIDE + 1, 3), np.uint8)
    with pytest.raises(InputError, match=r"--image: received 1 x 16385 pixels; accepted: up to 33,554,432 pixels"):
        zoo.export(fcn(), tmp_path / "page", format="web", runtime=runtime, images=[wide])


@pytest.fixture(scope="module")
def net():
    """A converted net without padding that knows a background."""
    made = zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))
    known = {
        **Network.of(made).card.model_dump(),
        "class_names": tuple("abcdefghij"),
        "background": "c",
        "peaks": {"a": Peaks(threshold=0.25, distance=3, margin=2)},
    }
    return attach(made, Card.model_validate(known))


def test_what_is_in_the_folder(net, tmp_path):
    """Model, page, runtime with its origin, and examples; nothing that is asked for elsewhere."""
    folder = fake_runtime(tmp_path / "package")
    (folder / "LICENSE").write_text("MIT License")
    images = [noise(30, 40, 1).astype(np.uint8), noise(20, 21, 1).astype(np.uint8)]
    page = zoo.export(net, tmp_path / "page", format="web", runtime=WebRuntime.at(folder), images=images)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["package", "page"]
    files = {str(each.relative_to(page)) for each in page.rglob("*") if each.is_file()}
    assert files >= {
        "index.html",
        "page.js",
        "worker.js",
        "look.css",
        "page.css",
        "model.onnx",
        "zoo.json",
        "page.json",
    }
    runtime = {f"runtime/{name}" for name in (*FILES, "ORIGIN.txt", "LICENSE")}
    assert runtime == {file for file in files if file.startswith("runtime/")}
    origin = (page / "runtime" / "ORIGIN.txt").read_text()
    assert "onnxruntime-web 1.30.0, licence MIT" in origin
    for name in FILES:
        content = (page / "runtime" / name).read_bytes()
        assert f"{hashlib.sha256(content).hexdigest()}  {name}\n" in origin and content == f"// {name}".encode()
    own = [page / file for file in files - runtime if not file.endswith((".png", ".onnx"))]
    assert not [each for each in own if re.search(r"https?://|//cdn", each.read_text())]
    loaded = re.findall(r'(?:from|href=|src=|new URL\() ?"\.?/?([\w./-]+)"', "".join(each.read_text() for each in own))
    assert {*loaded} - {"runtime/"} <= files and {"model.onnx", "look.css", "worker.js"} <= {*loaded}
    assert "default-src 'none'" in (page / "index.html").read_text()
    about = json.loads((page / "page.json").read_text())
    assert about["examples"] == ["image.png", "image_2.png"] and about["classNames"] == list("abcdefghij")
    assert about["least"] == [0.25, 0, None, *[0] * 7] and about["objects"] == [0, 1, *range(3, 10)]
    for name, pixels in zip(about["examples"], images, strict=True):
        np.testing.assert_array_equal(read_image(page / "examples" / name), pixels)
    exported = opened(page)
    carried = exported.carried
    assert carried.format == "web" and carried.image.dtype == "float32" and carried.card == Network.of(net).card
    assert carried.text() == (page / "zoo.json").read_text() and carried.verified.tried_on == "2 images"
    batch = noise(1, 33, 21, 1)  # not rounded
    assert relative_error(exported(batch)["logits"], np.asarray(net(batch))) <= 1e-5
    with pytest.raises(InputError, match="page': exists already; accepted: a new path"):
        zoo.export(net, page, format="web", runtime=WebRuntime.at(folder))


@pytest.mark.extended
def test_the_command(net, tmp_path, capsys):
    runtime, pixels = fake_runtime(tmp_path / "package"), noise(40, 30).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "an image.png")
    zoo.save(net, tmp_path / "fcn.keras")
    line = ["export", tmp_path / "fcn.keras", "-o", tmp_path / "page", "--format", "web"]
    code, _, error = command(capsys, *line)
    assert code == 2 and GET_IT in error
    line += ["--runtime", runtime]
    code, out, error = command(capsys, *line, "--image", tmp_path / "an image.png")
    assert code == 0 and "tried on 1 images" in out, error
    np.testing.assert_array_equal(read_image(tmp_path / "page" / "examples" / "an_image.png")[..., 0], pixels)
    code, _, error = command(capsys, *line, "--image", tmp_path / "an image.png")
    assert code == 0, error  # the same command may replace its folder
    code, _, error = command(capsys, *line)
    assert code == 2 and "page': is there already, made from another input; accepted: another path" in error
    code, _, error = command(capsys, *line, "--overwrite")
    assert code == 0 and not (tmp_path / "page" / "examples").exists(), error
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("")
    line[3] = tmp_path / "other"
    code, _, error = command(capsys, *line, "--overwrite")
    assert code == 2 and "other': exists already, with other files in it" in error
    line[3] = runtime / "page"
    code, _, error = command(capsys, *line)
    assert code == 2 and "is read by this command" in error
    code, _, error = command(capsys, "export", "nin_digits", "-o", tmp_path / "s", "--runtime", runtime)
    assert code == 2 and "--runtime has no effect without --format web" in error
