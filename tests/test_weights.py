"""Weights of nets that we did not write: the same logits, at three sizes, with random values in every array."""

import keras
import numpy as np
import pytest
from conftest import noise, randomize

import zoo
from zoo.errors import InputError
from zoo.scores import relative_error

APPLICATIONS = keras.applications
KERAS = {
    "resnet50": (APPLICATIONS.ResNet50, APPLICATIONS.resnet.preprocess_input, 224),
    "resnet50_v2": (APPLICATIONS.ResNet50V2, APPLICATIONS.resnet_v2.preprocess_input, 224),
    "inception_v3": (APPLICATIONS.InceptionV3, APPLICATIONS.inception_v3.preprocess_input, 299),
    "resnet101": (APPLICATIONS.ResNet101, APPLICATIONS.resnet.preprocess_input, 224),
    "resnet152": (APPLICATIONS.ResNet152, APPLICATIONS.resnet.preprocess_input, 224),
    "resnet101_v2": (APPLICATIONS.ResNet101V2, APPLICATIONS.resnet_v2.preprocess_input, 224),
    "resnet152_v2": (APPLICATIONS.ResNet152V2, APPLICATIONS.resnet_v2.preprocess_input, 224),
}
# One of each kind of block in the extended tests, and the rest when asked for; a file of the third kind's by default.
EXTENDED = ("resnet50", "inception_v3")
NAMES = [pytest.param(name, marks=pytest.mark.extended if name in EXTENDED else pytest.mark.slow) for name in KERAS]


@pytest.mark.parametrize("name", NAMES)
def test_keras_applications_give_the_same_logits_at_three_sizes(name):
    make, preprocess, side = KERAS[name]
    source = randomize(make(weights=None, classifier_activation=None), seed=3)
    for size in ((side, side), (side + 33, side - 21), (160, 203)):
        theirs = make(weights=None, classifier_activation=None, input_shape=(*size, 3))
        theirs.set_weights(source.get_weights())
        images = noise(1, *size, 3)
        prepared = preprocess(images.copy())
        wanted = np.asarray(theirs(prepared))
        ours = zoo.build(name, weights=theirs, image_size=size)
        assert relative_error(np.asarray(ours(images)), wanted) <= 1e-4
        bare = zoo.build(name, weights=theirs, image_size=size, preprocess="none")
        assert relative_error(np.asarray(bare(prepared)), wanted) <= 1e-4


@pytest.mark.extended
def test_a_weights_file_of_keras(tmp_path):
    theirs = randomize(APPLICATIONS.ResNet50V2(weights=None, classifier_activation=None))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    images = noise(1, 224, 224, 3)
    wanted = np.asarray(theirs(APPLICATIONS.resnet_v2.preprocess_input(images.copy())))
    ours = zoo.build("resnet50_v2", weights=tmp_path / "theirs.weights.h5")
    assert relative_error(np.asarray(ours(images)), wanted) <= 1e-4


@pytest.mark.extended
def test_faults_in_keras_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="received 'nin_cifar10'; accepted: resnet50"):
        zoo.build("nin_cifar10", weights="keras")
    with pytest.raises(InputError, match="gone.h5.*no such file"):
        zoo.build("resnet50", weights="gone.h5")
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match="broken.h5.*ResNet50 cannot take them"):
        zoo.build("resnet50", weights=tmp_path / "broken.h5")
    with pytest.raises(InputError, match="stage3_block7_conv1/kernel has no place"):
        zoo.build("resnet50", weights=APPLICATIONS.ResNet101(weights=None))


def torch_name(path, torchvision):
    """The inverse of the documented map, written by hand for the layers that the tests look at."""
    layer, _, part = path.rpartition("/")
    norm = layer.endswith("_norm")
    name = torchvision(layer.removesuffix("_norm"), norm)
    parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    return f"{name}.{parts.get(part, 'weight' if part == 'kernel' else part)}"


