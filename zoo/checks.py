"""Checks that every architecture passes, ours and a user's own.

A test file that runs them on yours:

    import pytest
    import zoo.checks

    @pytest.mark.parametrize("check", zoo.checks.CHECKS)
    def test_my_net(check):
        check("my_config.yaml")
"""

from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.builder import build
from zoo.catalogue import resolve
from zoo.convert.conversion import convolutionalize
from zoo.convert.verification import verify
from zoo.large_images import scan
from zoo.models.architecture import ArchitectureConfig
from zoo.network.network import geometry

Spec = str | Path | ArchitectureConfig
# Pixels a side up to which nets are run on crops as small as they take.
_LARGEST_CROP = 256


def _images(config: ArchitectureConfig, count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *config.training_size, config.channels)).astype(np.float32)


def _built(spec: Spec, **overrides: Any) -> keras.Model:
    """The model with kernels at half their first values.

    Before any training a normalisation does nothing in inference, and a stream of a thousand residuals would overflow.
    """
    model = build(spec, **overrides)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight) / 2)
    return model


def check_shapes(spec: Spec) -> None:
    """It builds at its own size and at any, from built-in layers, and its arithmetic of sizes is right."""
    config, model, free = resolve(spec), build(spec), build(spec, image_size=None)
    height, width = config.training_size
    assert model.input_shape == (None, height, width, config.channels)
    assert model.output_shape == (None, config.num_classes)
    assert model.layers[-1].name == "head_logits"
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert [weight.shape for weight in free.weights] == [weight.shape for weight in model.weights]
    for size in ((height, width), (height + 5, width + 2)):
        built = build(spec, image_size=size)
        before_head = next(layer for layer in built.layers if layer.name.startswith("head_")).input
        assert before_head.shape[1:3] == tuple(config.feature_map_size(side) for side in size)


def check_logits(spec: Spec) -> None:
    """Raw uint8 and float images give the same finite logits, which differ from image to image."""
    config, model = resolve(spec), _built(spec)
    images = _images(config, 2)
    logits = np.asarray(model(images))
    assert np.isfinite(logits).all() and np.ptp(logits, axis=0).max() > 0
    np.testing.assert_array_equal(logits, np.asarray(model(images.astype(np.uint8))))


def check_training_step(spec: Spec) -> None:
    """One step of training has a finite loss and changes every trainable weight.

    The loss is the cross-entropy, and the squared error of a single output, as of a counter.
    """
    config = resolve(spec)
    keras.utils.set_random_seed(0)
    model = build(spec)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", cross_entropy if config.num_classes > 1 else "mse")
    before = [np.array(weight) for weight in model.trainable_weights]
    loss = model.train_on_batch(_images(config, 4), np.arange(4) % config.num_classes)
    assert np.isfinite(loss)
    pairs = zip(model.trainable_weights, before, strict=True)
    unchanged = [weight.path for weight, old in pairs if np.array_equal(np.asarray(weight), old)]
    assert not unchanged, unchanged


def check_conversion(spec: Spec) -> None:
    """The converted head is the same function at the training size, and tiles of a scan equal the whole.

    To 1e-5 of the largest score, 1e-4 above 200 layers with weights.
    """
    model = _built(spec)
    converted = convolutionalize(model)
    assert verify(model, converted).same_function
    config = resolve(spec)
    side = 2 * max(config.training_size) + 3
    image = np.random.default_rng(1).integers(0, 256, (side, side, config.channels)).astype(np.float32)
    whole, tiled = scan(converted, image), scan(converted, image, tile=max(config.total_stride, side // 2))
    tolerance = 1e-5 if sum(bool(layer.weights) for layer in model.layers) <= 200 else 1e-4
    np.testing.assert_allclose(tiled.scores, whole.scores, rtol=0, atol=tolerance * np.abs(whole.scores).max())


def check_padding_free(spec: Spec) -> None:
    """With `padding: valid` no layer pads, the weights below the head are the same, and every cell is its crop.

    For architectures that have the key. The net is built for the smallest image that its schema lets pass, and compared
    with crops where that is at most 256 pixels a side, to 1e-5 of the largest score.
    """
    config = resolve(spec)
    if "padding" not in type(config).model_fields:
        return
    least, stride = config.model_copy(update={"padding": "valid"}).smallest_image, config.total_stride
    height, width = least, least + stride
    model, padded = _built(spec, padding="valid", image_size=(height, width)), build(spec, padding="same")
    assert geometry(model).padding_free
    shapes = [
        {weight.path: weight.shape for weight in each.weights if not weight.path.startswith("head_")}
        for each in (model, padded)
    ]
    assert shapes[0] == shapes[1]
    if least > _LARGEST_CROP:
        return
    image = np.random.default_rng(1).integers(0, 256, (height + 2 * stride, width + 3 * stride - 1, config.channels))
    scores = scan(convolutionalize(model), image.astype(np.float32)).scores
    assert scores.shape[:2] == (3, 3)
    for row, column in product(range(3), range(3)):
        top, left = row * stride, column * stride
        crop = image[None, top : top + height, left : left + width]
        wanted = np.asarray(model(crop))[0]
        np.testing.assert_allclose(scores[row, column], wanted, rtol=0, atol=1e-5 * np.abs(scores).max())


CHECKS = (check_shapes, check_logits, check_training_step, check_conversion, check_padding_free)
