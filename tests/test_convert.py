import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from small_nets import HEADS, stack, two_inputs

import zoo
from zoo.card import card
from zoo.errors import InputError
from zoo.network.network import Network
from zoo.scores import relative_error


@pytest.mark.parametrize("head", HEADS)
def test_a_padding_free_net_equals_its_crops_at_every_cell(head):
    model = stack(HEADS[head])
    fcn = zoo.convolutionalize(model)
    image = noise(1, 12 + 2 * 5, 10 + 2 * 4, 3)
    scores = np.asarray(fcn(image))
    assert scores.shape[1:3] == (6, 5)
    assert scores.std((1, 2)).max() > 0
    wanted = np.stack(
        [[np.asarray(model(image[:, row : row + 12, column : column + 10])).reshape(-1) for column in range(0, 9, 2)]
         for row in range(0, 11, 2)]
    )  # fmt: skip
    assert relative_error(scores[0], wanted) <= 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_equal_at_the_training_size_and_the_source_untouched(head, padding):
    model = stack(HEADS[head], padding=padding)
    before = [np.asarray(weight).copy() for weight in model.weights]
    fcn = zoo.convolutionalize(model)
    images = noise(3, 12, 10, 3, seed=1)
    wanted = np.asarray(model(images))
    given = np.asarray(fcn(images))
    assert given.shape[1:3] == (1, 1)
    assert relative_error(given.reshape(wanted.shape), wanted) <= 1e-5
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), old)
    if "normalised" not in head:  # whose normalisations became part of the kernel
        assert fcn.count_params() == model.count_params()
    assert not {id(weight) for weight in fcn.weights} & {id(weight) for weight in model.weights}


@pytest.mark.parametrize("head", HEADS)
def test_float64_leaves_no_room_for_a_fault_in_geometry(head):
    keras.config.set_dtype_policy("float64")
    try:
        model = stack(HEADS[head])
        fcn = zoo.convolutionalize(model)
        image = np.random.default_rng(0).normal(size=(1, 30, 31, 3))
        scores = np.asarray(fcn(image))
        assert scores.dtype == np.float64
        for row, column in ((0, 0), (9, 10), (4, 7)):
            crop = image[:, 2 * row : 2 * row + 12, 2 * column : 2 * column + 10]
            assert relative_error(scores[:, row, column], np.asarray(model(crop)).reshape(1, -1)) <= 1e-9
    finally:
        keras.config.set_dtype_policy("float32")


