import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError


def influence(model, image_size, cell):
    """The smallest rectangle of pixels with a gradient, measured: positive weights, so that nothing cancels.

    Maxima are replaced by averages and activations left out by the caller; computed in float64.
    """
    tf = pytest.importorskip("tensorflow")
    image = tf.Variable(np.ones((1, *image_size, 1)))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(image)[(0, *cell)])
    gradient = np.asarray(tape.gradient(value, image))[0, ..., 0]
    rows, columns = np.nonzero(gradient.any(1))[0], np.nonzero(gradient.any(0))[0]
    if not len(rows):
        return 0, 0, 0, 0
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def positive(model):
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    return model


conv = st.fixed_dictionaries(
    {
        "kind": st.just("conv"),
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.integers(1, 3),
        "dilation": st.integers(1, 2),
        "padding": st.sampled_from(["same", "valid"]),
    }
)
pool = st.fixed_dictionaries(
    {
        "kind": st.just("pool"),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.integers(1, 3),
        "dilation": st.just(1),
        "padding": st.sampled_from(["same", "valid"]),
    }
)
border = st.fixed_dictionaries(
    {"kind": st.just("border"), "sides": st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)}
)
crop = st.fixed_dictionaries(
    {"kind": st.just("crop"), "sides": st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 1))] * 2)}
)
branches = st.fixed_dictionaries({"kind": st.just("branches"), "kernels": st.tuples(*[st.integers(1, 5)] * 2)})
network = st.lists(st.one_of(conv, pool, border, crop, branches), min_size=1, max_size=5)


def assemble(rows, image_size):
    x = image = keras.Input((*image_size, 1), dtype="float64")
    common = {"dtype": "float64"}
    for row in rows:
        if row["kind"] == "conv":
            # Keras has no convolution that is strided and dilated at once.
            dilation = row["dilation"] if row["stride"] == 1 else 1
            x = layers.Conv2D(
                1, row["kernel"], row["stride"], row["padding"], dilation_rate=dilation, use_bias=False, **common
            )(x)
        elif row["kind"] == "pool":
            x = layers.AveragePooling2D(row["kernel"], row["stride"], row["padding"], **common)(x)
        elif row["kind"] == "border":
            x = layers.ZeroPadding2D(row["sides"], **common)(x)
        elif row["kind"] == "crop":
            x = layers.Cropping2D(row["sides"], **common)(x)
        else:
            parts = [layers.Conv2D(1, kernel, padding="same", use_bias=False, **common)(x) for kernel in row["kernels"]]
            x = layers.Add(**common)([*parts, x])
    return positive(keras.Model(image, x))


