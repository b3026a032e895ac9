import csv
import io
import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from test_cli import call

import zoo
from zoo.card import Card, attach
from zoo.errors import InputError


def single(layer, *shape):
    image = keras.Input(shape)
    return keras.Model(image, layer(image), name="single")


def rows_by_name(model, *args):
    return {row.name: row for row in zoo.describe(model, *args).rows}


# Multiply-adds in 10^9 and parameters as published (facts.md; NASNet: Zoph et al. 2018, table 2; MobileNetV2: Sandler
# et al. 2018, table 4), slim's receptive fields of the last map, the smallest side (75: documented by Keras; the padded
# ResNets take a single pixel; VGG flattens its map).
@pytest.mark.parametrize(
    ("name", "macs", "params", "field", "smallest"),
    [
        ("ResNet50", 3.87, 25_636_712, 483, 1),
        ("ResNet101", 7.60, 44_707_176, 1027, 1),
        ("ResNet152", 11.32, 60_419_944, 1507, 1),
        ("VGG16", 15.48, 138_357_544, 212, 224),
        ("InceptionV3", 5.74, 23_851_784, 1311, 75),
        ("MobileNetV2", 0.300, 3_538_984, None, None),
        ("NASNetMobile", 0.564, 5_326_716, None, None),
    ],
)
@pytest.mark.extended
def test_nets_that_we_did_not_build_have_the_published_counts(name, macs, params, field, smallest):
    about = zoo.describe(getattr(keras.applications, name)(weights=None))
    assert about.macs == pytest.approx(macs * 1e9, rel=0.01)
    assert about.params == params == sum(row.params for row in about.rows)
    assert field is None or (about.last_map.receptive_field, about.last_map.stride) == ((field, field), (32, 32))
    assert about.rows[-1].receptive_field == (math.inf, math.inf) and about.rows[-1].stride is None
    assert smallest is None or about.smallest_image == (smallest, smallest)


def test_the_zoos_own_net_has_the_published_counts():
    """Network in Network for CIFAR-10: 966,986 parameters, 0.223 GMACs, the first convolution by hand."""
    about = zoo.describe(zoo.build("nin_cifar10"))
    assert about.params == about.trainable_params == 966_986
    assert about.macs == pytest.approx(0.223e9, rel=0.003)
    first = next(row for row in about.rows if row.type == "Conv2D")
    assert first.macs == 32 * 32 * 5 * 5 * 3 * 192 and first.params == 5 * 5 * 3 * 192 + 192


