"""Some cells of a scan beside the answers to their crops."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import command, noise
from keras import layers
from PIL import Image
from small_nets import stack
from test_verify import edge_finder, photo

import zoo
from zoo.scanning import crop_check
from zoo.scanning.crop_check import CropCheck, check_crops, needs_check, shares


class Clock:
    """A clock that goes on by a second whenever a crop is run."""

    def __init__(self, model):
        self.model, self.now, self.shapes = model, 0.0, []

    def __call__(self):
        return self.now

    def run(self, pixels):
        self.now += 1
        self.shapes.append(pixels.shape)
        return np.asarray(self.model(pixels))


def checked(model, image, count=100, seconds=1e6, **options):
    scores, clock = zoo.scan(model, image, **options), Clock(model)
    return check_crops(scores, image, clock.run, np.dtype(np.float32), count, seconds, clock), clock


def test_a_padded_net_is_compared_and_the_way_out_is_told():
    model = edge_finder()
    on_noise, clock = checked(model, noise(60, 60, 3))
    assert on_noise == CropCheck(100, 100) and set(clock.shapes) == {(1, 16, 16, 3)}
    assert on_noise.sentence() == "same answer as the crop: 100 of 100 grid cells compared"
    on_photo, _ = checked(model, photo(60, 60))
    assert on_photo.compared == 100 and on_photo.same < 20
    assert "grid cells compared; train with `model.padding=valid`" in on_photo.sentence()
    assert CropCheck.of(on_photo.to_dict()) == on_photo and CropCheck.of(None) is None


def test_it_is_the_share_that_verify_measures():
    model, image = edge_finder(), np.concatenate([photo(60, 40), noise(60, 40, 3)], axis=1)
    (check, _), report = checked(model, image), zoo.verify(model, zoo.convolutionalize(model), image)
    assert 0.2 < check.same / check.compared < 0.9
    assert check.same / check.compared == pytest.approx(report.crops_argmax_agreement, abs=0.15)


@pytest.mark.parametrize(("seconds", "cells"), [(0, 0), (1, 1), (10, 1), (10.5, 2), (95, 10), (1e6, 25)])
def test_it_takes_a_tenth_of_the_scans_time(seconds, cells):
    check, _ = checked(edge_finder(), noise(40, 40, 3), count=25, seconds=seconds)
    assert check.compared == cells
    assert ("not compared" in check.sentence()) == (cells == 0)


def test_cells_that_were_not_scanned_or_reach_beyond_the_image_are_left_out():
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    check, _ = checked(
        stack(lambda x: layers.Dense(3)(layers.Flatten()(x)), padding="same"), noise(40, 40, 3), mask=mask
    )
    scanned = zoo.scan(
        stack(lambda x: layers.Dense(3)(layers.Flatten()(x)), padding="same"), noise(40, 40, 3), mask=mask
    )
    assert check.compared == scanned.scanned.sum() < scanned.scanned.size
    image = noise(41, 41, 3)
    check, clock = checked(edge_finder(), image, border="reflect", stride=None)
    assert check.compared == 100 and set(clock.shapes) == {(1, 16, 16, 3)}


def test_nets_without_padding_and_without_windows_are_not_checked():
    head = lambda x: layers.Dense(3)(layers.Flatten()(x))  # noqa: E731
    assert not needs_check(zoo.geometry(stack(head)))
    assert needs_check(zoo.geometry(stack(head, padding="same")))
    assert not needs_check(zoo.geometry(zoo.convolutionalize(stack(head, padding="same"), padding="valid")))
    pooled = zoo.convolutionalize(stack(lambda x: layers.GlobalAveragePooling2D()(x)), pooling="global")
    assert not needs_check(zoo.geometry(pooled))


@pytest.mark.parametrize("count", [1, 3, 99, 100, 101, 1000])
def test_a_commands_images_share_a_hundred_cells(count):
    given = shares([Path(str(index)) for index in range(count)])
    assert sum(given.values()) == 100 and max(given.values()) - min(given.values()) <= 1


def scanned(capsys, *line):
    code, out, err = command(capsys, "scan", *line)
    assert code == 0, err
    return out


@pytest.mark.extended
def test_a_scan_tells_how_many_cells_answer_as_their_crops(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_check, "_PART", 1000)  # small images are scanned in no time
    zoo.save(edge_finder(), tmp_path / "net.keras")
    zoo.save(zoo.convolutionalize(edge_finder(), padding="valid"), tmp_path / "twin.keras")
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(60, 60)).save(tmp_path / "in" / "photo.png")
    one = scanned(capsys, tmp_path / "net.keras", tmp_path / "in" / "photo.png", "-o", tmp_path / "one")
    assert "of 100 grid cells compared; train with `model.padding=valid`" in one and one.count("compared") == 1
    crops = json.loads((tmp_path / "one" / "geometry.json").read_text())["crops"]
    assert crops["compared"] == 100 and crops["same_answer"] < 20
    Image.fromarray(noise(60, 60, 3).astype(np.uint8)).save(tmp_path / "in" / "noise.png")
    both = scanned(capsys, tmp_path / "net.keras", tmp_path / "in", "-o", tmp_path / "both")
    assert "of 100 grid cells compared" in both and both.count("compared") == 1
    for name in ("photo", "noise"):
        record = json.loads((tmp_path / "both" / name / "geometry.json").read_text())
        assert record["crops"]["compared"] == 50
    for line, folder in (
        (("net.keras", "--no-check"), "not"),
        (("twin.keras",), "twin"),
        (("net.keras", "--scales", "1,1.5"), "s"),
    ):
        model, *options = line
        out = scanned(capsys, tmp_path / model, tmp_path / "in" / "photo.png", "-o", tmp_path / folder, *options)
        told = "not compared, as the scores are merged from several scales" in out
        assert told == ("--scales" in options) and out.count("compared") == told
        assert json.loads((tmp_path / folder / "geometry.json").read_text())["crops"] is None


@pytest.mark.parametrize(
    "options", [("--stride", "1"), ("--border", "reflect"), ("--border", "shift"), ("--tile", "20")]
)
def test_cells_of_finer_grids_borders_and_tiles_are_compared_too(capsys, tmp_path, monkeypatch, options):
    """On noise, where the edge finder is its crops' answer everywhere, with whatever grid."""
    monkeypatch.setattr(crop_check, "_PART", 1000)
    zoo.save(edge_finder(), tmp_path / "net.keras")
    np.save(tmp_path / "noise.npy", noise(50, 43, 3).astype(np.uint8))
    out = scanned(capsys, tmp_path / "net.keras", tmp_path / "noise.npy", "-o", tmp_path / "out", *options)
    assert "100 of 100 grid cells compared" in out
