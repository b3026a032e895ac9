import csv
import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise, randomize, some_by_default
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from small_nets import channels_first

import zoo
from zoo.cli import zoo as command
from zoo.engines.regions import Regions
from zoo.engines.roi import RoIPooling, roi_pool
from zoo.errors import InputError
from zoo.large_images import box_scores, score_boxes
from zoo.network.network import Network
from zoo.scanning.boxes import read_boxes
from zoo.scores import relative_error


def pooled_by_loops(feature_map, region, size, pool):
    """Caffe's RoIPooling, bin by bin: (H, W, C) -> (h, w, C)."""
    top, left, bottom, right = region
    top, left = min(max(top, 0), len(feature_map) - 1), min(max(left, 0), feature_map.shape[1] - 1)
    bottom, right = max(min(bottom, len(feature_map)), top + 1), max(min(right, feature_map.shape[1]), left + 1)
    made = np.empty((*size, feature_map.shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            begin = top + math.floor(row * (bottom - top) / size[0])
            end = top + math.ceil((row + 1) * (bottom - top) / size[0])
            first = left + math.floor(column * (right - left) / size[1])
            last = left + math.ceil((column + 1) * (right - left) / size[1])
            cells = feature_map[begin:end, first:last]
            made[row, column] = cells.max((0, 1)) if pool == "max" else cells.mean((0, 1))
    return made


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pooling_equals_plain_loops(data):
    count = st.integers(1, 9)
    height, width, channels = data.draw(count), data.draw(count), data.draw(st.integers(1, 3))
    size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    pool = data.draw(st.sampled_from(["max", "average"]))
    maps = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, height, width, channels))
    corner = st.integers(-2, 9)
    regions = np.empty((2, 3, 4), int)
    for index in np.ndindex(2, 3):
        top, left = data.draw(corner), data.draw(corner)
        regions[index] = top, left, top + data.draw(st.integers(0, 11)), left + data.draw(st.integers(0, 11))
    given_ = np.asarray(roi_pool(keras.ops.convert_to_tensor(maps), regions, size, pool))
    for image, box in np.ndindex(2, 3):
        wanted = pooled_by_loops(maps[image], regions[image, box].tolist(), size, pool)
        np.testing.assert_allclose(given_[image, box], wanted, rtol=1e-12, atol=1e-12)


