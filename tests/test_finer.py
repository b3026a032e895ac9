from itertools import product

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.card import card
from zoo.engines.factory import make_engine
from zoo.errors import InputError
from zoo.network.finer import finer_geometry
from zoo.network.network import Network
from zoo.scanning.finer import FinerRunner
from zoo.scanning.grid import Grid
from zoo.scores import relative_error


def runner(model, stride):
    """A model, converted first where it is a classifier, on a finer grid."""
    return FinerRunner(make_engine(Network.of(zoo.convolutionalize(model))), stride)


sides = st.integers(1, 3)
conv = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["Conv2D", "DepthwiseConv2D", "SeparableConv2D"]),
        "kernel": st.tuples(sides, sides),
        "stride": st.tuples(st.integers(1, 4), st.integers(1, 3)),
        "dilation": st.integers(1, 2),
    }
)
pool = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["MaxPooling2D", "AveragePooling2D"]),
        "kernel": st.tuples(sides, sides),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 4)),
    }
)
branches = st.fixed_dictionaries({"kind": st.just("branches"), "side": st.sampled_from([1, 3]), "stride": sides})
crop = st.fixed_dictionaries({"kind": st.just("crop"), "before": st.integers(0, 1), "after": st.integers(0, 2)})
pointwise = st.fixed_dictionaries({"kind": st.just("pointwise")})


def apply_row(x, row):
    """A padding-free layer or block in float64."""
    common = {"dtype": "float64"}
    match row["kind"]:
        case "Conv2D":
            dilation = row["dilation"] if max(row["stride"]) == 1 else 1
            return layers.Conv2D(3, row["kernel"], row["stride"], dilation_rate=dilation, activation="relu", **common)(
                x
            )
        case "DepthwiseConv2D":
            return layers.DepthwiseConv2D(row["kernel"], row["stride"][0], **common)(x)
        case "SeparableConv2D":
            return layers.SeparableConv2D(2, row["kernel"], row["stride"][1], **common)(x)
        case "branches":
            strides, side = row["stride"], row["side"]
            wide = layers.Conv2D(2, side, strides, **common)(x)
            narrow = layers.Cropping2D(side // 2, **common)(x)
            narrow = layers.MaxPooling2D(1, strides, **common)(layers.Conv2D(2, 1, **common)(narrow))
            return layers.Concatenate(**common)([layers.Add(**common)([wide, narrow]), narrow])
        case "crop":
            return layers.Cropping2D(((row["before"], row["after"]), (row["after"], row["before"])), **common)(x)
        case "pointwise":
            x = layers.BatchNormalization(**common)(x)
            return layers.PReLU(shared_axes=[1, 2], **common)(x)
        case kind:
            return getattr(layers, kind)(row["kernel"], row["stride"], **common)(x)


def classifier(rows, size):
    """A padding-free classifier in float64, its training size the largest below `size` that its merges take."""
    x = image = keras.Input((*size, 2), dtype="float64")
    for row in rows:
        x = apply_row(x, row)
    x = layers.Dense(3, dtype="float64")(layers.Flatten(dtype="float64")(x))
    return randomize(keras.Model(image, x))


def divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def by_crops(model, image, window, stride):
    """The oracle: the classifier itself on the crop at every multiple of the stride."""
    tops, lefts = (range(0, side - of + 1, step) for side, of, step in zip(image.shape, window, stride, strict=False))
    crops = [image[top : top + window[0], left : left + window[1]] for top, left in product(tops, lefts)]
    scores = np.concatenate([np.asarray(model(np.stack(crops[at : at + 512]))) for at in range(0, len(crops), 512)])
    return scores.reshape(len(tops), len(lefts), -1)


def by_shifts(fcn, image, stride, total):
    """The other oracle: the converted model on every shift of the image, interleaved."""
    cells = {}
    for top, left in product(range(0, total[0], stride[0]), range(0, total[1], stride[1])):
        scores = np.asarray(fcn(image[None, top:, left:]))[0]
        for row, column in np.ndindex(scores.shape[:2]):
            cells[(top + row * total[0]) // stride[0], (left + column * total[1]) // stride[1]] = scores[row, column]
    rows, columns = (max(along) + 1 for along in zip(*cells, strict=True))
    return np.array([[cells[row, column] for column in range(columns)] for row in range(rows)])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(conv, conv, pool, branches, crop, pointwise), min_size=1, max_size=4), st.data())
