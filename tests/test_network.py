"""The network: one trace of a model, what its graph must say, marks that keep its windows, and a user's own layers."""

import copy
import pickle

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers
from small_nets import stack

import zoo
from zoo.card import Card, attach
from zoo.convert import oracle
from zoo.errors import InputError
from zoo.network.moves import Pointwise, Slide
from zoo.network.network import Network
from zoo.scores import relative_error


class Scaled(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs / 255, training=training, mask=mask)


class Called(keras.Model):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * 2


class ScaledChain(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs / 255, training=training, mask=mask)


class OwnTraining(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def parts(kind, name="own"):
    """A subclass of a model with its layers inside."""
    image = keras.Input((12, 10, 3))
    end = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    if issubclass(kind, keras.Sequential):
        return kind([image, *end], name=name)
    x = image
    for layer in end:
        x = layer(x)
    return kind(image, x, name=name)


@pytest.mark.parametrize("kind", [Scaled, Called, ScaledChain])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "attempt", [zoo.convolutionalize, zoo.describe, zoo.geometry, lambda m: zoo.scan(m, noise(20, 20, 3))]
)
def test_a_model_that_computes_more_than_its_graph_is_refused_by_name(kind, nested, attempt):
    model = parts(kind)
    if nested:
        image = keras.Input((12, 10, 3))
        model = keras.Model(image, model(image))
    with pytest.raises(InputError, match="'own': its class .* has a `(call|__call__)` of its own"):
        attempt(model)


def test_a_call_that_was_put_on_the_model_itself_is_refused():
    model = stack(lambda x: layers.Dense(3)(layers.Flatten()(x)))
    real = model.call
    object.__setattr__(model, "call", lambda *args, **kwargs: real(*args, **kwargs) * 2)
    with pytest.raises(InputError, match="has a `call` of its own"):
        zoo.convolutionalize(model)


def test_a_training_step_of_ones_own_changes_nothing():
    model = randomize(parts(OwnTraining))
    assert zoo.verify(model, zoo.convolutionalize(model)).same_function


def test_a_call_that_was_put_on_a_layer_itself_is_refused():
    model = stack(lambda x: layers.Dense(3)(layers.Flatten()(x)))
    real = model.layers[1].call
    model.layers[1].call = lambda inputs: real(inputs) * 2
    with pytest.raises(InputError, match="'conv2d.*code of its author's own"):
        zoo.convolutionalize(model)


def test_a_model_that_differs_from_its_graph_in_fractions_alone_is_caught(monkeypatch):
    """As if Keras did something that the graph does not know of: whole numbers would hide it."""
    model = stack(lambda x: layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    real = oracle.run_steps

    def floored(graph, values, wanted):
        return real(graph, {key: keras.ops.floor(value) for key, value in values.items()}, wanted)

    monkeypatch.setattr(oracle, "run_steps", floored)
    with pytest.raises(InputError, match="computes something else than the graph of its layers"):
        oracle.check_graph(Network.of(model), (12, 10))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int32"])
def test_a_nested_model_casts_its_input_in_the_conversion_too(dtype):
    inner_image = keras.Input((12, 10, 3), dtype=dtype)
    inner = keras.Model(inner_image, layers.Rescaling(0.5, dtype="float32")(inner_image), name="inner")
    image = keras.Input((12, 10, 3))
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(inner(image))))))
    fcn, images = (
        zoo.convolutionalize(model),
        np.random.default_rng(0).uniform(0, 255, (2, 12, 10, 3)).astype("float32"),
    )
    assert relative_error(np.asarray(fcn(images)).reshape(2, 3), np.asarray(model(images))) <= 1e-5
    assert not np.array_equal(np.asarray(model(images)), np.asarray(model(images + 0.6)))
    assert "inner/cast" in [step.path for step in Network.of(model).graph.steps]


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "clone": keras.models.clone_model,
    "cut out": lambda model: keras.Model(model.inputs, model.outputs),
    "nested": lambda model: keras.Sequential([keras.Input((None, None, 3)), model]),
}


@pytest.mark.parametrize("way", [*WAYS, "saved by Keras"])
@pytest.mark.parametrize("padding", ["keep", "valid"])
def test_a_converted_models_windows_outlive_its_card(way, padding, tmp_path):
    model = stack(lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), padding="same")
    fcn = zoo.convolutionalize(model, padding=padding)
    if way == "saved by Keras":
        fcn.save(tmp_path / "fcn.keras")
        other = keras.models.load_model(tmp_path / "fcn.keras")
    else:
        other = WAYS[way](fcn)
    assert zoo.geometry(other, (31, 33)) == zoo.geometry(fcn, (31, 33))
    assert Network.of(other).card.padding == padding and Network.of(other).training_size == (12, 10)
    given, wanted = zoo.scan(other, noise(31, 33, 3)), zoo.scan(fcn, noise(31, 33, 3))
    assert given.cell_box(1, 1) == wanted.cell_box(1, 1)


