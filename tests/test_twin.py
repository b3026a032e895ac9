import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.scores import relative_error


def by_hand(padded, twin, size):
    """The largest error at the cells whose field is as large as the twin's window, found with public names alone."""
    window = zoo.geometry(twin).window
    for _ in range(20):
        shape = zoo.geometry(padded, size)
        fields = {cell: shape.cell_field(*cell) for cell in np.ndindex(shape.grid_shape(*size))}
        inner = [cell for cell, box in fields.items() if (box[2] - box[0], box[3] - box[1]) == window]
        if inner:
            break
        size = tuple(side + step for side, step in zip(size, shape.stride, strict=True))  # the net crops its maps
    image = np.random.default_rng(0).normal(size=(1, *size, padded.inputs[0].shape[-1]))
    scores = np.asarray(padded(image))[0]
    assert scores.shape[:2] == shape.grid_shape(*size)
    top, left = fields[inner[0]][:2]
    given = np.asarray(twin(image[:, top:, left:]))[0]
    rows, columns = inner[-1][0] - inner[0][0] + 1, inner[-1][1] - inner[0][1] + 1
    assert len(inner) == rows * columns
    # A net that crops its own border has fewer cells there than its twin.
    assert given.shape[0] >= rows and given.shape[1] >= columns
    given = given[:rows, :columns]
    wanted = scores[inner[0][0] :, inner[0][1] :][:rows, :columns]
    return relative_error(given, wanted)


def congruent(model, training_size, twin, cells=2):
    """A size of the training size modulo the stride, with uncut cells."""
    stride, window = zoo.geometry(model).stride, zoo.geometry(twin).window
    return tuple(
        side + -(-(reach + cells * step - side) // step) * step
        for side, step, reach in zip(training_size, stride, window, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("nin_mnist_bn", {}),
        ("nin_digits", {}),
        ("inception_cifar10", {}),
        ("resnet29_cifar10", {}),
        ("resnet20_cifar10", {}),
        pytest.param("resnet50_v2", {"image_size": (64, 64), "num_classes": 5}, marks=pytest.mark.slow),
        ("squeezenet1_1", {"image_size": (64, 64), "num_classes": 5}),
        ("nin_mnist_bn", {"head": {"kind": "flatten", "hidden": [8]}}),
    ],
)
@pytest.mark.extended
def test_the_zoos_own_nets(name, overrides):
    model = randomize(zoo.build(name, **overrides))
    twin = zoo.convolutionalize(model, padding="valid")
    shape = zoo.geometry(twin)
    padded = zoo.convolutionalize(model)
    assert shape.padding_free and shape.offset == (0, 0) and twin.count_params() == model.count_params()
    assert shape.window == shape.receptive_field == zoo.geometry(padded).receptive_field
    size = congruent(padded, zoo.geometry(padded).window, twin)
    scale = 255 * np.random.default_rng(1).uniform(size=(1, *size, model.inputs[0].shape[-1])).astype(np.float32)
    fields = zoo.geometry(padded, size)
    scores, inner = np.asarray(padded(scale))[0], []
    for cell in np.ndindex(scores.shape[:2]):
        box = fields.cell_field(*cell)
        if (box[2] - box[0], box[3] - box[1]) == shape.window:
            inner.append((cell, box))
    assert inner
    (first, (top, left, *_)), (last, _) = inner[0], inner[-1]
    given = np.asarray(twin(scale[:, top:, left:]))[0]
    wanted = scores[first[0] : last[0] + 1, first[1] : last[1] + 1]
    assert relative_error(given, wanted) <= 1e-5


@pytest.mark.parametrize("name", some_by_default(["nin_mnist_bn", "resnet20_cifar10"]))
def test_a_twin_equals_its_crops_at_every_cell_whatever_the_size(name):
    model = randomize(zoo.build(name))
    twin = zoo.convolutionalize(model, padding="valid")
    report = zoo.verify(model, twin)
    assert report.max_error_at_training_size is None and report.max_error_inner_cells <= 1e-5
    assert report.same_function and report.same_as_crops and report.padding_free and report.crops == 36
    assert "cells not cut by a border" in report.table()
    (height, width), (down, right) = zoo.geometry(twin).window, zoo.geometry(twin).stride
    for more in range(down + 1):
        image = noise(1, height + more, width + right + more, model.inputs[0].shape[-1])
        scores = np.asarray(twin(image))[0]
        assert scores.shape[:2] == (more // down + 1, (right + more) // right + 1)
        for row, column in np.ndindex(scores.shape[:2]):
            top, left = row * down, column * right
            wanted = np.asarray(twin(image[:, top : top + height, left : left + width]))[0, 0, 0]
            assert relative_error(scores[row, column], wanted) <= 1e-5


side = st.integers(1, 4)
windowed = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["conv", "average", "max", "depthwise"]),
        "kernel": st.tuples(side, side),
        "stride": st.integers(1, 3),
        "padding": st.sampled_from(["same", "valid"]),
    }
)
border = st.fixed_dictionaries(
    {"kind": st.just("border"), "sides": st.tuples(*[st.tuples(*[st.integers(0, 2)] * 2)] * 2)}
)
crop = st.fixed_dictionaries({"kind": st.just("crop"), "sides": st.tuples(*[st.tuples(*[st.integers(0, 1)] * 2)] * 2)})
residual = st.fixed_dictionaries({"kind": st.just("residual"), "kernels": st.tuples(*[st.integers(1, 5)] * 2)})
strided = st.fixed_dictionaries(
    {"kind": st.just("strided"), "kernels": st.tuples(*[st.integers(1, 5)] * 3), "stride": st.integers(2, 3)}
)
network = st.lists(st.one_of(windowed, border, crop, residual, strided), min_size=1, max_size=4)


