import keras
import numpy as np
import pytest
from conftest import noise, randomize

import zoo
from zoo.catalogue import list_models, resolve
from zoo.errors import InputError

LARGE = ("resnet50", "resnet101", "resnet152", "resnet164", "resnet50_v1_5", "resnet101_v1_5", "resnet152_v1_5")
SMALL = [name for name in list_models() if not name.startswith(LARGE)]


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# Published: NIN's released definition; He et al.'s code for the CIFAR nets; torchvision for ResNet-50 to 152.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nin_cifar10", 966_986),
        ("resnet164_v1_cifar10", 1_704_154),
        ("resnet164_v2_cifar10", 1_703_258),
        ("resnet50", 25_557_032),
        ("resnet50_v1_5", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_trainable_parameters_are_the_published_ones(name, count):
    assert trainable(zoo.build(name)) == count


@pytest.mark.parametrize("name", list_models())
def test_every_model_builds_at_its_size_and_at_any(name):
    config = resolve(name)
    model = zoo.build(name)
    assert model.input_shape == (None, *config.image_size, config.channels)
    assert model.output_shape == (None, config.num_classes)
    assert model.layers[-1].name == "head_logits"
    free = zoo.build(name, image_size=None)
    assert free.input_shape == (None, None, None, config.channels)
    assert [tuple(weight.shape) for weight in free.weights] == [tuple(weight.shape) for weight in model.weights]
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


@pytest.mark.parametrize("name", list_models())
def test_the_configs_arithmetic_gives_the_feature_map_that_is_built(name):
    config = resolve(name)
    for size in (config.image_size, (config.image_size[0] + 5, config.image_size[1] + 2)):
        model = zoo.build(name, image_size=size)
        before_head = next(layer for layer in model.layers if layer.name in ("head_class_maps", "head_pool"))
        assert before_head.input.shape[1:3] == tuple(config.feature_map_size(side) for side in size)


@pytest.mark.parametrize("name", ["nin_mnist_bn", "inception_cifar10"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_smallest_image_works_and_one_pixel_less_is_refused(name, padding):
    config = resolve(name, padding=padding, image_size=(200, 200))
    least = config.smallest_image
    model = zoo.build(name, padding=padding, image_size=(least, least))
    assert model(noise(1, least, least, config.channels)).shape == (1, 10)
    with pytest.raises(InputError, match=f"at least {least} pixels"):
        zoo.build(name, padding=padding, image_size=(least - 1, least))


@pytest.mark.parametrize("name", SMALL)
def test_uint8_and_float_images_give_the_same_finite_logits(name):
    config = resolve(name)
    model = randomize(zoo.build(name))
    images = noise(2, *config.image_size, config.channels)
    logits = np.asarray(model(images))
    assert np.isfinite(logits).all() and logits.std() > 0
    np.testing.assert_array_equal(logits, np.asarray(model(images.astype(np.uint8))))


def test_preprocessing_is_inside_and_is_the_configs():
    model = zoo.build("nin_cifar10")
    layer = model.get_layer("preprocess")
    pixels = noise(1, 32, 32, 3)
    wanted = (pixels - [125.3, 123.0, 113.9]) / [63.0, 62.1, 66.7]
    np.testing.assert_allclose(np.asarray(layer(pixels)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "head",
    [
        {"kind": "class_maps"},
        {"kind": "pooled", "pool": "max", "dropout": 0.1},
        {"kind": "pooled"},
        {"kind": "flatten", "hidden": [16, 12], "dropout": 0.1},
    ],
)
def test_every_head_fits_every_padding(padding, head):
    model = zoo.build("nin_mnist_bn", padding=padding, head=head, num_classes=7, image_size=(30, 26), channels=2)
    assert model(noise(2, 30, 26, 2)).shape == (2, 7)


def test_a_pointwise_oracle_gives_the_mlpconv():
    """The 1x1 layers of an mlpconv are a Dense layer at every pixel: computed here with a matrix product."""
    model = randomize(zoo.build("nin_cifar10"))
    conv1, conv2 = model.get_layer("mlpconv1_conv1_relu"), model.get_layer("mlpconv1_conv2")
    before = keras.Model(model.input, conv1.output)(noise(1, 32, 32, 3))
    after = keras.Model(model.input, conv2.output)(noise(1, 32, 32, 3))
    kernel, bias = (np.asarray(weight, np.float64) for weight in conv2.weights)
    np.testing.assert_allclose(np.asarray(after), np.asarray(before) @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-4)


def strides_of(model):
    return {layer.name: layer.strides[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


def test_the_stride_is_where_the_variant_has_it():
    v1, v15, v2 = (strides_of(zoo.build(name)) for name in ("resnet50", "resnet50_v1_5", "resnet29_cifar10"))
    assert (v1["stage2_block1_conv1"], v1["stage2_block1_conv2"]) == (2, 1)
    assert (v15["stage2_block1_conv1"], v15["stage2_block1_conv2"]) == (1, 2)
    assert (v2["stage2_block1_conv1"], v2["stage2_block1_conv2"], v2["stage2_block1_shortcut"]) == (1, 2, 2)
    assert v1["stage2_block2_conv1"] == v15["stage2_block2_conv2"] == 1


def test_resnet50_equals_keras_applications_with_its_weights():
    """The same function as a net that we did not write: weights by order of layers, preprocessing left out."""
    theirs = randomize(keras.applications.ResNet50(weights=None, classifier_activation=None), seed=3)
    ours = zoo.build("resnet50", preprocess={"mean": [0.0], "std": [1.0]})
    suffixes = {"_1_conv": "_conv1", "_2_conv": "_conv2", "_3_conv": "_conv3", "_0_conv": "_shortcut"}
    for layer in theirs.layers:
        if not layer.weights or layer.name.endswith("_bn"):
            continue
        if layer.name == "predictions":
            ours.get_layer("head_logits").set_weights(layer.get_weights())
            continue
        if layer.name == "conv1_conv":
            name = "stem_conv"
        else:
            stage, block, rest = layer.name.split("_", 2)
            name = f"stage{int(stage[4:]) - 1}_block{block[5:]}{suffixes['_' + rest]}"
        kernel, bias = layer.get_weights()
        gamma, beta, mean, variance = theirs.get_layer(layer.name.replace("_conv", "_bn")).get_weights()
        ours.get_layer(name).set_weights([kernel])
        # A bias before a normalisation folds into its mean.
        ours.get_layer(f"{name}_norm").set_weights([gamma, beta, mean - bias, variance])
    images = noise(1, 224, 224, 3) / 255
    wanted, given = np.asarray(theirs(images)), np.asarray(ours(images))
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()


LARGE_ONES = [pytest.param(name, marks=pytest.mark.slow) for name in list_models() if name not in SMALL]


@pytest.mark.parametrize("name", [*SMALL, *LARGE_ONES])
def test_one_training_step_changes_every_trainable_weight(name):
    config = resolve(name)
    keras.utils.set_random_seed(0)
    model = zoo.build(name)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.asarray(weight).copy() for weight in model.trainable_weights]
    loss = model.train_on_batch(noise(4, *config.image_size, config.channels), np.arange(4) % config.num_classes)
    assert np.isfinite(loss)
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(np.asarray(weight), old)
    ]
    assert not unchanged


def test_weights_are_taken_whole_or_not_at_all(tmp_path):
    source = randomize(zoo.build("nin_digits"))
    zoo.save(source, tmp_path / "digits.keras")
    copy = zoo.build("nin_digits", weights=tmp_path / "digits.keras")
    images = noise(2, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(copy(images)), np.asarray(source(images)))
    with pytest.raises(InputError, match=r"received shape \(1, 1, 128, 10\); accepted: \(1, 1, 128, 4\)"):
        zoo.build("nin_digits", weights=source, num_classes=4)
    longer = [*resolve("nin_digits").model_dump()["mlpconvs"], {"kernel": 3, "filters": [128]}]
    with pytest.raises(InputError, match="mlpconv3_conv1/kernel is missing"):
        zoo.build("nin_digits", weights=source, mlpconvs=longer)
    with pytest.raises(InputError, match="mlpconv3_conv1/kernel has no place"):
        zoo.build("nin_digits", weights=zoo.build("nin_digits", mlpconvs=longer))


@pytest.mark.parametrize(
    ("spec", "overrides", "text"),
    [
        ("resnet5", {}, "did you mean 'resnet50'"),
        ("nin_digits", {"classes": 3}, "unknown key 'classes'"),
        ("nin_digits", {"num_classes": 1}, "num_classes"),
        ("gone.yaml", {}, "no such file"),
    ],
)
def test_bad_specs_are_refused(spec, overrides, text):
    with pytest.raises(InputError, match=text):
        zoo.build(spec, **overrides)
