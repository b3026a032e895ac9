"""Figures for readers who see colours otherwise: the classes' colours by models of colour vision, and what is drawn."""

import dataclasses
from itertools import combinations

import counters
import numpy as np
import pytest
from matplotlib import color_sequences
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from test_viewer import random_view, score_map

from zoo import figures, plots
from zoo.scanning.overlay import palette, pattern
from zoo.scanning.summary import Summary

# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency (2009), the
# matrices of full severity, which are of linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# From linear sRGB to XYZ, and its white.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# How far colours are apart at least, as CIE 1976 has it; 2.3 are just noticed.
FAR = 15


def linear(colours):
    colours = np.asarray(colours, float)
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def nearest(colours, seen):
    """How far the two nearest colours are apart, CIE 1976 (L*, a*, b*), where they are seen so."""
    white = XYZ.sum(1)
    relative = np.clip(linear(colours) @ np.transpose(seen), 0, 1) @ XYZ.T / white
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], -1)
    return min(np.linalg.norm(a - b) for a, b in combinations(lab, 2))


def contrast(first, second):
    """The contrast of two colours, 1 to 21, as in WCAG 2.2."""
    low, high = sorted(float(linear(to_rgb(each)) @ XYZ[1]) for each in (first, second))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What is drawn and not yet written."""
    kept = []
    monkeypatch.setattr(plots, "write_figure", lambda figure, *_: kept.append(figure))
    return kept


@pytest.mark.parametrize("seen", SEEN)
def test_ten_classes_have_colours_that_everybody_can_tell_apart(seen):
    assert nearest(palette(10), SEEN[seen]) >= FAR
    for classes in range(1, 10):
        np.testing.assert_array_equal(palette(classes), palette(10)[:classes])


def test_matplotlib_s_usual_colours_are_not_such():
    """That the measure can fail: brown and green, as deuteranopes see them."""
    assert nearest(color_sequences["tab10"], SEEN["deuteranopia"]) < FAR


def test_colours_are_seen_within_black_rims():
    assert min(contrast(colour, "black") for colour in palette(60)) >= 3


def test_sixty_classes_differ_by_colour_or_pattern():
    looks = {(tuple(colour), pattern(index)) for index, colour in enumerate(palette(60))}
    assert len(looks) == 60 and {pattern(index) for index in range(10)} == {0}
    assert len(figures.MARKERS) == len(set(figures.LINES)) == pattern(59) + 1


def test_texts_are_readable_on_every_colour():
    for level in np.linspace(0, 1, 50):
        for colour in ((level, level, level), (0, level, 1), (level, 0, 0), (1, level, 0)):
            assert contrast(colour, figures.readable_on(colour)) >= 4.5


def test_numbers_of_a_confusion_are_readable(drawn):
    plots.confusion([[100 - n, n] for n in (0, 50, 55, 60, 75, 99)], tuple("abcdef"), None)
    axis, bar = drawn[0].axes
    (shown,) = axis.images
    assert "share" in bar.get_ylabel()
    for text in axis.texts:
        column, row = text.get_position()
        assert contrast(shown.to_rgba(shown.get_array()[row, column])[:3], text.get_color()) >= 4.5


def test_training_and_validation_differ_by_their_lines(drawn):
    plots.curves([{"epoch": n, "loss": 1, "accuracy": 0, "val_loss": 1, "val_accuracy": 0} for n in range(3)], None)
    for axis in drawn[0].axes:
        assert len({line.get_linestyle() for line in axis.lines}) == 2
        assert min(contrast(line.get_color(), "white") for line in axis.lines) >= 3


@pytest.mark.parametrize("most", [plots._DRAWN, 40])
def test_areas_and_legend_of_more_than_ten_classes_are_hatched(drawn, monkeypatch, most):
    monkeypatch.setattr(plots, "_DRAWN", most)
    names = tuple(map(str, range(23)))
    scores = score_map(names=names)
    scores.scores[...] = 9 * np.eye(23)[[12]]
    scores.scores[:, 18:] = 9 * np.eye(23)[4]
    plots.overlay(Summary(scores, random_view()), None)
    (axis,) = drawn[0].axes
    hatches = {text.get_text(): patch.get_hatch() for text, patch in zip(
        axis.get_legend().get_texts(), axis.get_legend().get_patches(), strict=True)}  # fmt: skip
    assert hatches == {"4": "", "12": "////"}
    (areas,) = axis.collections
    # Cells 0 to 17 are 4 pixels wide, from 5.5 on.
    assert areas.hatches == ["////"]
    across = np.concatenate([path.vertices[:, 0] for path in areas.get_paths()])
    assert across.min() < 8 and 76 < across.max() < 80
    (picture,) = axis.images
    assert max(picture.get_size()) <= most and picture.get_extent() == [-0.5, 159.5, 119.5, -0.5]


@pytest.mark.parametrize("sides", [(90, 160), (160, 90), (7, 3), (1, 500), (300, 1)])
def test_a_picture_is_drawn_with_no_more_pixels_than_that_takes(monkeypatch, sides):
    monkeypatch.setattr(plots, "_DRAWN", 100)
    picture = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    drawn = plots._as_drawn(picture)
    assert drawn.dtype == np.uint8 and max(drawn.shape[:2]) == min(max(sides), 100) and min(drawn.shape) >= 1
    assert max(sides) > 100 or drawn is picture
    np.testing.assert_allclose(drawn.mean(), picture.mean(), atol=2)


def test_objects_of_more_than_ten_classes_have_marks_of_their_own(drawn):
    scores = dataclasses.replace(score_map(names=tuple(map(str, range(23)))), background="0")
    scores.scores[...] = 9 * np.eye(23)[0]
    scores.scores[4, 5], scores.scores[12, 25] = 9 * np.eye(23)[3], 9 * np.eye(23)[13]
    plots.overlay(Summary(scores, random_view()), None)
    marks = [each for each in drawn[0].axes[0].collections if isinstance(each, PathCollection)]
    # Each within its black rim.
    assert len(marks) == 4
    assert len({tuple(map(tuple, each.get_paths()[0].vertices.round(3))) for each in marks}) == 2


@pytest.mark.parametrize("missing", [False, True])
def test_density_is_dark_where_it_is_largest_and_says_what_was_not_scanned(monkeypatch, missing):
    from zoo import density_plots

    kept = []
    monkeypatch.setattr(density_plots, "write_figure", lambda figure, *_: kept.append(figure))
    scanned = np.ones((19, 36), bool)
    scanned[2:6, 4:9] = not missing
    found = counters.plain_map(scanned=scanned)
    density_plots.density(Summary(found, random_view()), None)
    for axis in kept[0].axes[:3]:
        (picture,) = axis.images
        assert contrast(picture.cmap(1.0)[:3], "white") >= 3 and picture.cmap(0.0)[:3] == (1, 1, 1)
        values = np.ma.filled(picture.get_array(), np.nan)
        assert np.isnan(values[30, 30]) == missing and picture.norm.vmax == pytest.approx(np.nanmax(values))
        assert "grey: not scanned" in axis.get_title()  # beyond the grid too
