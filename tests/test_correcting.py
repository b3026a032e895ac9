"""Correct and continue, from end to end: train, scan, click what is wrong in a browser, train on, scan again."""

import csv
import json

import numpy as np
import pytest
from conftest import command
from PIL import Image
from test_viewer import at, browser

__all__ = ["browser"]
SIZE, RADIUS = (96, 128), 6
PARTS = {"train": 14, "validation": 3, "test": 6}


def draw(rng, kinds):
    """Bright things on noise, each of its kind: the image, and the place (y, x) of each in continuous pixels."""
    image = rng.normal(90, 12, SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    spots = rng.choice(20, len(kinds), replace=False)
    places = [(12.5 + 24 * (spot // 5), 13.5 + 25 * (spot % 5)) + rng.integers(-3, 4, 2) for spot in spots]
    for kind, (down, across) in zip(kinds, places, strict=True):
        distance = np.hypot(y - down, x - across)
        is_square = np.maximum(abs(y - down), abs(x - across)) <= 5.5
        inside = {"disc": distance <= 6, "square": is_square, "ring": (distance <= 6.5) & (distance > 3.5)}[kind]
        image[inside] += 100
    return np.clip(image, 0, 255).astype(np.uint8), places


@pytest.fixture
def plates(tmp_path):
    """Images of discs and squares with labels, a new one with rings, which are nothing; and where those are."""
    rng, rows, split = np.random.default_rng(1), [("image", "x", "y", "class")], [("image", "split")]
    (tmp_path / "images").mkdir()
    for part, count in PARTS.items():
        for index in range(count):
            kinds = rng.choice(["disc", "square"], 6).tolist()
            pixels, places = draw(rng, kinds)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{part}{index}.png")
            rows += [(f"{part}{index}.png", x, y, kind) for kind, (y, x) in zip(kinds, places, strict=True)]
            split.append((f"{part}{index}.png", part))
    for name, table in (("points.csv", rows), ("split.csv", split)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    kinds = ["disc", "square", "ring", "disc", "ring", "square"]
    pixels, places = draw(rng, kinds)
    Image.fromarray(pixels).save(tmp_path / "images" / "new.png")
    return {kind: [place for each, place in zip(kinds, places, strict=True) if each == kind] for kind in kinds}


def found(folder):
    """The objects of a scan: (class, place y and x)."""
    with (folder / "objects.csv").open(newline="") as file:
        return [(row["class"], (float(row["y"]), float(row["x"]))) for row in csv.DictReader(file)]


def near(objects, place):
    return [kind for kind, other in objects if np.hypot(*np.subtract(place, other)) <= RADIUS]


def f1(run):
    return json.loads((run / "evaluation.json").read_text())["dense"]["micro"]["f1"]


def test_an_error_that_is_marked_is_gone_and_the_rest_is_as_good(browser, capsys, plates, tmp_path):
    rings = plates["ring"]
    keys = [
        "scenes_blood_cells",
        f"data.dir={tmp_path / 'images'}",
        f"data.labels={tmp_path / 'points.csv'}",
        f"data.split={tmp_path / 'split.csv'}",
        *("data.unlabelled=skip", "data.scale=1", "data.tolerance=10", "model.num_classes=3", "model.channels=1"),
        "train.ema=null",
    ]

    def train(run, *more):
        code, _, err = command(capsys, "train", *keys, *more, "--workdir", tmp_path / run)
        assert code == 0, err

    def scan(run, out):
        line = ("scan", tmp_path / run, tmp_path / "images" / "new.png", "--border", "full", "-o", tmp_path / out)
        code, _, err = command(capsys, *line)
        assert code == 0, err
        return found(tmp_path / out)

    train("first", "train.epochs=6")
    before = scan("first", "before")
    wrong = near(before, rings[0])
    assert wrong
    page = browser.new_page(viewport={"width": 900, "height": 600})
    page.goto((tmp_path / "before" / "viewer.html").as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    page.check("#correcting")
    page.get_by_label("nothing").check()
    for _, place in before:
        if np.hypot(*np.subtract(place, rings[0])) <= RADIUS:
            page.mouse.click(*at(page, *np.subtract(place, 0.5)))
    with page.expect_download() as started:
        page.click("#save")
    started.value.save_as(tmp_path / "marks.csv")
    page.close()
    marks = list(csv.DictReader((tmp_path / "marks.csv").read_text().splitlines()))
    assert [(mark["image"], mark["class"]) for mark in marks] == [("new.png", "")] * len(wrong)
    further = ["train.epochs=2", "train.optimizer.learning_rate=3.0e-4", f"train.weights={tmp_path / 'first'}"]
    train("second", *further, f"data.marks={tmp_path / 'marks.csv'}")
    after = scan("second", "after")
    assert near(after, rings[0]) == []
    for kind in ("disc", "square"):
        assert all(near(after, place) == [kind] for place in plates[kind])
    assert f1(tmp_path / "first") > 0.95 and f1(tmp_path / "second") >= f1(tmp_path / "first") - 0.01
