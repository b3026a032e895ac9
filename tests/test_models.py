import os
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
import zoo.checks
from zoo.catalogue import list_models, resolve
from zoo.checks import CHECKS
from zoo.config import model_config
from zoo.errors import InputError
from zoo.models.resnet import add

# One of each kind of block runs every check, the larger ones in the extended tests; the others, whose blocks are the
# same, when asked for.
DEFAULT = (
    "nin_digits",
    "nin_mnist_valid",
    "resnet_digits",
)
EXTENDED = (
    "nin_mnist_bn",
    "squeezenet1_1",
    "fast_cifar10",
    "inception_cifar10",
    "countception",
    "resnet20_cifar10",
    "resnet29_cifar10",
)
NAMES = [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.extended if name in EXTENDED else pytest.mark.slow)
    for name in list_models()
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_passes_the_checks(name, check):
    check(name)


@pytest.mark.parametrize(
    "name",
    some_by_default(["nin_mnist_bn", "inception_cifar10", "resnet20_cifar10", "resnet29_cifar10", "squeezenet1_1"]),
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_smallest_image_works_and_one_pixel_less_is_refused(name, padding):
    config = resolve(name, padding=padding, image_size=(224, 224))
    least = config.smallest_image
    model = zoo.build(name, padding=padding, image_size=(least, least))
    assert model(noise(1, least, least, config.channels)).shape == (1, config.num_classes)
    with pytest.raises(InputError, match=f"at least {least} pixels"):
        zoo.build(name, padding=padding, image_size=(least - 1, least))


def body(model):
    """The model down to its last feature map."""
    return keras.Model(model.input, next(layer for layer in model.layers if layer.name.startswith("head_")).input)


def resnet(variant, stem=None, stages=((2, 1), (2, 2)), width=4, **more):
    """Overrides of a small ResNet; `stages` are pairs of blocks and stride."""
    rows = [{"blocks": blocks, "filters": 8 * 2**i, "stride": stride} for i, (blocks, stride) in enumerate(stages)]
    rows = [{**row, "width": width} if width else row for row in rows]
    return {"variant": variant, "stem": stem or {"kernel": 3, "filters": 8}, "stages": rows, "num_classes": 3, **more}


IMAGENET_STEM = {"kernel": 7, "stride": 2, "filters": 6, "pool": True}
STRIDE_2 = {"kind": "max", "size": 3, "stride": 2}
DILATED = {"stem": IMAGENET_STEM, "stages": ((1, 1), (2, 2), (2, 2)), "output_stride": 8}
INCEPTION = {"stem": ["3x3/2 6 valid", "max 3x3/2"], "num_classes": 3}
SMALL = {
    "nin": ("nin_mnist_bn", {}),
    "nin, its last pooling even": (
        "nin_cifar10",
        {"mlpconvs": [{"kernel": 5, "filters": [6, 6], "pool": {"kind": "average", "size": 2, "stride": 2}}]},
    ),
    "v1": ("resnet50", resnet("v1", IMAGENET_STEM)),
    "v1, stride 3": ("resnet50", resnet("v1", stages=((1, 1), (2, 3)))),
    "v1_5": ("resnet50", resnet("v1_5", IMAGENET_STEM)),
    "v2": ("resnet50", resnet("v2", IMAGENET_STEM)),
    "v2_keras": ("resnet50", resnet("v2_keras", IMAGENET_STEM, stages=((2, 2), (2, 1)))),
    "basic": ("resnet50", resnet("v1", IMAGENET_STEM, width=None, block="basic")),
    "groups": ("resnet50", resnet("v1_5", groups=2)),
    "v1, dilated": ("resnet50", resnet("v1", **DILATED)),
    "v1_5, dilated": ("resnet50", resnet("v1_5", **DILATED)),
    "v2, dilated": ("resnet50", resnet("v2", **DILATED)),
    "basic, dilated": ("resnet50", resnet("v1", width=None, block="basic", **DILATED)),
    "squeezenet": (
        "squeezenet1_1",
        {
            "stem": {"kernel": 3, "stride": 2, "filters": 6, "pool": STRIDE_2},
            "fires": [{"squeeze": 3, "expand": 4, "pool": STRIDE_2}, {"squeeze": 3, "expand": 4}],
            "num_classes": 3,
        },
    ),
    "inception": (
        "inception_cifar10",
        {**INCEPTION, "modules": [{"name": "a", "conv1": 3, "reduce3": 2, "conv3": 4, "reduce5": 2, "conv5": 3}]},
    ),
    "inception, strided": (
        "inception_cifar10",
        {
            **INCEPTION,
            "modules": [
                {"name": "a", "branches": ["1x1 3, 3x3/2 4", "1x1 2, 3x3 4, 3x3/2 4", "max 3x3/2"]},
                {"name": "b", "branches": ["1x1 3", "average 3x3, 1x1 2"]},
            ],
        },
    ),
    "inception, side by side": (
        "inception_cifar10",
        {
            **INCEPTION,
            "modules": [
                {"name": "a", "branches": ["1x1 3, 1x7 4, 7x1 3", "1x1 4, 1x3 3 + 3x1 2", "average 3x3, 1x1 2"]},
                {"name": "b", "branches": ["1x1 3", "max 2x2, 1x1 2"]},
            ],
        },
    ),
    "inception, even windows": (
        "inception_cifar10",
        {
            "activation": "leaky_relu",
            "stem": ["3x3 4 valid"],
            "modules": [
                {"name": "a", "branches": ["1x1 3", "3x3 2"]},
                {"name": "b", "branches": ["4x2 5 valid"]},
                {"name": "c", "branches": ["3x3 2", "1x1 3"]},
            ],
        },
    ),
}


@pytest.mark.parametrize("kind", some_by_default(SMALL, "nin", "v1", "inception"))
def test_without_padding_the_map_is_the_padded_one_where_no_border_cuts_it(kind):
    """With the same weights, at every cell whose field lies inside the image; in float64."""
    name, overrides = SMALL[kind]
    common = {**overrides, "channels": 2, "head": {"kind": "class_maps"}, "preprocess": {"std": [100]}}
    keras.config.set_dtype_policy("float64")
    try:
        # What is built is float32 whatever the policy is, so beneath that.
        build = zoo.build.__wrapped__
        padded = randomize(build(name, image_size=None, padding="same", **common))
        valid = build(name, image_size=None, padding="valid", weights=padded, **common)
    finally:
        keras.config.set_dtype_policy("float32")
    padded, valid = body(padded), body(valid)
    shape = zoo.geometry(padded)
    field = shape.receptive_field
    assert (zoo.geometry(valid).receptive_field, zoo.geometry(valid).stride) == (field, shape.stride)
    for odd in (0, 1):
        # BN-Inception's strided modules, where padded, take even maps alone.
        sides = (count(field[0] + more + odd) for more in (25, 32))
        height, width = (next(side for side in larger if shape.fits(side, side)) for larger in sides)
        image = noise(1, height, width, 2)
        geometry = zoo.geometry(padded, (height, width))
        scores = np.asarray(padded(image))[0]
        boxes = {cell: geometry.cell_field(*cell) for cell in np.ndindex(scores.shape[:2])}
        uncut = [cell for cell, box in boxes.items() if (box[2] - box[0], box[3] - box[1]) == field]
        top, left = boxes[uncut[0]][:2]
        unpadded = np.asarray(valid(image[:, top:, left:]))[0]
        assert unpadded.dtype == np.float64 and len(uncut) == unpadded.shape[0] * unpadded.shape[1] >= 6
        wanted = np.array([scores[cell] for cell in uncut]).reshape(unpadded.shape)
        np.testing.assert_allclose(unpadded, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
        assert np.ptp(wanted) > 0.01


stage_rows = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3)
kinds = st.sampled_from(["v1", "v1_5", "v2", "v2_keras", "basic"])
stems = st.fixed_dictionaries(
    {"kernel": st.sampled_from([1, 3, 5, 7]), "stride": st.integers(1, 2), "filters": st.just(8), "pool": st.booleans()}
)


@pytest.mark.extended
@settings(max_examples=12)
@given(kinds, stems, stage_rows, st.sampled_from([None, 8]), st.sampled_from(["same", "valid"]), st.integers(0, 23))
def test_both_sides_of_every_sum_have_one_size_at_every_image_size(kind, stem, stages, output_stride, padding, more):
    """And the schema's arithmetic of sizes is that of the layers; the least image runs, one pixel less does not fit."""
    dilates = output_stride if kind != "v2_keras" and all(stride != 3 for _, stride in stages) else None
    width, variant = (None, "v1") if kind == "basic" else (4, kind)
    block = "basic" if kind == "basic" else "bottleneck"
    overrides = resnet(variant, stem, stages, width, block=block, output_stride=dilates, padding=padding)
    config = resolve("resnet50", image_size=None, **overrides)
    model = body(zoo.build("resnet50", image_size=None, **overrides))
    shape = zoo.geometry(model)
    least = config.smallest_image
    assert shape.stride == (config.total_stride,) * 2
    assert padding == "same" or (shape.padding_free and least >= shape.receptive_field[0] > 0)
    for side in range(least, least + 24):
        assert shape.fits(side, side) and shape.grid_shape(side, side) == (config.feature_map_size(side),) * 2
    if padding == "valid" and least > config.total_stride:
        assert not shape.fits(least - 1, least - 1) and config.feature_map_size(least - 1) < 1
    sides = least, least + more
    assert model(noise(1, *sides, 3)).shape[1:3] == tuple(map(config.feature_map_size, sides))


def test_preprocessing_is_inside_and_is_the_configs():
    model = zoo.build("nin_cifar10")
    layer = model.get_layer("preprocess")
    pixels = noise(1, 32, 32, 3)
    wanted = (pixels - [125.3, 123.0, 113.9]) / [63.0, 62.1, 66.7]
    np.testing.assert_allclose(np.asarray(layer(pixels)), wanted, rtol=1e-5, atol=1e-5)


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


@pytest.mark.extended
def test_the_stride_is_where_the_variant_has_it():
    v1, v15, v2 = (strides_of(zoo.build(name)) for name in ("resnet50", "resnet50_v1_5", "resnet29_cifar10"))
    assert (v1["stage2_block1_conv1"], v1["stage2_block1_conv2"]) == (2, 1)
    assert (v15["stage2_block1_conv1"], v15["stage2_block1_conv2"]) == (1, 2)
    assert (v2["stage2_block1_conv1"], v2["stage2_block1_conv2"], v2["stage2_block1_shortcut"]) == (1, 2, 2)
    assert v1["stage2_block2_conv1"] == v15["stage2_block2_conv2"] == 1


def test_stochastic_depth_leaves_out_whole_residuals_in_training_and_none_later():
    inputs = [keras.Input((4, 5, 2)) for _ in range(2)]
    model = keras.Model(inputs, add(*inputs, "block", drop=0.4))
    shortcut, residual = noise(200, 4, 5, 2), noise(200, 4, 5, 2, seed=1)
    np.testing.assert_array_equal(np.asarray(model([shortcut, residual])), shortcut + residual)
    trained = np.asarray(model([shortcut, residual], training=True))
    without = (trained == shortcut).all((1, 2, 3))
    np.testing.assert_allclose(trained[~without], (shortcut + residual / 0.6)[~without], rtol=1e-5)
    assert 0.25 < without.mean() < 0.55


def test_residuals_are_left_out_more_often_the_deeper_they_are():
    """Huang et al. 2016, equation 4, with 1 - p_L = 0.2."""
    for variant in ("v1", "v1_5", "v2"):
        model = zoo.build("resnet29_cifar10", **resnet(variant, stochastic_depth=0.2))
        rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
        wanted = {"stage1_block1": 0.05, "stage1_block2": 0.1, "stage2_block1": 0.15, "stage2_block2": 0.2}
        assert rates == {f"{name}_drop": pytest.approx(rate) for name, rate in wanted.items()}
    basic = zoo.build("resnet20_cifar10", stochastic_depth=0.9)
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in basic.layers) == 9
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in zoo.build("resnet20_cifar10").layers)


