"""Conversion of models in other forms: channels first, sequences, dtypes, nested parts, layers on the image."""

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers
from small_nets import HEADS, channels_first, front, stack

import zoo
from zoo.card import card
from zoo.errors import InputError
from zoo.scores import relative_error


def test_squeeze_and_excitation_stays_as_it_is():
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    gate = layers.Dense(6, activation="sigmoid")(layers.Dense(2)(layers.GlobalAveragePooling2D(name="squeeze")(x)))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gate)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    fcn = zoo.convolutionalize(model)
    assert isinstance(fcn.get_layer("squeeze"), layers.GlobalAveragePooling2D)
    assert np.asarray(fcn(noise(1, 20, 16, 3))).shape == (1, 9, 5, 3)


def gated(pool):
    """Two gates of one shared pooling, and a head of another."""
    image = keras.Input((12, 10, 3))
    squeeze = pool("squeeze")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    for index in range(2):
        x = layers.Multiply(name=f"gated{index}")([x, layers.Activation("sigmoid", name=f"gate{index}")(squeeze(x))])
    x = layers.Flatten(name="flat")(pool("top")(x))
    return keras.Model(image, layers.Dense(3, name="logits")(x), name="gated")


def test_adaptive_average_pooling_to_one_position_is_global_average_pooling():
    """As a head and as a block inside the network: converted, scanned and described alike."""
    model = randomize(gated(lambda name: layers.AdaptiveAveragePooling2D((1, 1), name=name)))
    plain = gated(lambda name: layers.GlobalAveragePooling2D(keepdims=True, name=name))
    plain.set_weights(model.get_weights())
    pixels = noise(20, 17, 3)
    assert zoo.describe(model) == zoo.describe(plain)
    assert zoo.geometry(model) == zoo.geometry(plain)
    fcn, wanted = zoo.convolutionalize(model), zoo.convolutionalize(plain)
    assert [(type(layer), layer.name) for layer in fcn.layers[1:]] == [
        (type(layer), layer.name) for layer in wanted.layers[1:]
    ]
    np.testing.assert_array_equal(zoo.scan(model, pixels).scores, zoo.scan(plain, pixels).scores)
    whole = zoo.convolutionalize(model, pooling="global")
    assert np.asarray(whole(pixels[None])).shape == (1, 1, 1, 3)


def test_a_map_that_adaptive_pooling_gates_is_scanned_at_any_size():
    """A network without a head, of open size, comes back as it is; TensorFlow compiles no such layer for it."""
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(image)
    model = randomize(keras.Model(image, layers.Multiply()([x, layers.AdaptiveAveragePooling2D(1)(x)])))
    pixels = noise(20, 17, 3)
    assert relative_error(zoo.scan(model, pixels).scores, np.asarray(model(pixels[None]))[0]) <= 1e-6


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


CHANNELS_FIRST = {
    "flatten": lambda x, form: layers.Dense(4, "softmax")(layers.Dense(7)(layers.Flatten(**form)(x))),
    "flatten as it lies": lambda x, form: layers.Dense(4)(layers.Flatten(data_format="channels_last")(x)),
    "reshape": lambda x, form: layers.Dense(4)(layers.BatchNormalization()(layers.Reshape((-1,))(x))),
    "adaptive": lambda x, form: layers.Dense(4)(layers.Flatten()(layers.AdaptiveAveragePooling2D(1, **form)(x))),
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
    image = noise(1, 16, 12, 3)
    scores, image = np.asarray(fcn(image)), np.moveaxis(image, -1, 1)
    assert scores.shape == (1, 3, 2, 4) and fcn.input_shape == (None, None, None, 3)
    for row, column in np.ndindex(3, 2):
        wanted = np.asarray(model(image[:, :, 2 * row : 2 * row + 12, 2 * column : 2 * column + 10])).reshape(-1)
        if head != "gated":
            assert relative_error(scores[0, row, column], wanted) <= 1e-5
    report = zoo.verify(model, fcn)
    assert report.same_function and report.same_as_crops == (head != "gated")


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
    assert {layer.dtype_policy.name for layer in fcn.layers[2:]} == {policy}
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


def test_part_of_the_training_size_may_be_open():
    image = keras.Input((12, None, 3))
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image)))))
    assert card(zoo.convolutionalize(model, (12, 9))).window == (12, 9)
    with pytest.raises(InputError, match=r"received \(14, 9\); accepted: \(12, None\)"):
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
