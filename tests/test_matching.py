"""Peaks beside labelled objects: matches by hand, and every number against plain loops."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from zoo.card import Peaks
from zoo.objects.marked import Objects
from zoo.objects.matching import Matches, match, matched, score_objects
from zoo.objects.thresholds import best_threshold, choose_peaks, usual_size


class Peaked(NamedTuple):
    classes: np.ndarray
    scores: np.ndarray
    centres: np.ndarray


def peaks(*rows):
    """Rows of class, score, (y, x)."""
    classes, scores, centres = zip(*rows, strict=True) if rows else ((), (), ())
    return Peaked(np.array(classes, int), np.array(scores, float), np.array(centres, float).reshape(-1, 2))


def objects(*rows):
    """Rows of class, (y, x), (height, width)."""
    classes, centres, sides = zip(*rows, strict=True) if rows else ((), (), ())
    shaped = (np.array(each, float).reshape(-1, 2) for each in (centres, sides))
    return Objects(*shaped, np.array(classes, np.int32))


def test_a_peak_takes_the_nearest_unused_object_and_the_border_of_a_box_is_inside():
    two = objects((0, (10, 10), (10, 10)), (0, (10, 14), (10, 10)))
    # The best is nearer to the second, the next one in both boxes; the third is left with none.
    assert match(peaks((0, 0.9, (10, 13)), (0, 0.8, (10, 13)), (0, 0.7, (10, 13))), two).tolist() == [1, 0, -1]
    assert match(peaks((0, 0.9, (15, 5))), two).tolist() == [0]
    assert match(peaks((0, 0.9, (15.01, 5))), two).tolist() == [-1]


def test_the_better_peak_chooses_first_whatever_the_order():
    one = objects((0, (10, 10), (10, 10)))
    assert match(peaks((0, 0.5, (10, 10)), (0, 0.6, (13, 13))), one).tolist() == [-1, 0]


def test_a_point_is_hit_within_the_tolerance_and_by_its_class_alone():
    point = objects((1, (10, 10), (0, 0)))
    assert match(peaks((1, 0.9, (13, 14))), point, 5).tolist() == [0]
    assert match(peaks((1, 0.9, (13, 14.1))), point, 5).tolist() == [-1]
    assert match(peaks((0, 0.9, (10, 10))), point, 5).tolist() == [-1]


def test_no_peaks_and_no_objects_match_nothing():
    assert match(peaks(), objects((0, (1, 1), (2, 2)))).tolist() == []
    assert match(peaks((0, 0.5, (1, 1))), objects()).tolist() == [-1]


place = st.tuples(st.integers(0, 12), st.integers(0, 12))
some_peaks = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.2, 0.4, 0.5, 0.9]), place), max_size=8)
side = st.one_of(st.just((0, 0)), st.tuples(st.integers(1, 9), st.integers(1, 9)))
some_objects = st.lists(st.tuples(st.integers(0, 1), place, side), max_size=6)


def matched_by_loops(found, there, tolerance):
    free, taken = set(range(len(there))), {}
    order = sorted(range(len(found)), key=lambda i: (-found[i][1], found[i][2], i))
    for i in order:
        kind, _, (y, x) = found[i]
        best = None
        for j in sorted(free):
            other, (top, left), (height, width) = there[j]
            down, across = abs(top - y), abs(left - x)
            distance = (down**2 + across**2) ** 0.5
            near = down <= height / 2 and across <= width / 2 if height else distance <= tolerance
            if other == kind and near and (best is None or distance < best[0]):
                best = distance, j
        taken[i] = -1 if best is None else best[1]
        free.discard(taken[i])
    return [taken[i] for i in range(len(found))]


@given(some_peaks, some_objects, st.integers(0, 6))
def test_matches_are_those_of_plain_loops(found, there, tolerance):
    assert match(peaks(*found), objects(*there), tolerance).tolist() == matched_by_loops(found, there, tolerance)


@given(some_peaks, some_objects, st.sampled_from([0.0, 0.3, 0.45, 0.95]))
def test_a_threshold_leaves_the_matches_above_it_as_they_are(found, there, threshold):
    (_, whole) = matched([(peaks(*found), objects(*there))], 2, 3)
    (_, cut) = matched([(peaks(*(each for each in found if each[1] >= threshold)), objects(*there))], 2, 3)
    assert whole.counts(threshold).tolist() == cut.counts(0).tolist()


some_matches = st.builds(
    lambda rows, extra: Matches(
        np.array(sorted((score for score, *_ in rows), reverse=True)),
        np.array([hit for _, hit, _ in rows], bool),
        np.array([image for *_, image in rows], int),
        np.array([sum(hit for _, hit, image in rows if image == index) + extra[index] for index in range(3)]),
    ),
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans(), st.integers(0, 2)), max_size=9),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)


def precision_and_recall(matches, threshold, weights=(1, 1, 1)):
    hits = false = 0
    for score, hit, image in zip(matches.scores, matches.hits, matches.images, strict=True):
        if score >= threshold:
            hits, false = hits + weights[image] * hit, false + weights[image] * (not hit)
    total = sum(weight * count for weight, count in zip(weights, matches.objects, strict=True))
    precision = hits / (hits + false) if hits + false else None
    return (
        precision,
        hits / total if total else None,
        2 * hits / (hits + false + total) if hits + false + total else None,
    )


def area_by_loops(matches, weights=(1, 1, 1)):
    points = [precision_and_recall(matches, score, weights)[:2] for score in sorted(set(matches.scores), reverse=True)]
    if sum(weight * count for weight, count in zip(weights, matches.objects, strict=True)) == 0:
        return None
    area = before = 0
    for index, (_, recall) in enumerate(points):
        best = max((precision for precision, _ in points[index:] if precision is not None), default=0)
        area, before = area + (recall - before) * best, recall
    return area


@given(some_matches, st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)))
def test_average_precision_is_that_of_plain_loops_however_often_images_count(matches, weights):
    both = matches.average_precision(np.array([[1, 1, 1], weights]))
    for area, wanted in zip(both, (area_by_loops(matches), area_by_loops(matches, weights)), strict=True):
        assert np.isnan(area) if wanted is None else area == pytest.approx(wanted, abs=1e-12)


def test_average_precision_by_hand():
    # Hit, false, hit, of 3 objects: 1/3 at precision 1, 1/3 at 2/3, and the last object is never found.
    matches = Matches(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), np.zeros(3, int), np.array([3]))
    assert matches.average_precision()[0] == pytest.approx(1 / 3 + 2 / 9)


@pytest.mark.parametrize("hits", ["1110", "1101", "1011011", "0111"])
def test_average_precision_beside_scikit_learns(hits):
    """Nothing is missed; scikit-learn does not interpolate, so it is no larger, and equal where precision falls."""
    hits = np.array([digit == "1" for digit in hits])
    scores = np.linspace(0.9, 0.1, len(hits))
    ours = Matches(scores, hits, np.zeros(len(hits), int), np.array([hits.sum()])).average_precision()[0]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    theirs = average_precision_score(hits, scores)
    at_hits = precision[hits]
    if (np.diff(at_hits) <= 0).all():
        assert ours == pytest.approx(theirs)
    else:
        assert ours > theirs


@given(some_matches, st.sampled_from([0.0, 0.4, 0.8]))
def test_scores_at_a_threshold_are_those_of_plain_loops(matches, threshold):
    by_class, micro, macro = score_objects({"cell": matches}, {"cell": threshold}, {"cell": matches})
    wanted = precision_and_recall(matches, threshold)
    assert (by_class["cell"].precision, by_class["cell"].recall, by_class["cell"].f1) == pytest.approx(wanted)
    assert (micro.precision, micro.recall, micro.f1) == pytest.approx(wanted)
    if matches.objects.sum():
        assert macro.f1 == pytest.approx(wanted[2])


def test_micro_pools_the_classes_and_macro_is_their_mean():
    one = Matches(np.array([0.9, 0.8]), np.array([True, True]), np.array([0, 1]), np.array([1, 1]))
    other = Matches(np.array([0.9, 0.8]), np.array([True, False]), np.array([0, 1]), np.array([3, 5]))
    none = Matches(np.array([0.9]), np.array([False]), np.array([0]), np.array([0, 0]))
    matches = {"one": one, "other": other, "none": none}
    by_class, micro, macro = score_objects(matches, dict.fromkeys(matches, 0.5), matches)
    assert micro.recall == pytest.approx(3 / 10) and micro.precision == pytest.approx(3 / 5)
    assert macro.recall == pytest.approx((1 + 1 / 8) / 2) and macro.average_precision == pytest.approx((1 + 1 / 8) / 2)
    assert by_class["none"].recall is None and by_class["none"].precision == 0
    assert micro.average_precision is None and micro.threshold is None and macro.n == 10


def test_intervals_hold_the_value_and_are_those_of_images_drawn_anew():
    generator = np.random.default_rng(5)
    objects_of, found = np.full(40, 10), generator.binomial(10, 0.7, 40)
    images = np.repeat(np.arange(40), found)
    matches = Matches(np.full(len(images), 0.9), np.ones(len(images), bool), images, objects_of)
    scores = score_objects({"cell": matches}, {"cell": 0.5}, {"cell": matches})[0]["cell"]
    low, high = scores.intervals["recall"]
    # By the normal approximation, of the mean of 40 images.
    spread = 1.96 * (found / 10).std() / 40**0.5
    assert (low, high) == pytest.approx((scores.recall - spread, scores.recall + spread), abs=0.01)
    assert scores == score_objects({"cell": matches}, {"cell": 0.5}, {"cell": matches})[0]["cell"]


def test_one_image_has_no_interval():
    matches = Matches(np.array([0.9]), np.array([True]), np.array([0]), np.array([2]))
    scores = score_objects({"cell": matches}, {"cell": 0.5}, {"cell": matches})[0]["cell"]
    assert scores.recall == 0.5 and scores.to_dict()["intervals"] == dict.fromkeys(scores.intervals)


@given(some_matches)
def test_no_threshold_is_better_than_the_best(matches):
    threshold, f1 = best_threshold(matches)
    cuts = [precision_and_recall(matches, score - 1e-9)[2] for score in [*matches.scores]]
    assert f1 == pytest.approx(max((cut for cut in cuts if cut is not None), default=0))
    if f1:
        assert precision_and_recall(matches, threshold)[2] == pytest.approx(f1)
        assert threshold not in matches.scores


def test_thresholds_lie_midway_and_the_distance_that_parts_two_peaks_is_chosen():
    there = objects((0, (10, 10), (8, 8)), (1, (30, 30), (0, 0)))
    # Two peaks on one object, 3 pixels apart, and a false one far away, at half the scale.
    whole = peaks((0, 0.9, (10, 10)), (0, 0.8, (10, 13)), (0, 0.3, (50, 50)), (1, 0.6, (30, 31)))
    tried = []

    def peaks_at(by_class):
        tried.append({name: each.distance for name, each in by_class.items()})
        near = by_class["box"].distance >= 1.5
        kept = [index for index in range(4) if not (near and index == 1)]
        return [Peaked(*(each[kept] for each in whole))]

    chosen = choose_peaks(peaks_at, [there], {"box": 0, "point": 1}, {"box": 4.0, "point": 3.0}, tolerance=3)
    assert tried[0] == {"box": 1.0, "point": 0.75}
    assert chosen["box"] == Peaks(threshold=0.6, distance=2.0)
    assert chosen["point"] == Peaks(threshold=0.3, distance=1.5)


def test_a_margin_is_chosen_where_what_the_border_cuts_has_no_label():
    there = objects((0, (10, 10), (8, 8)))
    whole = peaks((0, 0.9, (0.4, 10)), (0, 0.8, (10, 10)))

    def peaks_at(by_class):
        kept = [index for index, (y, _) in enumerate(whole.centres) if y >= by_class["cell"].margin]
        return [Peaked(*(each[kept] for each in whole))]

    for size, margin in ((8.0, 1.0), (3.0, 0.75), (1.0, 0.0)):
        chosen = choose_peaks(peaks_at, [there], {"cell": 0}, {"cell": size})
        assert chosen["cell"] == Peaks(threshold=0.4, distance=size / 2, margin=margin)


def test_a_class_that_is_never_hit_keeps_its_peaks():
    chosen = choose_peaks(lambda tried: [peaks((0, 0.9, (1, 1)))], [objects()], {"cell": 0}, {"cell": 0.0})
    assert chosen == {"cell": Peaks(threshold=0, distance=0)}


def test_the_usual_size_is_the_median_of_boxes_and_points():
    there = [
        (objects((0, (5, 5), (4, 9)), (0, (5, 5), (8, 8))), 1),
        (objects((0, (9, 9), (0, 0)), (1, (9, 9), (99, 99))), 5),
    ]
    assert usual_size(there, 0) == 8 and usual_size(there, 1) == 99 and usual_size(there, 2) == 0
