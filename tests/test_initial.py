import keras
import numpy as np
import pytest
from conftest import noise

import zoo
from zoo import data
from zoo.card import Preprocess
from zoo.checks import CHECKS
from zoo.config import load_config
from zoo.config.recipe import Augment
from zoo.data import Split
from zoo.errors import InputError
from zoo.experiment import training_fill
from zoo.models.blocks import Whitening
from zoo.models.inception import InceptionConfig
from zoo.training import train
from zoo.training.batches import training_batches
from zoo.training.initial import begin_as_identity, whiten

POOL = "pool: {kind: max, size: 2, stride: 2}"
ROWS = f"[{{kernel: 3, filters: [8], {POOL}, pool_first: true}}, {{kernel: 3, filters: [12, 12]}}]"
SMALL = ["model.whitening={kernel: 2}", f"model.mlpconvs={ROWS}", "data.validation=0"]


@pytest.mark.parametrize(("kernel", "channels", "stride"), [(2, 3, 1), (3, 1, 2)])
def test_the_filters_whiten_the_patches_that_they_are_made_from(kernel, channels, stride):
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 8, channels)).cumsum(1).astype(np.uint8)
    preprocess = Preprocess(mean=(100.0,) * channels, std=(50.0,) * channels)
    inputs = keras.Input((9, 8, channels))
    layer = keras.layers.Conv2D(2 * channels * kernel**2, kernel, stride, use_bias=False, name="whitening")
    model = keras.Model(inputs, layer(inputs))
    whiten(model, Split(images, np.zeros(40, np.int32)), preprocess, seed=0)
    # The same patches by a plain loop.
    x, kernels = (images - 100.0) / 50.0, np.asarray(layer.kernel, np.float64)
    answers = []
    for image in x:
        for row in range(9 - kernel + 1):
            for column in range(8 - kernel + 1):
                patch = image[row : row + kernel, column : column + kernel]
                answers.append(np.tensordot(patch, kernels, 3))
    answers = np.array(answers)
    half = answers.shape[1] // 2
    np.testing.assert_allclose(answers[:, half:], -answers[:, :half], atol=1e-4)
    moments = answers[:, :half].T @ answers[:, :half] / len(answers)
    np.testing.assert_allclose(moments, np.eye(half), atol=0.02)


def test_training_makes_the_whitening_and_leaves_it_alone(tmp_path):
    config = load_config("nin_digits", [*SMALL, "train.epochs=1"])
    dataset = data.load(config)
    model, wanted = zoo.build(config.model), zoo.build(config.model)
    drawn = np.asarray(model.get_layer("whitening").kernel)
    assert model.layers[2].name == "whitening" and not model.layers[2].trainable_weights
    whiten(wanted, dataset.train, config.model.preprocess, config.seed)
    train(model, dataset, config, tmp_path)
    kernel = np.asarray(model.get_layer("whitening").kernel)
    np.testing.assert_array_equal(kernel, np.asarray(wanted.get_layer("whitening").kernel))
    assert not np.array_equal(kernel, drawn)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in again.layers)
    images = noise(3, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(again(images)), np.asarray(model(images)))


def test_tuning_begins_from_the_filters_that_are_there(tmp_path):
    config = load_config("nin_digits", [*SMALL, "train.epochs=1", f"train.weights={tmp_path / 'before.keras'}"])
    model = zoo.build(config.model)
    before = np.asarray(model.get_layer("whitening").kernel)
    train(model, data.load(config), config, tmp_path)
    np.testing.assert_array_equal(np.asarray(model.get_layer("whitening").kernel), before)


def test_convolutions_begin_by_handing_their_inputs_on():
    rows = [{"kernel": 3, "filters": [6, 2]}, {"kernel": 5, "filters": [4]}]
    model = zoo.build("nin_digits", channels=3, normalization="none", mlpconvs=rows)
    begin_as_identity(model, 0)
    x = noise(1, 7, 7, 6)
    for name, inputs, filters in (("mlpconv1_conv1", 3, 6), ("mlpconv1_conv2", 6, 2), ("mlpconv2_conv1", 2, 4)):
        layer = model.get_layer(name)
        handed = min(inputs, filters)
        made = np.asarray(layer(x[..., :inputs]))
        np.testing.assert_allclose(made[..., :handed], x[..., :handed], rtol=1e-6)
        rest = np.asarray(layer.kernel)[..., handed:]
        bound = 1 / np.sqrt(rest[..., 0].size) if rest.size else 1
        assert rest.size == 0 or 0.8 * bound < np.abs(rest).max() <= bound
    assert np.asarray(model.get_layer("head_class_maps").kernel).std() == pytest.approx(1 / 4, rel=0.4)


