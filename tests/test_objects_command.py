"""`zoo scan` with a model that knows a background: objects in files, pictures and lines."""

import csv
import json
import re

import numpy as np
import pytest
from conftest import SCAN_FILES, command
from discs import BLUE, GROUND, RED, picture, saved
from PIL import Image
from test_fleet import needs_ray, start

import zoo
from zoo.card import Card, Peaks, attach, card
from zoo.errors import InputError
from zoo.scanning.store import Store

PEAKS = {RED: Peaks(threshold=0.8, distance=8), BLUE: Peaks(threshold=0.7, distance=8)}
OBJECT_FILES = ["counts.csv", "objects.csv", "objects.geojson", "objects.json"]
# Each where cells are dense enough: at even places, so that a window is centred there.
DISCS = {
    "a.png": [(RED, 20, 30, 5), (RED, 50, 24, 5), (BLUE, 40, 60, 4.5)],
    "b.png": [(BLUE, 30, 14, 5)],
    "c,d.png": [],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "discs.keras", peaks=PEAKS)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name, discs in DISCS.items():
        picture((64, 80), discs, tmp_path / "images" / name)
    return tmp_path / "images"


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def placed(rows):
    """Rows of a table as they are known from the images."""
    return sorted((row["image"], row["class"], float(row["y"]), float(row["x"])) for row in rows)


def known(*names):
    return sorted((name, kind, y, x) for name in names for kind, y, x, _ in DISCS[name])


def test_one_image_has_its_objects_in_every_form(capsys, model, images, tmp_path):
    code, out, _ = command(capsys, "scan", model, images / "a.png", "-o", tmp_path / "out")
    assert code == 0 and "cells won" not in out
    assert re.search(
        r"no window has its middle in the outer [\d.]+ pixels, where no object is found: --border full", out
    )
    head, red, blue = (line.split() for line in out.splitlines()[1:4])
    assert head[:2] == ["class", "objects"] and red[-3] == "2" and red[-1] == "0.8" and blue[-3] == "1"
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*SCAN_FILES, *OBJECT_FILES])
    assert (folder / "objects.csv").read_text().startswith("image,class,score,x,y\n")
    rows = table(folder / "objects.csv")
    assert placed(rows) == known("a.png")
    assert all("." in row["x"] and "." in row["y"] and 0.7 < float(row["score"]) < 1 for row in rows)
    assert table(folder / "counts.csv") == [
        {"image": "a.png", "class": RED, "count": "2"}, {"image": "a.png", "class": BLUE, "count": "1"},
    ]  # fmt: skip
    record = json.loads((folder / "objects.json").read_text())
    assert [[str(value) for value in each.values()] for each in record["objects"]] == [
        [row[key] for key in ("class", "score", "x", "y")] for row in rows
    ]
    assert record["image"] == "a.png" and record["background"] == GROUND and record["image_size"] == [64, 80]
    assert record["counts"] == {RED: 2, BLUE: 1}
    assert record["peaks"][RED] == {"threshold": 0.8, "distance": 8.0, "margin": 0.0}
    map_ = zoo.scan(zoo.load(model), images / "a.png")
    chances, shares = map_.probabilities, record["area_shares"]
    winners = chances.argmax(-1)
    for index, least in ((0, 0.8), (2, 0.7)):
        share = ((winners == index) & (chances[..., index] >= least)).mean()
        assert shares[(RED, GROUND, BLUE)[index]] == pytest.approx(share) and share > 0
    assert map_.counts() == record["counts"]
    collection = json.loads((folder / "objects.geojson").read_text())
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == 3
    for feature, row in zip(collection["features"], rows, strict=True):
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Point"
        assert feature["geometry"]["coordinates"] == [float(row["x"]), float(row["y"])]
        about = feature["properties"]
        assert about["objectType"] == "detection" and about["classification"]["name"] == row["class"]
        assert len(about["classification"]["color"]) == 3 and about["measurements"] == {"score": float(row["score"])}


def test_objects_lie_where_they_were_put_whatever_the_tiles_and_the_file(capsys, model, images, tmp_path):
    wanted = None
    for index, options in enumerate((["--tile", 6], ["--format", "zarr", "--tile", 14], ["--stride", 2])):
        code, *_ = command(capsys, "scan", model, images / "a.png", "-o", tmp_path / f"{index}", *options)
        text = (tmp_path / f"{index}" / "objects.csv").read_text()
        assert code == 0 and text == (wanted or text)
        wanted = text