# (layer, input, parameters, multiply-adds, kernel), each written out by hand.
BY_HAND = {
    "7x7, 8 channels, 16 filters": (
        layers.Conv2D(16, 7, use_bias=False), (20, 20, 8), 7 * 7 * 8 * 16, 14 * 14 * 7 * 7 * 8 * 16, "7x7x8x16",
    ),
    "7x7 depthwise": (layers.DepthwiseConv2D(7, use_bias=False), (20, 20, 8), 7 * 7 * 8, 14 * 14 * 7 * 7 * 8, "7x7x8"),
    "depthwise, two filters each": (
        layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 8), 3 * 3 * 8 * 2 + 16, 7 * 7 * 3 * 3 * 8 * 2, "3x3x8x2",
    ),
    "strided, with bias": (layers.Conv2D(5, 3, 2), (9, 11, 2), 3 * 3 * 2 * 5 + 5, 4 * 5 * 3 * 3 * 2 * 5, "3x3x2x5"),
    "padded": (layers.Conv2D(5, 3, padding="same"), (9, 11, 2), 95, 9 * 11 * 3 * 3 * 2 * 5, "3x3x2x5"),
    "grouped": (
        layers.Conv2D(16, 3, groups=4, use_bias=False), (8, 8, 8), 3 * 3 * 2 * 16, 6 * 6 * 3 * 3 * 2 * 16, "3x3x2x16",
    ),
    "dilated": (layers.Conv2D(4, 3, dilation_rate=3), (9, 10, 2), 76, 3 * 4 * 3 * 3 * 2 * 4, "3x3x2x4"),
    "separable": (
        layers.SeparableConv2D(10, 3, use_bias=False), (8, 8, 6),
        3 * 3 * 6 + 6 * 10, 6 * 6 * (3 * 3 * 6 + 6 * 10), "3x3x6 + 1x1x6x10",
    ),
    "transposed": (layers.Conv2DTranspose(3, 4, 2), (5, 6, 2), 4 * 4 * 3 * 2 + 3, 5 * 6 * 4 * 4 * 3 * 2, "4x4x3x2"),
    "dense on a map": (layers.Dense(7), (4, 5, 3), 3 * 7 + 7, 4 * 5 * 3 * 7, "3x7"),
    "dense on a vector": (layers.Dense(7), (3,), 28, 21, "3x7"),
    "one dimension": (layers.Conv1D(6, 5), (30, 4), 5 * 4 * 6 + 6, 26 * 5 * 4 * 6, "5x4x6"),
    "three dimensions": (layers.Conv3D(2, 3), (5, 6, 7, 1), 56, 3 * 4 * 5 * 27 * 2, "3x3x3x1x2"),
    "channels first": (
        layers.Conv2D(5, 3, data_format="channels_first"), (2, 9, 11), 95, 7 * 9 * 3 * 3 * 2 * 5, "3x3x2x5",
    ),
    "normalisation": (layers.BatchNormalization(), (4, 4, 3), 12, 0, ""),
    "pooling": (layers.MaxPooling2D((2, 3)), (8, 9, 3), 0, 0, "2x3"),
    "embedding": (layers.Embedding(100, 8), (12,), 800, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_a_layer_worked_by_hand(case):
    layer, shape, params, macs, kernel = BY_HAND[case]
    (row,) = zoo.describe(single(layer, *shape)).rows
    assert (row.params, row.macs, row.kernel) == (params, macs, kernel)
    assert row.type == type(layer).__name__


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(3, (3, 2)),
        layers.Conv2D(4, 3, 2),
        layers.Conv2D(4, 2, groups=2),
        layers.Conv2D(2, 2, dilation_rate=(2, 3)),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.Conv2DTranspose(3, 3, 2),
        layers.Dense(5),
    ],
    ids=lambda layer: layer.name,
)
def test_multiply_adds_are_the_pairs_of_input_and_output_that_a_layer_connects(layer):
    """Without padding each multiply joins one input with one output: feed unit images, count what comes out."""
    shape = (6, 7, 4)
    model = single(layer, *shape)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape) if weight.path.endswith("bias") else np.ones(weight.shape))
    units = np.eye(math.prod(shape), dtype=np.float32).reshape(-1, *shape)
    assert zoo.describe(model).macs == np.count_nonzero(np.asarray(model(units)))


def test_a_shared_layer_multiplies_at_every_call_and_has_its_parameters_once():
    image = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    inner = keras.Input((8, 8, 4))
    body = keras.Model(inner, layers.Conv2D(4, 1, name="conv")(inner), name="body")
    model = keras.Model(image, body(body(shared(shared(image)))))
    about = zoo.describe(model)
    assert [row.name for row in about.rows] == ["shared", "shared", "body/conv", "body/conv"]
    assert [row.params for row in about.rows] == [148, 0, 20, 0] and about.params == 168 == model.count_params()
    assert [row.macs for row in about.rows] == [64 * 144] * 2 + [64 * 16] * 2
    assert [row.receptive_field for row in about.rows] == [(3, 3), (5, 5), (5, 5), (5, 5)]
    assert about.pointwise_params_share == 20 / 168
    assert about.pointwise_macs_share == 32 / (32 + 288)


def test_an_open_model_inside_one_of_fixed_size_has_its_shapes():
    inner = keras.Input((None, None, 3))
    body = keras.Model(inner, layers.Conv2D(4, 3)(inner), name="body")
    image = keras.Input((10, 12, 3))
    (row,) = zoo.describe(keras.Model(image, body(image))).rows
    assert row.output_shape == (8, 10, 4) and row.macs == 80 * 108


def hand_worked():
    image = keras.Input((45, 61, 3))
    x = layers.Conv2D(8, 7, 2, name="conv")(image)  # 20 x 28, field 7, stride 2
    x = layers.MaxPooling2D(3, (2, 1), name="pool")(x)  # 9 x 26, field 11, stride 4 x 2
    x = layers.Conv2D(8, (3, 1), dilation_rate=2, padding="same", name="dilated")(x)  # field 11 + 4 * 4 by 11
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
    short = layers.DepthwiseConv2D((1, 5), padding="same", name="wide")(x)  # field 27 by 11 + 4 * 2
    x = layers.Add(name="add")([x, short])
    head = layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D(name="top")(x))
    scaled = layers.Multiply(name="scaled")([x, gate])
    return keras.Model(image, head), keras.Model(image, scaled)


