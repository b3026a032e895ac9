"""Small classifiers of many heads, for the tests of conversion; and every head of configs."""

from typing import get_args

import keras
from conftest import randomize
from keras import layers

from zoo.models.heads import Head

# Every kind of head that a config may have, with keys that matter to its layers: tests/test_heads.py runs over them.
HEAD_SECTIONS = [
    {"kind": "class_maps"},
    {"kind": "class_maps", "dropout": 0.1, "relu": True},
    {"kind": "pooled"},
    {"kind": "pooled", "pool": "max", "dropout": 0.1},
    {"kind": "flatten", "hidden": [9, 6], "dropout": 0.1},
    {"kind": "pyramid", "levels": [1, 2], "dropout": 0.1},
]
# Those that cannot be slid over an image.
FIXED_KINDS = ("pyramid",)


def head_kinds():
    """The kinds of the union that a config's head is one of."""
    members = get_args(get_args(Head)[0])
    return [get_args(member.model_fields["kind"].annotation)[0] for member in members]


def chain(*parts, shape=(None, None, 3), dtype="float32"):
    """Layers one after the other, with random weights."""
    x = image = keras.Input(shape, dtype=dtype)
    for part in parts:
        x = part(x)
    return randomize(keras.Model(image, x))


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
    "adaptive": lambda x: layers.Dense(4)(layers.Flatten()(layers.AdaptiveAveragePooling2D((1, 1))(x))),
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


def two_inputs():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Add()(images))))


def channels_first(head, size=(12, 10)):
    """The same body as `stack`, channels first."""
    form = {"data_format": "channels_first"}
    image = keras.Input((3, *size))
    x = layers.Conv2D(6, 3, strides=2, **form)(image)
    x = layers.BatchNormalization(axis=1)(x)
    side = layers.Conv2D(6, 1, padding="same", activation="relu", **form)(x)
    x = layers.Concatenate(axis=1)([layers.PReLU(shared_axes=[2, 3])(x), side])
    return randomize(keras.Model(image, head(x, form)))


def front(*first, dtype="float32"):
    """Layers on the image, and a padding-free net of stride 2 with a Flatten head behind them."""
    x = image = keras.Input((12, 10, 3), dtype=dtype)
    for layer in first:
        x = layer(x)
    x = layers.Conv2D(4, 3, strides=2)(x)
    return randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