@pytest.mark.parametrize("padding", ["keep", "valid"])
@pytest.mark.parametrize(
    "scales", [{"scale": 0.25}, {"pixel_size": 1e-05}, {"scale": 1.0, "pixel_size": 0.5}, {"scale": 1 / 3}]
)
def test_the_scale_of_a_converted_model_outlives_its_card(scales, padding, tmp_path):
    model = stack(lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), padding="same")
    fcn = zoo.convolutionalize(attach(model, Card(**scales)), padding=padding)
    fcn.save(tmp_path / "fcn.keras")
    for other in (keras.models.clone_model(fcn), keras.models.load_model(tmp_path / "fcn.keras")):
        known = Network.of(other).card
        assert {key: getattr(known, key) for key in ("scale", "pixel_size")} == {
            "scale": None,
            "pixel_size": None,
        } | scales
        assert known.padding == padding and zoo.geometry(other, (31, 33)) == zoo.geometry(fcn, (31, 33))


def test_a_twin_of_a_converted_model_has_its_own_mark_alone():
    model = stack(lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), padding="same")
    twin = zoo.convolutionalize(zoo.convolutionalize(model), padding="valid")
    names = [layer.name for layer in twin.layers if layer.name.startswith("zoo_window")]
    window = "x".join(map(str, zoo.geometry(twin).window))
    assert names == [f"zoo_window_{window}_of_12x10_without_padding"]


def test_the_card_that_is_attached_wins_over_the_mark():
    fcn = zoo.convolutionalize(stack(lambda x: layers.Dense(3)(layers.Flatten()(x))))
    attach(fcn, Card(class_names=("a", "b", "c"), window=(12, 10), image_size=(12, 10), pooling="window"))
    assert Network.of(fcn).class_names == ("a", "b", "c")


def test_a_network_is_made_once_and_handed_on():
    model = stack(lambda x: layers.Dense(3)(layers.Flatten()(x)))
    network = Network.of(model)
    assert Network.of(network) is network and network.program is network.program
    assert (network.training_size, network.channels, network.outputs_are) == ((12, 10), 3, ("logits",))


@keras.saving.register_keras_serializable("tests")
class Sharpen(layers.Layer):
    """Each pixel against the mean of its neighbours: a 3 x 3 window without padding."""

    def call(self, inputs):
        mean = keras.ops.average_pool(inputs, 3, 1, "valid")
        return 2 * inputs[:, 1:-1, 1:-1] - mean

    def compute_output_shape(self, shape):
        return (shape[0], *(side and side - 2 for side in shape[1:3]), shape[3])


@keras.saving.register_keras_serializable("tests")
class Squash(layers.Layer):
    def call(self, inputs):
        return inputs / (1 + keras.ops.abs(inputs))

    def compute_output_shape(self, shape):
        return shape


def own_layers():
    image = keras.Input((14, 12, 3))
    x = Sharpen(name="sharpen")(layers.Rescaling(1 / 255)(image))
    x = Squash(name="squash")(layers.Conv2D(4, 3, strides=2, padding="same")(x))
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    return randomize(keras.Model(image, layers.Dense(3)(Squash(name="squash_vector")(x))))


@pytest.fixture
def taught(monkeypatch):
    monkeypatch.setattr("zoo.network.rules._OWN_LAYERS", {})
    zoo.register_layer(Sharpen, lambda layer: Slide(3))
    zoo.register_layer(Squash, lambda layer: Pointwise())


def test_a_layer_of_ones_own_is_refused_with_the_way_to_teach_it(monkeypatch):
    monkeypatch.setattr("zoo.network.rules._OWN_LAYERS", {})
    with pytest.raises(InputError, match="'sharpen' .Sharpen.: code of its author's own.*zoo.register_layer"):
        zoo.convolutionalize(own_layers())


def test_a_layer_that_was_taught_is_converted_scanned_saved_and_has_a_twin(taught, tmp_path):
    model = own_layers()
    assert zoo.describe(model).rows[-1].receptive_field is not None
    fcn = zoo.convolutionalize(model)
    assert zoo.verify(model, fcn).same_function
    zoo.save(fcn, tmp_path / "fcn.keras")
    image = noise(40, 41, 3)
    whole = zoo.scan(zoo.load(tmp_path / "fcn.keras"), image).scores
    np.testing.assert_allclose(zoo.scan(fcn, image, tile=8).scores, whole, atol=1e-5 * np.abs(whole).max())
    twin = zoo.convolutionalize(model, padding="valid")
    assert zoo.verify(model, twin).same_as_crops
    assert zoo.scan(twin, image, stride=1).scores.shape[0] > whole.shape[0]


def test_a_rule_that_is_wrong_is_caught(taught):
    zoo.register_layer(Sharpen, lambda layer: Slide(5))
    with pytest.raises(InputError, match=r"'sharpen': received maps of \(12, 10\) .*accepted: \(10, 8\), as its rule"):
        zoo.convolutionalize(own_layers())


@pytest.mark.parametrize("kind", [layers.Dense, "Dense", int, keras.Model])
def test_only_layer_classes_of_ones_own_are_taught(kind):
    with pytest.raises(InputError, match="register_layer: received .*accepted: a class of your own"):
        zoo.register_layer(kind, lambda layer: Pointwise())
