"""One pass over the scores and one reading of the image give all that is shown of a scan."""

import dataclasses

import numpy as np
import pytest
from conftest import command
from data_sets import Counted
from PIL import Image

import zoo
from zoo.errors import InputError
from zoo.scanning.options import Options
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.summary import Summary
from zoo.scanning.thumbnails import Thumbnail, grey_view, read_by
from zoo.scanning.viewer import Page, view_of, write_viewer


@pytest.fixture(scope="module")
def scanned(model_file):
    image = np.random.default_rng(0).integers(0, 256, (61, 47, 1), np.uint8)
    mask = np.ones((61, 47), bool)
    mask[:20, :20] = False
    return zoo.scan(zoo.load(model_file), image, mask=mask), image


@pytest.mark.parametrize("class_index", [None, 3])
def test_everything_is_what_each_gives_by_itself(scanned, tmp_path, monkeypatch, class_index):
    scores, image = scanned
    monkeypatch.setattr("zoo.scanning.summary._OVERLAY_PIXELS", 30)
    monkeypatch.setattr("zoo.scanning.viewer.MOST_PIXELS", 20)
    page = Page.of(scores, image)
    summary = Summary(scores, image, class_index, "average-logits", page)
    np.testing.assert_array_equal(summary.picture, scores.overlay(image, class_index, side=30))
    assert summary.factor == 3 and page.view.factor == 4
    np.testing.assert_array_equal(summary.wins, scores.wins()[0])
    np.testing.assert_allclose(summary.answer, zoo.answer(scores, "average-logits"), rtol=1e-12)
    view, factor = view_of(image, 20)
    np.testing.assert_array_equal(page.view.rgb, view)
    alone = write_viewer(scores, view, tmp_path / "alone.html", factor)
    assert alone.read_text() == page.write(scores, tmp_path / "summary.html").read_text()
    assert Summary(scores, image).answer is None


@pytest.mark.parametrize("bands", [1, 9])
def test_scores_and_image_are_read_once(scanned, monkeypatch, bands):
    """Beside the scores' own sample, for the median cell, which is bounded."""
    scores, image = scanned
    monkeypatch.setattr("zoo.scanning.usual_scores._SAMPLED", 10 * 40)
    monkeypatch.setattr("zoo.scanning.score_map._SCORES_AT_ONCE", scores.scores.size // bands)
    monkeypatch.setattr("zoo.scanning.thumbnails._ROWS_AT_ONCE", 61 // bands)
    monkeypatch.setattr("zoo.scanning.thumbnails._SAMPLES_AT_ONCE", 1)
    given, pixels = Counted(scores.scores), Counted(image)
    counted = dataclasses.replace(scores, scores=given)
    counted.standing_out(scores.scores[:1, :1])
    assert given.reads.max() == 1 and given.reads.sum() <= 40
    given.reads[:] = 0
    page = Page.of(counted, pixels)
    summary = Summary(counted, pixels, None, "average-logits", page)
    assert (given.reads == 1).all() and (pixels.reads == 1).all()
    whole_page = Page.of(scores, image)
    whole = Summary(scores, image, None, "average-logits", whole_page)
    np.testing.assert_array_equal(page.view.rgb, whole_page.view.rgb)
    np.testing.assert_array_equal(summary.wins, whole.wins)


def test_the_command_reads_both_once_after_the_scan(capsys, monkeypatch, model_file, tmp_path):
    passes, real = [], ScoreMap.blocks
    monkeypatch.setattr(ScoreMap, "blocks", lambda self, *side: (passes.append(side), real(self, *side))[1])
    read, really = [], zoo.scanning.summary.read_by
    monkeypatch.setattr("zoo.scanning.summary.read_by", lambda *all_: (read.append(all_), really(*all_))[1])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 30), np.uint8)).save(tmp_path / "a.png")
    line = ("scan", model_file, tmp_path / "a.png", "-o", tmp_path / "out", "--answer", "average-logits")
    assert command(capsys, *line)[0] == 0
    assert len(passes) == len(read) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_thumbnails_are_means_of_squares_however_they_are_read(monkeypatch, dtype, channels):
    generator = np.random.default_rng(0)
    image = (generator.random((53, 38, channels)) * 250).astype(dtype)
    grey = image.mean(-1, dtype=np.float64)
    for most, factor in ((None, 1), (20, 3), (7, 8)):
        wanted = [[grey[r : r + factor, c : c + factor].mean() for c in range(0, 38, factor)]
                  for r in range(0, 53, factor)]  # fmt: skip
        wanted = np.array(wanted)
        if dtype != np.uint8:
            wanted = (wanted - wanted.min()) / np.ptp(wanted) * 255
        for rows in (1, 5, 100):
            monkeypatch.setattr("zoo.scanning.thumbnails._ROWS_AT_ONCE", rows)
            monkeypatch.setattr("zoo.scanning.thumbnails._SAMPLES_AT_ONCE", 1)
            np.testing.assert_allclose(grey_view(image, most), wanted, rtol=1e-4, atol=1e-3)
            pictures = Thumbnail(image, most), Thumbnail(image, most, in_colour=True)
            read_by(image, *pictures)
            assert pictures[0].rgb.shape == pictures[1].rgb.shape == (*wanted.shape, 3)
            assert np.abs(pictures[0].rgb[..., 0] - wanted).max() <= 0.501


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"merge": "mean"}, "unknown merge 'mean'"),
        ({"border": "mirror"}, "border: received 'mirror'; accepted: none, reflect, shift"),
        ({"memory": "much"}, "memory: received 'much'; accepted: bytes"),
        ({"tile": 20, "memory": "1GiB"}, "tile and memory: received 20 and '1GiB'; accepted: one of them"),
        ({"scales": [1, 1]}, "the same one twice"),
        ({"merge": "maximum-logits"}, "merge: received 'maximum-logits' without scales; accepted: none, or scales"),
    ],
)
def test_options_are_checked_where_they_are_made(given, text):
    with pytest.raises(InputError, match=text):
        Options(**given)


def test_options_are_kept_as_they_are_meant():
    options = Options(memory="2GiB", scales=["1", 2], stride=4)
    assert options.budget == 2**31 and options.scales == (1.0, 2.0)
    assert options.to_dict() == {
        "stride": [4, 4], "scales": [1.0, 2.0], "merge": "average-probabilities", "border": "none", "engine": "keras",
        "precision": None, "tile": None, "memory": 2**31,
    }  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.tile = 3
    assert dataclasses.replace(options) == options
