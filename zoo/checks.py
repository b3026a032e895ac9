"""Checks that every architecture passes, ours and a user's own.

@pytest.mark.parametrize("check", zoo.checks.CHECKS)
def test_my_net(check):
check("my_config.yaml")
"""

from pathlib import Path

import keras
import numpy as np

from zoo.build import build
from zoo.catalogue import resolve
from zoo.config import ArchitectureConfig
from zoo.dense.convert import convolutionalize
from zoo.dense.scan import scan
from zoo.dense.verify import verify

Spec = str | Path | ArchitectureConfig


def _images(config: ArchitectureConfig, count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *config.image_size, config.channels)).astype(np.float32)


def _built(spec: Spec) -> keras.Model:
    """The model with kernels at half their first values.

    Before any training a normalisation does nothing in inference, and a stream of a thousand residuals would overflow.
    """
    model = build(spec)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight) / 2)
    return model


def check_shapes(spec: Spec) -> None:
    """It builds at its own size and at any, from built-in layers, and its arithmetic of sizes is right."""
    config, model, free = resolve(spec), build(spec), build(spec, image_size=None)
    assert model.input_shape == (None, *config.image_size, config.channels)
    assert model.output_shape == (None, config.num_classes)
    assert model.layers[-1].name == "head_logits"
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert [weight.shape for weight in free.weights] == [weight.shape for weight in model.weights]
    for size in (config.image_size, (config.image_size[0] + 5, config.image_size[1] + 2)):
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
    """One step of training has a finite loss and changes every trainable weight."""
    config = resolve(spec)
    keras.utils.set_random_seed(0)
    model = build(spec)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
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
    assert verify(model, converted).same_at_training_size
    config = resolve(spec)
    side = 2 * max(config.image_size) + 3
    image = np.random.default_rng(1).integers(0, 256, (side, side, config.channels)).astype(np.float32)
    whole, tiled = scan(converted, image), scan(converted, image, tile=max(config.total_stride, side // 2))
    tolerance = 1e-5 if sum(bool(layer.weights) for layer in model.layers) <= 200 else 1e-4
    np.testing.assert_allclose(tiled.scores, whole.scores, rtol=0, atol=tolerance * np.abs(whole.scores).max())


CHECKS = (check_shapes, check_logits, check_training_step, check_conversion)
