import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.engines import factory
from zoo.errors import InputError, Interrupted
from zoo.network.network import Network
from zoo.scanning import scan as scanning
from zoo.scanning.byte_counts import bytes_text, parse_memory
from zoo.scanning.grid import Grid
from zoo.scanning.memory import choose_tile, resident, tile_memory
from zoo.scanning.store import Store

ENDINGS = ["npy", "zarr"]


@pytest.fixture(scope="module")
def model():
    return zoo.convolutionalize(randomize(zoo.build("nin_digits", padding="valid")))


@pytest.fixture
def forwards(monkeypatch):
    """How many tiles have been computed."""
    counted = []
    real = factory.make_engine

    def counting(*options):
        engine = real(*options)
        return replace(engine, run=lambda pixels: (counted.append(pixels.shape), engine.run(pixels))[1])

    monkeypatch.setattr(factory, "make_engine", counting)
    return counted


def stop_after(monkeypatch, tiles, error):
    """Let the disk, or the user, stop the scan after some tiles."""
    real = Store.write

    def write(self, *rest):
        if len(self.done) == tiles:
            raise error
        real(self, *rest)

    monkeypatch.setattr(Store, "write", write)
    return lambda: monkeypatch.setattr(Store, "write", real)


@pytest.mark.parametrize("border", ["none", "shift"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_streamed_scores_are_those_in_memory(model, tmp_path, ending, border):
    image = noise(71, 60)
    wanted = zoo.scan(model, image, border=border)
    result = zoo.scan(model, image, tile=20, border=border, output=tmp_path / f"scores.{ending}")
    assert isinstance(result.scores, np.memmap) or ending == "zarr"
    np.testing.assert_allclose(np.asarray(result.scores), wanted.scores, rtol=1e-5, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [f"scores.{ending}"]
    np.testing.assert_array_equal(result.wins()[0], wanted.wins()[0])
    for class_index in (None, 3):
        pictures = [each.overlay(image[..., None], class_index, side=30).astype(int) for each in (result, wanted)]
        assert pictures[0].shape == (24, 20, 3) and abs(pictures[0] - pictures[1]).max() <= 1
    if ending == "npy":
        np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), result.scores)
    else:
        assert result.scores.chunks == (10, 10, 10)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_scan_goes_on_where_it_was(model, forwards, monkeypatch, tmp_path, ending):
    image, output = noise(71, 60), tmp_path / f"scores.{ending}"
    tiles = len(list(Grid.of(Network.of(model), image.shape).tiles(20)))
    let_go = stop_after(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(Interrupted, match=f"interrupted; 5 of {tiles} tiles are kept"):
        zoo.scan(model, image, tile=20, output=output)
    assert not output.exists() and len(forwards) == 6
    let_go()
    result = zoo.scan(model, image, tile=20, output=output)
    assert len(forwards) == 6 + tiles - 5
    np.testing.assert_array_equal(np.asarray(result.scores), zoo.scan(model, image, tile=20).scores)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_scales_go_on_where_they_were(model, forwards, monkeypatch, tmp_path, ending):
    image, output = noise(50, 41), tmp_path / f"scores.{ending}"
    wanted = zoo.scan(model, image, scales=[1, 1.5], tile=20)
    tiles = [len(list(Grid.of(Network.of(model), size).tiles(20))) for size in ((50, 41), (75, 62))]
    assert len(forwards) == sum(tiles) and wanted.outputs == "probabilities"
    forwards.clear()
    real = Store.write

    def write(self, *rest):
        if self.path.stem == "scores-1.5" and len(self.done) == 4:
            raise KeyboardInterrupt
        real(self, *rest)

    monkeypatch.setattr(Store, "write", write)
    with pytest.raises(Interrupted, match=f"4 of {tiles[1]} tiles are kept"):
        zoo.scan(model, image, scales=[1, 1.5], tile=20, output=output)
    monkeypatch.setattr(Store, "write", real)
    assert len(forwards) == tiles[0] + 5
    with pytest.raises(InputError, match="holds an unfinished scan whose scales is"):
        zoo.scan(model, image, scales=[1, 2], tile=20, output=output)
    result = zoo.scan(model, image, scales=[1, 1.5], tile=20, output=output)
    assert len(forwards) == sum(tiles) + 1
    np.testing.assert_array_equal(np.asarray(result.scores), wanted.scores)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_a_mask_is_scaled_with_the_image(model, forwards):
    """A cell is scanned where its box, at the smallest scale, has a pixel inside; its score is that without a mask."""
    image, mask = noise(80, 80), np.zeros((80, 80), bool)
    mask[60:, 60:] = True
    result = zoo.scan(model, image, scales=[0.5, 1, 1.5], tile=20, mask=mask)
    wanted = zoo.scan(model, image, scales=[0.5, 1, 1.5], tile=20)
    for cell in np.ndindex(result.scanned.shape):
        top, left, bottom, right = np.maximum(result.cell_box(*cell), 0)
        assert result.scanned[cell] == (wanted.scanned[cell] and mask[top:bottom, left:right].any())
    assert result.cell_box(0, 0) == (-4, -4, 12, 12) and 0 < result.not_scanned < wanted.scanned.size
    np.testing.assert_array_equal(result.scores[result.scanned], wanted.scores[result.scanned])
    assert np.isnan(result.scores[~result.scanned]).all()
    assert len(forwards) < 2 * (4 + 16 + 36)


@pytest.mark.extended
def test_a_killed_scan_goes_on_where_it_was(model, forwards, monkeypatch, tmp_path):
    """The last line of the journal is cut short, as by a machine that lost its power."""
    zoo.save(model, tmp_path / "fcn.keras")
    np.save(tmp_path / "image.npy", noise(71, 60).astype(np.uint8))
    code = (
        "import os, signal, zoo\n"
        "from zoo.scanning.store import Store\n"
        "real = Store.write\n"
        "def write(self, *rest):\n"
        "    real(self, *rest)\n"
        "    if len(self.done) == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.write = write\n"
        "zoo.scan(zoo.load('fcn.keras'), 'image.npy', tile=20, output='scores.npy')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    journal = tmp_path / "scores.npy.journal"
    assert len(journal.read_text().splitlines()) == 1 + 7
    journal.write_text(journal.read_text()[:-1])
    loaded = zoo.load(tmp_path / "fcn.keras")
    let_go = stop_after(monkeypatch, 9, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        zoo.scan(loaded, tmp_path / "image.npy", tile=20, output=tmp_path / "scores.npy")
    assert sorted(map(int, journal.read_text().splitlines()[1:])) == list(range(9))
    let_go()
    result = zoo.scan(loaded, tmp_path / "image.npy", tile=20, output=tmp_path / "scores.npy")
    tiles = len(list(Grid.of(Network.of(model), (71, 60)).tiles(20)))
    assert len(forwards) == tiles - 6 + 1
    wanted = zoo.scan(loaded, tmp_path / "image.npy").scores
    np.testing.assert_allclose(result.scores, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.extended
def test_an_unfinished_scan_of_something_else_is_refused(model, monkeypatch, tmp_path):
    image, output = noise(71, 60), tmp_path / "scores.npy"
    let_go = stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        zoo.scan(model, image, tile=20, output=output)
    let_go()
    other = randomize(zoo.build("nin_digits", padding="valid"), seed=1)
    for name, attempt in {
        "tile is 20, here it is 22": lambda: zoo.scan(model, image, tile=22, output=output),
        "border is none, here it is shift": lambda: zoo.scan(model, image, tile=20, border="shift", output=output),
        "stride is None, here it is \\[1, 1\\]": lambda: zoo.scan(model, image, tile=20, stride=1, output=output),
        "scales is None, here it is \\[1.0, 2.0\\]": lambda: zoo.scan(
            model, image, tile=20, scales=[1, 2], output=output
        ),
        "engine is keras, here it is openvino": lambda: zoo.scan(
            model, image, tile=20, engine="openvino", output=output
        ),
        "model is ": lambda: zoo.scan(other, image, tile=20, output=output),
        "image is ": lambda: zoo.scan(model, image + 1, tile=20, output=output),
        "mask is None": lambda: zoo.scan(model, image, tile=20, mask=image > 0, output=output),
    }.items():
        with pytest.raises(InputError, match=f"holds an unfinished scan whose {name}"):
            attempt()
    zoo.scan(model, image, tile=20, output=output)


def test_an_unfinished_scan_keeps_the_tiles_that_it_chose(model, monkeypatch, tmp_path):
    image, output = noise(71, 60), tmp_path / "scores.npy"
    monkeypatch.setattr(scanning, "choose_tile", lambda *_: 20)
    let_go = stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        zoo.scan(model, image, memory="8GiB", output=output)
    let_go()
    monkeypatch.setattr(scanning, "choose_tile", lambda *_: 30)
    result = zoo.scan(model, image, memory="8GiB", output=output)
    np.testing.assert_array_equal(result.scores, zoo.scan(model, image, tile=20).scores)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_one_line_and_keeps_what_is_done(model, forwards, monkeypatch, tmp_path, ending):
    """A limit on the size of files: of the whole .npy, told before any work, and of a .zarr chunk, in the middle."""
    image, output = noise(71, 60), tmp_path / f"scores.{ending}"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = Store.write

    def write(self, *rest):
        if len(self.done) == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
        real(self, *rest)

    monkeypatch.setattr(Store, "write", write)
    try:
        if ending == "npy":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match="File too large") as caught:
            zoo.scan(model, image, tile=20, output=output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.setattr(Store, "write", real)
    assert caught.value.filename == str(output) and str(caught.value).count("\n") == 0
    if ending == "npy":
        assert not forwards and not list(tmp_path.iterdir())
    else:
        assert "5 of 12 tiles are kept" in str(caught.value)
    forwards.clear()
    result = zoo.scan(model, image, tile=20, output=output)
    assert len(forwards) == (12 if ending == "npy" else 7)
    np.testing.assert_array_equal(np.asarray(result.scores), zoo.scan(model, image, tile=20).scores)


@pytest.mark.parametrize("form", ["array", "npy", "png"])
def test_cells_outside_the_mask_are_not_scanned(model, forwards, tmp_path, form):
    """By cell, with windows of 8 at stride 2; tiles of 20 pixels, 10 x 10 cells, without any such cell are skipped."""
    image, mask = noise(71, 60), np.zeros((71, 60), bool)
    mask[5, 30] = mask[60, 25] = True
    given = mask
    if form != "array":
        given = tmp_path / f"mask.{form}"
    if form == "npy":
        np.save(given, mask.astype(np.uint8))
    if form == "png":
        from PIL import Image

        Image.fromarray(mask.astype(np.uint8) * 255).save(given)
    result = zoo.scan(model, image, tile=20, mask=given)
    assert len(forwards) == 5
    wanted = zoo.scan(model, image, tile=20).scores
    seen = np.zeros(wanted.shape[:2], bool)
    # Pixel (5, 30) lies in windows of rows 0 to 2 and columns 12 to 15; (60, 25) of rows 27 to 30 and columns 9 to 12.
    seen[:3, 12:16] = seen[27:31, 9:13] = True
    np.testing.assert_array_equal(result.scanned, seen)
    np.testing.assert_array_equal(result.scores[seen], wanted[seen])
    assert np.isnan(result.scores[~seen]).all()
    assert result.wins()[1] == (~seen).sum() and result.wins()[0].sum() == seen.sum()
    picture = result.overlay(image[..., None])
    np.testing.assert_array_equal(picture[3:18, 3:18, 0], np.round(image[3:18, 3:18]))
    result.save(tmp_path / "out")
    with np.load(tmp_path / "out" / "scores.npz") as saved:
        np.testing.assert_array_equal(saved["scanned"], seen)
    for name, where in (("scores.npz", "scores.npz"), ("scores.npy", "scanned.npy")):
        about = json.loads(result.save_geometry(tmp_path / "out", name).read_text())
        assert about["scanned"] == where and about["cells_not_scanned"] == (~seen).sum()
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "scanned.npy"), seen)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_masked_scan_goes_on_where_it_was(model, forwards, monkeypatch, tmp_path, ending):
    image, output = noise(71, 60), tmp_path / f"scores.{ending}"
    mask = np.add.outer(np.arange(71), np.arange(60)) < 50
    wanted = zoo.scan(model, image, tile=20, mask=mask)
    let_go = stop_after(monkeypatch, 3, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        zoo.scan(model, image, tile=20, mask=mask, output=output)
    let_go()
    # Of version 1, which left out whole tiles, it would begin anew.
    journal = tmp_path / f"scores.{ending}.journal"
    assert '"cells": "by cell"' in journal.read_text()
    result = zoo.scan(model, image, tile=20, mask=mask, output=output)
    np.testing.assert_array_equal(result.scanned, wanted.scanned)
    np.testing.assert_array_equal(np.asarray(result.scores), wanted.scores)
    assert len(forwards) < 2 * 12


def test_a_masked_scan_of_version_1_begins_anew(model, forwards, monkeypatch, tmp_path):
    image, output, mask = noise(71, 60), tmp_path / "scores.npy", np.eye(71, 60)
    let_go = stop_after(monkeypatch, 3, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        zoo.scan(model, image, tile=20, mask=mask, output=output)
    let_go()
    journal = tmp_path / "scores.npy.journal"
    journal.write_text(journal.read_text().replace(', "cells": "by cell"', ""))
    forwards.clear()
    zoo.scan(model, image, tile=20, mask=mask, output=output)
    first = len(forwards)
    zoo.scan(model, image, tile=20, mask=mask)
    assert len(forwards) == 2 * first


def test_nothing_inside_the_mask_is_refused(model, forwards):
    with pytest.raises(InputError, match="^mask: none of 12 x 12 cells"):
        zoo.scan(model, noise(30, 30), mask=np.zeros((30, 30), bool))
    assert not forwards


@pytest.mark.parametrize("mask", [np.ones((30, 29)), "gone.png", 7])
def test_bad_masks_are_refused(model, mask):
    with pytest.raises(InputError, match=r"mask: received .*; accepted: (a file, or|\(30, 30\))|gone.png"):
        zoo.scan(model, noise(30, 30), mask=mask)


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("7", 7), ("2GiB", 2**31), ("1.5 mib", 3 * 2**19), ("800MB", 8 * 10**8)]
)
def test_memory_is_bytes_or_text(text, size):
    assert parse_memory(text) == size


@given(st.integers(1, 2**50), st.integers(1, 2**40))
def test_what_is_needed_is_never_told_as_less_nor_what_fits_as_more(size, more):
    needed, fits = bytes_text(size, up=True), bytes_text(size)
    assert parse_memory(fits.replace(",", "")) <= size <= parse_memory(needed.replace(",", "")) + 1
    assert bytes_text(size + more, up=True) != fits


@pytest.mark.parametrize("text", ["much", "2 GiBs", -1, True, ""])
def test_bad_memory_is_refused(model, text):
    with pytest.raises(InputError, match="memory: received .*'2GiB'"):
        zoo.scan(model, noise(30, 30), memory=text)


def test_more_memory_is_a_larger_tile(model):
    grid = Grid.of(Network.of(model), (9000, 9000))
    held = 2**40
    sides = [
        choose_tile(Network.of(model), grid, held + resident() + size * 2**20, held) for size in (1000, 1300, 2000)
    ]
    assert sides[0] < sides[1] < sides[2] <= 2048 and all(side % 2 == 0 for side in sides)
    with pytest.raises(InputError, match="memory: received 10 MiB; accepted: at least"):
        zoo.scan(model, noise(30, 30), memory="10MiB")
    with pytest.raises(InputError, match="tile and memory"):
        zoo.scan(model, noise(30, 30), tile=20, memory="8GiB")


def test_a_finer_grid_takes_more_memory_and_so_smaller_tiles(model):
    """Without padding 2 x 2 fragments are at work; the estimate is of what a scan of that size is seen to take."""
    plain, finer = (Grid.of(Network.of(model), (9000, 9000), stride=stride) for stride in (None, 1))
    held = 2**40
    budget = held + resident() + 3000 * 2**20
    sides = [choose_tile(Network.of(model), grid, budget, held) for grid in (plain, finer)]
    assert 0 < sides[1] < sides[0]
    need = tile_memory(Network.of(model), finer.geometry)(400, 400)
    assert need > tile_memory(Network.of(model), plain.geometry)(400, 400)


def test_what_cannot_be_cut_and_does_not_fit_is_refused():
    image = keras.Input((12, 12, 1))
    x = layers.Multiply()([image, layers.GlobalAveragePooling2D(keepdims=True)(image)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3, 3)(x)))))
    with pytest.raises(InputError, match="in one pass, and a block inside .* it is not cut into tiles; accepted"):
        zoo.scan(model, noise(20, 30), memory="10MiB")