@settings(max_examples=60, deadline=None)
@given(network, st.tuples(st.integers(18, 26), st.integers(18, 26)), st.data())
def test_cell_field_is_where_the_gradient_is(rows, image_size, data):
    try:
        model = assemble(rows, image_size)
    except ValueError:  # a window larger than its map
        return
    shape = zoo.geometry(model, image_size)
    grid = model.output_shape[1:3]
    assert shape.grid_shape(*image_size) == grid
    cell = tuple(data.draw(st.sampled_from([0, side // 2, side - 1])) for side in grid)
    field = shape.cell_field(*cell)
    assert field == influence(model, image_size, cell)
    # The theoretical field, where the cell's nominal crop is, holds the measured one.
    box = shape.cell_box(*cell)
    if field[0] < field[2] and field[1] < field[3]:
        assert box[0] <= field[0] and box[1] <= field[1] and box[2] >= field[2] and box[3] >= field[3]


def linear(model):
    """The model in float64 with positive weights, averages for maxima and no activations: nothing cancels or dies."""

    def anew(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.InputLayer):
            return type(layer).from_config(config)
        if isinstance(layer, layers.ReLU):
            return layers.Activation("linear", dtype="float64")
        config["dtype"] = "float64"
        if config.get("activation"):
            config["activation"] = "linear"
        kind = layers.AveragePooling2D if isinstance(layer, layers.MaxPooling2D) else type(layer)
        return kind.from_config(config)

    result = keras.models.clone_model(model, clone_function=anew)
    for weight in result.weights:
        is_zero = weight.path.endswith(("beta", "moving_mean", "bias"))
        weight.assign(np.full(weight.shape, 0 if is_zero else 1 / np.prod(weight.shape[:-1])))
    return result


@pytest.mark.extended
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("name", "overrides", "size"),
    [
        ("nin_cifar10_bn", {}, (41, 38)),
        ("nin_digits", {"head": {"kind": "flatten", "hidden": [6]}}, (27, 22)),
        ("inception_cifar10", {}, (64, 57)),
        ("resnet20_cifar10", {}, (85, 83)),
        ("resnet29_cifar10", {}, (57, 54)),
        pytest.param("resnet50_v1_5", {"image_size": (64, 64), "num_classes": 2}, (448, 450), marks=pytest.mark.slow),
        ("squeezenet1_1", {"num_classes": 2}, (229, 250)),
    ],
)
def test_the_field_of_every_family_is_where_the_gradient_is(name, overrides, size, padding):
    config = {**overrides, "padding": padding, "channels": 1, "preprocess": "none"}
    if padding == "valid":
        config["image_size"] = size
    fcn = linear(zoo.convolutionalize(zoo.build(name, **config)))
    shape = zoo.geometry(fcn, size)
    grid = fcn.compute_output_shape((1, *size, 1))[1:3]
    assert shape.grid_shape(*size) == grid
    for cell in {(0, 0), (grid[0] // 2, grid[1] // 2), (grid[0] - 1, grid[1] - 1), (0, grid[1] - 1)}:
        assert shape.cell_field(*cell) == influence(fcn, size, cell)


def test_strided_same_branches_meet_displaced_at_sizes_of_another_remainder():
    """At odd sizes the 3x3 pads a row before, the 1x1 none: inside, the scores of the same pixels are others."""
    image = keras.Input((40, 40, 1))
    x = layers.Conv2D(1, 3, 2, "same")(image)
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(1, 1, 2)(image)]))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    shape = zoo.geometry(zoo.convolutionalize(model))
    assert shape.sizes_that_keep_function == ((2, (0,)), (2, (0,)))
    assert shape.keeps_function(40, 62) and not shape.keeps_function(40, 41)
    assert "height 2k + 0, width 2k + 0" in shape.other_function(41, 41) and shape.other_function(42, 42) == ""
    body = keras.Model(image, x)
    pixels = np.random.default_rng(0).normal(size=(1, 44, 44, 1))
    # The same content at an even shift, in an even and in an odd image: equal inside the even one alone.
    whole = np.asarray(zoo.convolutionalize(body)(pixels))[0, 6:12, 6:12]
    even, odd = (np.asarray(zoo.convolutionalize(body)(pixels[:, 4:end, 4:end]))[0, 4:10, 4:10] for end in (44, 43))
    np.testing.assert_allclose(even, whole, rtol=1e-5)
    assert np.abs(odd - whole).max() > 0.1


def test_symmetric_padding_keeps_the_function_at_every_size():
    for name in ("resnet29_cifar10", "inception_cifar10", "nin_cifar10"):
        shape = zoo.geometry(zoo.build(name))
        assert shape.sizes_that_keep_function == ((1, (0,)), (1, (0,))) and shape.keeps_function(33, 47)


# Araujo et al. 2019 and google-research/receptive_field: of the last feature map; a 7x7 head adds 6 strides.
@pytest.mark.parametrize(
    ("name", "extent", "stride"),
    [pytest.param(*row, marks=pytest.mark.extended) for row in (("resnet50", 483, 32), ("resnet50_v1_5", 427, 32))]
    + [pytest.param(*row, marks=pytest.mark.slow) for row in (("resnet101", 1027, 32), ("resnet152", 1507, 32))],
)
def test_receptive_fields_are_the_published_ones(name, extent, stride):
    shape = zoo.geometry(zoo.build(name))
    assert shape.stride == (stride, stride)
    assert shape.receptive_field == (extent + 6 * stride,) * 2
    assert (shape.window, shape.offset) == ((224, 224), (0, 0))


def test_vgg16_as_published():
    body = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    shape = zoo.geometry(body)
    assert (shape.receptive_field, shape.stride) == ((212, 212), (32, 32))
    assert shape.window == shape.receptive_field
    assert shape.offset == (-90, -90)


def test_a_hand_worked_net():
    """3x3 convolution at stride 2, 2x2 pooling, 3x3 convolution, all valid, on 21 x 17 pixels."""
    image = keras.Input((21, 17, 1))
    x = layers.Conv2D(1, 3, 2)(image)  # 10 x 8, field 3, stride 2
    x = layers.MaxPooling2D(2)(x)  # 5 x 4, field 5, stride 4
    model = keras.Model(image, layers.Conv2D(1, 3)(x))  # 3 x 2, field 13, stride 4
    shape = zoo.geometry(model, (21, 17))
    assert shape.grid_shape(21, 17) == (3, 2)
    assert (shape.receptive_field, shape.stride, shape.offset) == ((13, 13), (4, 4), (0, 0))
    assert shape.cell_box(2, 1) == (8, 4, 21, 17)
    assert shape.cell_field(2, 1) == (8, 4, 21, 17)
    assert shape.nearest_cell(8, 4, 21, 17) == (2, 1)
    assert shape.nearest_cell(9, 5, 22, 18) == (2, 1)
    assert shape.nearest_cell(11, 7, 24, 20) == (3, 2)
    assert shape.padding_free and shape.bounded


@pytest.mark.parametrize(
    ("image_size", "offset", "start"), [((8, 8), (0, 0), 0), ((9, 9), (-1, -1), -1)], ids=["even", "odd"]
)
def test_the_offset_of_a_strided_same_layer_depends_on_the_size(image_size, offset, start):
    """TensorFlow pads a 3x3 window at stride 2 by one row before an odd size, by none before an even one."""
    image = keras.Input((None, None, 1))
    model = keras.Model(image, layers.Conv2D(1, 3, 2, "same")(image))
    shape = zoo.geometry(model, image_size)
    assert shape.offset == offset
    assert shape.cell_box(0, 0)[0] == start
    with pytest.raises(InputError, match="give image_size"):
        zoo.geometry(model).cell_box(0, 0)


def test_a_crop_lies_where_its_single_cell_would_be():
    """Trained at an even size, slid over an odd one: the grid is one pixel up and left of where it was."""
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(1, 3, 2, "same")(image)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    converted = zoo.convolutionalize(model)
    assert zoo.geometry(converted, (16, 16)).cell_box(0, 0) == (0, 0, 8, 8)
    assert zoo.geometry(converted, (17, 17)).cell_box(0, 0) == (-1, -1, 7, 7)


def test_a_slightly_larger_image_gives_no_larger_grid():
    """Window w, stride s, u last rows unused at the training size: w to w+s-u-1 give one cell, w+s-u two."""
    for size, unused in ((21, 0), (22, 1), (23, 2), (24, 3)):
        image = keras.Input((size, size, 1))
        x = layers.MaxPooling2D(4)(layers.Conv2D(1, 2)(image))  # stride 4
        assert (size - 1) % 4 == unused
        shape = zoo.geometry(zoo.convolutionalize(keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))))
        assert shape.window == (size, size)
        grids = [shape.grid_shape(side, side)[0] for side in range(size, size + 5)]
        assert grids == [1] * (4 - unused) + [2] * (1 + unused)
        assert shape.size_for(1, 1) == (size - unused,) * 2
        assert shape.size_for(2, 3) == (size + 4 - unused, size + 8 - unused)


