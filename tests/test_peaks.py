"""Peaks of a score map against a plain loop over the whole array, however the map is cut."""

import dataclasses
import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.card import Peaks
from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.objects.cell_classes import NONE, CellClasses
from zoo.objects.peaks import PeakFinder, suppressed
from zoo.scanning.score_map import ScoreMap

NAMES = ("cell", "ground", "dot")


def softmax(scores):
    powers = np.exp(scores.astype(float) - scores.max())
    return powers / powers.sum()


def by_loop(scores, scanned, centres, scale, background, peaks, distance, size, every_class=False):
    """The objects of a map, a cell at a time: rows of (class, score, row, column)."""
    rows, columns, classes = scores.shape
    chances = {(r, c): softmax(scores[r, c]) for r in range(rows) for c in range(columns) if scanned[r, c]}
    found = []
    for ((r, c), own), winner in product(chances.items(), range(classes)):
        least = peaks[NAMES[winner]].threshold if NAMES[winner] in peaks else 0
        wins = winner == np.argmax(scores[r, c]) and own[winner] >= least
        if NAMES[winner] == background or not (every_class or wins):
            continue
        largest = True
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                other = (r + down, c + across)
                if other == (r, c) or other not in chances:
                    continue
                before = other < (r, c)
                largest &= chances[other][winner] < own[winner] or not before and chances[other][winner] == own[winner]
        if largest:
            found.append((winner, own[winner], r, c))
    kept = []
    for index, score, r, c in sorted(found, key=lambda each: (-each[1], each[2], each[3])):
        least = peaks[NAMES[index]].distance if NAMES[index] in peaks else distance
        weights, sums = 0.0, np.zeros(2)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                if {(r + down, c + across), (r - down, c - across)} <= set(chances):
                    weights += chances[r + down, c + across][index]
                    middle = np.array([centres[0][r + down], centres[1][c + across]])
                    sums += chances[r + down, c + across][index] * middle
        place = sums / weights * scale
        margin = peaks[NAMES[index]].margin if NAMES[index] in peaks else 0
        if min(*place, *(np.array(size) * scale - place)) < margin:
            continue
        if all(((place - other) ** 2).sum() >= least**2 for k, *_, other in kept if k == index):
            kept.append((index, score, r, c, place))
    return kept


def read(finder, scores, scanned, height, width):
    for row in range(0, scores.shape[0], height):
        for column in range(0, scores.shape[1], width):
            part = np.s_[row : row + height, column : column + width]
            finder.add(row, column, scores[part], scanned[part])
    return finder.found()


@st.composite
def maps(draw):
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few values, so that many are equal; of plateaus too.
    values = generator.integers(0, draw(st.integers(1, 6)), (rows, columns, 3)).astype(np.float32)
    scanned = generator.random((rows, columns)) < draw(st.sampled_from([0.6, 1.0]))
    values[~scanned] = draw(st.sampled_from([np.nan, 50]))
    some = st.builds(
        Peaks,
        threshold=st.sampled_from([0, 0.3, 0.6, 0.9]),
        distance=st.sampled_from([0, 4.1, 9.1, 13]),
        margin=st.sampled_from([0, 0, 1.37, 5.71]),
    )
    peaks = draw(st.dictionaries(st.sampled_from(["cell", "dot"]), some))
    return values, scanned, draw(st.sampled_from(["ground", None])) if peaks else "ground", peaks


@settings(max_examples=150, deadline=None)
@given(
    maps(),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(1.0, 1.0), (0.5, 0.25)]),
    st.sampled_from([0, 9]),
    st.sampled_from([(99, 99), (23.5, 40)]),
    st.booleans(),
)
def test_peaks_are_those_of_a_plain_loop_however_the_map_is_cut(case, height, width, scale, border, size, every_class):
    scores, scanned, background, peaks = case
    centres = (3.5 - border + 4 * np.arange(scores.shape[0]), 2.5 - border + 8.5 * np.arange(scores.shape[1]))
    inside = [(each >= 0) & (each < side) for each, side in zip(centres, size, strict=True)]
    known = scanned & np.logical_and.outer(*inside)
    wanted = by_loop(scores, known, centres, scale, background, peaks, 5.0, size, every_class)
    finder = PeakFinder(CellClasses(NAMES, background, peaks), "logits", centres, scale, 5.0, size, every_class)
    found = read(finder, scores, scanned, height, width)
    assert len(found) == len(wanted)
    given = sorted(zip(found.classes, *found.cells.T, strict=True))
    assert given == sorted((index, row, column) for index, _, row, column, _ in wanted)
    assert (np.diff(found.scores) <= 0).all()
    there = {(index, row, column): (score, place) for index, score, row, column, place in wanted}
    for index, score, centre, cell in zip(found.classes, found.scores, found.centres, found.cells, strict=True):
        known_score, place = there[index, *cell]
        assert score == pytest.approx(known_score, rel=1e-12)
        np.testing.assert_allclose(centre * scale, place, rtol=1e-9)


