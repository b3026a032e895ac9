"""What a counter's map adds up to: exactly, where windows lie evenly; and what takes no counts for classes."""

import dataclasses
import math
from functools import cache

import counters
import keras
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.errors import InputError
from zoo.large_images import influence, score_boxes
from zoo.network.network import Network
from zoo.objects.cell_classes import CellClasses
from zoo.scanning.crop_check import check_crops
from zoo.scanning.density import Density, counts_in, density_unit, why_approximate
from zoo.scanning.grid import Grid
from zoo.scanning.merging import Merged
from zoo.scanning.overlay import palette
from zoo.scores import agreement, lost, to_probabilities

WINDOWS = [((16, 12), 4), ((8, 8), 8), ((6, 10), 2)]


@cache
def network(window, stride, padding="valid"):
    """A converted counter, of which only the grid is looked at; a padded one has windows that begin at any pixel."""
    if padding == "valid":
        return Network.of(zoo.convolutionalize(counters.model(window, stride)))
    image = keras.Input((*window, 2))
    x = layers.Conv2D(2, 3, stride, padding="same")(image)
    return Network.of(zoo.convolutionalize(keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))))


def true_counts(grid, places, classes):
    """How many places, (class, y, x), lie in each window, by plain loops."""
    scores = np.zeros((*grid.shape, classes), np.float32)
    for row, top in enumerate(grid.starts[0].tolist()):
        for column, left in enumerate(grid.starts[1].tolist()):
            for index, y, x in places:
                inside = top <= y < top + grid.window[0] and left <= x < left + grid.window[1]
                scores[row, column, index] += inside
    return scores


@settings(max_examples=20)
@given(st.data())
def test_true_counts_of_windows_add_up_exactly(data):
    window, stride = data.draw(st.sampled_from(WINDOWS))
    padding = data.draw(st.sampled_from(["valid", "same"]))
    own = data.draw(st.sampled_from([each for each in (None, 1, 2) if each is None or padding == "valid"]))
    size = tuple(data.draw(st.integers(side, 33)) for side in window)
    grid = Grid.that_fits(network(window, stride, padding), size, "full", own)
    place = st.tuples(
        st.integers(0, 1), *(st.floats(0, side, exclude_max=True) | st.sampled_from([0.0, side - 0.5]) for side in size)
    )
    places = data.draw(st.lists(place, max_size=6))
    found = counters.counted(true_counts(grid, places, 2), grid)
    wanted = [sum(index == each for index, *_ in places) for each in range(2)]
    assert list(found.counts().values()) == wanted
    assert not why_approximate(found)
    np.testing.assert_allclose(found.density.sum((0, 1)), wanted, rtol=1e-5, atol=1e-5)


def test_elsewhere_it_says_why_they_are_approximate():
    uneven = Grid.that_fits(network((16, 12), 4), (40, 41), "full", None)
    scores = np.zeros((*uneven.shape, 2), np.float32)
    assert why_approximate(counters.counted(scores, uneven)) == ()
    (reason,) = why_approximate(counters.counted(scores, uneven, border="reflect"))
    assert "border 'reflect'" in reason
    scanned = np.ones(uneven.shape, bool)
    scanned[1, 2:4] = False
    (reason,) = why_approximate(counters.counted(scores, uneven, scanned=scanned))
    assert reason == "2 cells were not scanned"
    assert why_approximate(counters.plain_map(border="full")) == (
        "the window of 14 x 11 pixels is no multiple of the stride of 6 x 4",
    )


def test_counts_are_the_same_however_the_map_is_cut_and_skip_what_was_not_scanned(tmp_path, monkeypatch):
    scanned = np.random.default_rng(1).random((19, 36)) > 0.2
    whole = counters.plain_map(scanned=scanned)
    whole.scores[~scanned] = np.nan
    wanted = [math.fsum(whole.scores[scanned][:, index]) / (14 * 11 / 24) for index in range(3)]
    counts = whole.counts()
    assert list(counts) == list(whole.class_names)
    np.testing.assert_allclose(list(counts.values()), wanted, rtol=1e-6)
    for at_once, chunks in ((1, (5, 7, 3)), (400, (19, 36, 3)), (10**6, (3, 11, 3))):
        monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", at_once)
        path = tmp_path / f"{at_once}.zarr"
        chunked = zarr.create_array(path, shape=whole.scores.shape, chunks=chunks, dtype=np.float32)
        chunked[:] = whole.scores
        assert dataclasses.replace(whole, scores=chunked).counts() == counts