def test_every_cell_is_the_answer_to_its_crop(rows, data):
    size = (data.draw(st.integers(9, 24)), data.draw(st.integers(9, 24)))
    try:
        model = classifier(rows, size)
    except (ValueError, InputError):  # a window larger than its map
        return
    fcn = zoo.convolutionalize(model)
    total = zoo.geometry(fcn).stride
    stride = tuple(data.draw(st.sampled_from(divisors(each))) for each in total)
    height, width = (side + data.draw(st.integers(0, 9)) for side in size)
    image = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(height, width, 2))
    run = runner(fcn, stride)
    placed = finer_geometry(Network.of(fcn), stride, (height, width))
    wanted = by_crops(model, image, size, stride)
    grid = placed.grid_shape(height, width)
    assert grid == wanted.shape[:2] and placed.stride == stride
    given_ = run(image[None])[0]
    assert given_.dtype == np.float64
    assert relative_error(given_[: grid[0], : grid[1]], wanted) <= 1e-9
    last = (grid[0] - 1, grid[1] - 1)
    box = placed.cell_box(*last)
    assert box[:2] == (last[0] * stride[0], last[1] * stride[1]) and box[2] - box[0] == size[0]
    field = placed.cell_field(*last)
    assert box[0] <= field[0] and box[1] <= field[1] and field[2] <= box[2] and field[3] <= box[3]


@pytest.mark.parametrize(("strides", "wanted"), [((2, 2, 2), 2), ((4, 2), 2), ((3, 2), 2), ((2, 3), 3), ((6,), 2)])
def test_each_divisor_of_strides_that_do_not_divide_each_other(strides, wanted):
    rows = [{"kind": "Conv2D", "kernel": (3, 2), "stride": (each, each), "dilation": 1} for each in strides]
    size = (29, 31)
    model = classifier(rows, size)
    image = np.random.default_rng(0).normal(size=(43, 40, 2))
    scores = runner(zoo.convolutionalize(model), wanted)(image[None])[0]
    oracle = by_crops(model, image, size, (wanted, wanted))
    assert relative_error(scores[: oracle.shape[0], : oracle.shape[1]], oracle) <= 1e-9


