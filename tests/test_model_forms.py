"""Models in forms that people bring: dicts of outputs, several of them, images without channels, twins described."""

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers
from small_nets import stack

import zoo
from zoo.data import Split
from zoo.errors import InputError
from zoo.evaluation import evaluate, predict, predict_files
from zoo.network.network import Network
from zoo.scores import softmax


def two_heads(form=dict, size=16):
    image = keras.Input((size, size, 3))
    body = layers.Conv2D(4, 3, strides=2, activation="relu", name="body")(image)
    kind = layers.Dense(4, name="kind")(layers.GlobalAveragePooling2D()(body))
    deeper = layers.Conv2D(5, 3, name="deeper")(body)
    grade = layers.Dense(2, activation="softmax", name="grade")(layers.Flatten()(deeper))
    return randomize(keras.Model(image, {"b": kind, "a": grade} if form is dict else [kind, grade], name="two"))


def test_a_dict_of_outputs_keeps_its_names_when_it_is_converted(capsys, tmp_path):
    model = two_heads()
    fcn = zoo.convolutionalize(model)
    assert Network.of(model).output_names == Network.of(fcn).output_names == ("a", "b")
    images = noise(2, 16, 16, 3)
    given, wanted = fcn(images), model(images)
    for name in ("a", "b"):
        np.testing.assert_allclose(np.asarray(given[name])[:, 0, 0], np.asarray(wanted[name]), rtol=1e-4, atol=1e-5)
    assert zoo.verify(model, fcn).same_as_crops
    np.save(tmp_path / "image.npy", noise(40, 40, 3).astype(np.uint8))
    zoo.save(fcn, tmp_path / "fcn.keras")
    line = ("scan", tmp_path / "fcn.keras", tmp_path / "image.npy", "-o", tmp_path / "out")
    code, _, err = command(capsys, *line)
    assert code == 2 and "'a', 'b'" in err and err.count("\n") == 1
    assert command(capsys, *line, "--output-name", "b")[0] == 0
    assert np.load(tmp_path / "out" / "scores.npz")["scores"].shape[-1] == 4


def test_several_outputs_are_named_where_one_is_wanted():
    split = Split(noise(2, 16, 16, 3), np.array([0, 1]))
    for form in (dict, list):
        model = two_heads(form)
        for attempt in (
            lambda model=model: evaluate(model, split, ("x", "y")),
            lambda model=model: predict(model, split.images),
            lambda model=model: list(predict_files(model, ["none.png"])),
            lambda model=model: zoo.scan(model, noise(40, 40, 3)),
            lambda model=model: zoo.convolutionalize(model, padding="valid"),
        ):
            with pytest.raises(InputError, match="has 2 outputs, '(a|kind)', '(b|grade)'"):
                attempt()


def test_a_dict_of_one_output_is_that_output(tmp_path):
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3)(image)
    model = randomize(keras.Model(image, {"only": layers.Dense(3, name="end")(layers.Flatten()(x))}))
    images = noise(2, 12, 12, 3)
    wanted = np.asarray(model(images)["only"])
    np.testing.assert_allclose(predict(model, images), wanted, rtol=1e-5)
    right = evaluate(model, Split(images, wanted.argmax(-1)), ("x", "y", "z"))
    # Where all answers are right, every bin lacks of 1 what the winners' probabilities do.
    assert right.accuracy == 1 and right.expected_calibration_error == pytest.approx(1 - softmax(wanted).max(-1).mean())
    fcn = zoo.convolutionalize(zoo.load(zoo.save(model, tmp_path / "net.keras")))
    assert zoo.verify(model, fcn).same_as_crops and zoo.scan(model, noise(20, 20, 3)).scores.shape == (9, 9, 3)


def test_several_outputs_are_described():
    described = zoo.describe(two_heads())
    assert "outputs: a (2), b (4)" in described.summary() and described.last_map.name == "deeper"
    assert described.to_dict()["outputs"] == {"a": 2, "b": 4}
    plain = zoo.describe(stack(lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(x))))
    assert "outputs:" not in plain.summary()


@pytest.mark.parametrize("size", [(16, 12), (8, 8)])
def test_a_twin_is_described_at_its_window(size):
    """Which is larger than the training size here, or smaller."""
    model = stack(lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), size=size, padding="same")
    twin = zoo.convolutionalize(model, padding="valid")
    described, window = zoo.describe(twin), zoo.geometry(twin).window
    assert described.image_size == Network.of(twin).own_size == window != size
    assert described.rows[-1].output_shape == (1, 1, 4) and described.smallest_image is not None
    assert Network.of(model).own_size == Network.of(zoo.convolutionalize(model)).own_size == size


def test_an_image_without_channels_is_told_apart_from_a_sequence(capsys, tmp_path):
    image = keras.Input((28, 28))
    zoo.save(randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(image)))), tmp_path / "net.keras")
    code, out, _ = command(capsys, "convert", tmp_path / "net.keras", "-o", tmp_path / "fcn.keras")
    assert code == 0 and "takes sequences, (28, 28); of images without channels it would take (28, 28, 1)" in out
    np.save(tmp_path / "image.npy", noise(40, 40).astype(np.uint8))
    for line in (("scan", "-o", tmp_path / "out"), ("predict",)):
        code, _, err = command(capsys, line[0], tmp_path / "net.keras", tmp_path / "image.npy", *line[1:])
        assert code == 2 and "without an axis of channels" in err and err.count("\n") == 1
    signal = keras.Input((40, 2))
    zoo.save(randomize(keras.Model(signal, layers.Dense(3)(layers.Flatten()(signal)))), tmp_path / "signal.keras")
    _, out, _ = command(capsys, "convert", tmp_path / "signal.keras", "-o", tmp_path / "fcn2.keras")
    assert "sequences" not in out


def test_functions_of_tensorflow_and_two_inputs_are_named():
    import tensorflow as tf

    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation=tf.nn.relu, name="conv")(image)
    with pytest.raises(InputError, match="layer 'conv': activation tf.nn.relu, a function of TensorFlow"):
        zoo.convolutionalize(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    inputs = [keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")]
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Add()(inputs))))
    for attempt in (zoo.convolutionalize, zoo.geometry, lambda model: zoo.scan(model, noise(20, 20, 1))):
        with pytest.raises(InputError, match=r"takes 2 inputs, 'left' \(8, 8, 1\) and 'right' \(8, 8, 1\)"):
            attempt(model)
