"""The graph of `predict_bytes` beside `zoo predict`: the same pixels of every file, and what it refuses."""

import functools
import io

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from pictures_corpus import NOT_FOR_THE_MODEL, READ, REFUSED, RGB, jpeg, png
from PIL import Image
from small_nets import chain

import zoo.exported.image_bytes as image_bytes
from zoo.card import Card, Preprocess, attach
from zoo.evaluation import predict_files
from zoo.exported.formats import FORMATS
from zoo.exported.image_bytes import FileForm, endpoint
from zoo.exporting.writing import _carried
from zoo.network.network import Network

tf = pytest.importorskip("tensorflow")
SIZE = (9, 7)
FILES = [name for name in READ if name.endswith((".png", ".jpeg")) and "turned" not in name]


def model(channels=3, size=SIZE, dtype="uint8", shape=None, **known):
    image = keras.Input(shape or (*size, channels))
    made = keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    return attach(made, Card(**{"dtype": dtype, "preprocess": Preprocess(), **known}))


def form_of(made):
    return FileForm.of(_carried(Network.of(made), FORMATS["saved_model"], "float32"))


@functools.cache
def graph(form):
    """The endpoint of a model that gives the pixels which it is given."""
    return tf.function(endpoint(form, lambda pixels: pixels), input_signature=[tf.TensorSpec([None], tf.string)])


def pixels_by_zoo(made, paths):
    return np.stack([answer.pixels for answer in predict_files(made, paths)])


def pixels_by_graph(made, paths):
    return graph(form_of(made))(tf.constant([path.read_bytes() for path in paths])).numpy()


@pytest.mark.parametrize(
    "size", [SIZE, *(pytest.param(size, marks=pytest.mark.extended) for size in [(12, 10), (20, 33), (40, 3)])]
)
def test_every_file_has_the_pixels_of_zoo_predict(tmp_path, size):
    """A batch of all of them at once, those of JPEG too: Pillow and TensorFlow have the same decoder."""
    made, paths = model(size=size), [tmp_path / name for name in FILES]
    for path in paths:
        READ[path.name][0](path)
    ours, theirs = pixels_by_zoo(made, paths), pixels_by_graph(made, paths)
    assert len(FILES) >= 7 and ours.dtype == theirs.dtype == np.uint8
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.extended
@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 24)] * 2), st.sampled_from([None, "reflect", (3.4, 250.6, 999.0)]), st.integers(0, 9))
def test_every_size_is_brought_to_the_models(size, fill, seed):
    form = form_of(model(fill=fill, preprocess=Preprocess(mean=(12.5,), std=(1.0,))))
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    from zoo.predictions import _fitted

    known = Card(fill=fill, preprocess=Preprocess(mean=(12.5,), std=(1.0,)))
    fitted = image_bytes._fitted(tf.constant(image), form).numpy()
    np.testing.assert_array_equal(fitted, _fitted(image, SIZE, known))


def test_a_model_of_grey_takes_grey_files_of_all_kinds(tmp_path):
    grey = RGB[..., 0]
    images = {
        "l": Image.fromarray(grey),
        "bit": Image.fromarray(grey > 99),
        "la": Image.fromarray(np.stack([grey, grey], -1)),
        "rgb": Image.fromarray(np.repeat(grey[..., None], 3, -1)),
        "p": Image.fromarray(grey).convert("P"),
        "few": Image.fromarray(grey).quantize(4),
    }
    paths = [tmp_path / f"{name}.png" for name in images]
    for path, image in zip(paths, images.values(), strict=True):
        image.save(path)
    Image.fromarray(grey).save(tmp_path / "l.jpeg")
    Image.fromarray(grey).save(tmp_path / "two.png", bits=2)
    paths += [tmp_path / "l.jpeg", tmp_path / "two.png"]
    made = model(channels=1)
    np.testing.assert_array_equal(pixels_by_graph(made, paths), pixels_by_zoo(made, paths))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\]: received 3 channels in colour"):
        graph(form_of(made))(tf.constant([png(grey), png(RGB)]))


WORDS = {
    "cut.png": "Invalid PNG data",
    "flipped.png": "Invalid PNG data",
    "cut.jpeg": "Invalid JPEG data",
    "lying.png": r"image_bytes\[1\]: broken or truncated: no file of this size holds 12000 x 12000 pixels",
    "text.tif": r"image_bytes\[1\]: unknown format; accepted: PNG and JPEG",
    "cmyk.jpeg": r"image_bytes\[1\]: received CMYK; accepted: grey and RGB",
    "deep.png": r"image_bytes\[1\]: received 16 bits a sample; accepted: 8",
    "flat.tif": "unknown format",
    "rgb.bmp": "unknown format",
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name):
    write, *_ = {**READ, **REFUSED, **NOT_FOR_THE_MODEL}[name]
    write(tmp_path / name)
    with pytest.raises(tf.errors.InvalidArgumentError, match=WORDS[name]):
        graph(form_of(model()))(tf.constant([png(RGB), (tmp_path / name).read_bytes()]))