def rows_by_keras(model, side):
    """Rows that Keras's own arithmetic of shapes gives, layer by layer; zero where a layer does not fit."""
    shape = (1, side, 100_000, 1)  # columns for any network
    for layer in model.layers[1:]:
        if not isinstance(layer, layers.Add):  # of branches that keep their size
            try:
                shape = layer.compute_output_shape(shape)
            except ValueError:
                return 0
            if shape[1] < 1:
                return 0
    return shape[1]


@settings(max_examples=30, deadline=None)
@given(network, st.integers(1, 5))
def test_the_least_size_for_a_grid_is_the_one_found_by_trying_all(rows, count):
    model = assemble(rows, (None, None))
    sizes = (side for side in range(1, 2000) if rows_by_keras(model, side) >= count)
    assert zoo.geometry(model).size_for(count, 1)[0] == next(sizes)


def test_the_least_size_for_a_grid_fits_merged_maps():
    image = keras.Input((None, None, 1))
    deep = layers.UpSampling2D(4)(layers.MaxPooling2D(4)(image))
    shape = zoo.geometry(keras.Model(image, layers.Concatenate()([deep, image])))
    assert shape.size_for(1, 9) == (4, 12)
    with pytest.raises(InputError, match="no image gives a grid of 33554432 x 1 cells"):
        shape.size_for(1 << 25, 1)


