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

import zoo
from zoo.dense.compare import relative_error
from zoo.dense.outputs import outputs_are
from zoo.errors import InputError
from zoo.saving import card


def stack(head, size=(12, 10), channels=3, padding="valid"):
    """A small body with stride 2 and a head: H and W differ, so that a transposed kernel cannot hide."""
    image = keras.Input((*size, channels))
    x = layers.Conv2D(6, 3, activation="relu", padding=padding)(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(5, (2, 3), activation="relu", padding=padding)(x)
    return randomize(keras.Model(image, head(x)))


def flatten_stack(x):
    x = layers.Flatten()(x)
    x = layers.Dense(16, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dense(12)(x)
    x = layers.ReLU()(x)
    return layers.Dense(4, activation="softmax")(x)


HEADS = {
    "flatten": lambda x: layers.Dense(4)(layers.Flatten()(x)),
    "flatten, stack": flatten_stack,
    "reshape": lambda x: layers.Dense(4)(layers.Reshape((-1,))(x)),
    "flatten, relu": lambda x: layers.Dense(4)(layers.Activation("relu")(layers.Flatten()(x))),
    "average": lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(x)),
    "average, keepdims": lambda x: layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x)),
    "max": lambda x: layers.Dense(4)(layers.GlobalMaxPooling2D()(x)),
    "max, stack": lambda x: layers.Dense(4)(layers.Dense(7, activation="tanh")(layers.GlobalMaxPooling2D()(x))),
    "class maps": lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x)),
    "mobilenet": lambda x: layers.Reshape((4,))(layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))),
    "keepdims, flatten": lambda x: layers.Dense(4)(layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))),
    "flatten, normalised": lambda x: layers.Dense(4)(
        layers.Dropout(0.1)(layers.BatchNormalization()(layers.Flatten()(x)))
    ),
    "flatten, normalised twice, no bias": lambda x: layers.Dense(4, use_bias=False)(
        layers.BatchNormalization(center=False)(layers.BatchNormalization(scale=False)(layers.Flatten()(x)))
    ),
    "flatten, relu, normalised, stack": lambda x: layers.Dense(4)(
        layers.Dense(6, "relu")(layers.BatchNormalization()(layers.ReLU()(layers.Rescaling(0.1)(layers.Flatten()(x)))))
    ),
    "flatten, channels first": lambda x: layers.Dense(4)(layers.Flatten(data_format="channels_first")(x)),
    "unit normalisation": lambda x: layers.Dense(4)(layers.UnitNormalization()(layers.GlobalMaxPooling2D()(x))),
    "keepdims, normalised over all": lambda x: layers.Dense(4)(
        layers.Flatten()(layers.LayerNormalization(axis=[1, 2, 3])(layers.GlobalMaxPooling2D(keepdims=True)(x)))
    ),
    "operations": lambda x: layers.Dense(4)(keras.ops.softmax(keras.ops.mean(x, axis=[1, 2]) / 100)),
    "layer normalisation": lambda x: layers.Dense(4)(layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))),
    "two heads merged": lambda x: layers.Concatenate()(
        [layers.Dense(2)(layers.Flatten()(x)), layers.Dense(3)(layers.GlobalMaxPooling2D()(x))]
    ),
}


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


def test_float64_leaves_no_room_for_a_fault_in_geometry():
    keras.config.set_dtype_policy("float64")
    try:
        model = stack(HEADS["flatten, stack"])
        fcn = zoo.convolutionalize(model)
        image = np.random.default_rng(0).normal(size=(1, 30, 31, 3))
        scores = np.asarray(fcn(image))
        assert scores.dtype == np.float64
        for row, column in ((0, 0), (9, 10), (4, 7)):
            crop = image[:, 2 * row : 2 * row + 12, 2 * column : 2 * column + 10]
            assert relative_error(scores[:, row, column], np.asarray(model(crop))) <= 1e-9
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


def test_squeeze_and_excitation_stays_as_it_is():
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    gate = layers.Dense(6, activation="sigmoid")(layers.Dense(2)(layers.GlobalAveragePooling2D(name="squeeze")(x)))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gate)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    fcn = zoo.convolutionalize(model)
    assert isinstance(fcn.get_layer("squeeze"), layers.GlobalAveragePooling2D)
    assert np.asarray(fcn(noise(1, 20, 16, 3))).shape == (1, 9, 5, 3)