def assemble(rows, size):
    """A net in float64 of random layers; branches side by side, strided and not, as ResNets and Inception have them."""
    form = {"dtype": "float64"}
    x = image = keras.Input((*size, 2), dtype="float64")
    for row in rows:
        if row["kind"] in ("conv", "depthwise"):
            kernel, stride, padding = row["kernel"], row["stride"], row["padding"]
            if row["kind"] == "conv":
                x = layers.Conv2D(3, kernel, stride, padding, **form)(x)
            else:
                x = layers.DepthwiseConv2D(kernel, stride, padding, **form)(x)
        elif row["kind"] in ("average", "max"):
            kind = layers.AveragePooling2D if row["kind"] == "average" else layers.MaxPooling2D
            x = kind(row["kernel"], row["stride"], row["padding"], **form)(x)
        elif row["kind"] == "border":
            x = layers.ZeroPadding2D(row["sides"], **form)(x)
        elif row["kind"] == "crop":
            x = layers.Cropping2D(row["sides"], **form)(x)
        elif row["kind"] == "residual":
            first, second = row["kernels"]
            y = layers.Conv2D(x.shape[-1], first, padding="same", **form)(x)
            x = layers.Add(**form)([layers.Conv2D(x.shape[-1], second, padding="same", **form)(y), x, y])
        else:
            first, second, third = row["kernels"]
            step = {"strides": row["stride"], "padding": "same", **form}
            y = layers.Conv2D(2, first, **step)(layers.Conv2D(2, third, padding="same", **form)(x))
            x = layers.Concatenate(**form)(
                [y, layers.Conv2D(2, second, **step)(x), layers.MaxPooling2D(third, **step)(x)]
            )
    return randomize(keras.Model(image, x))


CROPS = [{"kind": "crop", "sides": ((0, 1), (0, 0))}, {"kind": "crop", "sides": ((1, 1), (0, 0))}]