@pytest.mark.parametrize("content", [b"", b"\x89", png(RGB)[:20], jpeg(RGB)[:4], jpeg(RGB)[:-2]])
def test_beginnings_of_files_are_refused(content):
    with pytest.raises(tf.errors.InvalidArgumentError, match="unknown format|Invalid|broken"):
        graph(form_of(model()))(tf.constant([content]))


def with_sides(content, height, width):
    """The beginning of a PNG that says it has other sides."""
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


@pytest.mark.parametrize("sides", [(2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (20_000, 20_000)])
def test_a_large_picture_is_refused_before_it_is_decoded(sides):
    """The decoder does not see it: its own words would be others."""
    content = with_sides(png(RGB), *sides) + bytes(10**6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"received {sides[0]} x {sides[1]} pixels; accepted: up"):
        graph(form_of(model()))(tf.constant([content]))


def test_a_large_photograph_is_refused_before_it_is_decoded():
    frame = bytearray(jpeg(RGB))
    at = frame.find(b"\xff\xc0")
    frame[at + 5 : at + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="60000 x 60000 pixels; accepted: up to 178,956,970"):
        graph(form_of(model()))(tf.constant([bytes(frame)]))


def test_a_large_file_is_no_lie(tmp_path):
    """Of as many bytes that eight times the densest packing of pixels overflows 32 bits."""
    content = png(np.zeros((50, 40, 3), np.uint8)) + bytes(300_000)
    assert graph(form_of(model()))(tf.constant([content])).shape == (1, *SIZE, 3)


def test_exif_is_not_looked_at(tmp_path):
    """The one difference from `zoo predict`, as docs/serving.md says it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    with io.BytesIO() as file:
        Image.fromarray(RGB).save(file, "png", exif=exif)
        content = file.getvalue()
    (tmp_path / "turned.png").write_bytes(content)
    made = model(size=RGB.shape[:2])
    np.testing.assert_array_equal(pixels_by_graph(made, [tmp_path / "turned.png"])[0], RGB)
    np.testing.assert_array_equal(pixels_by_zoo(made, [tmp_path / "turned.png"])[0], RGB[::-1, ::-1])


def two_outputs():
    image = keras.Input((*SIZE, 3))
    return attach(keras.Model(image, [layers.Flatten()(image), layers.Flatten()(image)]), Card(preprocess=Preprocess()))


def sized(shape, *parts, **known):
    return attach(chain(*parts, shape=shape), Card(**{"preprocess": Preprocess(), **known}))


def test_a_batch_of_no_files_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes: received no file; accepted: one or more"):
        graph(form_of(model()))(tf.constant([], tf.string))


WITHOUT = {
    "several outputs": two_outputs,
    "16 bits": lambda: model(dtype="uint16"),
    "floats": lambda: model(dtype="float32"),
    "four channels": lambda: model(channels=4),
    "a scale": lambda: model(scale=0.5),
    "a pixel size": lambda: model(pixel_size=0.5),
    "a map of scores": lambda: sized((None, None, 3), layers.Conv2D(2, 3), image_size=SIZE),
    "an answer for any size": lambda: sized(
        (None, None, 3), layers.GlobalAveragePooling2D(), image_size=SIZE, pooling="global"
    ),
    "no size": lambda: sized((None, None, 3), layers.GlobalAveragePooling2D()),
    "one score": lambda: sized((*SIZE, 3), layers.Flatten(), layers.Dense(1)),
    "one axis": lambda: sized((30, 3), layers.Flatten(), layers.Dense(2)),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_other_models_have_no_such_signature(name):
    assert form_of(WITHOUT[name]()) is None


def test_a_size_that_only_the_card_knows_will_do():
    made = sized((None, None, 3), layers.GlobalAveragePooling2D(), image_size=SIZE, fill="reflect")
    assert form_of(made) == FileForm(SIZE, 3, "reflect")
    assert form_of(sized((*SIZE, 1), layers.Flatten(), layers.Dense(1, activation="sigmoid"))) is not None
    assert form_of(model(preprocess=Preprocess(mean=(1.6, 2.4, 3.0), std=(1.0,)))).fill == (2, 2, 3)
