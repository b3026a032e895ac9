"""The influence of pixels on cells of finer grids, of borders, and of scans at several scales."""

from itertools import product

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise, randomize
from keras import layers
from PIL import Image
from test_influence import strided_same, tiny

import zoo
from zoo.cli import zoo as command
from zoo.errors import InputError
from zoo.large_images import influence, scanner_of
from zoo.scanning.merging import merge, merge_weights
from zoo.scanning.options import Options
from zoo.scores import to_probabilities

pytestmark = pytest.mark.extended

GRIDS = [
    {"stride": 1},
    {"stride": (1, 2)},
    {"border": "reflect"},
    {"border": "shift"},
    {"border": "full"},
    {"stride": 1, "border": "reflect"},
    {"scales": [0.7, 1, 1.3], "merge": "average-logits"},
    {"scales": [0.8], "border": "reflect", "merge": "maximum-logits"},
    {"scales": [1.4], "stride": 1, "border": "shift", "merge": "average-logits"},
]


def name_of(options):
    return " ".join(f"{name}={value}" for name, value in options.items())


def some_cells(shape):
    rows, columns = (side - 1 for side in shape)
    return [(0, 0), (rows, columns), (rows // 2, columns), (rows // 2, columns // 2)]


@pytest.mark.parametrize("options", GRIDS, ids=name_of)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_influence_is_what_moving_a_pixel_does_to_the_scan_s_score(padding, options):
    """The model is linear, so that a pixel may be moved by any amount."""
    model, options = randomize(tiny(padding)), Options(**options)
    image = noise(11, 12, 2).astype(np.float64)
    scanner = scanner_of(model, options)
    nothing = scanner(np.zeros(image.shape)).scores
    moved = list(product((0, 1, 5, 9, 10), (0, 2, 6, 10, 11)))
    changes = []
    for row, column in moved:
        dots = np.zeros((2, *image.shape))
        dots[0, row, column, 0] = dots[1, row, column, 1] = 1
        changes.append(sum(np.abs(scanner(dot).scores - nothing) for dot in dots))
    scores = scanner(image)
    for cell in some_cells(nothing.shape[:2]):
        if not scores.scanned[cell]:
            continue
        found = influence(model, image, cell, 1, options)
        given = found.over((0, 0, 11, 12))
        wanted = np.array([change[(*cell, 1)] for change in changes])
        assert wanted.any()
        np.testing.assert_allclose([given[place] for place in moved], wanted, rtol=1e-5, atol=1e-5 * given.max())
        np.testing.assert_allclose(found.scores, scores.scores[cell], rtol=1e-5)
        assert found.window == scores.cell_box(*cell) and found.grid_shape == nothing.shape[:2]
        assert found.outputs == scores.outputs and f"of {nothing.shape[0]} x {nothing.shape[1]}" in found.sentence()


@pytest.mark.parametrize("options", GRIDS, ids=name_of)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_fields_are_around_all_influence(padding, options):
    """All weights are ones, so that nothing cancels."""
    model = tiny(padding)
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    image, options = noise(24, 27, 2).astype(np.float64), Options(**options)
    scores = scanner_of(model, options)(image)
    for cell in some_cells(scores.scores.shape[:2]):
        if not scores.scanned[cell]:
            continue
        found = influence(model, image, cell, options=options)
        rows, columns = (np.flatnonzero(found.over((0, 0, 24, 27)).any(axis)) for axis in (1, 0))
        seen = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
        # The outermost pixels that a filter reads may weigh nothing.
        slack = 0 if options.scales is None else 1
        outwards = (np.array(found.field) - seen) * [-1, -1, 1, 1]
        assert (outwards >= 0).all() and (outwards <= slack).all(), (cell, found.field, seen)
        assert found.share(found.field) == pytest.approx(1)
        top, left, bottom, right = found.receptive_field
        inside = max(top, 0), max(left, 0), min(bottom, 24), min(right, 27)
        if options.border == "none":
            assert inside[0] <= found.field[0] and inside[1] <= found.field[1]
            assert inside[2] >= found.field[2] and inside[3] >= found.field[3]
            if padding == "valid" and options.scales is None:
                assert inside == found.field


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"border": "shift"}, {"stride": 1, "border": "shift"}, {"border": "reflect"}],
    ids=name_of,
)
@pytest.mark.parametrize("size", [(40, 45), (41, 46)])
def test_padding_that_depends_on_the_size_is_that_of_the_cell_s_own_grid(options, size):
    model = randomize(strided_same())
    image, options = noise(*size, 1) / 400, Options(**options)  # the softmax at the end is not certain
    scanner = scanner_of(model, options)
    scores = scanner(image).scores
    for cell in some_cells(scores.shape[:2]):
        found = influence(model, image, cell, options=options)
        np.testing.assert_allclose(found.scores, scores[cell], rtol=1e-4, atol=1e-5)
        top, left, bottom, right = found.field
        other = image[::-1, ::-1].copy()
        other[top:bottom, left:right] = image[top:bottom, left:right]
        np.testing.assert_allclose(scanner(other).scores[cell], scores[cell], rtol=1e-4, atol=1e-5)
        changed = image.copy()
        changed[bottom - 1, left:right] += 1
        assert not np.allclose(scanner(changed).scores[cell], scores[cell], rtol=1e-3, atol=0)


