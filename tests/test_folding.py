import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers
from small_nets import HEADS, channels_first, stack
from test_models import SMALL

import zoo
from zoo.card import Card, attach, card
from zoo.convert.copy import in_dtype
from zoo.convert.folding import fold
from zoo.network.network import Network
from zoo.scores import relative_error


def norms(model):
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


def chain(*parts, sides=(None, None)):
    """A model of these layers one after the other, and a last convolution."""
    x = image = keras.Input((*sides, 4))
    for part in parts:
        x = part(x)
    last = {1: layers.Dense, 2: layers.Conv1D, 3: layers.Conv2D}[len(x.shape) - 1]
    return randomize(keras.Model(image, last(3, *(() if last is layers.Dense else (1,)))(x)))


def norm(**settings):
    return layers.BatchNormalization(**settings)


def shared():
    """One convolution, called twice, with a normalisation after each call."""
    image, conv = keras.Input((None, None, 4)), layers.Conv2D(4, 3, padding="same")
    x = norm()(conv(image))
    return randomize(keras.Model(image, norm()(conv(layers.ReLU()(x)))))


def nested():
    image = keras.Input((None, None, 4))
    inner = keras.Model(image, norm()(layers.Conv2D(6, 3)(image)), name="inner")
    outer = keras.Input((None, None, 4))
    return randomize(keras.Model(outer, layers.Conv2D(3, 1)(layers.Dropout(0.5)(inner(outer)))))


def read_twice():
    """A normalised map that another layer reads before, and one that is an output before."""
    image = keras.Input((None, None, 4))
    x = layers.Conv2D(4, 3, padding="same")(image)
    y = layers.Conv2D(3, 1)(layers.Add()([x, norm()(x)]))
    return randomize(keras.Model(image, [y, norm()(y)]))


def noisy():
    return chain(
        layers.GaussianNoise(0.1),
        layers.Conv2D(6, 3),
        layers.SpatialDropout2D(0.2),
        norm(),
        layers.ActivityRegularization(0.1),
        layers.AlphaDropout(0.1),
        layers.GaussianDropout(0.1),
    )


# A model, and how many of its normalisations stay.
NETS = {
    "convolutions": (lambda: chain(layers.Conv2D(6, 3), norm(), layers.ReLU(), layers.Conv2D(5, 3), norm()), 0),
    "no bias, no scale": (lambda: chain(layers.Conv2D(6, 3, use_bias=False), norm(scale=False)), 0),
    "no centre": (lambda: chain(layers.Conv2D(6, 3), norm(center=False, epsilon=0.1)), 0),
    "strides, padding": (lambda: chain(layers.Conv2D(6, 3, strides=2, padding="same"), norm(axis=3)), 0),
    "groups, dilation": (lambda: chain(layers.Conv2D(6, 3, dilation_rate=2, groups=2), norm()), 0),
    "depthwise": (lambda: chain(layers.DepthwiseConv2D(3, depth_multiplier=2), norm()), 0),
    "separable": (lambda: chain(layers.SeparableConv2D(6, 3, depth_multiplier=2), norm()), 0),
    "one axis": (
        lambda: chain(
            *(layers.Conv1D(6, 3), norm(), layers.DepthwiseConv1D(3), norm(), layers.SeparableConv1D(5, 3), norm()),
            sides=(None,),
        ),
        0,
    ),
    "dense": (lambda: chain(layers.GlobalMaxPooling2D(), layers.Dense(6), norm()), 0),
    "dense on a map": (lambda: chain(layers.Dense(6), norm()), 0),
    "shared": (shared, 0),
    "nested": (nested, 0),
    "noise": (noisy, 0),
    "an activation": (lambda: chain(layers.Conv2D(6, 3, activation="relu"), norm()), 1),
    "another layer": (lambda: chain(layers.Conv2D(6, 3), layers.MaxPooling2D(), norm()), 1),
    "another axis": (lambda: chain(layers.Conv2D(6, 3), norm(axis=1), sides=(12, 10)), 1),
    "two readers": (read_twice, 2),
}


def in_float64(build):
    keras.config.set_dtype_policy("float64")
    try:
        return build()
    finally:
        keras.config.set_dtype_policy("float32")


def check(model, images):
    lighter = fold(model)
    given, wanted = (keras.tree.flatten(each(images, training=False)) for each in (lighter, model))
    for ours, theirs in zip(given, wanted, strict=True):
        assert theirs.dtype == "float64" and np.ptp(np.asarray(theirs)) > 0.01
        assert relative_error(np.asarray(ours), np.asarray(theirs)) <= 1e-9
    return lighter


@pytest.mark.parametrize("name", NETS)
def test_the_folded_model_gives_the_same_scores(name):
    build, staying = NETS[name]
    model = in_float64(build)
    shape = [side or 15 - 2 * axis for axis, side in enumerate(model.inputs[0].shape[1:])]
    lighter = check(model, noise(2, *shape).astype("float64") / 255)
    assert norms(lighter) == staying
    kinds = {type(layer).__name__ for layer in lighter.layers}
    assert not kinds & {"Dropout", "SpatialDropout2D", "GaussianNoise", "AlphaDropout", "ActivityRegularization"}


def test_channels_first_fold_too():
    """In float32: TensorFlow convolves such maps in no other type on a processor."""
    model = channels_first(lambda x, form: layers.Dense(4)(layers.GlobalAveragePooling2D(**form)(x)))
    images, lighter = noise(2, 3, 12, 10), fold(model)
    assert relative_error(np.asarray(lighter(images)), np.asarray(model(images))) <= 1e-6
    assert (norms(model), norms(lighter)) == (1, 0)


@pytest.mark.extended
@pytest.mark.parametrize("kind", SMALL)
def test_folded_architectures_give_the_same_scores(kind):
    name, overrides = SMALL[kind]
    model = in_dtype(Network.of(randomize(zoo.build(name, image_size=(65, 65), **overrides))), "float64").model
    lighter = check(model, noise(2, 65, 65, model.inputs[0].shape[-1]).astype("float64"))
    assert norms(lighter) <= norms(model) and len(lighter.layers) <= len(model.layers)


@pytest.mark.parametrize("head", ["flatten, stack", "flatten, normalised", "two heads merged"])
def test_converted_models_fold_too(head):
    model = in_float64(lambda: zoo.convolutionalize.__wrapped__(stack(HEADS[head])))
    lighter = check(model, noise(2, 20, 15, 3).astype("float64") / 255)
    assert zoo.geometry(lighter).window == zoo.geometry(model).window == (12, 10)


def test_a_folded_model_is_plain_keras_with_its_card(tmp_path):
    model = attach(chain(layers.Conv2D(6, 3), norm(), layers.Dropout(0.5)), Card(dtype="uint16"))
    before = [np.asarray(weight) for weight in model.weights]
    lighter = fold(model)
    assert all(type(layer).__module__.startswith("keras.") for layer in lighter.layers)
    assert card(lighter).dtype == "uint16" and len(lighter.layers) == len(model.layers) - 2
    lighter.save(tmp_path / "folded.keras")
    images = noise(1, 9, 8, 4)
    again = keras.models.load_model(tmp_path / "folded.keras")(images)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(lighter(images)))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value)
