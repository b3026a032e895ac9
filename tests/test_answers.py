import dataclasses
import math

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.network.network import Network
from zoo.pictures.resizing import Resized
from zoo.scanning.answers import answer
from zoo.scanning.grid import Grid
from zoo.scanning.options import check_scales
from zoo.scanning.scales import Match, merger, scaled_size
from zoo.scanning.score_map import ScoreMap


def softmax(scores):
    exponentials = [math.exp(score) for score in scores]
    return [each / sum(exponentials) for each in exponentials]


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def score_map():
    scanned = zoo.scan(zoo.build("nin_mnist_valid"), noise(50, 43, 1))
    scores = np.random.default_rng(0).normal(0, 2, scanned.scores.shape).astype(np.float32)
    return dataclasses.replace(scanned, scores=scores)


BY_HAND = {
    "average-logits": lambda cells: softmax([mean(column) for column in zip(*cells, strict=True)]),
    "average-probabilities": lambda cells: [mean(column) for column in zip(*map(softmax, cells), strict=True)],
    "maximum-logits": lambda cells: softmax([max(column) for column in zip(*cells, strict=True)]),
    "maximum-probabilities": lambda cells: [max(column) for column in zip(*map(softmax, cells), strict=True)],
}


@pytest.mark.parametrize("how", BY_HAND)
def test_answers_by_plain_loops(score_map, how):
    cells = score_map.scores.astype(float).reshape(-1, 10).tolist()
    wanted = BY_HAND[how](cells)
    np.testing.assert_allclose(answer(score_map, how), wanted, rtol=1e-6)
    others = [BY_HAND[other](cells) for other in BY_HAND if other != how]
    assert all(np.abs(np.subtract(wanted, other)).max() > 1e-3 for other in others)


@pytest.mark.parametrize("how", BY_HAND)
def test_cells_that_were_left_out_count_for_nothing(score_map, how):
    """Whatever their scores are: `scanned` alone says which they are."""
    scores, scanned = score_map.scores.copy(), np.ones(score_map.scores.shape[:2], bool)
    scores[1, 1], scores[2], scores[3, 1] = np.nan, np.nan, 1e9
    scanned[1, 1] = scanned[2] = scanned[3, 1] = False
    left = [cell.tolist() for cell, known in zip(scores.reshape(-1, 10), scanned.ravel(), strict=True) if known]
    part = dataclasses.replace(score_map, scores=scores, scanned=scanned)
    np.testing.assert_allclose(answer(part, how), BY_HAND[how](left), rtol=1e-6)
    assert part.wins()[0].sum() == len(left) and part.wins()[1] == scanned.size - len(left) == part.not_scanned
    with pytest.raises(InputError, match="no cell was scanned"):
        answer(dataclasses.replace(score_map, scanned=np.zeros_like(scanned)), how)


@pytest.mark.parametrize("how", BY_HAND)
def test_a_softmax_in_the_model_does_not_change_the_answer(score_map, how):
    """Its logits are known up to a constant a cell, which an average's softmax takes away again."""
    inside = dataclasses.replace(score_map, scores=score_map.probabilities, outputs="probabilities")
    if how == "maximum-logits":  # the largest of log-probabilities: another constant in every cell
        wanted = softmax(np.log(score_map.probabilities).max((0, 1)))
    else:
        wanted = answer(score_map, how)
    np.testing.assert_allclose(answer(inside, how), wanted, rtol=1e-6)


def test_sigmoids():
    cells = np.array([[[0.0], [0.25], [0.5]], [[np.nan], [0.5], [1.0]]], np.float32)
    placed = zoo.scan(zoo.build("nin_digits"), noise(20, 20)).geometry
    starts, known = (np.arange(2), np.arange(3)), np.array([[True] * 3, [False, True, True]])
    part = ScoreMap(cells, placed, ("1",), (20, 20), starts, (8, 8), known, "sigmoid")
    score_map = dataclasses.replace(part, scores=cells[:, 1:], scanned=known[:, 1:])
    assert answer(score_map, "average-probabilities") == pytest.approx([0.5625])
    assert answer(score_map, "maximum-probabilities") == pytest.approx([1.0])
    odds = dataclasses.replace(score_map, scores=np.array([[[0.2], [0.5]]]))
    assert answer(odds, "average-logits") == pytest.approx([1 / 3])  # odds 1/4 and 1, whose geometric mean is 1/2
    assert np.isfinite(answer(part, "average-logits")).all()


