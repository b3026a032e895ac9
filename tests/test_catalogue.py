"""Every entry of the catalogue against its own printed numbers, and those against published ones."""

import re

import keras
import pytest

import zoo
from zoo.catalogue import entries, list_models, matching, resolve
from zoo.errors import InputError

# Shared facts: torchvision, keras.applications, the papers' code and imgclsmob; trainable parameters.
PUBLISHED = {
    "nin_cifar10": 966_986,
    "googlenet": 6_624_904,
    "googlenet_paper": 6_998_552,
    "bn_inception": 11_285_224,
    "inception_v3": 23_834_568,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_v1_5": 25_557_032,
    "resnext50_32x4d": 25_028_904,
    "resnext29_16x64d_cifar10": 68_155_210,
    "resnet20_cifar10": 272_474,
    "resnet56_cifar10": 855_770,
    "resnet110_cifar10": 1_730_714,
    "resnet164_v1_cifar10": 1_704_154,
    "resnet164_v2_cifar10": 1_703_258,
    "resnet1001_v1_cifar10": 10_328_602,
    "resnet1001_v2_cifar10": 10_327_706,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
}
# Billions of multiply-adds of convolutions and Dense layers alone, without normalisation.
PUBLISHED_GMACS = {
    "nin_cifar10": 0.223,
    "googlenet": 1.50,
    "bn_inception": 2.05,
    "inception_v3": 5.74,
    "resnet50": 3.88,
    "resnet101": 7.60,
    "resnet152": 11.32,
    "resnet50_v1_5": 4.11,
    "squeezenet1_0": 0.82,
    "squeezenet1_1": 0.35,
    "resnet20_cifar10": 0.0408,
    "resnet56_cifar10": 0.1257,
    "resnet110_cifar10": 0.2531,
    "resnet164_v1_cifar10": 0.2476,
    "resnet1001_v1_cifar10": 1.4910,
}
# Trainable and moving statistics together, as keras.applications prints them.
KERAS_TOTALS = {"resnet50_v2": 25_613_800, "resnet101_v2": 44_675_560, "resnet152_v2": 60_380_648}
# Of the last feature map: Araujo et al. 2019, and google-research/receptive_field.
PUBLISHED_FIELDS = {
    "resnet50": 483,
    "resnet101": 1027,
    "resnet152": 1507,
    "resnet50_v1_5": 427,
    "inception_v3": 1311,
}
# Nets that take long to build, being deep or wide; others have the same blocks.
LARGE = re.compile("(101|110|152|164|1001|16x64d)(_|$)")
NETS = [
    pytest.param(name, marks=pytest.mark.slow if LARGE.search(name) else pytest.mark.extended) for name in list_models()
]


@pytest.mark.parametrize("name", NETS)
def test_the_printed_numbers_are_those_of_the_built_model(name):
    row, config = entries()[name], resolve(name)
    model = zoo.build(name)
    assert model.input_shape == (None, *config.image_size, config.channels)
    assert model.output_shape == (None, config.num_classes)
    assert model.layers[-1].name == "head_logits"
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    described = zoo.describe(model)
    assert described.trainable_params == row.params
    assert round(described.macs / 1e9, 4) == row.gmacs
    first_of_head = next(layer for layer in model.layers if layer.name.startswith("head_"))
    body = keras.Model(model.input, first_of_head.input)
    shape = zoo.geometry(body)
    assert shape.receptive_field == (row.receptive_field,) * 2
    assert shape.stride == (config.total_stride,) * 2
    assert body.output_shape[1:3] == tuple(config.feature_map_size(side) for side in config.image_size)


@pytest.mark.parametrize("name", list_models())
def test_without_padding_the_smallest_image_is_the_receptive_field(name):
    padding_free = resolve(name).model_copy(update={"padding": "valid"})
    assert padding_free.smallest_image == max(entries()[name].receptive_field, padding_free.total_stride)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    assert entries()[name].params == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_GMACS)
def test_multiply_adds_are_the_published_ones_within_a_percent(name):
    assert entries()[name].gmacs == pytest.approx(PUBLISHED_GMACS[name], rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_FIELDS)
def test_receptive_fields_are_the_published_ones(name):
    assert entries()[name].receptive_field == PUBLISHED_FIELDS[name]


@pytest.mark.parametrize("name", [net for net in NETS if net.values[0] in KERAS_TOTALS])
def test_totals_are_those_of_keras(name):
    assert zoo.build(name).count_params() == KERAS_TOTALS[name]