def score_map(shape=(23, 31), seed=0, background="ground", peaks=None, chunks=None):
    scores = np.random.default_rng(seed).normal(0, 2, (*shape, 3)).astype(np.float32)
    height, width = 8 + 4 * (shape[0] - 1), 10 + 4 * (shape[1] - 1)
    geometry = Geometry((8, 10), (4, 4), (8, 10), (0, 0), (height, width), SimpleNamespace(axes=2), None)
    starts = (4 * np.arange(shape[0]), 4 * np.arange(shape[1]))
    if chunks:
        scores = SimpleNamespace(shape=scores.shape, dtype=scores.dtype, chunks=chunks, values=scores)
        scores = type("Chunked", (SimpleNamespace,), {"__getitem__": lambda self, at: self.values[at]})(**vars(scores))
    return ScoreMap(
        scores, geometry, NAMES, (height, width), starts, (8, 10), np.ones(shape, bool), background=background,
        peaks=peaks or {},
    )  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 200, 10**6])
def test_a_map_gives_the_same_objects_whatever_is_read_at_a_time(monkeypatch, at_once):
    whole = score_map(peaks={"dot": Peaks(threshold=0.5, distance=9)})
    wanted = whole.objects()
    assert len(wanted) > 20 and set(wanted.classes) == {0, 2}
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", at_once)
    for chunks in (None, (5, 7), (1, 3), (4, 31)):
        found = score_map(peaks=whole.peaks, chunks=chunks).objects()
        for name in ("classes", "scores", "centres", "cells"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_objects_counts_and_classes_of_cells_by_hand():
    """Two bright cells, one of them too weak, one class's two peaks nearer than half a window, and empty ground."""
    scores = np.full((5, 9, 3), (0.0, 9.0, 0.0), np.float32)
    for (row, column), index, chance in (((1, 1), 0, 0.9), ((1, 4), 2, 0.8), ((3, 4), 2, 0.45), ((3, 5), 2, 0.95)):
        scores[row, column] = np.log((1 - chance) / 2)
        scores[row, column, index] = np.log(chance)
    scores[4, 8] = np.log([0.45, 0.15, 0.4])
    plain = score_map((5, 9))
    found = dataclasses.replace(plain, scores=scores, peaks={"cell": Peaks(threshold=0.5, distance=0)}).objects()
    # (3, 4) is beside a larger one, (1, 4) is 8 pixels or more from (3, 5): half the window's lesser side is 4.
    assert found.cells.tolist() == [[3, 5], [1, 1], [1, 4]] and found.classes.tolist() == [2, 0, 2]
    np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.8], rtol=1e-6)
    # The weak cell at its left, 4 pixels away, draws the first one to itself; the others have ground all around.
    ground = 1 / (np.exp(9) + 2)
    drawn = 4 * (0.45 - ground) / (0.95 + 0.45 + 7 * ground)
    np.testing.assert_allclose(found.centres, [[16.0, 25.0 - drawn], [8.0, 9.0], [8.0, 21.0]], rtol=1e-6)
    near = {"dot": Peaks(threshold=0.5, distance=9.0), "cell": Peaks(threshold=0.5, distance=0)}
    map_ = dataclasses.replace(plain, scores=scores, peaks=near)
    # sqrt(8² + 2.7²) = 8.5 scanned pixels.
    assert map_.counts() == {"cell": 1, "dot": 1} and list(map_.objects().cells[0]) == [3, 5]
    classes = map_.classes_of(scores)
    assert (classes[1, 1], classes[1, 4], classes[3, 4], classes[3, 5], classes[4, 8]) == (0, 2, NONE, 2, NONE)
    assert (classes != NONE).sum() == 3
    # 0.45 is enough without a threshold, and it wins there.
    assert dataclasses.replace(plain, scores=scores).counts() == {"cell": 2, "dot": 2}


