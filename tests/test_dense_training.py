"""Training on the grid is training on all its windows at once: gradients, patches, labels, losses, and whole runs."""

import csv
import json

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from small_nets import HEADS, stack

import zoo
from zoo.config import Config
from zoo.config.recipe import SGD, Augment, Dense, TrainConfig
from zoo.convert.copy import in_dtype
from zoo.data import Dataset, Split
from zoo.errors import InputError
from zoo.models.inception import InceptionConfig
from zoo.models.nin import NINConfig
from zoo.models.resnet import ResNetConfig
from zoo.network.network import Network
from zoo.objects.cell_labels import IGNORED, cell_labels, scene_labels
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.scores import relative_error
from zoo.training import loop, train
from zoo.training.dense import DenseTraining, check_model, check_weights, grid_trainer
from zoo.training.patches import PatchForm, WholeImages, training_patches
from zoo.training.recipe import balanced

NIN = {
    "family": "nin",
    "num_classes": 3,
    "channels": 3,
    "image_size": [14, 14],
    "padding": "valid",
    "normalization": "batch",
    "mlpconvs": [
        {"kernel": 3, "filters": [8, 6], "pool": {"kind": "max", "size": 2, "stride": 2}},
        {"kernel": 3, "filters": [8]},
    ],
}
BOTTLENECKS = {
    "family": "resnet",
    "variant": "v2",
    "num_classes": 3,
    "image_size": [20, 22],
    "padding": "valid",
    "stem": {"kernel": 3, "filters": 8},
    "stages": [{"blocks": 1, "width": 4, "filters": 8}, {"blocks": 2, "width": 4, "filters": 12, "stride": 2}],
}
MODULES = {
    "family": "inception",
    "num_classes": 3,
    "image_size": [26, 26],
    "padding": "valid",
    "stem": ["3x3 8"],
    "modules": [
        {"name": "3a", "conv1": 4, "reduce3": 4, "conv3": 6, "reduce5": 2, "conv5": 4, "pool_proj": 4,
         "pool": "max 3x3/2"},
        {"name": "3b", "conv1": 4, "reduce3": 4, "conv3": 6, "reduce5": 2, "conv5": 4, "pool_proj": 4},
    ],
}  # fmt: skip


MODELS = {
    "nin": lambda: zoo.build(NINConfig.model_validate(NIN)),
    "flatten": lambda: zoo.build(NINConfig.model_validate({**NIN, "head": {"kind": "flatten", "hidden": [7]}})),
    "bottlenecks": lambda: zoo.build(ResNetConfig.model_validate(BOTTLENECKS)),
    "inception": lambda: zoo.build(InceptionConfig.model_validate(MODULES)),
    "max": lambda: stack(lambda x: layers.Dense(3)(layers.GlobalMaxPooling2D()(x))),
}


def gradients(model, images, labels):
    """Those of the summed cross-entropy, flat, by weight; normalisations by their moving averages."""
    import tensorflow as tf

    @tf.function
    def made(images, labels):
        with tf.GradientTape() as tape:
            logits = tf.reshape(model(images, training=False), (-1, 3))
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_sum(losses)
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    values = made(images, labels.ravel())
    return {weight.path: np.ravel(value) for weight, value in zip(model.trainable_weights, values, strict=True)}


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_a_grid_is_the_sum_of_its_crops(name, dtype, bound):
    model = randomize(MODELS[name]())
    if dtype == "float64":
        model = in_dtype(Network.of(model), dtype).model
    converted = zoo.convolutionalize(model)
    geometry = zoo.geometry(converted)
    height, width = (side + 5 * stride for side, stride in zip(geometry.window_sides, geometry.stride, strict=True))
    # Two: at the kernel's gradient of a strided 1x1 convolution of one image TensorFlow may end the process.
    images = noise(2, height, width, 3).astype(dtype)
    labels = np.random.default_rng(1).integers(0, 3, (2, 6, 6))
    boxes = [geometry.cell_box(row, column) for row in range(6) for column in range(6)]
    crops = np.stack([image[top:bottom, left:right] for image in images for top, left, bottom, right in boxes])
    wanted, given = gradients(model, crops, labels), gradients(converted, images, labels)
    assert len(wanted) == len(given) == len(model.trainable_weights)
    # A hidden unit that no crop excites has no gradient.
    assert sum(np.abs(value).max() > 0 for value in wanted.values()) >= len(wanted) - 1
    for path, value in wanted.items():
        assert relative_error(given[path], value) <= bound if np.abs(value).max() else not given[path].any(), path
