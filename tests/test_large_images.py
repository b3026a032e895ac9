"""Models of several outputs and of channels first on large images, in memory and by command."""

import json

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers
from small_nets import channels_first
from test_cli import call

import zoo
from zoo.errors import InputError
from zoo.large_images import influence, scanner_of, score_boxes
from zoo.network.network import Network
from zoo.scanning.options import Options
from zoo.scores import relative_error


def two_heads(outputs=list):
    """A padding-free classifier of 12 x 12 pixels with the heads `kind`, of 3 classes, and `side`, of 2."""
    image = keras.Input((12, 12, 1), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image)))
    kind, side = layers.Dense(3, name="kind")(x), layers.Dense(2, activation="softmax", name="side")(x)
    return randomize(keras.Model(image, {"b": kind, "a": side} if outputs is dict else [kind, side], name="heads"))


@pytest.mark.parametrize(("name", "index"), [("kind", 0), ("side", 1)])
def test_the_named_output_is_the_one_that_is_scanned(name, index):
    model, image = two_heads(), noise(30, 25, 1)
    wanted = np.asarray(model(image[None, 5:17, 8:20])[index])[0]
    for each in (model, zoo.convolutionalize(model)):
        score_map = zoo.scan(each, image, output_name=name)
        assert score_map.outputs == ("logits", "probabilities")[index]
        np.testing.assert_allclose(score_map.scores[5, 8], wanted, rtol=1e-4, atol=1e-5)
    boxes = [(5, 8, 17, 20)]
    for way in ("roi", "cells", "crops"):
        scores = score_boxes(model, image, boxes, way, output_name=name).scores
        np.testing.assert_allclose(scores[0], wanted, rtol=1e-4, atol=1e-5)
    found = influence(model, image, (5, 8), options=Options(output_name=name))
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4, atol=1e-5)


def test_outputs_of_a_dict_have_its_names_and_repeated_names_a_number():
    model, image = two_heads(dict), noise(30, 25, 1)
    assert Network.of(model).output_names == ("a", "b")
    assert zoo.scan(model, image, output_name="b").scores.shape[-1] == 3
    assert zoo.scan(model, image, output_name="a").scores.shape[-1] == 2
    source = keras.Input((4, 4, 1))
    dense, x = layers.Dense(2, name="kind"), layers.Flatten()(source)
    twice = randomize(keras.Model(source, [dense(x), dense(layers.ReLU()(x))]))
    assert Network.of(twice).output_names == ("kind", "kind_2")
    pixels = -noise(9, 9, 1)
    assert np.unique(zoo.scan(twice, pixels, output_name="kind_2").scores[..., 0]).size == 1
    assert np.unique(zoo.scan(twice, pixels, output_name="kind").scores[..., 0]).size > 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (None, "model 'heads': has 2 outputs, 'kind', 'side'; accepted: one, .* or the name of the one to use"),
        ("kin", "unknown output 'kin' .did you mean 'kind'.*; accepted: kind, side"),
    ],
)
def test_outputs_are_named_where_none_is_chosen(name, text):
    model, image = two_heads(), noise(30, 25, 1)
    for asked in (
        lambda: zoo.scan(model, image, output_name=name),
        lambda: score_boxes(model, image, [(0, 0, 12, 12)], output_name=name),
        lambda: influence(model, image, (0, 0), options=Options(output_name=name)),
    ):
        with pytest.raises(InputError, match=text):
            asked()


def test_a_scan_is_of_one_output_and_says_of_which_where_it_was_named(tmp_path):
    model, image = two_heads(), noise(30, 25, 1)
    first = scanner_of(model, Options(output_name="kind")).made_from(image)
    other = scanner_of(model, Options(output_name="side")).made_from(image)
    assert first["output_name"] == "kind" and first["model"] != other["model"]
    assert "output_name" not in scanner_of(zoo.build("nin_digits")).made_from(image)
    zoo.scan(model, image, output=tmp_path / "s.npy", output_name="kind")
    with pytest.raises(InputError, match="s.npy"):
        zoo.scan(model, image, output=tmp_path / "s.npy", output_name="side")


