"""The label of a grid cell: by hand, and against the definition cell by cell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.objects.cell_labels import IGNORED, cell_labels
from zoo.objects.marked import Objects


def objects(*rows):
    centres, sides, classes = zip(*rows, strict=True)
    return Objects(np.array(centres, float), np.array(sides, float), np.array(classes, np.int32))


def test_a_box_labels_its_middle_and_is_ringed_by_ignored_cells():
    labels = cell_labels(objects(((5.5, 5.5), (8, 8), 1)), np.arange(12) + 0.5, np.arange(12) + 0.5, 0, (1, 1))
    picture = ["".join({0: ".", 1: "#", IGNORED: "o"}[each] for each in row) for row in labels.tolist()]
    assert picture == [
        "............",
        ".....o......",
        "...ooooo....",
        "..ooo#ooo...",
        "..oo###oo...",
        ".oo#####oo..",
        "..oo###oo...",
        "..ooo#ooo...",
        "...ooooo....",
        ".....o......",
        "............",
        "............",
    ]


def test_no_object_leaves_background_alone():
    assert (cell_labels(Objects.none(), np.arange(3.0), np.arange(4.0), 7, (1, 1)) == np.full((3, 4), 7)).all()


def test_a_cell_between_two_objects_is_the_nearer_ones():
    two = objects(((4, 4), (16, 16), 1), ((4, 8), (4, 4), 2))
    labels = cell_labels(two, np.array([4.0]), np.array([4.0, 6.0, 7.0, 8.0, 9.0]), 0, (1, 1))
    # 6 is a quarter of the way to the first one's border, and on that of the second; 7 is nearer to the first.
    assert labels.tolist() == [[1, 1, 1, 2, 2]]


centre = st.tuples(st.floats(-5, 45), st.floats(-5, 45))
side = st.one_of(st.just((0.0, 0.0)), st.tuples(st.floats(0.5, 30), st.floats(0.5, 30)))


@given(
    # Of class 0, the background's, are places that are marked as such.
    rows=st.lists(st.tuples(centre, side, st.integers(0, 3)), max_size=6),
    stride=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    tolerance=st.floats(0.1, 12),
    elsewhere=st.sampled_from([0, IGNORED]),
)
def test_every_cell_is_what_the_definition_says(rows, stride, tolerance, elsewhere):
    rows = sorted(rows, key=lambda row: row[2] == 0)
    found = objects(*rows) if rows else Objects.none()
    down, across = np.arange(3.5, 40, stride[0]), np.arange(2.0, 40, stride[1])
    labels = cell_labels(found, down, across, elsewhere, stride, tolerance)
    for i, y in enumerate(down):
        for j, x in enumerate(across):
            expected, nearest = elsewhere, math.inf
            for (cy, cx), (height, width), index in rows:
                ry, rx = (tolerance, tolerance) if height == width == 0 else (height / 2, width / 2)
                ry, rx = max(ry, math.sqrt(2) * stride[0]), max(rx, math.sqrt(2) * stride[1])
                distance = math.hypot((y - cy) / ry, (x - cx) / rx)
                if distance < nearest:
                    nearest = distance
                    if distance <= 0.5:
                        expected = index
                    elif distance <= 1 and index > 0:
                        expected = IGNORED
            assert labels[i, j] == expected


@given(at=centre, stride=st.tuples(st.integers(1, 8), st.integers(1, 8)))
@pytest.mark.parametrize("sides", [(0, 0), (0.5, 0.5)])
def test_an_object_whose_centre_the_grid_covers_labels_a_cell(at, stride, sides):
    rows, columns = np.arange(-8, 50, stride[0]), np.arange(-8, 50, stride[1])
    assert (cell_labels(objects((at, sides, 2)), rows, columns, 0, stride) == 2).any()