def small(padding="valid", head="flatten", size=(19, 23)):
    """A net of stride 4; its feature map at the training size has rows and columns of different number."""
    x = image = keras.Input((*size, 1))
    x = layers.Conv2D(6, 3, padding=padding, activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.MaxPooling2D(2)(x)
    x = layers.MaxPooling2D(2)(layers.Conv2D(8, 3, padding=padding, activation="relu")(x))
    match head:
        case "flatten":
            x = layers.Dense(7, activation="relu")(layers.Flatten()(x))
        case "reshape":
            x = layers.Reshape((-1,))(x)
        case "average":
            x = layers.GlobalAveragePooling2D()(x)
        case "adaptive":
            x = layers.Flatten()(layers.AdaptiveAveragePooling2D(1)(x))
        case "max":
            x = layers.Reshape((8,))(layers.Conv2D(8, 1)(layers.GlobalMaxPooling2D(keepdims=True)(x)))
        case "pyramid":
            bins = [layers.Flatten()(layers.AdaptiveMaxPooling2D(side)(x)) for side in (2, 3)]
            x = layers.Concatenate()([*bins, layers.GlobalAveragePooling2D()(x)])
    return randomize(keras.Model(image, layers.Dense(3)(x)))


BOX_HEADS = ["flatten", "reshape", "average", "adaptive", "max", "pyramid"]


@pytest.mark.parametrize("head", BOX_HEADS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_whole_training_image_has_the_classifiers_own_answer(head, padding):
    model = small(padding, head)
    image = noise(19, 23, 1)
    result = box_scores(model, image, [(0, 0, 19, 23)])
    assert relative_error(result.scores, np.asarray(model(image[None]))) <= 1e-6


@pytest.mark.parametrize("head", BOX_HEADS)
def test_boxes_at_the_stride_have_the_answers_of_their_crops(head):
    """Without padding, of the training size: RoI pooling, the nearest cell and the crop are one thing."""
    model = small("valid", head)
    image = noise(60, 71, 1)
    boxes = [(4 * row, 4 * column, 4 * row + 19, 4 * column + 23) for row in range(0, 11, 2) for column in range(12)]
    crops = np.stack([image[top:bottom, left:right] for top, left, bottom, right in boxes])
    wanted = np.asarray(model(crops))
    ways = ["roi", "crops"] + (["cells"] if head != "pyramid" else [])  # a pyramid cannot be slid
    for way in ways:
        assert relative_error(score_boxes(model, image, boxes, way).scores, wanted) <= 1e-5, way


@pytest.mark.parametrize("head", BOX_HEADS)
def test_boxes_of_any_size_equal_plain_loops(head):
    model = small("same", head, size=(20, 24))
    image = noise(50, 62, 1)
    source = next(layer for layer in reversed(model.layers) if isinstance(layer, layers.MaxPooling2D)).output
    feature_map = np.asarray(_at(model, source, image))
    boxes = [
        (0, 0, 50, 62),
        (3, 9, 41, 13),
        (-8, 30, 12, 90),
        (46, 58, 50, 62),
        (11.6, 10, 12.8, 12),
        (5.6, 7.2, 31.9, 40),
    ]
    given_ = box_scores(model, image, boxes).scores
    for box, scores in zip(boxes, given_, strict=True):
        # Padded, window = map size times stride: Caffe's rounding, halves up.
        region = [math.floor(side / 4 + 0.5) for side in box]
        for axis, side in enumerate(feature_map.shape[:2]):
            if region[axis + 2] <= region[axis]:
                middle = math.floor((box[axis] + box[axis + 2]) / 8)
                region[axis], region[axis + 2] = middle, middle + 1
            region[axis] = min(max(region[axis], 0), side - 1)
        np.testing.assert_allclose(scores, _head(model, head, feature_map, region), rtol=2e-4, atol=2e-5)


def _at(model, tensor, image):
    """The value of a layer's output for an image of another size than the model's."""
    inner = keras.Input((None, None, 1))
    x = inner
    for layer in model.layers[1:]:
        x = layer(x)
        if layer.output is tensor:
            break
    return keras.Model(inner, x)(image[None])[0]


def _head(model, head, feature_map, region):
    """The head by NumPy."""
    weights = [np.asarray(weight, np.float64) for weight in model.weights[4:]]

    def pool(size, kind="max"):
        return pooled_by_loops(feature_map.astype(np.float64), region, size, kind).reshape(-1)

    match head:
        case "flatten":
            x = np.maximum(pool((5, 6)) @ weights.pop(0) + weights.pop(0), 0)
        case "reshape":
            x = pool((5, 6))
        case "average" | "adaptive":
            x = pool((1, 1), "average")
        case "max":
            x = pool((1, 1)) @ weights.pop(0)[0, 0] + weights.pop(0)
        case "pyramid":
            x = np.concatenate([pool((2, 2)), pool((3, 3)), pool((1, 1), "average")])
    return x @ weights[0] + weights[1]


def test_regions_lie_where_a_strided_same_layer_puts_them():
    """A 3x3 window at stride 2 begins at pixel 0 of an even training size, and at -1 of an odd image."""
    image = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(1, 3, 2, "same")(image))
    regions = Regions(Network.of(keras.Model(image, layers.Dense(2)(x))))
    boxes = np.array([(0, 1, 8, 9), (6, 8, 14, 16)])
    np.testing.assert_array_equal(regions.cells(boxes, (16, 16)), [(0, 1, 4, 5), (3, 4, 7, 8)])
    np.testing.assert_array_equal(regions.cells(boxes, (17, 17)), [(1, 1, 5, 5), (4, 5, 8, 9)])


def test_many_boxes_are_pooled_in_parts(monkeypatch):
    model, image = small(), noise(60, 71, 1)
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 40, (50, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 30, (50, 2))], 1)
    together = score_boxes(model, image, boxes).scores
    monkeypatch.setattr("zoo.engines.regions._AT_ONCE", 2000)
    np.testing.assert_allclose(score_boxes(model, image, boxes).scores, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", some_by_default(["max", "average"]))
def test_the_gradient_is_that_of_finite_differences(pool):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    generator = np.random.default_rng(0)
    maps, weight = generator.normal(size=(1, 6, 7, 2)), generator.normal(size=(1, 2, 3, 2, 2))
    regions = np.array([[[0, 1, 5, 7], [2, 2, 3, 4]]])

    def value(maps):
        return float(np.sum(np.asarray(roi_pool(keras.ops.convert_to_tensor(maps), regions, (3, 2), pool)) * weight))

    variable = tf.Variable(maps)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(roi_pool(variable, regions, (3, 2), pool) * weight)
    gradient = np.asarray(tf.convert_to_tensor(tape.gradient(total, variable)))
    measured = np.empty_like(maps)
    for index in np.ndindex(maps.shape):
        step = np.zeros_like(maps)
        step[index] = 1e-6
        measured[index] = (value(maps + step) - value(maps - step)) / 2e-6
    np.testing.assert_allclose(gradient, measured, atol=1e-7)


@pytest.mark.parametrize("options", [{"size": (3, 4)}, {"levels": (3, 1)}], ids=["size", "levels"])
def test_a_head_is_trained_through_the_layer(tmp_path, options):
    """Compiled, with maps of open size: the loss falls, the convolution before it learns too; it saves and loads."""
    image, boxes = keras.Input((None, None, 1)), keras.Input((5, 4), dtype="int32")
    x = layers.Conv2D(4, 3, activation="relu", name="body")(image)
    x = RoIPooling(**options)([x, boxes])
    bins = 12 if "size" in options else 10
    assert x.shape == (None, 5, *((3, 4) if "size" in options else (10,)), 4)
    model = keras.Model([image, boxes], layers.Dense(2)(layers.Reshape((5, bins * 4))(x)))
    generator = np.random.default_rng(0)
    images = generator.normal(size=(6, 14, 15, 1)).astype(np.float32)
    corners = generator.integers(0, 7, (6, 5, 2))
    regions = np.concatenate([corners, corners + generator.integers(1, 6, (6, 5, 2))], -1)
    labels = generator.integers(0, 2, (6, 5))
    before = np.array(model.get_layer("body").kernel)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch([images, regions], labels)) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.05
    assert not np.array_equal(before, np.array(model.get_layer("body").kernel))
    model.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_allclose(again.predict([images, regions], verbose=0), model.predict([images, regions], verbose=0))


