"""How uncertain a model is of an image: the number, its reader, and the list of many images."""

import csv
import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import pytest
from conftest import command, some_by_default
from discs import BLUE, RED, picture, saved
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from test_viewer import score_map, without

import zoo
from zoo.objects.peaks import inside_image
from zoo.scanning.readers import Uncertainty
from zoo.scanning.summary import Summary
from zoo.scores import softmax, uncertainty


@given(st.integers(2, 9), st.floats(0, 200))
def test_it_is_the_entropy_as_a_share_of_the_largest(classes, spread):
    logits = spread * np.random.default_rng(classes).normal(size=(4, 3, classes))
    wanted = entropy(softmax(logits), axis=-1, base=classes)
    for scores, outputs in ((logits, "logits"), (softmax(logits), "probabilities")):
        found = uncertainty(scores.astype(np.float32), outputs)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert (found >= 0).all() and (found <= 1 + 1e-6).all()
    assert uncertainty(np.zeros((1, classes)), "logits")[0] == pytest.approx(1)
    assert uncertainty(np.eye(classes), "probabilities").max() == 0


def test_of_sigmoids_it_is_the_mean_over_classes():
    given = np.array([[0.5, 1.0, 0.0], [0.1, 0.2, 0.3]])
    wanted = [[entropy([p, 1 - p], base=2) for p in row] for row in given]
    np.testing.assert_allclose(uncertainty(given, "sigmoid"), np.mean(wanted, -1))
    assert uncertainty(np.array([[0.5], [1.0]]), "sigmoid").tolist() == [1, 0]
    assert uncertainty(np.array([[3.0]]), "logits").tolist() == [0]


@pytest.mark.parametrize("background", [None, 2])
@pytest.mark.parametrize("at_once", [1, 300, 10**6])
def test_a_map_is_the_mean_over_cells_that_are_not_background(monkeypatch, background, at_once):
    """In parts of any size; cells that were not scanned are NaN, and those beyond the image count for nothing."""
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", at_once)
    scores = without(score_map(), np.s_[2:6, 4:9])
    inside = (np.arange(19) > 0, np.arange(36) < 30)
    reader = Uncertainty("logits", background, inside)
    scores.read_by(reader)
    known = scores.scanned & inside[0][:, None] & inside[1]
    if background is not None:
        known &= scores.scores.argmax(-1) != background
    cells = np.asarray(scores.scores, np.float64)[known]
    assert reader.mean == pytest.approx(entropy(softmax(cells), axis=-1, base=7).mean(), rel=1e-9)


def test_where_the_background_wins_everywhere_it_is_0():
    scores = score_map()
    scores.scores[..., 2] += 1000
    reader = Uncertainty("logits", 2)
    scores.read_by(reader)
    assert reader.mean == 0


def test_counts_have_none():
    counts = dataclasses.replace(score_map(), outputs="counts")
    assert Summary(counts, np.zeros((120, 160, 3), np.uint8)).uncertainty is None


IMAGES: Mapping[str, list] = {
    "sure.png": [(RED, 20, 30, 5)],
    "unsure.png": [(RED, 20, 30, 4), (BLUE, 40, 60, 4)],
    "empty.png": [],
}


@pytest.mark.parametrize("background", some_by_default(["ground", None]))
def test_images_are_listed_by_falling_uncertainty(capsys, tmp_path, background):
    model, out = saved(tmp_path / "model.keras", background=background), tmp_path / "out"
    (tmp_path / "images").mkdir()
    for name, discs in IMAGES.items():
        picture((64, 80), discs, tmp_path / "images" / name)
    code, printed, _ = command(capsys, "scan", model, tmp_path / "images", "-o", out)
    assert code == 0
    with (out / "uncertainty.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], float(row["uncertainty"])) for row in csv.DictReader(file)]
    wanted = {}
    for name in IMAGES:
        scores = zoo.scan(zoo.load(model), tmp_path / "images" / name)
        reader = Uncertainty(scores.outputs, 1 if background else None, inside_image(scores.centres, (64, 80)))
        scores.read_by(reader)
        wanted[name] = reader.mean
    assert [name for name, _ in rows] == sorted(wanted, key=lambda name: (-wanted[name], name))
    np.testing.assert_allclose([value for _, value in rows], [wanted[name] for name, _ in rows], atol=1e-6)
    if background:
        assert rows[-1] == ("empty.png", 0) and rows[-2][1] > 0
    assert "least certain" in printed and printed.index(f"\n{rows[0][0]}") < printed.index(f"\n{rows[1][0]}")
    if background is None:
        return
    # One more image comes later, and one is there already.
    picture((64, 80), [(BLUE, 30, 30, 4)], tmp_path / "more.png")
    code, printed, _ = command(capsys, "scan", model, tmp_path / "more.png", tmp_path / "images/sure.png", "-o", out)
    assert code == 0 and "is there already" in printed
    assert len((out / "uncertainty.csv").read_text().splitlines()) == 5
    assert json.loads((out / "more" / "geometry.json").read_text())["image"] == "more.png"
    # What a user has changed is not ours any more.
    (out / "uncertainty.csv").write_text("mine")
    line = ("scan", model, tmp_path / "images", "-o", out)
    code, _, err = command(capsys, *line)
    assert code == 2 and "uncertainty.csv': is there already" in err
    assert command(capsys, *line, "--overwrite")[0] == 0