def test_squeeze_and_excitation_makes_the_field_infinite():
    image = keras.Input((16, 16, 4))
    x = layers.Conv2D(4, 3, padding="same")(image)
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    shape = zoo.geometry(model, (20, 24))
    assert shape.receptive_field == (math.inf, math.inf) and not shape.bounded
    assert shape.cell_field(0, 0) == (0, 0, 20, 24)
    assert shape.to_dict()["receptive_field"] == [None, None]
    assert shape.stride == (1, 1)


def test_one_dimension():
    """The phone recogniser's front: 40 frames, convolution to 33, pooling 6 at shift 2 to 14."""
    sound = keras.Input((40, 23))
    x = layers.MaxPooling1D(6, 2)(layers.Conv1D(8, 8)(sound))
    shape = zoo.geometry(keras.Model(sound, x), (40,))
    assert shape.grid_shape(40) == (14,)
    assert (shape.receptive_field, shape.stride) == ((13,), (2,))
    assert shape.cell_box(13) == (26, 39) and shape.cell_field(13) == (26, 39)


def test_a_converted_model_keeps_its_window_and_a_map_of_ones_own_has_its_field_for_one():
    converted = zoo.convolutionalize(zoo.build("nin_mnist_bn"))
    assert zoo.geometry(converted).window == (28, 28)
    image = keras.Input((None, None, 3))
    assert zoo.geometry(keras.Model(image, keras.layers.Conv2D(2, 5)(image))).window == (5, 5)


@pytest.mark.parametrize("size", [(10,), (10, 10, 3)])
def test_wrong_numbers_of_axes_are_refused(size):
    model = zoo.build("nin_digits")
    with pytest.raises(InputError, match="2 numbers"):
        zoo.geometry(model, size)
    with pytest.raises(InputError, match="2 numbers"):
        zoo.geometry(model).grid_shape(*size)


def test_cells_outside_the_grid_and_missing_sizes_are_refused():
    model = zoo.build("nin_digits")
    with pytest.raises(InputError, match="needs image_size"):
        zoo.geometry(model).cell_field(0, 0)
    with pytest.raises(InputError, match="outside the grid"):
        zoo.geometry(model, (8, 8)).cell_field(1, 0)


def test_a_layer_of_unknown_reach_is_named():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, layers.Permute((2, 1, 3), name="turned")(image))
    with pytest.raises(InputError, match="'turned' .*moves numbers"):
        zoo.geometry(model)


@pytest.mark.parametrize("size", [31, (31, 2.5), (0, 8), "ab"])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(InputError, match="image_size: received .*; accepted: 2 numbers above 0"):
        zoo.geometry(zoo.build("nin_digits"), size)


def test_which_images_every_layer_fits():
    """A 3x3 and a 2x2 window at stride 2, then two padded rows: a grid of its own on nothing."""
    image = keras.Input((None, None, 1))
    x = layers.ZeroPadding2D(1)(layers.MaxPooling2D(2)(layers.Conv2D(1, 3)(image)))
    shape = zoo.geometry(keras.Model(image, x))
    assert shape.fits(4, 9) and not shape.fits(3, 9) and not shape.fits(9, 2)
    assert shape.grid_shape(3, 4) == (2, 3)


def test_what_is_not_known_is_refused_where_it_is_asked_for():
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, strides=2, padding="same")(image)
    local = zoo.geometry(keras.Model(image, x))
    assert local.window_sides == local.field_sides == (3, 3)
    for name in ("known_size", "known_offset"):
        with pytest.raises(InputError, match="image_size="):
            getattr(local, name)
    known = zoo.geometry(keras.Model(image, x), (9, 12))
    assert known.known_size == (9, 12) and known.known_offset == known.offset == (-1, 0)
    whole = zoo.geometry(keras.Model(image, layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])))
    for name in ("window_sides", "field_sides"):
        with pytest.raises(InputError, match="a cell looks at the whole image here"):
            getattr(whole, name)