def test_nested_and_shared_parts():
    body = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same"), layers.ReLU()], name="body")
    image = keras.Input((8, 8, 4))
    x = body(body(image))
    shared = layers.Dense(4, activation="relu", name="shared")
    x = layers.GlobalAveragePooling2D()(x)
    tail = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="tail")
    model = randomize(keras.Model(image, tail(shared(shared(x)))))
    fcn = zoo.convolutionalize(model)
    assert fcn.count_params() == model.count_params()
    larger = noise(1, 8, 8, 4)
    assert relative_error(np.asarray(fcn(larger))[:, 0, 0], np.asarray(model(larger))) <= 1e-5
    assert np.asarray(fcn(noise(1, 12, 9, 4))).shape == (1, 5, 2, 3)


def test_several_outputs():
    image = keras.Input((10, 10, 1))
    x = layers.Conv2D(4, 3)(image)
    flat = layers.Flatten()(x)
    model = randomize(keras.Model(image, [layers.Dense(2)(flat), layers.Dense(5)(layers.GlobalMaxPooling2D()(x))]))
    fcn = zoo.convolutionalize(model)
    first, second = fcn(noise(1, 12, 11, 1))
    assert first.shape == (1, 3, 2, 2) and second.shape == (1, 3, 2, 5)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (lambda x: layers.Dense(2)(layers.LayerNormalization(name="ln")(layers.Flatten()(x))), "'ln'"),
        (lambda x: layers.Dense(2)(layers.Flatten()(layers.Permute((2, 1, 3), name="turn")(x))), "'turn'"),
        (lambda x: layers.Flatten(name="bare")(x), "flattened map"),
        (lambda x: layers.LSTM(3, name="memory")(layers.Reshape((-1, 5))(x)), "'reshape"),
        (lambda x: layers.Dense(2)(layers.Softmax(name="soft")(layers.Flatten()(x))), "'soft'"),
        (lambda x: layers.Dense(2)(layers.Lambda(lambda t: t * 2, name="code")(layers.Flatten()(x))), "'code'"),
        (lambda x: layers.Dense(2)(layers.Flatten()(layers.Lambda(lambda t: t, name="code")(x))), "'code'.*runs code"),
        (
            lambda x: layers.Dense(2)(layers.Flatten()(layers.GroupNormalization(1, name="group")(x))),
            "'group'.*all pos",
        ),
        (
            lambda x: layers.Dense(2)(layers.Flatten()(layers.MultiHeadAttention(1, 2, name="look")(x, x))),
            "'look'.*at all positions",
        ),
        (
            lambda x: layers.Dense(2)(layers.ReLU(name="cut")(layers.BatchNormalization()(layers.Flatten()(x)))),
            "'cut'.*between a normalisation of the flattened map and its Dense layer",
        ),
        (
            lambda x: layers.Dense(2)(layers.Dropout(0.5, name="mc")(layers.Flatten()(x), training=True)),
            "'mc'.*training",
        ),
        (
            lambda x: layers.Add(name="join")(
                [layers.Dense(2)(layers.Flatten()(x)), layers.Dense(2)(layers.Flatten()(layers.MaxPooling2D(2)(x)))]
            ),
            "'join'.*strides 2 x 2 and 4 x 4",
        ),
        (
            lambda x: layers.Dense(2)(layers.Softmax(axis=1, name="rows")(layers.GlobalMaxPooling2D(keepdims=True)(x))),
            "'rows'.*axis 1",
        ),
    ],
)
def test_what_cannot_be_slid_is_refused_by_name(head, text):
    with pytest.raises(InputError, match=text):
        zoo.convolutionalize(stack(head))


def test_a_fully_convolutional_model_comes_back_unchanged():
    fcn = zoo.convolutionalize(stack(HEADS["flatten"]))
    assert zoo.convolutionalize(fcn) is fcn


@pytest.mark.parametrize("name", ["nin_digits", "nin_mnist_bn", "inception_cifar10", "resnet29_cifar10"])
def test_the_zoos_own_models(name):
    model = randomize(zoo.build(name))
    fcn = zoo.convolutionalize(model)
    report = zoo.verify(model, fcn)
    assert report.max_error_at_training_size <= 1e-5
    assert report.crops == 36 and not report.padding_free and report.crops_max_error > 1e-3
    assert "padding" in report.cause


@pytest.mark.parametrize("name", ["nin_mnist_bn", "inception_cifar10"])
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
    assert outputs_are(model) == outputs_are(zoo.convolutionalize(model)) == kind