def test_weights_are_taken_whole_or_not_at_all(tmp_path):
    source = randomize(zoo.build("nin_digits"))
    zoo.save(source, tmp_path / "digits.keras")
    copy = zoo.build("nin_digits", weights=tmp_path / "digits.keras")
    images = noise(2, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(copy(images)), np.asarray(source(images)))
    with pytest.raises(InputError, match=r"received shape \(3, 3, 1, 64\); accepted: \(5, 5, 1, 64\)"):
        wider = [{**row, "kernel": 5} for row in resolve("nin_digits").model_dump()["mlpconvs"]]
        zoo.build("nin_digits", weights=source, mlpconvs=wider)
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
        ("nin_digits", {"num_classes": 0}, "num_classes"),
        ("gone.yaml", {}, "no such file"),
    ],
)
def test_bad_specs_are_refused(spec, overrides, text):
    with pytest.raises(InputError, match=text):
        zoo.build(spec, **overrides)


@pytest.mark.parametrize(("levels", "bins"), [((1, 2, 4), 21), ((1,), 1), ((3, 5), 34)], ids=["1, 2, 4", "one", "odd"])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_a_spatial_pyramid_gives_the_same_numbers_at_any_size(levels, bins, pool):
    """He et al. 2014, section 2.2: levels 1, 2, 4 give 21 numbers a channel whatever the image's size."""
    head = {"kind": "pyramid", "levels": levels, "pool": pool}
    model = randomize(zoo.build("nin_mnist_bn", head=head, image_size=None))
    assert model.get_layer("head_logits").kernel.shape == (bins * 128, 10)
    before = keras.Model(model.input, model.get_layer("head_logits").input)
    features = keras.Model(model.input, model.get_layer("mlpconv3_conv2_relu").output)
    reduce = np.max if pool == "max" else np.mean
    for height, width in ((28, 28), (37, 52)):
        images = noise(1, height, width, 1)
        assert model(images).shape == (1, 10)
        numbers = np.asarray(before(images))[0]
        maps = np.asarray(features(images))[0]
        rows, columns = maps.shape[:2]
        wanted = []
        for side in levels:
            for i in range(side):
                for j in range(side):
                    # bin i of n covers floor(i * rows / n) to ceil((i + 1) * rows / n)
                    bin_rows = slice(i * rows // side, -(-(i + 1) * rows // side))
                    bin_columns = slice(j * columns // side, -(-(j + 1) * columns // side))
                    wanted.append(reduce(maps[bin_rows, bin_columns], axis=(0, 1)))
        np.testing.assert_allclose(numbers, np.concatenate(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["v1", "v1_5", "v2"])
@pytest.mark.parametrize("output_stride", some_by_default([8, 16]))
def test_a_dilated_resnet_subsampled_is_the_strided_one(variant, output_stride):
    """With the same weights the last feature map, and 1x1 scores of it, at every (32 / output_stride)-th cell."""
    stages = [
        {"blocks": blocks, "width": 8, "filters": 16, "stride": stride}
        for blocks, stride in ((2, 1), (3, 2), (2, 2), (2, 2))
    ]
    stages = [{**row, "filters": 16 * 2**index} for index, row in enumerate(stages)]
    common = {"variant": variant, "stages": stages, "head": {"kind": "class_maps"}, "num_classes": 5}
    strided = randomize(zoo.build("resnet50", image_size=(192, 160), **common))
    dilated = zoo.build("resnet50", image_size=(192, 160), output_stride=output_stride, weights=strided, **common)
    images = noise(1, 192, 160, 3)
    step = 32 // output_stride
    assert zoo.geometry(dilated).stride == (output_stride, output_stride)
    for layer in ("head_class_maps",):
        for take in ("input", "output"):
            coarse = np.asarray(keras.Model(strided.input, getattr(strided.get_layer(layer), take))(images))
            fine = np.asarray(keras.Model(dilated.input, getattr(dilated.get_layer(layer), take))(images))
            assert fine.shape[1:3] == (192 // output_stride, 160 // output_stride)
            np.testing.assert_allclose(fine[:, ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * np.abs(coarse).max())


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_resnet50_dilated_subsampled_is_resnet50(output_stride):
    strided = randomize(zoo.build("resnet50", head={"kind": "class_maps"}))
    dilated = zoo.build("resnet50", head={"kind": "class_maps"}, output_stride=output_stride, weights=strided)
    images, step = noise(1, 224, 224, 3), 32 // output_stride
    maps = [
        np.asarray(keras.Model(model.input, model.get_layer("head_class_maps").output)(images))
        for model in (strided, dilated)
    ]
    assert np.abs(maps[1][:, ::step, ::step] - maps[0]).max() <= 1e-4 * np.abs(maps[0]).max()


OWN_NET = """
from typing import Literal

from zoo.config import ArchitectureConfig
from zoo.models import layers


class PlainConfig(ArchitectureConfig):
    family: Literal["my_net:PlainConfig"]
    width: int

    def feature_map_size(self, size):
        return size // 2

    @property
    def total_stride(self):
        return 2


class WiderConfig(PlainConfig):
    family: Literal["my_net:WiderConfig"]
    width: int = 9


def feature_map(x, config):
    x = layers.Conv2D(config.width, 3, padding="same", activation="relu", name="conv")(x)
    return layers.MaxPooling2D(2, name="pool")(x)
"""
OWN_CONFIG = """
data: {name: digits}
model: {family: "my_net:PlainConfig", width: 6, num_classes: 10, image_size: 8, channels: 1}
train: {epochs: 1, optimizer: {name: sgd, learning_rate: 0.1}}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A config whose architecture is in a file outside the package, which brings schema and layers."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    (tmp_path / "my_net.py").write_text(OWN_NET)
    (tmp_path / "my_config.yaml").write_text(OWN_CONFIG)
    return tmp_path / "my_config.yaml"


def test_an_architecture_of_the_users_own(own):
    config = zoo.load_config(own)
    (own.parent / "resolved.yaml").write_text(config.to_yaml())
    assert zoo.load_config(own.parent / "resolved.yaml") == config
    for check in CHECKS:
        check(own)
    with pytest.raises(InputError, match="model: unknown key 'with' .did you mean 'width'"):
        zoo.load_config(own, ["model.with=3"])


def test_a_derived_schema_has_the_layers_of_its_base(own):
    model = zoo.build(zoo.load_config(own, ["model.family=my_net:WiderConfig", "model.width=7"]).model)
    assert model.get_layer("conv").kernel.shape == (3, 3, 1, 7)
    alone = "from zoo.models.nin import NINConfig\nfrom typing import Literal\n"
    alone += "class Own(NINConfig):\n    family: Literal['alone:Own']\n"
    (own.parent / "alone.py").write_text(alone)
    assert zoo.build("nin_digits", family="alone:Own").count_params() == zoo.build("nin_digits").count_params()


def test_a_schema_without_layers_is_refused(own):
    text = OWN_NET[: OWN_NET.index("def feature_map(x")]
    (own.parent / "no_layers.py").write_text(text.replace("my_net:", "no_layers:"))
    section = {"family": "no_layers:PlainConfig", "width": 6, "num_classes": 3, "image_size": 8}
    with pytest.raises(InputError, match="no function feature_map; accepted: a module with a function feature_map"):
        zoo.build(model_config(section, "own"))


@pytest.mark.extended
def test_the_example_of_the_checks_runs(own):
    """As it stands in the docstring: a test file in the folder of the config."""
    example = textwrap.dedent(zoo.checks.__doc__[zoo.checks.__doc__.index("    import pytest") :])
    (own.parent / "test_my_net.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_net.py"]
    paths = [str(own.parent), str(Path(zoo.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=own.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f"{len(CHECKS)} passed" in done.stdout, done.stdout + done.stderr
