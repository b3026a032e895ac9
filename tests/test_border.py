"""`border="full"`: windows all around every pixel, against arrays that NumPy has padded and plain scans of those."""

import json

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize
from keras import layers

import zoo
from zoo.card import attach, card
from zoo.errors import InputError
from zoo.network.network import Network
from zoo.scanning.grid import Grid
from zoo.scanning.options import Options
from zoo.scores import relative_error

EXTENDED = pytest.mark.extended


def small(window=(12, 9), stride=(3, 3), channels=2, padding="valid"):
    """A converted classifier in float64, whose windows are multiples of its stride."""
    common = {"dtype": "float64"}
    image = keras.Input((*window, channels), **common)
    x = layers.Conv2D(4, 3, stride, padding=padding, activation="tanh", **common)(image)
    model = randomize(keras.Model(image, layers.Dense(3, **common)(layers.Flatten(**common)(x))))
    return zoo.convolutionalize(model)


def with_card(model, **about):
    return attach(model, card(model).model_copy(update=about))


def added_by_hand(size, window, stride):
    """Pixels before and after each axis: to a multiple of the stride at the end, and window - stride on each side."""
    return [(of - step, -side % step + of - step) for side, of, step in zip(size, window, stride, strict=True)]


def padded(pixels, added, fill="reflect"):
    if fill == "reflect":
        return np.pad(pixels, [*added, (0, 0)], "reflect")
    channels = [
        np.pad(pixels[..., channel], added, constant_values=fill[channel % len(fill)])
        for channel in range(pixels.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def check(model, pixels, added, fill="reflect", error=1e-9, **options):
    """The scan with the border is the plain scan of the padded array, and its places are those there, moved."""
    found, plain = zoo.scan(model, pixels, border="full", **options), zoo.scan(model, padded(pixels, added, fill))
    assert found.scores.shape == plain.scores.shape
    assert relative_error(found.scores, plain.scores) <= error
    assert found.border == "full" and found.image_size == pixels.shape[:2] and found.uncovered == (0, 0, 0, 0)
    for axis in range(2):
        np.testing.assert_array_equal(found.starts[axis], plain.starts[axis] - added[axis][0])
        np.testing.assert_array_equal(found.centres[axis], found.starts[axis] + found.window[axis] / 2)
    rows, columns = found.scores.shape[:2]
    top, left = (plain.cell_box(rows - 1, columns - 1)[axis] - added[axis][0] for axis in range(2))
    assert found.cell_box(rows - 1, columns - 1)[:2] == (top, left)
    return found


@pytest.mark.parametrize("fill", [None, (7.0,), (3.5, -1.0)])
@pytest.mark.parametrize("size", [(12, 9), (31, 26), (7, 2), (1, 3)])
def test_it_is_the_plain_scan_of_the_padded_array(size, fill):
    """At sizes of any remainder, and at ones so small that the image is mirrored several times."""
    model = with_card(small(), fill=fill)
    pixels = np.random.default_rng(0).normal(size=(*size, 2))
    added = added_by_hand(size, (12, 9), (3, 3))
    for tile in (10, 100):
        check(model, pixels, added, fill or "reflect", tile=tile)


@pytest.mark.parametrize(
    "name", ["nin_mnist_valid", *(pytest.param(each, marks=EXTENDED) for each in ("nin_mnist_bn", "resnet20_cifar10"))]
)
def test_so_it_is_of_nets_of_the_catalogue(name):
    fcn = zoo.convolutionalize(randomize(zoo.build(name)))
    geometry = zoo.geometry(fcn, image_size=(64, 64))
    for size in ((45, 51), (52, 38)):
        added = added_by_hand(size, geometry.window, geometry.stride)
        check(fcn, noise(*size, fcn.input_shape[-1]), added, error=1e-5, tile=40)


@pytest.mark.parametrize("stride", [1, (3, 1)])
def test_of_a_finer_grid_it_is_that_strides(stride):
    model = small()
    pixels = np.random.default_rng(0).normal(size=(17, 13, 2))
    added = added_by_hand((17, 13), (12, 9), np.broadcast_to(stride, 2))
    found = zoo.scan(model, pixels, border="full", stride=stride, tile=9)
    plain = zoo.scan(model, padded(pixels, added), stride=stride)
    assert relative_error(found.scores, plain.scores) <= 1e-9
    np.testing.assert_array_equal(found.starts[1], plain.starts[1] - added[1][0])


@pytest.mark.parametrize("size", [(31, 26), (5, 40)])
@pytest.mark.parametrize(("window", "stride"), [((12, 9), None), ((9, 6), 1)])
def test_every_pixel_lies_in_equally_many_windows(size, window, stride):
    model = small(window)
    step = 3 if stride is None else stride
    found = zoo.scan(model, np.zeros((*size, 2)), border="full", stride=stride)
    times = np.zeros(size, int)
    for row in range(found.scores.shape[0]):
        for column in range(found.scores.shape[1]):
            top, left, bottom, right = found.cell_box(row, column)
            times[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] += 1
    assert (times == window[0] // step * (window[1] // step)).all()


def test_whole_numbers_are_padded_by_what_training_added():
    """A fill that is no whole number stays what it is beside pixels of 8 bits."""
    fcn = with_card(zoo.convolutionalize(randomize(zoo.build("nin_mnist_valid"))), fill=(33.3,))
    pixels = noise(40, 41, 1).astype(np.uint8)
    geometry = zoo.geometry(fcn)
    added = added_by_hand((40, 41), geometry.window, geometry.stride)
    check(fcn, pixels.astype(np.float32), added, (33.3,), error=1e-6)
    found, floats = (zoo.scan(fcn, each, border="full") for each in (pixels, pixels.astype(np.float32)))
    np.testing.assert_array_equal(found.scores, floats.scores)


def test_at_scales_each_has_its_own():
    """At the scale 1 alone the merged map is the map itself; with others all cells of the image are scanned."""
    model = small()
    pixels = np.random.default_rng(0).normal(size=(24, 23, 2)).astype(np.float32)
    alone = zoo.scan(model, pixels, border="full")
    merged = zoo.scan(model, pixels, border="full", scales=[1], merge="average-logits")
    assert relative_error(merged.scores, alone.scores) <= 1e-9
    several = zoo.scan(model, pixels, border="full", scales=[0.5, 1, 1.5])
    assert several.scores.shape == alone.scores.shape and several.scanned.all()


def test_a_grid_that_begins_inside_its_image_begins_before_the_given_one():
    x = image = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, 2)(layers.Cropping2D(((2, 1), (1, 0)))(x))
    model = randomize(keras.Model(image, x))
    found = zoo.scan(model, noise(20, 21, 1), border="full")
    assert found.cell_box(0, 0)[:2] == (-1, -1) and found.uncovered == (0, 0, 0, 0)


def test_what_has_no_window_is_refused():
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(3, 3)(image)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    with pytest.raises(InputError, match="border: received 'full' for a model whose cells have no window; accepted"):
        zoo.scan(randomize(keras.Model(image, x)), noise(12, 15, 1), border="full")
    with pytest.raises(InputError, match="border: received 'wide'; accepted: none, reflect, shift, full"):
        zoo.scan(small(), noise(20, 20, 2), border="wide")
    with pytest.raises(InputError, match=r"border: .*fill \(1.0, 2.0, 3.0\); accepted: 2 channels"):
        zoo.scan(with_card(small(), fill=(1.0, 2.0, 3.0)), noise(20, 20, 2), border="full")


def test_the_command_takes_it_and_says_so(capsys, model_file, tmp_path):
    np.save(tmp_path / "a.npy", noise(30, 33, 1).astype(np.uint8))
    out = tmp_path / "out"
    code, text, err = command(capsys, "scan", model_file, tmp_path / "a.npy", "-o", out, "--border", "full")
    assert code == 0 and "pixels that no window covers" not in text, err
    record = json.loads((out / "geometry.json").read_text())
    window, stride = record["window"][0], record["stride"][0]
    assert record["border"] == "full" and record["offset"] == [stride - window] * 2
    assert record["uncovered"] == {"top": 0, "left": 0, "bottom": 0, "right": 0}


@pytest.mark.parametrize("fill", ["reflect", (2.0,)])
@pytest.mark.parametrize("cell", [(0, 0), (4, 3)])
def test_gradients_of_mirrored_pixels_add_up_and_those_of_others_vanish(fill, cell):
    """Against the gradient of the padded array, folded by hand."""
    from zoo.large_images import influence

    model = with_card(small(), fill=fill)
    pixels = np.random.default_rng(0).normal(size=(10, 11, 2))
    added = added_by_hand((10, 11), (12, 9), (3, 3))
    found = influence(model, pixels, cell, 1, Options(border="full"))
    whole = padded(pixels, added, fill)
    signed = _gradient(model, whole, cell, 1)
    sources = np.pad(np.arange(110).reshape(10, 11), added, "reflect")
    if fill != "reflect":
        sources = np.pad(np.arange(110).reshape(10, 11), added, constant_values=-1)
    wanted = np.zeros((110, 2))
    for source, gradient in zip(sources.ravel(), signed.reshape(-1, 2), strict=True):
        if source >= 0:
            wanted[source] += gradient
    wanted = np.abs(wanted).sum(-1).reshape(10, 11)
    np.testing.assert_allclose(found.over((0, 0, 10, 11)), wanted, rtol=1e-9, atol=1e-12)
    starts = zoo.scan(model, pixels, border="full").starts
    assert found.window[:2] == tuple(int(each[index]) for each, index in zip(starts, cell, strict=True))
    top, left, bottom, right = found.field
    assert wanted[top:bottom, left:right].sum() == pytest.approx(wanted.sum()) and found.table()


def _gradient(fcn, pixels, cell, index):
    import tensorflow as tf

    images = tf.constant(pixels[None])
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = fcn(images)[0, cell[0], cell[1], index]
    return tape.gradient(score, images)[0].numpy()


def test_a_cell_that_sees_no_pixel_of_the_image_has_no_influence():
    """A window of 12 with a kernel in its first corner alone: the last cells look beyond the image."""
    common = {"dtype": "float64"}
    image = keras.Input((12, 12, 1), **common)
    x = layers.Cropping2D(((0, 9), (0, 9)), **common)(layers.Conv2D(2, 1, **common)(image))
    model = with_card(
        randomize(keras.Model(image, layers.Dense(2, **common)(layers.Flatten(**common)(x)))), fill=(1.0,)
    )
    grid = Grid.of(Network.of(zoo.convolutionalize(model)), (6, 6), "full")
    from zoo.large_images import influence

    found = influence(model, np.ones((6, 6, 1)), (0, 0), 0, Options(border="full"))
    assert grid.shape == (17, 17) and not found.values.any() and "no pixel has any influence" in found.table()