@pytest.mark.extended
def test_the_command_scans_scores_and_draws_the_named_output(capsys, tmp_path):
    model = tmp_path / "heads.keras"
    zoo.save(two_heads(), model)
    np.save(tmp_path / "image.npy", noise(30, 25).astype(np.uint8))
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right\n5,8,17,20\n")
    scan = ("scan", model, tmp_path / "image.npy", "-o", tmp_path / "out")
    code, _, err = call(capsys, *scan)
    assert code == 2 and "has 2 outputs, 'kind', 'side'" in err
    code, _, err = call(capsys, *scan, "--output-name", "king")
    assert code == 2 and "unknown output 'king' (did you mean 'kind'?); accepted: kind, side" in err
    code, _, err = call(capsys, *scan, "--output-name", "kind", "--class", "2")
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert record["class_names"] == ["0", "1", "2"] and record["made_from"]["output_name"] == "kind"
    code, _, err = call(capsys, *scan, "--output-name", "side")
    assert code == 2 and "accepted: the same scan" in err or "--overwrite" in err
    regions = ("regions", model, tmp_path / "image.npy", tmp_path / "boxes.csv", "-o", tmp_path / "scores.csv")
    assert call(capsys, *regions)[0] == 2
    assert call(capsys, *regions, "--output-name", "side")[0] == 0
    plot = ("plot", model, "--cell", "3,4", "--image", tmp_path / "image.npy", "-o", tmp_path / "cell.png")
    assert call(capsys, *plot)[0] == 2
    code, out, err = call(capsys, *plot, "--output-name", "kind", "--class", "1")
    assert code == 0 and "cell 3,4 of 19 x 14, class 1" in out, err


def open_map():
    """A fully-convolutional model with its channels first that leaves height and width open."""
    form = {"data_format": "channels_first"}
    image = keras.Input((3, None, None))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", **form)(image)
    return randomize(keras.Model(image, layers.Conv2D(4, 3, **form)(x)))


def fixed_map():
    """The same kind of model, of one size."""
    form = {"data_format": "channels_first"}
    image = keras.Input((3, 20, 24))
    return randomize(keras.Model(image, layers.Conv2D(4, 5, strides=2, **form)(image)))


CHANNELS_FIRST = {
    "flatten": lambda: channels_first(lambda x, form: layers.Dense(4)(layers.Flatten(**form)(x))),
    "average": lambda: channels_first(lambda x, form: layers.Dense(4)(layers.GlobalAveragePooling2D(**form)(x))),
    "open map": open_map,
    "fixed map": fixed_map,
}


@pytest.mark.parametrize("kind", CHANNELS_FIRST)
@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"border": "shift", "tile": 8}], ids=str)
def test_a_model_with_its_channels_first_scans_images_with_theirs_last(kind, options):
    model, image = CHANNELS_FIRST[kind](), noise(41, 38, 3)
    score_map = zoo.scan(model, image, **options)
    size = Network.of(model).window or (7, 7) if "map" not in kind else {"open map": (7, 7), "fixed map": (5, 5)}[kind]
    for cell in ((0, 0), (3, 5), (8, 4)):
        top, left, bottom, right = score_map.cell_box(*cell)
        assert (bottom - top, right - left) == size
        crop = np.moveaxis(image[top:bottom, left:right], -1, 0)[None]
        wanted = np.asarray(model(crop)) if kind != "fixed map" else _of_layers(model, crop)
        assert relative_error(score_map.scores[cell], wanted.reshape(-1)) <= 1e-4, cell


def _of_layers(model, crop):
    """What a model's only layer makes of an image of another size."""
    return np.asarray(model.layers[-1](crop))


@pytest.mark.extended
def test_the_command_scans_a_model_with_its_channels_first(capsys, tmp_path):
    model, image = CHANNELS_FIRST["flatten"](), noise(41, 38, 3).astype(np.uint8)
    zoo.save(model, tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    code, _, err = call(capsys, "scan", tmp_path / "model.keras", tmp_path / "image.npy", "-o", tmp_path / "out")
    assert code == 0, err
    with np.load(tmp_path / "out" / "scores.npz") as saved:
        assert relative_error(saved["scores"], zoo.scan(model, image).scores) <= 1e-5
    np.save(tmp_path / "first.npy", np.moveaxis(image, -1, 0))
    code, _, err = call(capsys, "scan", tmp_path / "model.keras", tmp_path / "first.npy", "-o", tmp_path / "first")
    assert code == 2 and "channels" in err
    plot = ("plot", tmp_path / "model.keras", "--cell", "1,2", "--image", tmp_path / "image.npy")
    assert call(capsys, *plot, "-o", tmp_path / "cell.png")[0] == 0
