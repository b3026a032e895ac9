import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers

import zoo
from zoo import plots
from zoo.errors import InputError
from zoo.large_images import influence
from zoo.scanning.influence import Influence


def tiny(padding="same"):
    """Two channels, two classes, a stride and a pooling, in float64; no activation that could be dead."""
    common = {"dtype": "float64"}
    x = image = keras.Input((None, None, 2), dtype="float64")
    x = layers.Conv2D(3, 3, padding=padding, **common)(x)
    x = layers.AveragePooling2D(2, 2, padding, **common)(x)
    return keras.Model(image, layers.Conv2D(2, (2, 3), padding=padding, **common)(x))


def strided_same():
    """TensorFlow's own padding, which depends on the size, and a shortcut."""
    x = image = keras.Input((17, 17, 1))
    for filters in (4, 6):
        shortcut = layers.Conv2D(filters, 1, 2, "same")(x)
        x = layers.Add()([layers.Conv2D(filters, 3, 2, "same", activation="relu")(x), shortcut])
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


def gated():
    image = keras.Input((12, 12, 1))
    x = layers.Rescaling(1 / 255)(layers.Conv2D(4, 3, padding="same")(image))
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def of_the_whole_image(fcn, image, cell, class_index):
    """The influence of every pixel, without any cropping; the model's last layer must have no activation."""
    tf = pytest.importorskip("tensorflow")

    @tf.function
    def gradient(pixels):
        return tf.gradients(fcn(pixels)[(0, *cell, class_index)], pixels)[0]

    return np.abs(gradient(tf.constant(image[None])).numpy()[0]).sum(-1)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_influence_is_what_moving_a_pixel_does_to_the_score(padding):
    model = randomize(tiny(padding))
    image = np.random.default_rng(1).normal(size=(11, 12, 2))
    moves = 0.5 * np.eye(image.size).reshape(-1, *image.shape)
    up, down = (np.asarray(model(image + sign * moves)) for sign in (1, -1))
    for cell in ((0, 0), (2, 2)):
        found = influence(model, image, cell, class_index=1)
        wanted = abs(up - down)[:, *cell, 1].reshape(image.shape).sum(-1)
        np.testing.assert_allclose(found.over((0, 0, 11, 12)), wanted, atol=1e-12)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_influence_is_zero_outside_the_exact_field_and_not_on_its_border(padding):
    model = tiny(padding)
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    image = noise(26, 30, 2)
    rows, columns = zoo.geometry(model, (26, 30)).grid_shape(26, 30)
    for cell in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2), (0, columns - 1)):
        found = influence(model, image, cell)
        top, left, bottom, right = found.field
        everywhere = found.over((0, 0, 26, 30))
        inside = everywhere[top:bottom, left:right]
        assert everywhere.sum() == inside.sum() > 0
        assert all(line.any() for line in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


MODELS = {
    "nin same": lambda: zoo.build("nin_digits"),
    "nin valid": lambda: zoo.build("nin_digits", padding="valid"),
    "strided same": strided_same,
    "squeeze and excitation": gated,
}


@pytest.mark.extended
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(60, 71), (61, 70)])
def test_running_a_part_of_the_image_gives_what_the_whole_gives(name, size):
    fcn = zoo.convolutionalize(randomize(MODELS[name]()))
    bare = fcn
    if name == "strided same":
        bare = keras.models.clone_model(fcn, clone_function=without_softmax)
        bare.set_weights(fcn.get_weights())
    image = noise(*size, 1)
    rows, columns = zoo.geometry(fcn, size).grid_shape(*size)
    for cell in ((0, 0), (rows // 2, columns // 2), (rows - 1, 1), (rows - 1, columns - 1)):
        found = influence(fcn, image, cell, class_index=2)
        wanted = of_the_whole_image(bare, image, cell, 2)
        np.testing.assert_allclose(found.over((0, 0, *size)), wanted, rtol=1e-4, atol=1e-5 * wanted.max())
        np.testing.assert_allclose(found.scores, zoo.scan(fcn, image).scores[cell], rtol=1e-4, atol=1e-5)
        is_whole = found.part == (0, 0, *size)
        assert is_whole == (name == "squeeze and excitation") == (found.receptive_field is None)


def without_softmax(layer):
    config = layer.get_config()
    return type(layer).from_config({**config, "activation": "linear"} if layer.name.startswith("dense") else config)


def test_the_winner_is_taken_where_no_class_is_given_and_a_certain_softmax_still_has_a_gradient():
    model = strided_same()
    randomize(model)
    model.layers[-1].bias.assign([0, 1e4, 0])
    found = influence(model, noise(40, 40), (2, 1))
    assert found.class_index == 1 and found.probability == 1 and found.scores[1] == 1
    assert found.values.max() > 0 and "score" not in found.sentence()


def test_a_cell_of_a_huge_image_reads_its_own_pixels_alone():
    model = randomize(zoo.build("nin_digits"))
    image = np.broadcast_to(noise(1, 20_000), (20_000, 20_000))
    found = influence(model, image[..., None], (9_000, 50))
    top, left, bottom, right = found.part
    assert max(bottom - top, right - left) <= 14 + 2 * 2
    assert found.field == (17_997, 97, 18_011, 111)


def made(values, part, window=5):
    """An influence by hand, of cell (0, 0) with a window that begins at pixel 0."""
    height, width = np.broadcast_to(window, 2).tolist()
    box = (0, 0, height, width)
    return Influence(
        (0, 0), 0, np.asarray(values, float), part, np.ones(1), box, box, box, (9, 9), (1, 1), "a", "sigmoid"
    )


def test_boxes_and_shares_worked_by_hand():
    found = made(np.ones((10, 10)), (0, 0, 10, 10))
    assert found.window == found.receptive_field == found.field == (0, 0, 5, 5)
    assert found.share(found.window) == 0.25 and found.share((-9, 8, 1, 99)) == 0.02
    assert found.share((10, 0, 20, 5)) == 0
    # Centred at 2.5: sides 1, 3, 5 hold 1, 9, 25 of 100; then rows and columns 5 to 9: side 2k + 1 holds (k + 3)^2.
    assert found.effective_field == (-5, -5, 10, 10)
    spike = np.zeros((10, 10))
    spike[2, 2] = 1
    assert made(spike, (0, 0, 10, 10)).effective_field == (2, 2, 3, 3)
    assert made(spike, (0, 0, 10, 10), window=4).effective_field == (1, 1, 3, 3)
    assert made(spike, (1, 0, 11, 10)).effective_field == (1, 1, 4, 4)  # the spike is at row 3
    spike[2, 2], spike[2, 4] = 0.96, 0.04
    assert made(spike, (0, 0, 10, 10)).effective_field == (2, 2, 3, 3)
    spike[2, 2], spike[2, 4] = 0.94, 0.06
    assert made(spike, (0, 0, 10, 10)).effective_field == (0, 0, 5, 5)
    assert made(spike, (0, 0, 10, 10), window=(5, 4)).effective_field == (0, -1, 5, 5)
    nothing = made(np.zeros((10, 10)), (0, 0, 10, 10))
    assert nothing.effective_field is None and nothing.share(nothing.window) == 0
    assert "gradient is zero everywhere" in nothing.table()


def test_the_picture_puts_every_box_and_pixel_where_it_is(monkeypatch, tmp_path):
    drawn = {}
    write = plots.write_figure

    def keep(figure, path, made_by=None):
        drawn["axes"] = figure.axes
        return write(figure, path)

    monkeypatch.setattr(plots, "write_figure", keep)
    model = randomize(zoo.build("nin_digits"))
    image = np.full((60, 50, 1), 90, np.uint8)
    image[57, 3] = 255
    found = influence(model, image, (26, 0))
    assert plots.cell(found, image, tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")
    # Window 8 at stride 2, receptive field 14: 3 pixels more at every side.
    boxes = {"window": (52, 0, 60, 8), "theoretical": (49, -3, 63, 11), "exact": (49, 0, 60, 11)}
    for axis in drawn["axes"][:2]:
        frames = {patch.get_label().split()[0].strip(","): patch.get_bbox() for patch in axis.patches}
        assert frames.keys() == {*boxes, "effective"}
        for name, (top, left, bottom, right) in boxes.items():
            wanted = (left - 0.5, top - 0.5, right - 0.5, bottom - 0.5)
            assert (frames[name].x0, frames[name].y0, frames[name].x1, frames[name].y1) == wanted
        low, high = axis.get_ylim()[::-1]
        assert low < 48.5 and high > 62.5 and axis.get_xlim()[0] < -3.5
    grey, heat = drawn["axes"][0].images
    left, right, bottom, top = grey.get_extent()
    assert (left, bottom) == (-0.5, 59.5) and grey.get_extent() == heat.get_extent()
    ((row, column),) = np.argwhere(np.asarray(grey.get_array()) == 255)
    assert (top + 0.5 + row, left + 0.5 + column) == (57, 3)
    most = np.unravel_index(np.asarray(heat.get_array()).argmax(), heat.get_array().shape)
    wanted = np.unravel_index(found.over((0, 0, 60, 50)).argmax(), (60, 50))
    assert (top + 0.5 + most[0], left + 0.5 + most[1]) == wanted


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((17, 0), r"rows 0 to 16, columns 0 to 11 \(40 x 30 .* row 17 appears at a height of 42 pixels\)$"),
        ((3, 400), r"\(40 x 30 pixels give a grid of 17 x 12; column 12 appears at a width of 32 pixels\)$"),
        ((-1, 0), r"received -1,0; .* \(40 x 30 pixels give a grid of 17 x 12\)$"),
        ((1,), "two whole numbers"),
        ((1.5, 2), "two whole numbers"),
    ],
)
def test_a_cell_that_is_not_there_says_which_image_would_have_it(cell, text):
    """Window 8, stride 2, no padding: 40 x 30 pixels hold 17 x 12 windows, without a row or column to spare."""
    model = zoo.build("nin_digits", padding="valid")
    with pytest.raises(InputError, match=text):
        influence(model, np.zeros((40, 30)), cell)


def test_wrong_input_is_refused(monkeypatch):
    model = zoo.build("nin_digits")
    with pytest.raises(InputError, match="class: received 10; accepted: 0 to 9"):
        influence(model, np.zeros((40, 30)), (0, 0), class_index=10)
    with pytest.raises(InputError, match="not finite"):
        influence(model, np.full((40, 30), np.nan), (0, 0))
    with pytest.raises(InputError, match="one window of 8 x 8"):
        influence(model, np.zeros((40, 7)), (0, 0))
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(InputError, match="influence: received KERAS_BACKEND=numpy; accepted: tensorflow, jax, torch"):
        influence(model, np.zeros((40, 30)), (0, 0))


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.extended
def test_every_backend_measures_the_same(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = randomize(strided_same())
    zoo.save(model, tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", noise(60, 50, 1))
    code = (
        "import numpy as np, zoo\n"
        "from zoo.large_images import influence\n"
        "found = influence(zoo.load('model.keras'), np.load('image.npy'), (5, 4), 1)\n"
        "np.save('values.npy', found.values)"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = influence(model, noise(60, 50, 1), (5, 4), 1).values
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), wanted, rtol=1e-3, atol=1e-5 * wanted.max())