def test_squares_of_cells_hold_the_sums_where_memory_ends(monkeypatch):
    whole = counters.plain_map()
    monkeypatch.setattr("zoo.scanning.density._KEPT", 4 * 7 * 12)
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", 3 * 36 * 2)
    density = Density(whole)
    whole.read_by(density)
    assert density.square == 3 and density.values.shape == (7, 12, 3)
    for row, column in np.ndindex(7, 12):
        square = np.s_[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        sums = whole.scores[square].sum((0, 1), dtype=float) * 24 / (14 * 11)
        np.testing.assert_allclose(density.values[row, column], sums, rtol=1e-6, atol=1e-9)
        cells = whole.scores[square].shape[0] * whole.scores[square].shape[1]
        assert density.of_cells(1)[row, column] == pytest.approx(sums[1] / cells, rel=1e-6, abs=1e-9)
    assert density.counts == whole.counts()


@pytest.mark.parametrize("class_index", [None, 1])
def test_the_overlay_is_as_opaque_as_the_density(class_index):
    whole, image = counters.plain_map(), np.random.default_rng(2).integers(0, 256, (120, 160, 3), np.uint8)
    index = int(np.argmax(list(whole.counts().values()))) if class_index is None else class_index
    seen, (rows, columns) = whole.overlay(image, class_index).astype(int), whole.cells_of_pixels()
    shares = np.clip(whole.density[..., index], 0, None) / whole.density[..., index].max()
    for y, x in ((0, 0), (60, 70), (3, 100), (119, 159), (77, 5)):
        known = rows[y] >= 0 and columns[x] >= 0
        weight = 0.65 * shares[rows[y], columns[x]] if known else 0
        wanted = image[y, x] * (1 - weight) + 255 * palette(3)[index] * weight
        np.testing.assert_allclose(seen[y, x], wanted, atol=1)


def test_units_are_of_cells_or_of_area():
    assert density_unit(counters.plain_map()) == (1, "objects per 6 x 4 pixels")
    by, unit = density_unit(counters.plain_map(pixel_size=(0.5, 2.0)))
    assert unit == "objects per mm²" and by == pytest.approx(1e6 / (6 * 0.5 * 4 * 2))


def test_parts_of_an_image_add_up_and_are_shares_of_cells():
    scanned = np.ones((19, 36), bool)
    scanned[4:7, 3] = False
    whole = counters.plain_map(scanned=scanned)
    whole.scores[4:7, 3] = np.nan
    boxes = [
        (0, 0, 120, 160),
        (0, 0, 50.5, 33),
        (50.5, 0, 120, 33),
        (0, 33, 120, 160),
        (20, 30, 41, 52.25),
        (0, 0, 1, 1),
    ]
    found, numbers = counts_in(whole, whole.scanned, np.array(boxes)), np.nan_to_num(whole.scores) * 24 / (14 * 11)
    np.testing.assert_allclose(found[0], list(whole.counts().values()), rtol=1e-5)
    np.testing.assert_allclose(found[1:4].sum(0), found[0], rtol=1e-9)
    wanted = np.zeros(3)
    for row, column in np.ndindex(19, 36):
        # Cell (row, column) has the 6 x 4 pixels in the middle of its window.
        top, left = -3 + 6 * row + 4, 2 + 4 * column + 3.5
        down, across = (max(min(b, e + s) - max(a, e), 0) for a, b, e, s in ((20, 41, top, 6), (30, 52.25, left, 4)))
        wanted += numbers[row, column] * down * across / 24
    np.testing.assert_allclose(found[4], wanted, rtol=1e-6)


REFUSED = {
    "probabilities": lambda found: to_probabilities(found.scores, "counts"),
    "probabilities of a map": lambda found: found.probabilities,
    "classes": lambda found: CellClasses(("a", "b", "c"), None, {}).of(found.scores, "counts"),
    "classes of a map": lambda found: found.wins(),
    "merge": lambda found: Merged("counts", "average-logits"),
    "answer": lambda found: zoo.answer(found),
    "objects": lambda found: found.objects(),
}


@pytest.mark.parametrize("use", REFUSED)
def test_counts_are_never_taken_for_scores_of_classes(use):
    wanted = f"{use.split(' of')[0]}: received the numbers of objects that a counter gives; accepted: the scores of a"
    with pytest.raises(InputError, match=wanted):
        REFUSED[use](counters.plain_map())


def test_what_answers_alike_counts_to_within_half_an_object():
    given, expected = np.array([[3.0, 0.2], [3.4, 1], [0, 0]]), np.array([[3.3, 0.1], [2.8, 1], [0.4, 0.6]])
    assert (
        agreement(given, expected, "counts") == pytest.approx(1 / 3) and agreement(given, expected, "logits") == 2 / 3
    )
    assert zoo.verify(counters.model(), zoo.convolutionalize(counters.model())).crops_argmax_agreement == 1
    assert lost(given, expected, "counts") == {} and lost(given, expected, "logits") == {1: 1}
    found, pixels = counters.plain_map(), np.stack(np.mgrid[:120, :160], -1).astype(np.int16)
    for moved, same in ((0.4, 20), (0.6, 0)):
        # A crop shows which one it is by where its first pixel lies.
        alone = {found.cell_box(*cell)[:2]: found.scores[cell] + moved for cell in np.ndindex(19, 36)}
        check = check_crops(found, pixels, lambda crop, of=alone: of[tuple(crop[0, 0, 0])], pixels.dtype, 20, 1e9)
        assert (check.compared, check.same) == (20, same)


def test_a_scan_of_a_counter_counts_to_the_border_at_every_scale_and_tile():
    places = [(0, 0, 0), (0, 33, 20), (0, 35, 21), (1, 43, 50), (1, 20, 49), (0, 10, 30)]
    pixels = counters.picture((45, 52), places)
    found = zoo.scan(counters.model(), pixels)
    assert found.outputs == "counts" and found.border == "full" and not why_approximate(found)
    assert found.counts() == pytest.approx(dict(zip(counters.NAMES, (4, 2), strict=True)), rel=1e-5)
    for options in ({"tile": 8}, {"stride": 2}, {"stride": (1, 4), "tile": 20}):
        assert zoo.scan(counters.model(), pixels, **options).counts() == pytest.approx(found.counts(), rel=1e-5)
    inside = zoo.scan(counters.model(), pixels, border="none")
    assert list(inside.counts().values())[0] < 3 and "border 'none'" in why_approximate(inside)[0]
    # Everything is twice as large, and brought to the scale of the training.
    with pytest.warns(UserWarning, match="taken at scale 0.5"):
        twice = zoo.scan(counters.model(scale=0.5), pixels.repeat(2, 0).repeat(2, 1))
    assert twice.scale == (0.5, 0.5) and twice.border == "full"
    assert list(twice.counts().values()) == pytest.approx([4, 2], rel=0.02)
    with pytest.raises(InputError, match=r"scales: received \(1.0, 2.0\); accepted: none for a model that counts"):
        zoo.scan(counters.model(), pixels, scales=[1, 2])


def test_boxes_of_a_counter_have_sums_of_its_density_at_any_scale():
    pixels = counters.picture((45, 52), [(0, 5, 5), (0, 33, 40), (1, 20, 26)])
    with pytest.warns(UserWarning, match="the counts are estimates"):
        scored = score_boxes(counters.model(), pixels, [(0, 0, 45, 52), (0, 0, 30, 52), (30, 0, 45, 52)])
    np.testing.assert_allclose(scored.scores[0], [2, 1], rtol=1e-5)
    np.testing.assert_allclose(scored.scores[1:].sum(0), [2, 1], rtol=1e-5)
    assert scored.outputs == "counts"
    with pytest.raises(InputError, match="way: received 'roi'; accepted: 'cells' for a model that counts"):
        score_boxes(counters.model(), pixels, [(0, 0, 45, 52)], "roi")
    twice = pixels.repeat(2, 0).repeat(2, 1)[:89]
    with pytest.warns(UserWarning):
        scored = score_boxes(counters.model(scale=0.5), twice, [(0, 0, 89, 104), (0, 0, 51, 104), (51, 0, 89, 104)])
    np.testing.assert_allclose(scored.scores[1:].sum(0), scored.scores[0], rtol=1e-5)
    np.testing.assert_allclose(scored.scores[0], [2, 1], rtol=0.02)


def test_what_a_cell_looks_at_is_told_in_objects():
    found = influence(counters.model(), counters.picture((30, 30), [(1, 12, 12)]), (3, 3))
    assert found.class_index == 1 and "class ring: 1 objects in the window; stride" in found.sentence()


def test_a_density_needs_counts_of_windows():
    with pytest.raises(InputError, match="density: received a map of a model that does not count"):
        dataclasses.replace(counters.plain_map(), outputs="logits").density  # noqa: B018
    whole = counters.plain_map()
    with pytest.raises(InputError, match="density: received a map whose cells have no window"):
        dataclasses.replace(whole, geometry=dataclasses.replace(whole.geometry, window=(math.inf,) * 2)).counts()