PEAK = """
import sys, numpy as np, zoo
from pathlib import Path
from zoo.scanning.memory import resident
model = zoo.load("fcn.keras")
image = np.load(sys.argv[1], mmap_mode="r")
zoo.scan(model, image[:200, :200])
# Not ru_maxrss, which begins with what the process held that started this one.
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
zoo.scan(model, image, tile=400, output="scores.npy", overwrite=True).overlay(image, side=500)
in_tiles, budget = peak(), resident() + 300 * 2**20
zoo.scan(model, image, memory=budget, output="scores.npy", overwrite=True)
print(in_tiles, peak(), budget)
"""


@pytest.mark.extended
def test_memory_does_not_grow_with_the_image(tmp_path):
    """From 800 to 3,200 pixels a side the image grows by 29 MB and the scores by 38 MB."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 4, 2, activation="relu")(image)
    zoo.save(randomize(keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))), tmp_path / "model.keras")
    zoo.save(zoo.convolutionalize(zoo.load(tmp_path / "model.keras")), tmp_path / "fcn.keras")
    peaks = []
    for side in (800, 3200):
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        np.save(tmp_path / f"{side}.npy", pixels)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, f"{side}.npy"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        in_tiles, in_budget, budget = map(int, done.stdout.split())
        assert in_budget <= budget
        peaks.append(in_tiles)
    assert peaks[1] - peaks[0] <= 30 * 2**20


def test_what_is_saved_says_what_it_is(model, tmp_path):
    result = zoo.scan(model, noise(31, 27), border="shift", output=tmp_path / "scores.zarr")
    result.save_geometry(tmp_path, "scores.zarr")
    about = json.loads(Path(tmp_path / "geometry.json").read_text())
    assert about["outputs"] == "logits" and about["class_names"] == list("0123456789")
    assert about["border"] == "shift" and about["last_cell_box"] == [23, 19, 31, 27] and about["window"] == [8, 8]
    assert about["scores"] == "scores.zarr" and about["made_from"]["border"] == "shift"
    assert about["uncovered"] == {"top": 0, "left": 0, "bottom": 0, "right": 0}


def test_two_processes_do_not_write_one_output(model, tmp_path):
    output = tmp_path / "scores.npy"
    with FileLock(tmp_path / ".scores.npy.lock"), pytest.raises(InputError, match="another process is writing it"):
        zoo.scan(model, noise(30, 30), output=output)
    zoo.scan(model, noise(30, 30), output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npy"]


def test_bad_outputs_are_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"ends in .npy or .zarr"):
        zoo.scan(model, noise(30, 30), output=tmp_path / "scores.npz")