def test_auxiliary_heads_of_googlenet_as_torchvision_counts_them():
    model = zoo.build("googlenet", auxiliary=["4a", "4d"])
    assert sum(int(weight.numpy().size) for weight in model.trainable_weights) == 13_004_888
    with pytest.raises(InputError, match="auxiliary: unknown module '4z'"):
        zoo.build("googlenet", auxiliary=["4z"])


def test_countception_is_the_authors_net():
    """ieee8023/countception: each convolution has a normalisation, and no bias; the last has here a bias alone."""
    # Side of the kernel, channels of input and output, in the order of the code.
    authors = [(3, 3, 64), (1, 64, 16), (3, 64, 16), (1, 32, 16), (3, 32, 32), (14, 48, 16)]
    authors += [(1, 16, 112), (3, 16, 48), (1, 160, 64), (3, 160, 32), (1, 96, 40), (3, 96, 40)]
    authors += [(1, 80, 32), (3, 80, 96), (18, 128, 32), (1, 32, 64), (1, 64, 64), (1, 64, 1)]
    theirs = sum(side**2 * taken * made + 2 * made for side, taken, made in authors)
    assert theirs == 1_682_210 and entries()["countception"].params == theirs - 2 + 1
    model = zoo.build("countception")
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [tuple(layer.kernel.shape[1:]) for layer in convolutions] == authors
    # The authors pad their modules, so that of an image of 256 pixels, bordered by 32, 288 x 288 cells are left; the
    # field of a cell is 33 by its windows without padding, and two more for each of six modules.
    assert resolve("countception", padding="same", image_size=33).feature_map_size(256 + 2 * 32) == 288
    geometry = zoo.geometry(model)
    assert (geometry.receptive_field, geometry.stride, geometry.padding_free) == ((45, 45), (1, 1), True)
    leaks = [layer for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert len(leaks) == 17 and {layer.negative_slope for layer in leaks} == {0.01}


def test_controls_name_a_twin_that_exists():
    twins = {name: row.twin for name, row in entries().items() if row.twin}
    assert {"inception_naive", "resnet20_cifar10", "resnet110_cifar10"} <= set(twins)
    assert set(twins.values()) <= set(entries())
    # What a bottleneck is for: fewer parameters and multiply-adds than its control of equal output.
    naive, reduced = entries()["inception_naive"], entries()["googlenet_paper"]
    assert naive.params > 5 * reduced.params and naive.gmacs > 5 * reduced.gmacs


@pytest.mark.parametrize(
    ("overrides", "key", "text"),
    [
        ({"family": "vgg"}, "family", "'nin', 'inception', 'resnet', 'squeezenet', or package.module:Class"),
        ({"family": "no.such.module:Net"}, "family", "cannot be imported"),
        ({"family": "zoo.config:Config"}, "family", "derived from zoo.config.ArchitectureConfig"),
        ({"modules": [{"name": "a", "branches": ["2x2 8"]}]}, "modules.0.branches.0", "odd sides"),
        ({"activation": "leaky_relu"}, "activation", "padded max pooling"),
        ({"modules": [{"name": "a", "branches": ["3x3"]}]}, "modules.0.branches.0", "'3x3'; accepted: 3x3 64"),
        ({"modules": [{"name": "a", "conv1": 8}]}, "modules.0", "branches and a row"),
        ({"modules": [{"name": "a", "branches": ["1x1 8"], "reduce3": 8}]}, "modules.0", "branches and a row"),
        ({"head": {"kind": "flatten", "dropout": 0.5}}, "head.dropout", "0.5 without hidden layers; accepted: 0"),
        ({"modules": [{"name": "a", "branches": ["1x1 8"], "conv2": 8}]}, "modules.0", "unknown key 'conv2'"),
    ],
)
def test_bad_tables_are_named(overrides, key, text):
    with pytest.raises(InputError) as error:
        zoo.build("inception_cifar10", **overrides)
    assert f"model.{key}: " in str(error.value) and text in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"block": "basic"}, "stages.0.width: received 64; accepted: none in a basic block"),
        ({"groups": 48}, "stages.0.width: received 64; accepted: a multiple of groups = 48"),
        ({"output_stride": 4}, "output_stride: received 4; accepted: 8, 16 or 32"),
        ({"block": "basic", "groups": 2, "stages": [{"blocks": 1, "filters": 8}]}, "groups: received 2; .* blocks: 1"),
    ],
)
def test_impossible_resnets_are_named(overrides, text):
    with pytest.raises(InputError, match=text):
        zoo.build("resnet50", **overrides)