def test_fields_and_strides_worked_by_hand():
    classifier, gated = hand_worked()
    rows = rows_by_name(classifier)
    wanted = {
        "conv": ((7, 7), (2, 2)),
        "pool": ((11, 11), (4, 2)),
        "dilated": ((27, 11), (4, 2)),
        "wide": ((27, 19), (4, 2)),
        "add": ((27, 19), (4, 2)),
        "top": ((math.inf, math.inf), None),
        "logits": ((math.inf, math.inf), None),
    }
    assert {name: (row.receptive_field, row.stride) for name, row in rows.items()} == wanted
    assert [rows[name].field_text for name in wanted] == ["7", "11", "27x11", "27x19", "27x19", "all", "all"]
    assert [rows[name].stride_text for name in wanted] == ["2", "4x2", "4x2", "4x2", "4x2", "-", "-"]
    assert zoo.describe(classifier).last_map.name == "add"
    scaled = rows_by_name(gated)["scaled"]
    assert (scaled.field_text, scaled.stride_text) == ("all", "4x2")


def test_the_last_map_agrees_with_the_geometry():
    body = keras.Sequential(
        [keras.Input((40, 40, 1)), layers.Conv2D(2, 5, 2, "same"), layers.ZeroPadding2D(2), layers.Conv2D(2, 3, 3)]
    )
    about, shape = zoo.describe(body), zoo.geometry(body)
    assert (about.last_map.receptive_field, about.last_map.stride) == (shape.receptive_field, shape.stride)
    assert about.last_map is about.rows[-1] and about.last_map.receptive_field == (9, 9)


def test_past_a_layer_of_unknown_reach_all_but_the_field_is_known():
    image = keras.Input((8, 6, 3))
    x = layers.Conv2D(4, 3, name="before")(image)
    x = layers.Conv2D(4, 3, name="after")(layers.Permute((2, 1, 3), name="turn")(x))
    about = zoo.describe(keras.Model(image, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x))))
    rows = {row.name: row for row in about.rows}
    assert rows["before"].field_text == "3"
    assert [rows[name].field_text for name in ("turn", "after", "logits")] == ["?"] * 3
    assert rows["after"].stride is None and rows["after"].stride_text == "?"
    assert about.macs == 6 * 4 * 108 + 4 * 2 * 144 + 8
    assert about.smallest_image is None and "smallest image that the layers fit: not known" in about.summary()


def test_upsampling_below_a_pixel_has_no_stride_and_above_it_has_one():
    image = keras.Input((8, 8, 1))
    x = layers.UpSampling2D(name="finer")(image)
    assert rows_by_name(keras.Model(image, x))["finer"].stride_text == "?"
    x = layers.UpSampling2D(name="back")(layers.MaxPooling2D(4)(image))
    assert rows_by_name(keras.Model(image, x))["back"].stride == (2, 2)


def test_what_cannot_be_counted_is_named_not_left_out():
    words = keras.Input((10, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(words, words)
    about = zoo.describe(keras.Model(words, layers.Dense(3, name="after")(x)))
    rows = {row.name: row for row in about.rows}
    assert rows["attention"].macs is None and rows["after"].macs == 10 * 8 * 3
    assert about.macs is None and "not known: attention (MultiHeadAttention)" in about.summary()


def test_any_model_can_be_described():
    """A vector alone, and two inputs."""
    vector = keras.Input((4,))
    about = zoo.describe(keras.Model(vector, layers.Dense(3)(vector)))
    assert (about.macs, about.rows[0].field_text, about.smallest_image) == (12, "-", None)
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    about = zoo.describe(keras.Model([first, second], layers.Conv2D(2, 3)(layers.Add()([first, second]))))
    assert about.macs == 36 * 54 and about.rows[-1].field_text == "?"
    assert "parameters" in about.format()

    class Custom(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InputError, match="Functional or Sequential, received Custom"):
        zoo.describe(Custom())


def test_an_open_model_is_counted_at_the_size_given_or_trained_at():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, 2, name="conv")(image)
    model = keras.Model(image, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x)))
    about = zoo.describe(model)
    assert (about.macs, about.rows[0].macs, about.pointwise_macs_share) == (None, None, None)
    assert about.rows[0].output_shape == (None, None, 4) and "?x?x4" in about.format()
    assert "the image size is open; give one" in about.summary() and about.rows[-1].macs == 20
    assert zoo.describe(model, (9, 7)).macs == 4 * 3 * 108 + 20
    attach(model, Card(image_size=(11, 11)))
    assert zoo.describe(model).macs == 5 * 5 * 108 + 20 and zoo.describe(model).image_size == (11, 11)
    assert zoo.describe(model, (9, 7)).image_size == (9, 7)
    for size in ((9,), (9, 0), (9, 9, 3)):
        with pytest.raises(InputError, match="image_size: received"):
            zoo.describe(model, size)
    with pytest.raises(InputError, match="'conv'"):
        zoo.describe(model, (2, 2))