@settings(max_examples=15, deadline=None)
@given(
    st.integers(6, 11), st.integers(6, 11), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)
)
def test_any_kernel_stride_and_size(height, width, tall, wide, stride, channels):
    image = keras.Input((height, width, channels))
    x = layers.Conv2D(3, (tall, wide), stride)(image)
    model = randomize(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    fcn = zoo.convolutionalize(model)
    larger = noise(1, height + 2 * stride, width + stride, channels)
    scores = np.asarray(fcn(larger))
    shape = zoo.geometry(fcn, larger.shape[1:3])
    assert scores.shape[1:3] == shape.grid_shape(*larger.shape[1:3])
    for row, column in ((0, 0), (2, 1)):
        top, left, bottom, right = shape.cell_box(row, column)
        wanted = np.asarray(model(larger[:, top:bottom, left:right]))
        assert relative_error(scores[:, row, column], wanted) <= 1e-5


def test_global_pooling_gives_one_answer_for_the_whole_image():
    model = stack(HEADS["average"])
    fcn = zoo.convolutionalize(model, pooling="global")
    assert np.asarray(fcn(noise(1, 30, 40, 3))).shape == (1, 1, 1, 4)
    with pytest.raises(InputError, match="flattens the map"):
        zoo.convolutionalize(stack(HEADS["flatten"]), pooling="global")
    headless = zoo.convolutionalize(model)
    with pytest.raises(InputError, match="pooling: received 'global' for model .* gives a map; accepted: 'window'"):
        zoo.convolutionalize(headless, pooling="global")


def test_an_open_input_needs_its_training_size():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(image)
    model = randomize(keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    with pytest.raises(InputError, match=r"image_size=\(height, width\)"):
        zoo.convolutionalize(model)
    fcn = zoo.convolutionalize(model, image_size=(9, 7))
    larger = noise(1, 11, 8, 3)
    for row, column in ((0, 0), (2, 1)):
        wanted = np.asarray(model(larger[:, row : row + 9, column : column + 7]))
        assert relative_error(np.asarray(fcn(larger))[:, row, column], wanted) <= 1e-5
    with pytest.raises(InputError, match=r"received \(5, 5\)"):
        zoo.convolutionalize(stack(HEADS["flatten"]), image_size=(5, 5))


def test_a_fully_convolutional_model_comes_back_unchanged():
    fcn = zoo.convolutionalize(stack(HEADS["flatten"]))
    assert zoo.convolutionalize(fcn) is fcn


INCEPTION = pytest.param("inception_cifar10", marks=pytest.mark.extended)
RESNET = pytest.param("resnet29_cifar10", marks=pytest.mark.extended)


@pytest.mark.parametrize("name", ["nin_digits", "nin_mnist_bn", INCEPTION, RESNET])
def test_the_zoos_own_models(name):
    model = randomize(zoo.build(name))
    fcn = zoo.convolutionalize(model)
    report = zoo.verify(model, fcn)
    assert report.max_error_at_training_size <= 1e-5
    assert report.crops == 36 and not report.padding_free and report.crops_max_error > 1e-3
    assert "padding" in report.cause


@pytest.mark.parametrize("name", ["nin_mnist_bn", INCEPTION])
@pytest.mark.parametrize("head", [{"kind": "flatten", "hidden": [8]}, {"kind": "pooled", "pool": "max"}])
def test_padding_free_models_equal_their_crops(name, head):
    model = randomize(zoo.build(name, padding="valid", image_size=(54, 50), head=head))
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.padding_free and report.crops == 36
    assert report.crops_max_error <= 1e-5 and report.crops_argmax_agreement == 1
    assert report.same_as_crops and "equal" in report.table()


def test_verify_sees_a_wrong_weight():
    model = randomize(zoo.build("nin_digits"))
    fcn = zoo.convolutionalize(model)
    kernel = fcn.get_layer("head_class_maps").kernel
    kernel.assign(np.asarray(kernel) * 1.01)
    report = zoo.verify(model, fcn)
    assert not report.same_function and "NOT" in report.table()


@pytest.mark.extended
def test_the_file_loads_with_keras_alone_and_carries_its_card(tmp_path):
    model = stack(HEADS["flatten, stack"])
    fcn = zoo.convolutionalize(model)
    path = zoo.save(fcn, tmp_path / "fcn.keras")
    image = noise(1, 20, 20, 3)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "scores.npy", np.asarray(fcn(image)))
    code = (
        "import sys, keras, numpy as np\n"
        f"model = keras.models.load_model(r'{path}')\n"
        f"scores = np.asarray(model(np.load(r'{tmp_path}/image.npy')))\n"
        f"np.testing.assert_allclose(scores, np.load(r'{tmp_path}/scores.npy'), atol=1e-6)\n"
        "assert 'zoo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    moved = path.rename(tmp_path / "elsewhere.keras")
    again = zoo.load(moved)
    assert card(again).window == (12, 10) and zoo.geometry(again).window == (12, 10)
    assert list(tmp_path.glob(".*")) == []
    with zipfile.ZipFile(moved) as archive:
        assert "zoo.json" in archive.namelist()


SATURATED = {
    "dense softmax": lambda x: layers.Dense(4, activation="softmax")(layers.Flatten()(x)),
    "softmax layer": lambda x: layers.Softmax()(layers.Dense(4)(layers.Flatten()(x))),
    "activation": lambda x: layers.Activation("softmax")(layers.Dense(4)(layers.GlobalMaxPooling2D()(x))),
    "operation": lambda x: keras.ops.sigmoid(layers.Dense(4)(layers.GlobalMaxPooling2D()(x))),
    "one sigmoid": lambda x: layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)),
    "mobilenet": lambda x: layers.Reshape((4,))(
        layers.Conv2D(4, 1, activation="softmax")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    ),
}


@pytest.mark.parametrize("head", SATURATED)
def test_a_saturated_activation_hides_no_fault_and_small_probabilities_raise_no_alarm(head):
    """Scores in the thousands: every softmax is 0 or 1 to the last bit, whatever the kernel."""
    model = stack(SATURATED[head])
    fcn = zoo.convolutionalize(model)
    report = zoo.verify(model, fcn)
    assert report.same_function and report.crops_max_error <= 1e-5
    for weight in fcn.weights[-2:]:
        weight.assign(np.asarray(weight) * 1.01)
    wrong = zoo.verify(model, fcn)
    assert wrong.max_error_at_training_size > 1e-3 and wrong.crops_max_error > 1e-3