def test_average_logits_is_what_global_pooling_gives():
    """Class maps averaged over the whole image, and then the softmax."""
    image = keras.Input((12, 12, 1))
    maps = layers.Conv2D(3, 1)(layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image)))
    model = randomize(keras.Model(image, layers.GlobalAveragePooling2D()(maps)))
    pixels = noise(30, 24, 1)
    single = zoo.convolutionalize(keras.Model(image, maps))
    whole = zoo.convolutionalize(model, pooling="global")(pixels[None])
    wanted = np.asarray(keras.ops.softmax(whole)).reshape(-1)
    np.testing.assert_allclose(answer(zoo.scan(_open(single), pixels), "average-logits"), wanted, rtol=1e-4)


def _open(model):
    """The same model with height and width free."""
    image = keras.Input((None, None, 1))
    x = image
    for layer in model.layers[1:]:
        x = layer(x)
    return keras.Model(image, x)


def test_resizing_equals_a_triangle_filter():
    image = np.random.default_rng(0).normal(size=(13, 17, 2)).astype(np.float32) * 100
    for scale in (0.4, 0.7, 1.4, 2.3):
        given = Resized(image, scaled_size((13, 17), scale))[:, :]
        assert given.dtype == np.float32 and given.shape == (round(13 * scale), round(17 * scale), 2)
        weights = []
        for side, made in zip(image.shape, given.shape[:2], strict=False):
            ratio = side / made
            support = max(ratio, 1)
            matrix = np.zeros((made, side))
            for row in range(made):
                centre = (row + 0.5) * ratio
                for column in range(side):
                    matrix[row, column] = max(1 - abs(column + 0.5 - centre) / support, 0)
                matrix[row] /= matrix[row].sum()
            weights.append(matrix)
        wanted = np.einsum("rh,cw,hwk->rck", *weights, image)
        np.testing.assert_allclose(given, wanted, atol=1e-3)


OWN_STRIDE = [("average-probabilities", "none", None), ("maximum-logits", "none", None)]
FINER = [*((how, "none", 2) for how in BY_HAND), ("average-logits", "shift", 2)]


@pytest.mark.parametrize(
    ("how", "border", "stride"), [*OWN_STRIDE, *(pytest.param(*each, marks=pytest.mark.extended) for each in FINER)]
)
def test_scales_are_merged_as_by_plain_loops(how, border, stride):
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_mnist_valid")))
    image, step = noise(64, 55, 1) / 8, stride or 4

    def scan(pixels):
        """The starts of the windows, and their scores, by the model itself: whole, or on every crop."""
        if stride is None:
            scores = np.asarray(fcn(pixels[None]))[0]
            return [[4 * index for index in range(side)] for side in scores.shape[:2]], scores
        starts = [list(range(0, side - 27, step)) for side in pixels.shape[:2]]
        for axis, side in enumerate(pixels.shape[:2]):
            starts[axis] += [side - 28] if border == "shift" and starts[axis][-1] != side - 28 else []
        crops = [pixels[top : top + 28, left : left + 28] for top in starts[0] for left in starts[1]]
        return starts, np.asarray(fcn(np.stack(crops))).reshape(len(starts[0]), len(starts[1]), -1)

    scales = [0.7, 1, 1.4]
    scaled = [Resized(image, scaled_size((64, 55), scale))[:, :] for scale in scales]
    maps = [scan(each) for each in scaled]
    merged = zoo.scan(fcn, image, scales=scales, merge=how, stride=stride, border=border, tile=40)
    (tops, lefts), of_itself = maps[1]
    assert merged.scores.shape == of_itself.shape and merged.image_size == (64, 55)
    # At the scale 0.7 a window of 28 is one of 40 in the image, centred where that of the scale 1 is.
    assert merged.cell_box(len(tops) - 1, len(lefts) - 1) == (
        tops[-1] - 6,
        lefts[-1] - 6,
        tops[-1] + 34,
        lefts[-1] + 34,
    )
    assert merged.windows[0.7] == pytest.approx((40, 40)) and merged.scanned.all()
    counted = 0
    for row, column in np.ndindex(merged.scores.shape[:2]):
        centre = (tops[row] + 14, lefts[column] + 14)
        cells = []
        for (starts, scores), pixels in zip(maps, scaled, strict=True):
            places = [middle * side / of for middle, side, of in zip(centre, pixels.shape, (64, 55), strict=False)]
            where = [
                min(range(scores.shape[axis]), key=lambda i: (abs(at - (starts[axis][i] + 14)), -i))
                for axis, at in enumerate(places)
            ]
            ends = [(starts[axis][0] + 14, starts[axis][-1] + 14) for axis in range(2)]
            if all(low - step / 2 <= at <= high + step / 2 for at, (low, high) in zip(places, ends, strict=True)):
                cells.append(scores[tuple(where)].astype(float).tolist())
            else:
                counted += 1
        wanted = BY_HAND[how](cells)
        given = softmax(merged.scores[row, column].astype(float)) if "logits" in how else merged.scores[row, column]
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-6)
    assert counted and merged.outputs == ("logits" if "logits" in how else "probabilities")