def test_a_size_of_its_own_for_a_pooled_head_but_none_for_a_flattening_one():
    model = zoo.build("nin_digits")
    assert zoo.describe(model, (16, 16)).macs > 3 * zoo.describe(model).macs
    flat = zoo.build("nin_digits", head={"kind": "flatten", "hidden": []})
    with pytest.raises(InputError, match=r"accepted: \(8, 8\)"):
        zoo.describe(flat, (16, 16))
    assert zoo.describe(flat, (8, 8)).smallest_image == (8, 8)


def test_a_padded_net_names_its_stride_beside_what_its_layers_fit():
    text = zoo.describe(zoo.build("resnet29_cifar10")).summary()
    assert "smallest image that the layers fit: 1x1; one total stride, the least that zoo.build takes: 4x4" in text
    with pytest.raises(InputError, match="at least 4 pixels"):
        zoo.build("resnet29_cifar10", image_size=3)
    zoo.build("resnet29_cifar10", image_size=4)
    assert "one total stride" not in zoo.describe(zoo.build("nin_mnist_valid")).summary()


def test_the_smallest_image_as_documented_by_keras():
    body = keras.applications.VGG16(weights=None, include_top=False, input_shape=(None, None, 3))
    assert zoo.describe(body).smallest_image == (32, 32)


rows = st.lists(
    st.tuples(
        st.sampled_from(["conv", "pool", "crop", "pad", "branch"]),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
        st.integers(1, 3),
        st.sampled_from(["same", "valid"]),
    ),
    min_size=1,
    max_size=5,
)


def assemble(rows, side):
    x = image = keras.Input((side, side, 1))
    for kind, kernel, stride, padding in rows:
        if kind == "conv":
            x = layers.Conv2D(1, kernel, stride, padding)(x)
        elif kind == "pool":
            x = layers.AveragePooling2D(kernel, stride, padding)(x)
        elif kind == "crop":
            x = layers.Cropping2D((stride, 0))(x)
        elif kind == "pad":
            x = layers.ZeroPadding2D((0, stride))(x)
        else:
            x = layers.Concatenate()([layers.Conv2D(1, kernel, padding="same")(x), x])
        if min(x.shape[1:3]) < 1:
            raise ValueError("nothing left")
    return keras.Model(image, layers.GlobalMaxPooling2D()(x))


@settings(max_examples=20, deadline=None)
@given(rows)
def test_the_smallest_image_is_the_first_that_keras_builds(rows):
    def builds(side):
        try:
            return assemble(rows, side)
        except ValueError:
            return None

    first = next(side for side in range(1, 400) if builds(side))
    assert zoo.describe(builds(first + 5) or builds(first)).smallest_image == (first, first)


def test_the_smallest_image_of_a_net_that_halves_and_doubles():
    """Twice halved, doubled and joined again: multiples of four alone, though five rows are enough for the windows."""
    image = keras.Input((None, None, 1))
    x = layers.MaxPooling2D(2)(layers.MaxPooling2D(2)(layers.Conv2D(1, 3, padding="same")(image)))
    x = layers.UpSampling2D(4)(x)
    joined = layers.Concatenate()([image, x])
    assert zoo.describe(keras.Model(image, joined)).smallest_image == (4, 4)
    narrower = layers.Concatenate()(
        [layers.Cropping2D(((1, 0), (1, 0)))(image), layers.Cropping2D(((1, 0), (1, 0)))(x)]
    )
    assert zoo.describe(keras.Model(image, layers.Conv2D(1, 4)(narrower))).smallest_image == (8, 8)


@pytest.mark.parametrize(
    ("layer", "share"),
    [
        (layers.Conv2D(6, 1), 1),
        (layers.Dense(6), 1),
        (layers.Conv2D(6, 3), 0),
        (layers.DepthwiseConv2D(3), 0),
        (layers.SeparableConv2D(10, 3, use_bias=False), 60 / (54 + 60)),
    ],
)
def test_the_share_of_1x1_convolutions(layer, share):
    about = zoo.describe(single(layer, 8, 8, 6))
    assert about.pointwise_params_share == about.pointwise_macs_share == pytest.approx(share)