@pytest.mark.parametrize("how", ["average-logits", "average-probabilities", "maximum-logits", "maximum-probabilities"])
@pytest.mark.parametrize("outputs", ["logits", "probabilities", "sigmoid"])
def test_the_weights_of_merged_scores_are_their_derivatives(how, outputs):
    """Up to one factor for all; those of merged logits are the logit's own, before a softmax or sigmoid."""
    generator = np.random.default_rng(0)
    before = generator.normal(size=(3, 4))

    def merged(values):
        given = 1 / (1 + np.exp(-values)) if outputs == "sigmoid" else values
        given = to_probabilities(values, "logits") if outputs == "probabilities" else given
        scores = merge(given, np.ones(3, bool), outputs, how)
        if how.endswith("logits"):  # a sigmoid's come back as probabilities, a softmax's as their logarithms
            return np.log(scores[2] / (1 - scores[2])) if outputs == "sigmoid" else scores[2]
        return scores[2]

    measured = np.empty_like(before)
    for index in np.ndindex(before.shape):
        step = np.zeros_like(before)
        step[index] = 1e-6
        measured[index] = (merged(before + step) - merged(before - step)) / 2e-6
    weights = merge_weights(before, outputs, how, 2)
    if how.endswith("logits") and outputs != "probabilities":
        np.testing.assert_allclose(weights, measured, atol=1e-5)
    if how.endswith("logits") and outputs == "probabilities":
        measured[:, [0, 1, 3]] = 0
        measured /= np.where(measured[:, [2]], measured[:, [2]], 1)
    np.testing.assert_allclose(weights / np.abs(weights).max(), measured / np.abs(measured).max(), atol=1e-5)


def test_certain_probabilities_still_have_weights():
    before = np.array([[0.0, 2000, 1000], [0, 1500, 1200]])
    weights = merge_weights(before, "probabilities", "average-probabilities", 1)
    np.testing.assert_allclose(weights, [[0, 0, 0], [0, 0.5, -0.5]], atol=1e-300)
    np.testing.assert_allclose(
        merge_weights(np.array([[3.0], [4]]), "logits", "average-probabilities", 0), [[0.5], [0.5]]
    )


def test_the_command_takes_the_scan_s_options(tmp_path):
    model = randomize(zoo.build("nin_digits"))
    zoo.save(model, tmp_path / "model.keras")
    image = noise(30, 40).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")

    def plot(*arguments):
        paths = [str(tmp_path / "model.keras"), "--image", str(tmp_path / "image.png"), "-o", str(tmp_path / "p.png")]
        return CliRunner().invoke(command, ["plot", *paths, "--overwrite", *arguments])

    done = plot("--cell", "17,20", "--stride", "1", "--border", "reflect")
    assert done.exit_code == 0, done.output
    wanted = influence(model, image, (17, 20), options=Options(stride=1, border="reflect"))
    assert done.output.startswith(wanted.table()) and "stride 1 x 1" in wanted.sentence()
    done = plot("--cell", "4,4", "--scales", "0.8,1", "--merge", "maximum-logits")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        influence(model, image, (4, 4), options=Options(scales=[0.8, 1], merge="maximum-logits")).table()
    )
    refused = plot("--cell", "99,0", "--stride", "1").exception
    assert isinstance(refused, InputError) and "(30 x 40 pixels give a grid of 24 x 34)" in str(refused)
    alone = CliRunner().invoke(command, ["plot", str(tmp_path / "model.keras"), "--stride", "1", "--output-name", "a"])
    assert alone.exit_code == 2 and "--stride has no effect without --cell" in alone.output


def test_a_cell_that_no_scale_answers_for_is_refused():
    model = zoo.build("nin_digits", padding="valid")
    options = Options(scales=[0.4])
    scores = scanner_of(model, options)(np.zeros((40, 40, 1), np.float32))
    assert not scores.scanned[0, 0]
    with pytest.raises(InputError, match="cell: received 0,0, of which no scale has a window in the image"):
        influence(model, np.zeros((40, 40)), (0, 0), options=options)


def test_a_gate_over_the_whole_image_has_its_influence_on_every_border():
    image = keras.Input((12, 12, 1))
    x = layers.Conv2D(3, 3, 2)(image)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    model = randomize(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    pixels = noise(17, 21, 1)
    scanner = scanner_of(model, Options(border="reflect"))
    scores = scanner(pixels).scores
    found = influence(model, pixels, (scores.shape[0] - 1, 0), options=Options(border="reflect"))
    np.testing.assert_allclose(found.scores, scores[-1, 0], rtol=1e-4)
    assert found.field == found.part == (0, 0, 17, 21) and found.receptive_field is None