def test_one_scale_is_the_map_itself_and_left_out_cells_stay_so(score_map):
    grid = Grid.of(Network.of(zoo.build("nin_mnist_valid")), (50, 43))
    scores, match = score_map.scores, Match.of(grid, grid)
    rows, every = len(scores), np.ones(scores.shape[:2], bool)
    assert match.covers.all() and match.needed(every, every.shape).all()
    alone = merger([scores], [match], "logits", "average-logits")
    np.testing.assert_array_equal(alone(slice(0, rows), every), scores)
    np.testing.assert_array_equal(alone(slice(2, 4), every[2:4]), scores[2:4])
    part = every.copy()
    part[0] = False
    given = merger([scores, scores], [match, match], "logits", "maximum-logits")(slice(0, rows), part)
    assert np.isnan(given[0]).all()
    np.testing.assert_array_equal(given[1:], scores[1:])


@pytest.mark.parametrize("scales", [[0.5], [0.6, 0.75]])
def test_a_scale_has_no_answer_where_its_windows_leave_the_image(scales):
    """By plain loops: a cell is scanned where a window of some scale is centred at most half a stride of it away."""
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))
    image = noise(40, 47, 1)
    result = zoo.scan(fcn, image, scales=scales)
    for row, column in np.ndindex(result.scores.shape[:2]):
        known = []
        for scale in scales:
            sides = [round(side * scale) for side in (40, 47)]
            known.append(
                all(
                    any(
                        abs((2 * cell + 4) * made / side - (2 * other + 4)) <= 1 for other in range((made - 8) // 2 + 1)
                    )
                    for cell, made, side in zip((row, column), sides, (40, 47), strict=True)
                )
            )
        assert result.scanned[row, column] == any(known)
        box = [2 * row + 4 - 4 / min(scales), 2 * column + 4 - 4 / min(scales)]
        assert result.cell_box(row, column)[:2] == tuple(math.floor(side) for side in box)
    assert 0 < result.not_scanned < result.scanned.size
    np.testing.assert_array_equal(np.isnan(result.scores).all(-1), ~result.scanned)
    np.testing.assert_array_equal(result.scores, zoo.scan(fcn, image, scales=scales, tile=9).scores)


def test_scores_of_cells_that_were_scanned_are_finite(score_map):
    scores = score_map.scores.copy()
    scores[3, 2, 1] = np.nan
    with pytest.raises(InputError, match="not finite at cell 3,2; accepted"):
        dataclasses.replace(score_map, scores=scores)
    import zarr

    stored = zarr.create_array({}, shape=scores.shape, chunks=(2, 2, 10), dtype=scores.dtype)
    stored[:] = scores
    lazily = dataclasses.replace(score_map, scores=stored)
    for use in (ScoreMap.wins, answer, lambda each: each.overlay(np.zeros((50, 43, 1), np.uint8))):
        with pytest.raises(InputError, match="not finite at cell 3,2; accepted"):
            use(lazily)
    with pytest.raises(InputError, match=r"scanned: received \(3, 3\) of bool"):
        dataclasses.replace(score_map, scanned=np.zeros((3, 3), bool))


def test_large_maps_are_answered_part_by_part(score_map, monkeypatch):
    whole = {how: answer(score_map, how) for how in BY_HAND}
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", 20)
    assert len(list(score_map.blocks())) == len(score_map.scores)
    for how, wanted in whole.items():
        np.testing.assert_allclose(answer(score_map, how), wanted, rtol=1e-12)


def test_bad_scales_and_names_are_refused(score_map):
    for scales in ([], [0], [-1], [1, math.inf], ["a"], 3, None):
        with pytest.raises(InputError, match="scales: received .*; accepted: numbers above 0"):
            check_scales(scales)
    with pytest.raises(InputError, match="unknown merge 'average' .*did you mean 'average-"):
        answer(score_map, "average")
    model = zoo.build("nin_mnist_valid")
    with pytest.raises(InputError, match="scale 0.4: image: received 20 x 20 pixels"):
        zoo.scan(model, noise(50, 50, 1), scales=[1, 0.4])
    with pytest.raises(InputError, match="unknown merge 'mean'"):
        zoo.scan(model, noise(50, 50, 1), scales=[1], merge="mean")