def test_the_head_is_no_1x1_convolution_until_it_is_converted():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(image))))
    about = zoo.describe(model)
    assert about.pointwise_params_share == 0 and about.params == 168 + 35
    assert f"Dense layers on vectors, counted apart: {35 / 203:.1%} of the parameters" in about.summary()
    converted = zoo.describe(zoo.convolutionalize(model))
    assert converted.pointwise_params_share == 35 / 203 and converted.macs == about.macs
    assert "vectors" not in converted.summary()


def test_frozen_layers_are_not_trainable():
    image = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 3, name="frozen", trainable=False)(image)
    about = zoo.describe(keras.Model(image, layers.Conv2D(2, 1)(layers.BatchNormalization()(x))))
    assert (about.params, about.trainable_params) == (168 + 24 + 14, 12 + 14)


def test_formats():
    about = zoo.describe(zoo.build("resnet50"))
    table = about.format("table")
    assert all(len(line) <= 100 for line in table.splitlines())
    (stem,) = (line for line in table.splitlines() if line.startswith("stem_conv "))
    assert stem.split() == ["stem_conv", "Conv2D", "112x112x64", "7x7x3x64", "9,408", "118.0", "M", "7", "2"]
    (top,) = (line for line in table.splitlines() if line.startswith("head_pool "))
    assert top.split() == ["head_pool", "GlobalAvgPool2D", "2048", "0", "0", "all", "-"]
    for text in (
        "25,557,032",
        "3,857,973,248 (3.86 G)",
        "receptive field 483, stride 32",
        "smallest image",
        "1x1 conv",
    ):
        assert text in table
    read = list(csv.DictReader(io.StringIO(about.format("csv"))))
    assert [row["name"] for row in read] == [row.name for row in about.rows]
    assert (
        sum(int(row["macs"]) for row in read) == about.macs and sum(int(row["params"]) for row in read) == about.params
    )
    assert read[-1]["receptive_field"] == "all" and read[2]["kernel"] == "7x7x3x64"
    data = json.loads(about.format("json"))
    assert data["macs"] == about.macs and data["image_size"] == [224, 224] and data["smallest_image"] == [1, 1]
    assert data["rows"][2]["receptive_field"] == [7, 7] and data["rows"][-1]["receptive_field"] == ["all", "all"]
    assert data["pointwise_params_share"] == about.pointwise_params_share
    lines = about.format("markdown").splitlines()
    assert (
        lines[0].startswith("| layer | type |") and len({line.count("|") for line in lines[: 2 + len(about.rows)]}) == 1
    )
    with pytest.raises(InputError, match="did you mean 'json'"):
        about.format("jsn")


def test_the_command_takes_every_kind_of_model(capsys, tmp_path):
    model = zoo.build("nin_digits")
    zoo.save(model, tmp_path / "model.keras")
    (tmp_path / "my.yaml").write_text("data: {name: digits}\nmodel: {family: nin}\n")
    outputs = []
    for spec in ("nin_digits", tmp_path, tmp_path / "model.keras", "configs/nin_digits.yaml"):
        code, out, _ = call(capsys, "describe", spec)
        assert code == 0 and "101,962 parameters (101,066 trainable)" in out and "smallest image" in out
        outputs.append(out)
    assert len(set(outputs)) == 1
    code, out, _ = call(capsys, "describe", "keras:MobileNetV3Small", "--image-size", 224, 224, "--format", "json")
    data = json.loads(out)
    assert code == 0 and data["macs"] == pytest.approx(56e6, rel=0.01)  # Howard et al. 2019, table 4
    code, out, _ = call(capsys, "describe", "nin_digits", "--format", "csv")
    assert code == 0 and out.splitlines()[0].startswith("name,type,output_shape")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["keras:MobilNetV2"], "did you mean 'MobileNetV2'"),
        (["keras:resnet50"], "accepted: ConvNeXtBase"),
        (["nin_digit"], "did you mean 'nin_digits'"),
        (["missing.keras"], "no such file"),
        (["missing.yaml"], "no such file"),
        (["nin_digits", "--format", "yaml"], "accepted: table, markdown, csv, json"),
        (["nin_digits", "--image-size", "0", "8"], "image_size: received (0, 8)"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, arguments, text):
    code, out, err = call(capsys, "describe", *arguments)
    assert code == 2 and out == "" and text in err and len(err.splitlines()) == 1 and "Traceback" not in err