def test_one_step_through_a_classifiers_own_head_lowers_the_loss():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    model = small()
    regions = Regions(Network.of(model))
    cells = regions.cells(np.array([(0, 0, 30, 33), (8, 20, 60, 71), (30, 5, 49, 28)]), (60, 71))
    maps, labels = regions.feature_map(noise(1, 60, 71, 1)), np.array([0, 1, 2])

    def loss():
        scores = regions.scores(maps, cells[None])
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))

    weights = [weight.value for weight in model.trainable_weights[4:]]
    with tf.GradientTape() as tape:
        before = loss()
    for weight, gradient in zip(weights, tape.gradient(before, weights), strict=True):
        weight.assign_sub(0.01 * gradient)
    assert float(loss()) < float(before)


@pytest.mark.extended
def test_jax_compiles_the_layer(tmp_path):
    pytest.importorskip("jax")
    code = (
        "import jax, numpy as np, keras\n"
        "from zoo.engines.roi import roi_pool\n"
        "maps = np.random.default_rng(0).normal(size=(1, 9, 11, 2)).astype('float32')\n"
        "regions = np.array([[[0, 1, 9, 4], [2, 2, 3, 11]]])\n"
        "for pool in ('max', 'average'):\n"
        "    eager = roi_pool(keras.ops.convert_to_tensor(maps), regions, (2, 3), pool)\n"
        "    compiled = jax.jit(lambda m, r: roi_pool(m, r, (2, 3), pool))(maps, regions)\n"
        "    np.testing.assert_allclose(eager, compiled, rtol=1e-6)\n"
        "    np.save(pool, np.asarray(eager))\n"
        "np.save('maps', maps)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command_line = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command_line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    maps = np.load(tmp_path / "maps.npy")
    for pool in ("max", "average"):
        wanted = [pooled_by_loops(maps[0], region, (2, 3), pool) for region in ([0, 1, 9, 4], [2, 2, 3, 11])]
        np.testing.assert_allclose(np.load(tmp_path / f"{pool}.npy")[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([], "at least one box"),
        ([(1, 2, 3)], "at least one box"),
        ("abc", "at least one box"),
        ([(0, 0, 5, 5), (3, 9, 3, 12)], r"box 2: received \[3, 9, 3, 12\]; accepted: top"),
        ([(0, 0, math.nan, 5)], "box 1: received"),
        ([(0, 71, 5, 90)], r"box 1: .*; accepted: boxes that overlap the image of 60 x 71"),
        ([(-9, 0, 0, 5)], "overlap the image"),
    ],
)
def test_bad_boxes_are_refused(boxes, text):
    with pytest.raises(InputError, match=text):
        score_boxes(small(), noise(60, 71, 1), boxes)


@pytest.mark.parametrize("way", ["roi", "cells", "crops"])
def test_of_a_padded_model_the_ways_differ_which_is_told(way, tmp_path):
    image = noise(60, 71).astype(np.uint8)
    model, boxes = small("same"), [(4, 8, 23, 31)]
    if way == "crops":
        score_boxes(model, image, boxes, way)
    else:
        with pytest.warns(UserWarning, match=r"pads its maps \(layer 'conv2d.*' and 1 more\): a box's answer depends"):
            score_boxes(model, image, boxes, way)
    zoo.save(model, tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    names = ("model.keras", "image.npy", "boxes.json")
    done = CliRunner().invoke(
        command, ["regions", *(str(tmp_path / name) for name in names), "-o", str(tmp_path / "o.csv"), "--way", way]
    )
    assert done.exit_code == 0 and ("note: this model pads its maps" in done.output) == (way != "crops")


@pytest.mark.parametrize("padding", ["keep", "valid"])
def test_converted_models_are_refused_for_what_they_are(padding):
    made = zoo.convolutionalize(small("same"), padding=padding)
    for way in ("roi", "crops"):
        with pytest.raises(InputError, match="gives a map; accepted: a classifier with its head, not converted"):
            score_boxes(made, noise(60, 71, 1), [(4, 8, 23, 31)], way)
    assert box_scores(made, noise(60, 71, 1), [(4, 8, 23, 31)], "cells").scores.shape == (1, 3)


def test_a_model_with_channels_first_has_the_answers_of_the_same_model_with_channels_last():
    model = channels_first(lambda x, form: layers.Dense(4)(layers.Flatten(**form)(x)), size=(19, 23))
    image, boxes = noise(40, 50, 3), [(0, 0, 19, 23), (4, 8, 23, 31), (10, 12, 40, 45)]
    crop = np.moveaxis(image[4:23, 8:31], -1, 0)[None]
    for way in ("roi", "cells", "crops"):
        found = box_scores(model, image, boxes, way).scores
        assert found.shape == (3, 4)
        if way == "crops":
            assert relative_error(found[1:2], np.asarray(model(crop))) <= 1e-5


def test_models_and_images_that_do_not_split_are_refused():
    boxes, image = [(0, 0, 9, 9)], noise(60, 71, 1)
    with pytest.raises(InputError, match="gives a map; accepted: a classifier with its head"):
        score_boxes(zoo.convolutionalize(small()), image, boxes)
    source = keras.Input((16, 16, 1))
    x = layers.Conv2D(2, 3)(source)
    gated = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    model = keras.Model(source, layers.Dense(2)(layers.Flatten()(gated)))
    with pytest.raises(InputError, match="not local .*pools over the whole image"):
        score_boxes(model, image, boxes)
    assert score_boxes(model, image, boxes, "crops").scores.shape == (1, 2)
    two = keras.Model(source, layers.Dense(2)(layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(source)])))
    with pytest.raises(InputError, match="begins at 2 maps"):
        score_boxes(two, image, boxes)
    with pytest.raises(InputError, match="at least one window of 19 x 23"):
        score_boxes(small(), noise(18, 40, 1), boxes, "crops")
    with pytest.raises(InputError, match="leave no map"):
        score_boxes(small(), noise(6, 40, 1), boxes)
    with pytest.raises(InputError, match="unknown way 'roy' .*did you mean 'roi'"):
        score_boxes(small(), image, boxes, "roy")
    for options in ({}, {"size": (2, 2), "levels": (1,)}, {"size": (0, 1)}, {"levels": ()}):
        with pytest.raises(InputError, match="RoIPooling: received size="):
            RoIPooling(**options)