def two_inputs():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Add()(images))))


def on_a_vector():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)])


@pytest.mark.parametrize(("make", "text"), [(two_inputs, r"\(8, 8, 1\) and \(8, 8, 1\)"), (on_a_vector, r"\(4,\)")])
def test_what_takes_no_single_image_is_refused(make, text):
    for attempt in (zoo.convolutionalize, lambda model: zoo.scan(model, np.zeros((30, 30)))):
        with pytest.raises(InputError, match=f"takes {text}; accepted: one image, .height, width, channels"):
            attempt(make())
    with pytest.raises(InputError, match="accepted: a Keras model, received str"):
        zoo.convolutionalize("model.keras")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (lambda x: layers.Dense(2)(layers.GlobalMaxPooling2D(data_format="channels_first", name="odd")(x)), "odd"),
        (lambda x: layers.Dense(2)(layers.Flatten()(layers.PReLU(name="slopes")(x))), "slopes"),
    ],
)
def test_axes_mistaken_for_channels_and_weights_of_every_position_are_refused_by_name(head, name):
    for attempt in (zoo.convolutionalize, zoo.geometry):
        with pytest.raises(InputError, match=f"'{name}'"):
            attempt(stack(head))


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Dense(2)(layers.Flatten()(layers.PReLU(shared_axes=[1, 2])(x))),
        lambda x: layers.Dense(2)(layers.PReLU()(layers.Dense(6)(layers.Flatten()(x)))),
        lambda x: layers.Conv2D(2, 1)(layers.PReLU()(layers.GlobalMaxPooling2D(keepdims=True)(x))),
    ],
)
def test_slopes_shared_by_all_positions_are_converted(head):
    model = stack(head)
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.same_as_crops


@pytest.mark.parametrize("size", [(2, 2), (-3, 0), (9,), 8, (9.5, 9), "9x"])
def test_training_sizes_that_cannot_be(size):
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(InputError, match="'conv'" if size == (2, 2) else "image_size: received .*accepted: 2 numbers"):
        zoo.convolutionalize(model, image_size=size)


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


def channels_first(head, size=(12, 10)):
    """The same body as `stack`, channels first."""
    form = {"data_format": "channels_first"}
    image = keras.Input((3, *size))
    x = layers.Conv2D(6, 3, strides=2, **form)(image)
    x = layers.BatchNormalization(axis=1)(x)
    side = layers.Conv2D(6, 1, padding="same", activation="relu", **form)(x)
    x = layers.Concatenate(axis=1)([layers.PReLU(shared_axes=[2, 3])(x), side])
    return randomize(keras.Model(image, head(x, form)))


CHANNELS_FIRST = {
    "flatten": lambda x, form: layers.Dense(4, "softmax")(layers.Dense(7)(layers.Flatten(**form)(x))),
    "flatten as it lies": lambda x, form: layers.Dense(4)(layers.Flatten(data_format="channels_last")(x)),
    "reshape": lambda x, form: layers.Dense(4)(layers.BatchNormalization()(layers.Reshape((-1,))(x))),
    "average": lambda x, form: layers.Dense(4)(layers.LayerNormalization()(layers.GlobalAveragePooling2D(**form)(x))),
    "max, keepdims": lambda x, form: layers.Flatten(**form)(
        layers.Conv2D(4, 1, **form)(layers.GlobalMaxPooling2D(keepdims=True, **form)(x))
    ),
    "gated": lambda x, form: layers.Dense(4)(
        layers.GlobalMaxPooling2D(**form)(
            layers.Multiply()([x, layers.Reshape((12, 1, 1))(layers.Dense(12)(layers.GlobalMaxPooling2D(**form)(x)))])
        )
    ),
}


@pytest.mark.parametrize("head", CHANNELS_FIRST)
def test_channels_first(head):
    model = channels_first(CHANNELS_FIRST[head])
    fcn = zoo.convolutionalize(model)
    image = np.moveaxis(noise(1, 16, 12, 3), -1, 1)
    scores = np.asarray(fcn(image))
    assert scores.shape == (1, 4, 3, 2) and fcn.input_shape == (None, 3, None, None)
    for row, column in np.ndindex(3, 2):
        wanted = np.asarray(model(image[:, :, 2 * row : 2 * row + 12, 2 * column : 2 * column + 10])).reshape(-1)
        if head != "gated":
            assert relative_error(scores[0, :, row, column], wanted) <= 1e-5
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops == (head != "gated")