MODULE = {"name": "a", "conv1": 4, "reduce3": 3, "conv3": 4, "reduce5": 2, "conv5": 3, "pool_proj": 2}
MODULES = [{**MODULE, "pool": "max 3x3/2"}, {**MODULE, "name": "b"}]
STAGES = [{"blocks": 2, "width": 4, "filters": 16}, {"blocks": 1, "width": 8, "filters": 32, "stride": 2}]
NETS = {
    "nin": lambda: zoo.build("nin_mnist_valid"),
    "nin flatten": lambda: zoo.build("nin_mnist_bn", padding="valid", head={"kind": "flatten", "hidden": [8]}),
    "inception": lambda: zoo.build(
        "inception_cifar10", padding="valid", image_size=(40, 40), channels=1, preprocess={}, modules=MODULES
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_zoos_own_nets(name):
    model = randomize(NETS[name]())
    fcn = zoo.convolutionalize(model)
    window, total = card(fcn).window, zoo.geometry(fcn).stride
    image = noise(window[0] + 9, window[1] + 6, 1)
    for stride in divisors(total[0]):
        wanted = by_crops(model, image, window, (stride, stride))
        scores = runner(fcn, stride)(image[None])[0]
        assert relative_error(scores[: wanted.shape[0], : wanted.shape[1]], wanted) <= 1e-5


def padded(kind):
    if kind == "resnet":
        return zoo.build("resnet29_cifar10", channels=1, preprocess={}, stages=STAGES)
    x = image = keras.Input((17, 17, 1))
    x = layers.MaxPooling2D(2)(layers.Conv2D(4, 3, padding="same", activation="relu")(x))
    x = layers.Conv2D(4, 3, 2, padding="same" if kind == "strided same" else "valid")(x)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.parametrize("kind", ["resnet", "same"])
def test_padded_nets_equal_shift_and_stitch(kind):
    fcn = zoo.convolutionalize(randomize(padded(kind)))
    total = zoo.geometry(fcn).stride
    window = card(fcn).window
    image = noise(window[0] + 8, window[1] + 5, 1)
    for stride in divisors(total[0]):
        run = runner(fcn, stride)
        wanted = by_shifts(fcn, image, (stride, stride), total)
        assert run.geometry.grid_shape(*image.shape[:2]) == wanted.shape[:2]
        assert relative_error(run(image[None])[0], wanted) <= 1e-6


def test_strided_same_layers_align_as_in_training():
    """The window is odd, so each shift is cut to a size that is 1 modulo the stride of 4."""
    model = randomize(padded("strided same"))
    fcn = zoo.convolutionalize(model)
    assert zoo.geometry(fcn).stride == (4, 4)
    image = noise(28, 30, 1)
    run = runner(fcn, 2)
    scores = run(image[None])[0]
    # From 0 25 pixels, from 2 25 again; across from 0 29, from 2 25: 1 modulo 4.
    np.testing.assert_allclose(scores[::2, ::2], np.asarray(fcn(image[None, :25, :29]))[0], rtol=1e-5)
    np.testing.assert_allclose(scores[1::2, 1::2], np.asarray(fcn(image[None, 2:27, 2:27]))[0], rtol=1e-5)
    assert finer_geometry(Network.of(fcn), 2, (28, 30)).cell_box(1, 2) == (2, 4, 19, 21)


@pytest.fixture(scope="module")
def converted():
    made = {}

    def get(name):
        if name not in made:
            made[name] = zoo.convolutionalize(randomize(NETS[name]() if name in NETS else padded(name)))
        return made[name]

    return get


@pytest.mark.extended
@pytest.mark.parametrize("name", [*NETS, "resnet", "same", "strided same"])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_tiles_of_a_finer_grid_give_the_same_scores(converted, name, data):
    fcn = converted(name)
    stride = data.draw(st.sampled_from(divisors(zoo.geometry(fcn).stride[0])[:-1]))
    finer = finer_geometry(Network.of(fcn), stride)
    reach = max(*map(int, finer.receptive_field), *finer.window)
    tile = data.draw(st.integers(8, 20))
    size = tuple(data.draw(st.integers(tile + reach, tile + reach + 12)) for _ in range(2))
    image = noise(*size, 1)
    run, placed = runner(fcn, stride), finer_geometry(Network.of(fcn), stride, size)
    grid = placed.grid_shape(*size)
    whole = run(image[None])[0][: grid[0], : grid[1]]
    parts = list(Grid.of(Network.of(fcn), size, stride=stride).tiles(tile))
    assert len(parts) > 1
    given_ = np.full_like(whole, np.nan)
    for part in parts:
        given_[part.cells] = run(image[part.pixels][None])[0][part.inner]
    assert relative_error(given_, whole) <= 1e-5


def test_fields_hold_every_pixel_that_counts():
    """A pixel changes exactly the cells whose field it is in; padded, at the border and inside."""
    image = keras.Input((17, 17, 1))
    x = layers.AveragePooling2D(2)(layers.Conv2D(1, 3, padding="same", use_bias=False)(image))
    x = layers.AveragePooling2D(2)(x)
    model = keras.Model(image, layers.Dense(1, use_bias=False)(layers.Flatten()(x)))
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    fcn = zoo.convolutionalize(model)
    run, placed = runner(fcn, 2), finer_geometry(Network.of(fcn), 2, (25, 22))
    for row, column in ((0, 0), (1, 5), (2, 2), (3, 3), (12, 21), (24, 20)):
        dot = np.zeros((1, 25, 22, 1), np.float32)
        dot[0, row, column] = 1
        scores = run(dot)[0, ..., 0]
        for cell in np.ndindex(scores.shape):
            top, left, bottom, right = placed.cell_field(*cell)
            assert (scores[cell] > 0) == (top <= row < bottom and left <= column < right), (row, column, cell)


def test_a_batch_is_each_image_by_itself():
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_mnist_valid")))
    images = noise(3, 33, 31, 1)
    run = runner(fcn, 2)
    together = run(images)
    for index in range(3):
        np.testing.assert_allclose(together[index], run(images[index : index + 1])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [3, 0, -1, 8, 2.0, True, "2", (2, 3), (1, 2, 4), None])
def test_what_is_no_divisor_is_refused(stride):
    with pytest.raises(InputError, match="stride: received .*; accepted: a divisor .* 4 x 4: 1, 2, 4, or one for rows"):
        runner(zoo.build("nin_mnist_valid"), stride)


def test_global_blocks_enlarged_maps_and_small_images_are_refused():
    image = keras.Input((12, 12, 2))
    x = layers.Conv2D(2, 3, 2)(image)
    gated = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    with pytest.raises(InputError, match="pools over the whole image"):
        runner(keras.Model(image, layers.Dense(2)(layers.Flatten()(gated))), 1)
    open_image = keras.Input((None, None, 1))
    x = layers.UpSampling2D(2)(layers.MaxPooling2D(4)(open_image))
    with pytest.raises(InputError, match="enlarges its maps"):
        runner(keras.Model(open_image, x), 1)
    for name, size in (("nin_mnist_valid", (20, 40)), ("nin_mnist_bn", (40, 6))):
        fcn = zoo.convolutionalize(zoo.build(name))
        assert not finer_geometry(Network.of(fcn), 2).fits(*size)
        with pytest.raises(InputError, match=f"image: received {size[0]} x {size[1]} pixels; .*window of 28 x 28"):
            runner(fcn, 2)(noise(1, *size, 1))