def resnet_name(layer, norm):
    if layer == "stem_conv":
        return "bn1" if norm else "conv1"
    if layer == "head_logits":
        return "fc"
    stage, block, rest = layer.split("_")
    place = f"layer{stage[5:]}.{int(block[5:]) - 1}"
    if rest == "shortcut":
        return f"{place}.downsample.{int(norm)}"
    return f"{place}.{'bn' if norm else 'conv'}{rest[4:]}"


def googlenet_name(layer, norm):
    if layer == "head_logits":
        return "fc"
    unit = "bn" if norm else "conv"
    if layer.startswith("stem"):
        return f"conv{ {'1': 1, '3': 2, '4': 3}[layer[-1]] }.{unit}"
    module, branch, rest = layer.split("_")
    number = branch[6:]
    return f"{module}.branch1.{unit}" if number == "1" else f"{module}.branch{number}.{int(rest[4:]) - 1}.{unit}"


def as_torch(array):
    """Keras's (rows, columns, in, out) to PyTorch's (out, in, rows, columns), Dense likewise."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


@pytest.mark.parametrize(
    ("name", "naming"),
    [
        ("resnet50_v1_5", resnet_name),
        pytest.param("resnext50_32x4d", resnet_name, marks=pytest.mark.extended),
        pytest.param("googlenet", googlenet_name, marks=pytest.mark.extended),
    ],
)
@pytest.mark.extended
def test_a_state_dict_of_torchvision_names_finds_its_places(name, naming):
    source = randomize(zoo.build(name, image_size=(64, 64)))
    state = {torch_name(weight.path, naming): as_torch(np.asarray(weight)) for weight in source.weights}
    assert len(state) == len(source.weights)
    extra = {"conv1.num_batches_tracked" if name != "googlenet" else "aux1.fc1.weight": np.zeros(())}
    ours = zoo.build(name, weights=state | extra, image_size=(64, 64))
    images = noise(1, 64, 64, 3)
    np.testing.assert_array_equal(np.asarray(ours(images)), np.asarray(source(images)))
    key = next(iter(state))
    with pytest.raises(InputError, match="is missing"):
        zoo.build(name, weights={other: array for other, array in state.items() if other != key})
    with pytest.raises(InputError, match="received shape"):
        zoo.build(name, weights=state | {key: state[key][..., :1]})
    with pytest.raises(InputError, match="neck.weight has no place"):
        zoo.build(name, weights=state | {"neck.weight": state[key]})


@pytest.mark.extended
def test_published_torchvision_names_are_known():
    """Names as they stand in torchvision's files, with the shapes there."""
    from zoo.catalogue import resolve
    from zoo.weights import from_torch

    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.bn2.bias": (256,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
    }
    arrays = from_torch({key: np.zeros(shape) for key, shape in shapes.items()}, resolve("resnet50_v1_5"))
    wanted = {weight.path: tuple(weight.shape) for weight in zoo.build("resnet50_v1_5").weights}
    assert {path: array.shape for path, array in arrays.items()} == {path: wanted[path] for path in arrays}
    shapes = {
        "conv1.conv.weight": (64, 3, 7, 7),
        "conv3.bn.weight": (192,),
        "inception3a.branch2.1.conv.weight": (128, 96, 3, 3),
        "inception4e.branch3.1.conv.weight": (128, 32, 3, 3),
        "inception5b.branch4.1.bn.running_mean": (128,),
    }
    arrays = from_torch({key: np.zeros(shape) for key, shape in shapes.items()}, resolve("googlenet"))
    wanted = {weight.path: tuple(weight.shape) for weight in zoo.build("googlenet").weights}
    assert {path: array.shape for path, array in arrays.items()} == {path: wanted[path] for path in arrays}


def test_another_head_keeps_the_backbone():
    source = randomize(zoo.build("nin_digits"))
    tuned = zoo.build("nin_digits", weights=source, num_classes=4, head={"kind": "pooled"})
    for layer in tuned.layers:
        if not layer.name.startswith("head_"):
            for a, b in zip(layer.weights, source.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert tuned.output_shape == (None, 4)