def test_a_pooling_first_lies_before_the_normalisation_and_drops_odd_rows():
    model = zoo.build("nin_digits", whitening={"kernel": 2}, mlpconvs=load_config("nin_digits", SMALL).model.mlpconvs)
    assert [layer.name for layer in model.layers[2:8]] == [
        "whitening",
        "whitening_relu",
        "mlpconv1_conv1",
        "mlpconv1_pool",
        "mlpconv1_conv1_norm",
        "mlpconv1_conv1_relu",
    ]
    # 8 pixels, 7 patches of 2, 3 whole windows of 2
    assert model.get_layer("mlpconv1_pool").output.shape[1:3] == (3, 3)


def of_modules(padding: str) -> InceptionConfig:
    """A small Inception with a first layer that whitens, and normalisations without a scale."""
    rows = [
        {"name": "a", "conv1": 4, "reduce3": 4, "conv3": 6, "reduce5": 3, "conv5": 4, "pool": "max 2x2/2 valid"},
        {"name": "b", "branches": ["1x1 5", "1x1 4, 3x3 6"]},
    ]
    return InceptionConfig(
        family="inception",
        padding=padding,
        num_classes=4,
        image_size=(28, 30),
        normalization="shift",
        whitening=Whitening(kernel=2, stride=1 if padding == "same" else 2),
        stem="3x3 6",
        modules=rows,
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", ["nin", "inception same", "inception valid"])
def test_a_net_with_all_of_it_passes_the_checks(family, check):
    if family == "nin":
        check(load_config("nin_digits", [*SMALL, "model.normalization=shift"]).model)
    else:
        check(of_modules(family.split()[1]))


def test_whitening_stands_before_the_stem_of_an_inception():
    model = zoo.build(of_modules("same"))
    assert [layer.name for layer in model.layers[2:5]] == ["whitening", "whitening_relu", "stem_conv1"]
    layer = model.get_layer("whitening")
    assert layer.kernel.shape == (2, 2, 3, 24) and not layer.trainable_weights
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and not any(layer.scale for layer in norms)


def test_a_normalisation_may_have_no_scale_of_its_own():
    model = zoo.build("nin_digits", normalization="shift")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all([w.name for w in layer.trainable_weights] == ["beta"] for layer in norms)
    convolutions = [layer for layer in model.layers if layer.name.startswith("mlpconv") and hasattr(layer, "kernel")]
    assert not any(layer.use_bias for layer in convolutions)


def test_a_pooling_first_needs_a_pooling():
    with pytest.raises(InputError, match="model.mlpconvs.0.pool_first: received true without a pool; accepted: false"):
        load_config("nin_digits", ["model.mlpconvs=[{kernel: 3, filters: [8], pool_first: true}]"])


def test_alternate_flips_mirror_every_image_in_every_other_epoch():
    images = np.arange(12 * 6, dtype=np.float32).reshape(12, 2, 3, 1)
    split, augment = Split(images, np.zeros(12, np.int32)), Augment(flip=True, alternate=True)
    batches = training_batches(split, 2, 4, seed=5, augment=augment)
    seen = []
    for _ in range(5):
        epoch = np.concatenate([next(batches)[0] for _ in range(3)])
        epoch = epoch[np.argsort(epoch[:, :, :, 0].min((1, 2)))]  # each image's own numbers tell which it is
        is_same = (epoch == images).all((1, 2, 3))
        is_mirrored = (epoch == images[:, :, ::-1]).all((1, 2, 3))
        assert (is_same ^ is_mirrored).all()
        seen.append(is_mirrored)
    for before, after in zip(seen, seen[1:], strict=False):
        np.testing.assert_array_equal(after, ~before)
    assert 0 < seen[0].sum() < 12
    resumed = training_batches(split, 2, 4, seed=5, first_step=7, augment=augment)
    whole = training_batches(split, 2, 4, seed=5, augment=augment)
    wanted = [next(whole)[0] for _ in range(9)][7]
    np.testing.assert_array_equal(next(resumed)[0], wanted)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["train.augment={alternate: true}"], "train.augment.alternate: received true beside flip = false; accepted"),
        (
            ["train.augment={flip: true, alternate: true}", "train.dense={patch: 8}"],
            "augment.alternate: received true beside train.dense; accepted: false",
        ),
        (["train.augment={reflect: true}"], "train.augment.reflect: received true beside shift = 0; accepted: false"),
        (["train.initial=identity", "train.weights=keras"], "train.initial: received identity beside train.weights"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, text):
    with pytest.raises(InputError, match=text):
        load_config("nin_digits", overrides)


def test_the_card_says_that_training_mirrored_the_border():
    config = load_config("nin_digits", ["train.augment={shift: 1, reflect: true}"])
    assert training_fill(data.load(config), config) == "reflect"