@pytest.mark.parametrize(
    ("head", "kind"),
    [(SATURATED[name], "sigmoid" if name in ("operation", "one sigmoid") else "probabilities") for name in SATURATED]
    + [
        (HEADS["flatten"], "logits"),
        (lambda x: layers.Dense(4)(layers.Softmax()(layers.GlobalMaxPooling2D()(x))), "logits"),
        (lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="softmax")(x)), "probabilities"),
        (lambda x: layers.Activation("linear")(layers.Dense(4, "softmax")(layers.Flatten()(x))), "probabilities"),
    ],
)
def test_what_the_outputs_are_is_read_from_the_graph_and_kept_by_the_conversion(head, kind):
    model = stack(head)
    assert Network.of(model).outputs_are == Network.of(zoo.convolutionalize(model)).outputs_are == (kind,)


def test_one_answer_for_any_size_is_not_converted_again():
    fcn = zoo.convolutionalize(stack(HEADS["average"]), pooling="global")
    assert card(fcn).pooling == "global" and card(fcn).window is None
    for attempt in (zoo.convolutionalize, lambda model: zoo.scan(model, noise(30, 30, 3))):
        with pytest.raises(InputError, match="one answer for an image of any size"):
            attempt(fcn)
    with pytest.raises(InputError, match="pooling='global'"):
        zoo.verify(stack(HEADS["average"]), fcn)
    assert card(zoo.convolutionalize(stack(HEADS["average"]))).pooling == "window"


def test_a_body_of_fixed_size_comes_back_open():
    image = keras.Input((12, 10, 3))
    body = randomize(keras.Model(image, layers.Conv2D(4, 3, 2)(image)))
    opened = zoo.convolutionalize(body)
    assert opened.input_shape == (None, None, None, 3) and body.input_shape == (None, 12, 10, 3)
    assert zoo.scan(body, noise(31, 20, 3)).scores.shape == (15, 9, 4)


def test_verify_refuses_what_is_no_conversion_of_the_model():
    model = stack(HEADS["flatten"])
    others = [model, zoo.convolutionalize(stack(HEADS["flatten"], size=(14, 10))), zoo.build("nin_digits")]
    others += [zoo.convolutionalize(stack(HEADS["two heads merged"]))]
    for other in others:
        with pytest.raises(InputError, match="is no conversion of"):
            zoo.verify(model, other)
    with pytest.raises(InputError, match="2 inputs|one image"):
        zoo.verify(two_inputs(), model)


def test_a_head_that_mixes_positions_is_caught_beyond_the_training_size(monkeypatch):
    """Normalising over rows and columns is the same at one cell, and nowhere else."""

    def head(x):
        x = layers.UnitNormalization(axis=[1, 2, 3])(layers.GlobalMaxPooling2D(keepdims=True)(x))
        return layers.Dense(4)(layers.Flatten()(x))

    model = stack(head)
    assert zoo.verify(model, zoo.convolutionalize(model)).same_as_crops
    monkeypatch.setattr("zoo.convert.sliding_head.axes_of", lambda layer, rank: ())
    with pytest.raises(RuntimeError, match="at a larger size"):
        zoo.convolutionalize(model)


def test_every_weight_is_accounted_for(monkeypatch):
    monkeypatch.setattr(
        "zoo.convert.copy.Copy.place", lambda self, copy, values, *sources: self.values.append((copy, values))
    )
    with pytest.raises(RuntimeError, match="no place in the converted model"):
        zoo.convolutionalize(stack(HEADS["flatten"]))
    monkeypatch.setattr(
        "zoo.convert.copy.Copy.place", lambda self, copy, values, *sources: self.placed.update(map(id, sources))
    )
    with pytest.raises(RuntimeError, match="has no value from the source"):
        zoo.convolutionalize(stack(HEADS["flatten"]))


def test_the_answer_for_the_whole_image_has_no_grid():
    fcn = zoo.convolutionalize(stack(HEADS["average"]), pooling="global")
    shape = zoo.geometry(fcn, (30, 40))
    assert shape.grid_shape(30, 40) == (1, 1) and shape.cell_box(0, 0) == shape.cell_field(0, 0) == (0, 0, 30, 40)
    assert shape.window == (np.inf, np.inf) and shape.to_dict()["window"] == [None, None]
    assert len(shape.global_blocks) == 1 and "whole image" in shape.sentence()
    with pytest.raises(InputError, match="give image_size"):
        zoo.geometry(fcn).cell_box(0, 0)


def test_upsampling_is_named_where_cells_differ_from_their_crops():
    """Pairs of rows begin at even rows of the large image, and at the first row of a crop."""
    image = keras.Input((12, 10, 3))
    up = layers.UpSampling2D(2, name="up")(layers.MaxPooling2D(2)(image))
    model = randomize(
        keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Concatenate()([up, image]))))
    )
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.padding_free and not report.same_as_crops
    assert report.upsampling == ("up",) and "'up' repeats rows" in report.cause
