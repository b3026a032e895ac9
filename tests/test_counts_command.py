"""`zoo scan`, `zoo regions` and `zoo predict` with a model that counts: tables, pictures and lines."""

import csv
import io
import json

import counters
import numpy as np
import pytest
from conftest import SCAN_FILES, command
from PIL import Image
from test_fleet import needs_ray, start
from test_objects_command import PEAKS, saved
from test_objects_command import picture as discs

import zoo
from zoo.density_plots import density as draw
from zoo.scanning.density import Density
from zoo.scanning.overlay import palette
from zoo.scanning.summary import Summary
from zoo.scanning.viewer import Page

COUNT_FILES = ["counts.csv", "counts.json", "density.png"]
PLACES = {"a.npy": [(0, 0, 0), (0, 20, 33), (1, 10, 40)], "b.npy": [(1, 5, 5)]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return zoo.save(counters.model(), tmp_path_factory.mktemp("model") / "counter.keras")


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name, places in PLACES.items():
        np.save(tmp_path / "images" / name, counters.picture((37, 50), places))
    return tmp_path / "images"


def table(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def rows(name):
    return [[name, kind, f"{sum(index == each for index, *_ in PLACES[name]):.3f}"]
            for each, kind in enumerate(counters.NAMES)]  # fmt: skip


def test_one_image_has_its_counts_and_its_density(capsys, model, images, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command(capsys, "scan", model, images / "a.npy", "-o", out)
    assert code == 0 and "cells won" not in printed and "approximate" not in printed
    head, first, second = (line.split() for line in printed.splitlines()[1:4])
    assert head[:2] == ["class", "objects"] and first[2] == "2.0" and second[1] == "1.0"
    assert "objects per 4 x 4 pixels" in printed
    assert sorted(path.name for path in out.iterdir()) == sorted([*SCAN_FILES, *COUNT_FILES])
    assert table(out / "counts.csv") == [["image", "class", "count"], *rows("a.npy")]
    record, geometry = (json.loads((out / name).read_text()) for name in ("counts.json", "geometry.json"))
    assert record["counts"] == pytest.approx(dict(zip(counters.NAMES, (2, 1), strict=True)), rel=1e-5)
    assert record["approximate"] == [] and record["density_unit"] == "objects per 4 x 4 pixels"
    # What is saved is the map; what it says of densities is beside it.
    scores = np.load(out / "scores.npz")["scores"]
    assert geometry["outputs"] == "counts" and geometry["windows_per_pixel"] == 12 and geometry["border"] == "full"
    np.testing.assert_allclose(scores.sum((0, 1)) / geometry["windows_per_pixel"], [2, 1], rtol=1e-5)
    assert record["largest_density"]["ring"] == pytest.approx(scores[..., 1].max() / 12)


def test_elsewhere_the_command_says_approximate_and_why(capsys, model, images, tmp_path):
    mask = np.zeros((37, 50), np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    line = [
        "scan",
        model,
        images / "a.npy",
        "-o",
        tmp_path / "out",
        "--border",
        "none",
        "--mask",
        tmp_path / "mask.png",
    ]
    code, printed, _ = command(capsys, *line, "--class", "ring")
    assert code == 0 and "the counts are approximate: with the border 'none' pixels" in printed
    assert "cells were not scanned\n" in printed
    reasons = json.loads((tmp_path / "out" / "counts.json").read_text())["approximate"]
    assert len(reasons) == 2
    code, _, err = command(capsys, *line[:-4], "--scales", "0.5,1", "--overwrite")
    assert code == 2 and "scales: received (0.5, 1.0); accepted: none for a model that counts" in err
    code, _, err = command(capsys, *line[:-4], "--answer", "average-logits", "--overwrite")
    assert code == 2 and "answer: received the numbers of objects" in err


def test_several_images_have_a_table_of_their_own_and_of_all(capsys, model, images, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command(capsys, "scan", model, images, "-o", out)
    assert code == 0 and "2 images:\nclass" in printed and f"wrote {out / 'counts.csv'}\n" in printed
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "counts.csv", "counts.json"]
    assert table(out / "counts.csv") == [["image", "class", "count"], *rows("a.npy"), *rows("b.npy")]
    total = json.loads((out / "counts.json").read_text())["counts"]
    assert total == pytest.approx(dict(zip(counters.NAMES, (2, 2), strict=True)), rel=1e-5)
    before = (out / "counts.csv").read_bytes()
    code, printed, _ = command(capsys, "scan", model, images, "-o", out)
    assert code == 0 and printed.count("is there already") == 2 and (out / "counts.csv").read_bytes() == before


def test_objects_and_counts_take_each_others_place(capsys, model, images, tmp_path):
    """Both have a counts.csv."""
    finder, out = saved(tmp_path / "discs.keras", peaks=PEAKS), tmp_path / "out"
    discs((37, 50), [], tmp_path / "c.png")
    assert command(capsys, "scan", finder, tmp_path / "c.png", "-o", out)[0] == 0
    line = ["scan", model, images / "a.npy", "-o", out]
    code, _, err = command(capsys, *line)
    assert code == 2 and "is there already" in err
    assert command(capsys, *line, "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*SCAN_FILES, *COUNT_FILES])
    assert table(out / "counts.csv")[1:] == rows("a.npy")
    assert command(capsys, "scan", finder, tmp_path / "c.png", "-o", out, "--overwrite")[0] == 0
    assert not (out / "counts.json").exists() and not (out / "density.png").exists()
    assert table(out / "counts.csv")[1][2] == "0"


def test_boxes_have_estimates_and_an_image_alone_its_numbers(capsys, model, images, tmp_path):
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right,count ring\n0,0,37,50,mine\n0,0,18,50,\n18,0,37,50,\n")
    line = ["regions", model, images / "a.npy", tmp_path / "boxes.csv", "-o", tmp_path / "out.csv"]
    code, printed, _ = command(capsys, *line)
    assert code == 0 and "3 boxes: disc, bright 4.0, ring 2.0" in printed and "the counts are estimates" in printed
    head, whole, *halves = table(tmp_path / "out.csv")
    assert head[4:] == ["count disc, bright", "count ring", "given_count ring"] and whole[4:] == ["2.0", "1.0", "mine"]
    assert sum(float(half[4]) for half in halves) == pytest.approx(2, abs=2e-3)
    code, _, err = command(capsys, *line, "--way", "crops", "--overwrite")
    assert code == 2 and "way: received 'crops'; accepted: 'cells' for a model that counts" in err
    np.save(tmp_path / "one.npy", counters.picture((16, 12), [(1, 3, 3), (1, 8, 9), (0, 9, 4)]))
    code, printed, _ = command(capsys, "predict", model, tmp_path / "one.npy")
    assert code == 0 and printed.strip().endswith("one.npy: ring about 2.0, disc, bright about 1.0")


def test_one_pass_gives_overlay_counts_and_page(tmp_path):
    whole = counters.plain_map()
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    page = Page.of(whole, image)
    summary = Summary(whole, image, None, None, page)
    assert summary.density is page.cells and summary.density.counts == whole.counts()
    assert summary.class_index == summary.density.most_counted and summary.found is summary.answer is None
    np.testing.assert_array_equal(summary.picture, whole.overlay(image))
    drawn = np.asarray(Image.open(draw(summary, tmp_path / "density.png")).convert("RGB"))
    # Of every class its own hue, and white where there are none.
    for colour in 255 * palette(3):
        assert (np.abs(drawn - colour).max(-1) < 6).any()
    assert isinstance(page.cells, Density) and (drawn == 255).all(-1).mean() > 0.1


@needs_ray
@pytest.mark.extended
def test_workers_count_as_one_process_does(capsys, model, images, tmp_path):
    assert command(capsys, "scan", model, images, "-o", tmp_path / "one")[0] == 0
    printed, errors = (started := start(model, images, "-o", tmp_path / "two")).communicate()
    assert started.returncode == 0 and "2 images:" in printed, errors
    for name in ("counts.csv", "a/counts.csv", "a/viewer.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