def test_layers_that_take_columns_for_channels_are_refused():
    form = {"data_format": "channels_first"}
    for name, bad in (
        ("dense", lambda x: layers.Dense(3, name="dense")(x)),
        ("soft", lambda x: layers.Activation("softmax", name="soft")(x)),
        ("norm", lambda x: layers.BatchNormalization(name="norm")(x)),
        ("pool", lambda x: layers.MaxPooling2D(2, data_format="channels_last", name="pool")(x)),
    ):
        image = keras.Input((3, 12, 12))
        x = layers.Flatten(**form)(bad(layers.Conv2D(4, 3, **form)(image)))
        with pytest.raises(InputError, match=f"'{name}'"):
            zoo.convolutionalize(keras.Model(image, layers.Dense(2)(x)))


def phone_recogniser():
    """40 frames of 23 numbers; convolution of 8 to 33, pooling of 6 at shift 2 to 14, Flatten, 1000, 1000."""
    sound = keras.Input((40, 23))
    x = layers.Conv1D(8, 8, activation="relu")(sound)
    x = layers.MaxPooling1D(6, 2)(x)
    assert x.shape == (None, 14, 8)
    x = layers.Dense(1000, activation="relu")(layers.Flatten()(x))
    return randomize(keras.Model(sound, layers.Dense(1000)(x)))


def test_a_phone_recogniser_slides_along_time():
    model = phone_recogniser()
    fcn = zoo.convolutionalize(model)
    assert fcn.input_shape == (None, None, 23) and fcn.count_params() == model.count_params()
    shape = zoo.geometry(fcn)
    assert (shape.window, shape.stride, shape.receptive_field) == ((40,), (2,), (39,))
    assert [shape.grid_shape(length)[0] for length in range(39, 44)] == [1, 1, 2, 2, 3]
    sound = noise(1, 61, 23)
    scores = np.asarray(fcn(sound))
    assert scores.shape == (1, 12, 1000)
    wanted = np.stack([np.asarray(model(sound[:, 2 * cell : 2 * cell + 40]))[0] for cell in range(11)])
    assert relative_error(scores[0, :11], wanted) <= 1e-5
    assert shape.cell_box(3) == (6, 46)
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops and report.crops == 36 and "40, 2 pixels" in report.table()


@pytest.mark.parametrize("head", ["average", "causal", "whole"])
def test_other_heads_on_sequences(head):
    sound = keras.Input((None if head == "whole" else 20, 3))
    x = layers.Conv1D(6, 3, padding="causal" if head == "causal" else "valid", dilation_rate=2)(sound)
    pool = layers.GlobalAveragePooling1D() if head != "causal" else layers.GlobalMaxPooling1D()
    model = randomize(keras.Model(sound, layers.Dense(5)(pool(x))))
    if head == "whole":
        fcn = zoo.convolutionalize(model, image_size=(20,), pooling="global")
        assert relative_error(np.asarray(fcn(noise(1, 31, 3)))[:, 0], np.asarray(model(noise(1, 31, 3)))) <= 1e-5
        return
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.same_as_crops == report.padding_free == (head == "average")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16", "float64"])
def test_any_dtype_policy_is_checked_in_float32_at_least(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = stack(HEADS["flatten, stack"])
        fcn = zoo.convolutionalize(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.dtype_policy.name for layer in fcn.layers[1:]} == {policy}
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops


def test_models_that_are_quantized_or_have_low_rank_updates():
    model = stack(HEADS["flatten, stack"])
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    dense.enable_lora(2)
    randomize(model)
    assert zoo.verify(model, zoo.convolutionalize(model)).same_function
    model = stack(HEADS["flatten"])
    model.layers[-1].quantize("int8")
    with pytest.raises(InputError, match="is quantized to int8; accepted"):
        zoo.convolutionalize(model)


def test_a_head_that_mixes_positions_is_caught_beyond_the_training_size(monkeypatch):
    """Normalising over rows and columns is the same at one cell, and nowhere else."""

    def head(x):
        x = layers.UnitNormalization(axis=[1, 2, 3])(layers.GlobalMaxPooling2D(keepdims=True)(x))
        return layers.Dense(4)(layers.Flatten()(x))

    model = stack(head)
    assert zoo.verify(model, zoo.convolutionalize(model)).same_as_crops
    monkeypatch.setattr("zoo.dense.slide_head.axes_of", lambda layer, rank: ())
    with pytest.raises(RuntimeError, match="at a larger size"):
        zoo.convolutionalize(model)


def test_every_weight_is_accounted_for(monkeypatch):
    monkeypatch.setattr(
        "zoo.dense.rebuild.Rebuild.place", lambda self, made, values, *sources: self.values.append((made, values))
    )
    with pytest.raises(RuntimeError, match="no place in the converted model"):
        zoo.convolutionalize(stack(HEADS["flatten"]))
    monkeypatch.setattr(
        "zoo.dense.rebuild.Rebuild.place", lambda self, made, values, *sources: self.placed.update(map(id, sources))
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


def front(*first, dtype="float32"):
    """Layers on the image, and a padding-free net of stride 2 with a Flatten head behind them."""
    x = image = keras.Input((12, 10, 3), dtype=dtype)
    for layer in first:
        x = layer(x)
    x = layers.Conv2D(4, 3, strides=2)(x)
    return randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))