def test_the_command_reads_and_writes_boxes(tmp_path):
    from PIL import Image

    model, image = small(), noise(60, 71).astype(np.uint8)
    zoo.save(model, tmp_path / "model.keras")
    Image.fromarray(image).save(tmp_path / "image.png")
    boxes = [[4, 8, 23, 31], [0.5, 3, 60, 40]]
    wanted = score_boxes(model, image[..., None], boxes)
    (tmp_path / "boxes.csv").write_text("xmax,name,ymin,xmin,ymax\n31,a,4,8,23\n40,b,0.5,3,60\n")
    (tmp_path / "boxes.json").write_text(json.dumps([boxes[0], {"box": boxes[1]}]))
    for source in ("boxes.csv", "boxes.json"):
        np.testing.assert_array_equal(read_boxes(tmp_path / source), boxes)
        for result in ("out.csv", "out.json"):
            done = CliRunner().invoke(
                command,
                [
                    "regions",
                    *(str(tmp_path / name) for name in ("model.keras", "image.png", source)),
                    "-o",
                    str(tmp_path / result),
                    *(["--overwrite"] if source == "boxes.json" else []),
                ],
                catch_exceptions=False,
            )
            assert done.exit_code == 0 and "2 boxes: " in done.output
            np.testing.assert_array_equal(read_boxes(tmp_path / result), boxes)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    content = json.loads((tmp_path / "out.json").read_text())
    for index, (row, entry) in enumerate(zip(rows, content, strict=True)):
        chances = wanted.probabilities[index]
        assert row["class"] == entry["class"] == str(chances.argmax())
        assert float(row["score"]) == entry["score"] == pytest.approx(chances.max(), abs=2e-6)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "accepted: a name that ends in .csv or .json"),
        ("gone.csv", None, "cannot be read"),
        ("a.csv", "", "has none; accepted: at least one"),
        ("a.csv", "top,left\n1,2\n", "first line: received .*; accepted: a header there, with numbers named top"),
        ("a.csv", "top,left,bottom,right\n1,2,3,4\n1,2,x,4\n", "box 2: received"),
        ("a.csv", "top,left,bottom,right\n1,2,3\n", "box 1: received"),
        ("a.json", "[[1,2,3,4],[1,2,3]]", "box 2: received"),
        ("a.json", "{", "broken"),
        ("a.json", "{}", "has none"),
        ("a.json", '["1234"]', "box 1: received"),
    ],
)
def test_bad_files_of_boxes_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_boxes(tmp_path / name)


class Endless:
    """An image whose pixels are made where they are read, and that no memory holds."""

    shape, dtype = (4_000_000, 4_000_000, 1), np.dtype(np.uint8)

    def __getitem__(self, region):
        rows, columns = (np.arange(*part.indices(side)) for part, side in zip(region, self.shape, strict=False))
        assert len(rows) * len(columns) < 2000
        return ((rows[:, None, None] * 7 + columns[:, None] * 3) % 251).astype(np.uint8)


def test_images_larger_than_memory():
    model, boxes = small(), [(3_000_000, 2_000_000, 3_000_019, 2_000_023), (5, 8, 30, 40)]
    with pytest.raises(InputError, match=r"feature map of 4000000 x 4000000 pixels takes .* GiB .*'cells' and 'c"):
        score_boxes(model, Endless(), boxes)
    found = score_boxes(model, Endless(), boxes, way="crops").scores
    crop = Endless()[3_000_000:3_000_019, 2_000_000:2_000_023]
    np.testing.assert_allclose(found[0], np.asarray(model(crop[None].astype(np.float32)))[0], rtol=1e-5, atol=1e-6)