def test_several_images_have_tables_of_their_own_and_of_all(capsys, model, images, tmp_path):
    code, out, _ = command(capsys, "scan", model, images, "-o", tmp_path / "out")
    assert code == 0 and "3 images:\nclass" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a", "b", "c,d", "counts.csv", "objects.csv", "objects.json", "uncertainty.csv", "uncertainty.json",
    ]  # fmt: skip
    for name in DISCS:
        assert placed(table(tmp_path / "out" / name[:-4] / "objects.csv")) == known(name)
    assert placed(table(tmp_path / "out" / "objects.csv")) == known(*DISCS)
    counts = [(row["image"], row["class"], row["count"]) for row in table(tmp_path / "out" / "counts.csv")]
    assert counts == [
        ("a.png", RED, "2"), ("a.png", BLUE, "1"), ("b.png", RED, "0"), ("b.png", BLUE, "1"), ("c,d.png", RED, "0"),
        ("c,d.png", BLUE, "0"),
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "objects.json").read_text())["counts"] == {RED: 2, BLUE: 2}


def test_tables_are_whole_after_an_interrupt_and_with_images_that_come_later(
    capsys, monkeypatch, model, images, tmp_path
):
    real, out = Store.write, tmp_path / "out"

    def write(self, *rest):
        if self.path.parent.name == "b" and len(self.done) == 2:
            raise KeyboardInterrupt
        real(self, *rest)

    monkeypatch.setattr(Store, "write", write)
    two = [images / "a.png", images / "b.png", "-o", out, "--tile", 16]
    assert command(capsys, "scan", model, *two)[0] == 130 and not (out / "objects.csv").exists()
    monkeypatch.setattr(Store, "write", real)
    code, printed, _ = command(capsys, "scan", model, *two)
    assert code == 0 and "a.png: is there already" in printed and "2 images:" in printed
    assert placed(table(out / "objects.csv")) == known("a.png", "b.png")
    code, printed, _ = command(capsys, "scan", model, images / "b.png", images / "c,d.png", *two[2:])
    assert code == 0 and "3 images:" in printed and placed(table(out / "objects.csv")) == known(*DISCS)
    # An image whose scan fails now has no rows, and those of another model are no part of the table.
    (images / "b.png").write_text("no image")
    code, _, err = command(capsys, "scan", model, *two)
    assert code == 2 and placed(table(out / "objects.csv")) == known("a.png")