def adapted(axis=-1):
    layer = layers.Normalization(axis=axis)
    layer.adapt(noise(4, 12, 10, 3, seed=5))
    return layer


@pytest.mark.parametrize(
    "first",
    [
        (lambda x: adapted()(x),),
        (lambda x: adapted(None)(x),),
        (lambda x: x * np.array([1, 2, 3], "float32") - np.ones((1, 1, 1, 3), "float32"),),
        (lambda x: x[..., ::-1] / 255,),
        (lambda x: keras.ops.flip(x, axis=-1), keras.ops.leaky_relu),
        (layers.ActivityRegularization(0.1),),
        (layers.MaxPooling2D(2), layers.UpSampling2D(2)),
    ],
)
def test_layers_and_operations_on_the_image_are_those_of_the_source(first):
    image = keras.Input((12, 10, 3))
    x = image
    for layer in first:
        x = layer(x)
    x = layers.Conv2D(4, 3, strides=2)(x)
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    fcn = zoo.convolutionalize(model)
    larger = noise(1, 16, 12, 3)
    scores = np.asarray(fcn(larger))
    for row, column in np.ndindex(scores.shape[1:3]):
        wanted = np.asarray(model(larger[:, 2 * row : 2 * row + 12, 2 * column : 2 * column + 10]))
        assert relative_error(scores[:, row, column], wanted) <= 1e-5
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops


def test_an_adapted_normalization_keeps_its_numbers_in_the_file(tmp_path):
    image = keras.Input((12, 10, 3))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3, 2)(adapted()(image)))))
    fcn = zoo.convolutionalize(model)
    again = zoo.load(zoo.save(fcn, tmp_path / "fcn.keras"))
    images = noise(2, 12, 10, 3)
    assert relative_error(np.asarray(again(images))[:, 0, 0], np.asarray(model(images))) <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_augmentation_is_left_out(dtype):
    """Keras calls it with training=True, and so at random, unless it predicts."""
    augmentation = keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.3, 0.3)], name="augmentation")
    model = front(augmentation, dtype=dtype)
    fcn = zoo.convolutionalize(model)
    images = noise(2, 12, 10, 3).astype(dtype)
    wanted = np.asarray(model(images, training=False))
    for training in (None, True, False):
        assert relative_error(np.asarray(fcn(images, training=training))[:, 0, 0], wanted) <= 1e-5
    assert not [layer for layer in fcn.layers if type(layer).__name__.startswith("Random")]
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops


def nested_in_training():
    image = keras.Input((12, 10, 3))
    body = keras.Model(image, layers.BatchNormalization(name="norm")(image))
    whole = keras.Input((12, 10, 3))
    return keras.Model(whole, layers.Dense(3)(layers.Flatten()(body(whole, training=True))))


def own_activation(x):
    return x - keras.ops.mean(x, axis=(1, 2), keepdims=True)


class OwnConvolution(layers.Conv2D):
    def call(self, inputs):
        return keras.ops.roll(super().call(inputs), 1, axis=1)


