"""What cannot be slid over larger images is refused, by the name of the layer."""

import keras
import numpy as np
import pytest
from keras import layers
from small_nets import front, stack, two_inputs

import zoo
from zoo.errors import InputError


def patched(layer):
    real = layer.call
    object.__setattr__(layer, "call", lambda x: real(x) * 2)
    return layer


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (lambda x: layers.Dense(2)(layers.LayerNormalization(name="ln")(layers.Flatten()(x))), "'ln'"),
        (
            lambda x: layers.Dense(2)(layers.Flatten()(layers.Conv2D(2, 1)(layers.Permute((2, 1, 3), name="turn")(x)))),
            "'turn'",
        ),
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
            lambda x: layers.Dense(2)(layers.Flatten()(layers.AdaptiveAveragePooling2D((1, 2), name="bins")(x))),
            "'bins' .*to 1 x 2 positions; accepted: output_size 1 x 1",
        ),
        (
            lambda x: layers.Dense(2)(layers.Flatten()(patched(layers.AdaptiveAveragePooling2D(1, name="patched"))(x))),
            "'patched' .*own",
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


def on_a_vector():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)])


@pytest.mark.parametrize(
    ("make", "text"), [(two_inputs, r"2 inputs, '.*' \(8, 8, 1\) and '.*' \(8, 8, 1\)"), (on_a_vector, r"\(4,\)")]
)
def test_what_takes_no_single_image_is_refused(make, text):
    for attempt in (zoo.convolutionalize, lambda model: zoo.scan(model, np.zeros((30, 30)))):
        with pytest.raises(InputError, match=f"takes {text}; accepted: one image, .height, width, channels"):
            attempt(make())
    with pytest.raises(InputError, match="received 'model.keras'; accepted: a Keras model"):
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


@pytest.mark.parametrize("size", [(2, 2), (-3, 0), (9,), 8, (9.5, 9), "9x"])
def test_training_sizes_that_cannot_be(size):
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(InputError, match="'conv'" if size == (2, 2) else "image_size: received .*accepted: 2 numbers"):
        zoo.convolutionalize(model, image_size=size)


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
            lambda: front(layers.Conv2D(3, 3, bias_regularizer=OwnRegularizer(), name="o")),
            "'o': received bias_regularizer OwnRegularizer",
        ),
        (
            lambda: stack(lambda x: layers.Dense(3)(layers.Activation("sparsemax", name="along")(layers.Flatten()(x)))),
            "'along'",
        ),
        (
            lambda: stack(lambda x: layers.Dense(3)(layers.Reshape((5, 1), name="t")(layers.GlobalMaxPooling2D()(x)))),
            r"'t': a vector in the form \(5, 1\)",
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