@pytest.mark.parametrize("name", ["objects.csv", "counts.csv", "objects.json"])
def test_a_strangers_tables_are_refused_before_any_work(capsys, monkeypatch, model, images, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    more = [images / "b.png"] if name != "objects.json" else []
    code, _, err = command(capsys, "scan", model, images / "a.png", *more, "-o", tmp_path / "out")
    assert code == 2 and f"{name}': is there already, and was not made by this command" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"
    code, *_ = command(capsys, "scan", model, images / "a.png", *more, "-o", tmp_path / "out", "--overwrite")
    assert code == 0 and placed(table(tmp_path / "out" / "objects.csv"))
    # What a user has changed since is not ours any more; what is as it was, is.
    assert command(capsys, "scan", model, images / "a.png", *more, "-o", tmp_path / "out")[0] == 0
    with (tmp_path / "out" / "counts.csv").open("a") as file:
        file.write("my note\n")
    code, _, err = command(capsys, "scan", model, images / "a.png", *more, "-o", tmp_path / "out")
    assert code == 2 and "counts.csv': is there already" in err


def test_other_thresholds_are_another_scan(capsys, images, model, tmp_path):
    other = saved(tmp_path / "other.keras", peaks={**PEAKS, RED: Peaks(threshold=0.999, distance=8)})
    assert command(capsys, "scan", model, images, "-o", tmp_path / "out")[0] == 0
    code, _, err = command(capsys, "scan", other, images, "-o", tmp_path / "out")
    assert code == 2 and "objects.json': is there already, made from another objects; accepted: another path" in err
    code, *_ = command(capsys, "scan", other, images, "-o", tmp_path / "out", "--overwrite")
    assert code == 0 and {row["class"] for row in table(tmp_path / "out" / "objects.csv")} == {BLUE}


def test_a_plain_classifier_writes_no_objects_and_takes_away_old_ones(capsys, images, model, tmp_path):
    plain = saved(tmp_path / "plain.keras", background=None)
    code, out, _ = command(capsys, "scan", plain, images / "a.png", "-o", tmp_path / "out")
    assert code == 0 and "cells won: " in out and "object" not in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == SCAN_FILES
    assert '"objects":null' in (tmp_path / "out" / "viewer.html").read_text()
    assert command(capsys, "scan", model, images / "a.png", "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert command(capsys, "scan", plain, images / "a.png", "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == SCAN_FILES


def test_without_thresholds_the_winner_counts_and_half_a_window_parts_two(tmp_path, images):
    model = zoo.load(saved(tmp_path / "model.keras"))
    assert zoo.scan(model, images / "a.png").counts() == {RED: 2, BLUE: 1}
    near, apart = (picture((64, 80), [(RED, 30, 30, 3), (RED, 30, 30 + gap, 3)]) for gap in (8, 14))
    assert zoo.scan(model, apart).counts()[RED] == 2 >= zoo.scan(model, near).counts()[RED] >= 1


def test_the_overlay_is_in_colour_and_leaves_the_background_and_weak_cells_out(model, images):
    map_ = zoo.scan(zoo.load(model), images / "a.png")
    pixels = np.asarray(Image.open(images / "a.png"))
    shown = map_.overlay(pixels)
    rows, columns = map_.cells_of_pixels()
    classes = map_.classes_of(map_.scores)[np.ix_(rows, columns)]
    classes[(rows < 0)[:, None] | (columns < 0)] = -1
    np.testing.assert_array_equal(shown[classes < 0], pixels[classes < 0])
    assert (shown[classes >= 0] != pixels[classes >= 0]).any(-1).all() and (classes >= 0).sum() > 50


def test_places_are_in_pixels_of_the_image_as_given_and_inside_it(capsys, tmp_path):
    """Of a model trained at half the size, with a border that gives the disc at the edge a whole window."""
    model = saved(tmp_path / "model.keras", peaks=PEAKS, scale=0.5)
    discs = [(RED, 40, 60, 10), (BLUE, 100, 48, 10), (RED, 72, 156, 10)]
    picture((128, 160), discs, tmp_path / "a.png")
    line = ("scan", model, tmp_path / "a.png", "--border", "full", "-o", tmp_path / "out")
    assert command(capsys, *line)[0] == 0
    rows = table(tmp_path / "out" / "objects.csv")
    found = sorted((row["class"], float(row["y"]), float(row["x"])) for row in rows)
    for (kind, y, x), (wanted, down, across, _) in zip(found, sorted(discs), strict=True):
        assert kind == wanted and abs(y - down) < 1 and abs(x - across) < 4 and 0 <= x < 160
    record = json.loads((tmp_path / "out" / "objects.json").read_text())
    assert record["scale"] == [0.5, 0.5] and record["image_size"] == [128, 160]
    with pytest.warns(UserWarning, match="states no pixel size: taken at scale 0.5"):
        map_ = zoo.scan(zoo.load(model), tmp_path / "a.png", border="full")
    assert map_.counts() == record["counts"]
    rows, columns = map_.centres
    inside = ((rows >= 0) & (rows < 128))[:, None] & (columns >= 0) & (columns < 160)
    assert not inside.all()
    share = (map_.classes_of(map_.scores)[inside] == 0).mean()
    assert record["area_shares"][RED] == pytest.approx(share) and share > 0
    page = (tmp_path / "out" / "viewer.html").read_text()
    (row, end), (column, last) = json.loads(re.search(r'"counted":(\[\[.*?\]\])', page)[1])
    assert inside[row:end, column:last].all() and inside.sum() == (end - row) * (last - column)


def test_a_background_of_another_models_classes_is_refused_before_the_scan(tmp_path, images):
    model = zoo.load(saved(tmp_path / "model.keras"))
    attach(model, Card.model_validate({**card(model).model_dump(), "background": "sky"}))
    with pytest.raises(InputError, match="background: received the class 'sky'; accepted: one of"):
        zoo.scan(model, images / "a.png")


@needs_ray
@pytest.mark.extended
def test_workers_give_the_tables_of_one_process(capsys, model, images, tmp_path):
    assert command(capsys, "scan", model, images, "-o", tmp_path / "one")[0] == 0
    printed, errors = (started := start(model, images, "-o", tmp_path / "two")).communicate()
    assert started.returncode == 0, errors
    assert "3 images:" in printed and printed.count("class ") == 4
    for name in ("objects.csv", "counts.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