class OwnRegularizer(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: front(layers.Resizing(24, 20, name="fit")), "'fit' .*every image one size"),
        (lambda: front(layers.CenterCrop(8, 8, name="fit")), "'fit' .*every image one size"),
        (lambda: front(lambda x: x + np.ones((12, 10, 1), "float32")), r"'add.*constant of shape \(12, 10, 1\)"),
        (lambda: front(layers.Rescaling(np.ones((12, 1, 1)).tolist(), name="s")), r"'s'.*constant of shape \(12, 1, 1"),
        (lambda: front(lambda x: keras.ops.softmax(x, axis=None)), "'softmax.*along all axes"),
        (lambda: front(lambda x: x[:, ::2]), "'get_item"),
        (
            lambda: front(lambda x: layers.Multiply(name="gate")([x, layers.AveragePooling2D((12, 10))(x)])),
            "'gate': merges maps of 1 x 1 and 12 x 10 positions",
        ),
        (lambda: front(layers.UpSampling2D(2, name="up")), "'up': upsamples by 2 at stride 1"),
        (lambda: front(OwnConvolution(3, 3, name="own")), "'own' .OwnConvolution.: code of its author's own"),
        (lambda: front(layers.Conv2D(3, 3, activation=own_activation, name="own")), "'own': activation 'own_act"),
        (
            lambda: stack(lambda x: layers.Dense(3)(layers.Dense(4, own_activation, name="own")(layers.Flatten()(x)))),
            "'own': activation 'own_activation'; accepted",
        ),
        (
            lambda: stack(lambda x: layers.Dense(3, bias_regularizer=OwnRegularizer(), name="o")(layers.Flatten()(x))),
            "'o': received bias_regularizer OwnRegularizer",
        ),
        (
            lambda: stack(lambda x: layers.Dense(3)(layers.Activation("sparsemax", name="along")(layers.Flatten()(x)))),
            "'along'",
        ),
        (
            lambda: stack(lambda x: layers.Dense(3)(layers.Reshape((5, 1), name="t")(layers.GlobalMaxPooling2D()(x)))),
            r"'t': reshapes the vector to \(5, 1\)",
        ),
        (
            lambda: stack(
                lambda x: layers.Dense(3)(
                    layers.Concatenate(name="join")([layers.Flatten()(x), layers.Flatten()(layers.ReLU()(x))])
                )
            ),
            "'join' .*joining flattened maps",
        ),
        (nested_in_training, "'functional.*/norm': is called with training=True"),
    ],
)  # fmt: skip
def test_what_would_be_converted_wrong_is_refused_by_name(make, text):
    with pytest.raises(InputError, match=text):
        zoo.convolutionalize(make())


def test_a_map_beside_a_vector_of_classes():
    model = stack(lambda x: [layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), layers.Conv2D(2, 1)(x)])
    image = noise(1, 16, 14, 3)
    classes, maps = zoo.convolutionalize(model)(image)
    assert classes.shape == (1, 3, 3, 3) and maps.shape == (1, 6, 4, 2)


def test_a_nested_model_that_takes_its_inputs_by_name():
    first, second = keras.Input((12, 10, 3), name="zebra"), keras.Input((12, 10, 3), name="ant")
    inner = keras.Model([first, second], layers.Subtract()([layers.Conv2D(4, 3)(first), layers.Conv2D(4, 3)(second)]))
    image = keras.Input((12, 10, 3))
    x = inner({"ant": layers.Conv2D(3, 1)(image), "zebra": layers.ReLU()(image)})
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    assert zoo.verify(model, zoo.convolutionalize(model)).same_function


def test_scales_of_every_number_of_a_flattened_map_become_part_of_the_kernel():
    scales = np.random.default_rng(0).normal(size=40).tolist()
    model = stack(lambda x: layers.Dense(3)(layers.Rescaling(scales, 0.5)(layers.Flatten()(x))))
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.same_as_crops


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


def test_part_of_the_training_size_may_be_open():
    image = keras.Input((12, None, 3))
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image)))))
    assert card(zoo.convolutionalize(model, (12, 9))).window == (12, 9)
    with pytest.raises(InputError, match=r"received \(14, 9\); accepted for this model: \(12, None\)"):
        zoo.convolutionalize(model, (14, 9))


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Activation("softmax")(layers.Dense(4)(layers.Flatten(data_format="channels_first")(x))),
        lambda x: layers.Dense(4)(
            layers.Rescaling([0.5, -1, 2, 3, 1, 1] * 2, 1.0)(layers.GlobalMaxPooling2D(data_format="channels_first")(x))
        ),
    ],
)
def test_vectors_of_maps_with_channels_first(head):
    model = channels_first(lambda x, form: head(x))
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.same_as_crops
