"""Models that we did not build: every classifier of keras.applications, at reduced image size."""

import math

import keras
import numpy as np
import pytest
from conftest import noise, randomize

import zoo
from zoo.card import card
from zoo.network.network import Network
from zoo.scores import relative_error

MARKS = {"MobileNetV2": (), "MobileNetV3Small": (), "EfficientNetB0": pytest.mark.extended}
NAMES = [name for name in dir(keras.applications) if name[0].isupper()]
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


# Nets of keras.applications take long to build.
pytestmark = pytest.mark.extended


def built(name):
    side = SMALLEST.get(name, 64)
    make = getattr(keras.applications, name)
    return randomize(make(weights=None, input_shape=(side, side, 3), classes=7)), side


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in NAMES])
def test_every_classifier_converts(name, tmp_path):
    model, side = built(name)
    size = (side, side) if None in model.input_shape[1:3] else None
    fcn = zoo.convolutionalize(model, image_size=size)
    images = noise(1, side, side, 3)
    wanted, given = np.asarray(model(images)), np.asarray(fcn(images))
    assert given.shape == (1, 1, 1, 7) and relative_error(given[:, 0, 0], wanted) <= 1e-4
    assert fcn.count_params() == model.count_params() and fcn.input_shape == (None, None, None, 3)
    assert all(type(layer).__module__.startswith("keras.") for layer in fcn.layers)
    stride = zoo.geometry(fcn).stride[0]
    larger = noise(1, side + stride, side + 2 * stride, 3)
    scores = np.asarray(fcn(larger))
    assert scores.shape[1:3] == zoo.geometry(fcn).grid_shape(*larger.shape[1:3])
    path = zoo.save(fcn, tmp_path / "fcn.keras")
    again = keras.models.load_model(path, safe_mode=True)
    assert relative_error(np.asarray(again(images)), given) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["VGG16", "ResNet50", "ResNet50V2", "MobileNetV2", "InceptionV3", "Xception", "DenseNet121", "NASNetMobile"]
)
def test_padding_free_twins(name):
    """Convolutionalize itself compares the twin with the padded net's uncut cells."""
    model, _ = built(name)
    twin = zoo.convolutionalize(model, padding="valid")
    shape = zoo.geometry(twin)
    assert shape.padding_free and shape.offset == (0, 0) and twin.count_params() == model.count_params()
    assert shape.window == shape.receptive_field == zoo.geometry(zoo.convolutionalize(model)).receptive_field


@pytest.mark.slow
@pytest.mark.parametrize(("name", "window"), [("VGG16", 404), ("ResNet50", 675)])
def test_windows_of_twins_at_the_published_size(name, window):
    model = randomize(getattr(keras.applications, name)(weights=None, classes=7))
    assert zoo.geometry(zoo.convolutionalize(model, padding="valid")).window == (window, window)


def test_a_gated_block_is_named():
    model, side = built("MobileNetV3Small")
    shape = zoo.geometry(zoo.convolutionalize(model, image_size=(side, side)))
    assert shape.receptive_field == (math.inf, math.inf) and len(shape.global_blocks) == 9
    assert shape.global_blocks[0] == "expanded_conv_squeeze_excite_avg_pool"


def test_xception_keeps_its_function_at_sizes_of_its_own_remainder():
    """At 299 its strided SAME layers leave 11 modulo 32; 12 pads alike everywhere."""
    shape = zoo.geometry(keras.applications.Xception(weights=None, classes=5))
    assert shape.sizes_that_keep_function == ((32, (11, 12)), (32, (11, 12)))
    assert shape.keeps_function(299 + 64, 300) and not shape.keeps_function(320, 299)
    assert "height 32k + 11 or 12" in shape.other_function(320, 299) and shape.other_function(299, 299) == ""


@pytest.fixture(scope="module")
def vgg16():
    model = keras.applications.VGG16(weights=None)
    return model, zoo.convolutionalize(model)


@pytest.mark.slow
def test_vgg16_layer_by_layer(vgg16):
    """CS231n, convolutional networks, "Converting FC layers to CONV layers": F=7, P=0, S=1, K=4096; then F=1."""
    model, fcn = vgg16
    converted, source = Network.of(fcn), Network.of(model)
    names = [step.path for step in converted.graph.steps]
    collapse = source.graph.steps[min(source.head.collapses)]
    assert collapse.path == "flatten" and collapse.shapes == ((None, 7, 7, 512),)
    for name, kernel, filters in (("fc1", 7, 4096), ("fc2", 1, 4096), ("predictions", 1, 1000)):
        layer = fcn.get_layer(name)
        assert isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (kernel, kernel)
        assert (layer.filters, layer.padding, layer.strides) == (filters, "valid", (1, 1))
    assert fcn.get_layer("fc1").kernel.shape == (7, 7, 512, 4096)
    for size, wanted in (
        (224, ((7, 7, 512), (1, 1, 4096), (1, 1, 4096), (1, 1, 1000))),
        (384, ((12, 12, 512), (6, 6, 4096), (6, 6, 4096), (6, 6, 1000))),
    ):
        shapes = converted.shapes((size, size))
        found = [
            shapes[converted.graph.steps[names.index(name)].outputs[0]]
            for name in ("block5_pool", "fc1", "fc2", "predictions")
        ]
        assert tuple(found) == wanted
    np.testing.assert_array_equal(
        np.asarray(fcn.get_layer("fc1").kernel), np.asarray(model.get_layer("fc1").kernel).reshape(7, 7, 512, 4096)
    )
    assert fcn.count_params() == model.count_params() == 138_357_544


def test_vgg16_geometry_is_the_published_one(vgg16):
    _, fcn = vgg16
    shape = zoo.geometry(fcn)
    assert (shape.receptive_field, shape.stride, shape.window) == ((404, 404), (32, 32), (224, 224))
    assert shape.offset == (0, 0) and shape.grid_shape(384, 384) == (6, 6) and card(fcn).image_size == (224, 224)