def test_a_map_without_background_and_thresholds_is_as_ever():
    plain = score_map(background=None)
    np.testing.assert_array_equal(plain.classes_of(plain.scores), plain.scores.argmax(-1))
    assert plain.wins()[0].sum() == 23 * 31
    with pytest.raises(InputError, match="objects: received a map of a model without a background; accepted: one tra"):
        plain.objects()


def test_shares_leave_the_background_and_weak_cells_out():
    map_ = score_map(peaks={"dot": Peaks(threshold=0.7, distance=3)})
    chances = map_.probabilities
    winners = chances.argmax(-1)
    wanted = [(winners == 0).sum(), 0, ((winners == 2) & (chances[..., 2] >= 0.7)).sum()]
    assert map_.wins()[0].tolist() == wanted and 0 < wanted[2] < (winners == 2).sum()


@pytest.mark.parametrize("given", [{"background": "grund"}, {"peaks": {"dots": Peaks(threshold=0, distance=0)}}])
def test_a_class_that_is_none_of_the_map_is_refused(given):
    with pytest.raises(InputError, match="received the class '(grund|dots)'; accepted: one of cell, ground, dot"):
        dataclasses.replace(score_map(), **given)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), max_size=25),
    st.sampled_from([0, 5e-324, 1e-311, 0.5, 1, 3.7, 5, 200, 1e200, 1.7e308, np.inf]),
)
def test_suppression_is_greedy(places, distance):
    kept = []
    for index, (y, x) in enumerate(places):
        if all(math.dist((y, x), places[k]) >= distance for k in kept):
            kept.append(index)
    assert suppressed(np.array(places, float).reshape(-1, 2), distance).tolist() == kept


def test_exactly_at_the_threshold_and_exactly_at_the_distance_is_enough():
    assert suppressed(np.array([[0.0, 0.0], [3.0, 4.0], [0.5, 0.0]]), 5.0).tolist() == [0, 1]
    rule = CellClasses(NAMES, "ground", {"cell": Peaks(threshold=0.5, distance=0)})
    assert rule.of(np.array([[0.5, 0.25, 0.25], [0.4, 0.3, 0.3]]), "probabilities").tolist() == [0, NONE]


def test_where_the_softmax_is_one_to_the_last_bit_the_logits_say_where_the_peak_is():
    rows, columns = np.mgrid[:9, :11]
    logits = np.zeros((9, 11, 2), np.float32)
    logits[..., 1] = 140 - 5 * np.hypot(rows - 5, columns - 6)
    assert (1 - np.exp(-logits[3:8, 4:9, 1].astype(float)) == 1).all()
    finder = PeakFinder(
        CellClasses(("ground", "spot"), "ground", {}), "logits", (np.arange(9) + 0.5, np.arange(11) + 0.5),
        (1, 1), 20, (9, 11),
    )  # fmt: skip
    for height in (9, 2):
        for row in range(0, 9, height):
            part = logits[row : row + height]
            finder.add(row, 0, part, np.ones(part.shape[:2], bool))
        found = finder.found()
        assert found.cells.tolist() == [[5, 6]] and found.scores.tolist() == [1.0]
        np.testing.assert_allclose(found.centres, [[5.5, 6.5]])
        finder.__post_init__()


@settings(deadline=None)
@given(maps(), st.floats(0.3, 1), st.floats(0.3, 1), st.sampled_from([0, 1, 1.5, 6]))
def test_thresholds_and_rules_after_reading_give_what_they_give_before(case, cell, dot, distance):
    scores, scanned = case[:2]
    rules = {
        "cell": Peaks(threshold=cell, distance=distance, margin=0.5),
        "dot": Peaks(threshold=dot, distance=2 * distance),
    }
    centres = tuple(np.arange(side) + 0.5 for side in scanned.shape)

    def finder(peaks):
        made = PeakFinder(CellClasses(NAMES, "ground", peaks), "logits", centres, (1, 1), 5.0, scanned.shape)
        made.add(0, 0, scores, scanned)
        return made

    wanted = finder(rules).found()
    open_rules = {name: rule.model_copy(update={"threshold": 0.0}) for name, rule in rules.items()}
    given = finder({}).found(open_rules)
    kept = given.scores >= CellClasses(NAMES, "ground", rules).least[given.classes]
    for name in ("classes", "scores", "centres", "cells"):
        np.testing.assert_array_equal(getattr(given, name)[kept], getattr(wanted, name))