# Blocks, width, filters, stride of each stage: He et al. 2015, table 1 and section 4.2; He et al. 2016, table 2.
STAGES = {
    50: [(3, 64, 256, 1), (4, 128, 512, 2), (6, 256, 1024, 2), (3, 512, 2048, 2)],
    101: [(3, 64, 256, 1), (4, 128, 512, 2), (23, 256, 1024, 2), (3, 512, 2048, 2)],
    152: [(3, 64, 256, 1), (8, 128, 512, 2), (36, 256, 1024, 2), (3, 512, 2048, 2)],
    164: [(18, 16, 64, 1), (18, 32, 128, 2), (18, 64, 256, 2)],
    1001: [(111, 16, 64, 1), (111, 32, 128, 2), (111, 64, 256, 2)],
    18: [(2, None, 64, 1), (2, None, 128, 2), (2, None, 256, 2), (2, None, 512, 2)],
    34: [(3, None, 64, 1), (4, None, 128, 2), (6, None, 256, 2), (3, None, 512, 2)],
    20: [(3, None, 16, 1), (3, None, 32, 2), (3, None, 64, 2)],
    32: [(5, None, 16, 1), (5, None, 32, 2), (5, None, 64, 2)],
    44: [(7, None, 16, 1), (7, None, 32, 2), (7, None, 64, 2)],
    56: [(9, None, 16, 1), (9, None, 32, 2), (9, None, 64, 2)],
    110: [(18, None, 16, 1), (18, None, 32, 2), (18, None, 64, 2)],
}


@pytest.mark.parametrize("depth", STAGES)
def test_a_depth_is_the_papers_table(depth):
    block = "basic" if STAGES[depth][0][1] is None else "bottleneck"
    stages = resolve("resnet50", block=block, depth=depth).stages
    assert [(row.blocks, row.width, row.filters, row.stride) for row in stages] == STAGES[depth]
    # Its layers: a stem, the blocks' convolutions, and the last Dense layer.
    assert 1 + (2 if block == "basic" else 3) * sum(row.blocks for row in stages) + 1 == depth


@pytest.mark.parametrize(("depth", "params"), [(18, 11_689_512), (34, 21_797_672)])
def test_basic_depths_have_torchvisions_parameters(depth, params):
    model = zoo.build("resnet50", block="basic", depth=depth)
    assert sum(int(weight.numpy().size) for weight in model.trainable_weights) == params


def test_keras_halves_at_the_end_of_a_stage():
    assert [row.stride for row in resolve("resnet101_v2").stages] == [2, 2, 2, 1]
    assert [row.stride for row in resolve("resnet50", variant="v2_keras", depth=101).stages] == [2, 2, 2, 1]


def test_the_later_of_depth_and_stages_counts_and_both_at_once_are_refused():
    stages = [{"blocks": 1, "width": 8, "filters": 16}]
    assert len(resolve("resnet50", stages=stages).stages) == 1
    assert resolve(resolve("resnet50", stages=stages), depth=50).stages == resolve("resnet50").stages
    with pytest.raises(InputError, match="model: received depth and stages; accepted: one of them"):
        resolve("resnet50", depth=50, stages=stages)
    with pytest.raises(InputError, match="unknown key 'dept' .did you mean 'depth'"):
        resolve("resnet50", dept=50)


@pytest.mark.parametrize("depth", [51, 20, "50", 50.0, True, None, [50]])
def test_other_depths_are_refused(depth):
    with pytest.raises(
        InputError, match="model.depth: received .*; accepted for bottlenecks: 50, 101, 152, 164, 1001,"
    ):
        resolve("resnet50", depth=depth)


def test_what_was_checked_is_not_checked_again(monkeypatch, tmp_path):
    config, times = resolve("nin_digits"), []
    check = type(config)._check_extent
    monkeypatch.setattr(type(config), "_check_extent", lambda self: (times.append(1), check(self)))
    assert resolve(config) is config
    zoo.build(config)
    assert not times
    zoo.build(config, num_classes=3)
    zoo.build("nin_digits")
    zoo.build("nin_digits", num_classes=3)
    assert len(times) == 3


def test_patterns_choose_names_in_the_catalogues_order():
    names = list_models()
    assert matching([], names) == names
    assert matching(["resnet50*"], names) == ["resnet50", "resnet50_v1_5", "resnet50_v2"]
    assert matching(["squeezenet1_[01]", "nin_digits"], names) == ["nin_digits", "squeezenet1_0", "squeezenet1_1"]
    for pattern in ("resnt*", "resnet", "resnet5"):
        with pytest.raises(InputError, match=f"received '{re.escape(pattern)}'; accepted: .*such as resnet50, "):
            matching([pattern], names)
    with pytest.raises(InputError, match=f"such as nin_cifar10, .* and {len(names) - 10} more"):
        matching(["resnet50", "?" * 10_000], names)