@pytest.mark.extended
@settings(max_examples=15, deadline=None)
@given(network, st.tuples(st.integers(9, 14), st.integers(9, 14)))
@example(CROPS, (9, 9))
@example([*CROPS, {"kind": "residual", "kernels": (1, 2)}], (9, 9))
@example([*CROPS, {"kind": "residual", "kernels": (3, 5)}], (9, 9))
@example([CROPS[0], *CROPS, {"kind": "conv", "kernel": (3, 1), "stride": 1, "padding": "valid"}], (9, 9))
def test_any_graph_of_windows_and_merges(rows, size):
    try:
        model = assemble(rows, size)
    except ValueError:  # a window larger than its map
        return
    padded = zoo.convolutionalize(model)
    twin = zoo.convolutionalize(model, padding="valid")
    shape = zoo.geometry(twin)
    assume(max(shape.window) <= 60)
    assert shape.padding_free and shape.window == shape.receptive_field
    assert by_hand(padded, twin, congruent(padded, size, twin)) <= 1e-9


def test_one_dimension_and_causal_padding():
    sound = keras.Input((30, 2))
    x = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")(sound)
    x = layers.Add()([layers.Conv1D(4, 3, 2, "same")(x), layers.Conv1D(4, 1, 2, "same")(x)])
    model = randomize(keras.Model(sound, layers.Dense(3)(layers.GlobalMaxPooling1D()(x))))
    twin = zoo.convolutionalize(model, padding="valid")
    report = zoo.verify(model, twin)
    assert report.same_function and report.same_as_crops and report.crops == 36


def test_channels_first():
    form = {"data_format": "channels_first"}
    image = keras.Input((2, 16, 18))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", **form)(image)
    x = layers.Add()([layers.Conv2D(4, 3, 2, "same", **form)(x), layers.Conv2D(4, 1, 2, "same", **form)(x)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten(**form)(x))))
    report = zoo.verify(model, zoo.convolutionalize(model, padding="valid"))
    # oneDNN's convolutions of channels that come first round more; on JAX the error is 0.
    assert report.max_error_inner_cells <= 1e-4 and report.same_as_crops


@pytest.mark.extended
def test_a_converted_model_gives_the_same_twin_and_a_twin_is_one_already(tmp_path):
    model = randomize(zoo.build("nin_digits"))
    image = noise(1, 20, 18, 1)
    fcn = zoo.load(zoo.save(zoo.convolutionalize(model), tmp_path / "fcn.keras"))
    twin = zoo.convolutionalize(fcn, padding="valid")
    wanted = np.asarray(zoo.convolutionalize(model, padding="valid")(image))
    assert relative_error(np.asarray(twin(image)), wanted) <= 1e-6
    again = zoo.load(zoo.save(twin, tmp_path / "twin.keras"))
    assert zoo.geometry(again).window == (14, 14)
    assert relative_error(np.asarray(zoo.convolutionalize(again, padding="valid")(image)), wanted) <= 1e-6
    assert zoo.verify(fcn, again).same_function
    assert relative_error(zoo.scan(again, image[0]).scores, wanted[0]) <= 1e-5


def test_what_has_no_twin_is_refused_by_name():
    image = keras.Input((16, 16, 4))
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D(name="squeeze")(image))
    gated = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Multiply()([image, gate]))))
    up = layers.UpSampling2D(2, name="up")(layers.MaxPooling2D(2)(image))
    upsampled = keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(up)))
    for model, text in ((gated, "'squeeze' pools over the whole image"), (upsampled, "'up': repeats rows")):
        with pytest.raises(InputError, match=text):
            zoo.convolutionalize(model, padding="valid")
    with pytest.raises(InputError, match="pooling='window'"):
        zoo.convolutionalize(upsampled, pooling="global", padding="valid")
    with pytest.raises(InputError, match="padding: received 'same'; accepted: 'keep', 'valid'"):
        zoo.convolutionalize(upsampled, padding="same")


def test_a_wrong_weight_in_a_twin_shows():
    model = randomize(zoo.build("nin_digits"))
    twin = zoo.convolutionalize(model, padding="valid")
    kernel = twin.get_layer("head_class_maps").kernel
    kernel.assign(np.asarray(kernel) * 1.01)
    report = zoo.verify(model, twin)
    assert not report.same_function and "NOT" in report.table()
