"""What commands may write: never their input, a stranger's file only with --overwrite, their own work again."""

import json
import os

import numpy as np
import pytest
from conftest import command, some_by_default
from PIL import Image

import zoo
from zoo.errors import InputError


@pytest.fixture
def place(tmp_path, model_file, monkeypatch):
    """A folder to work in with a model, an image and boxes."""
    monkeypatch.chdir(tmp_path)
    os.link(model_file, "m.keras")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)).save("image.png")
    np.save("image.npy", np.random.default_rng(1).integers(0, 256, (40, 30), dtype=np.uint8))
    (tmp_path / "boxes.csv").write_text("top,left,bottom,right\n2,2,14,14\n")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


COMMANDS = {
    "convert": (("convert", "m.keras", "-o", "out.keras"), ["out.keras", "out.verification.json"]),
    "tile": (("tile", "image.png", "-o", "out.tif"), ["out.tif"]),
    "regions": (("regions", "m.keras", "image.png", "boxes.csv", "-o", "out.csv"), ["out.csv"]),
    "regions to JSON": (("regions", "m.keras", "image.png", "boxes.csv", "-o", "out.json"), ["out.json"]),
    "plot": (("plot", "m.keras", "--cell", "1,1", "--image", "image.png", "-o", "out.png"), ["out.png"]),
    "scan": (
        ("scan", "m.keras", "image.png", "-o", "."),
        ["overlay.png", "viewer.html", "geometry.json", "scores.npz"],
    ),
    "scan to npy": (
        ("scan", "m.keras", "image.png", "-o", ".", "--format", "npy"),
        ["overlay.png", "geometry.json", "scores.npy", "scores.npy.part", "scores.npy.journal"],
    ),
    "scan with an answer": (
        ("scan", "m.keras", "image.png", "-o", ".", "--answer", "average-logits"),
        ["answer.json"],
    ),
}


@pytest.mark.parametrize("name", some_by_default(COMMANDS, "scan", "convert"))
def test_a_strangers_file_is_kept_and_own_work_is_done_again(capsys, place, name):
    line, outputs = COMMANDS[name]
    clean = names(place)
    for output in outputs:
        (place / output).write_text("a stranger's")
        code, _, err = command(capsys, *line)
        assert code == 2 and err.count("\n") == 1 and output.split(".part")[0].split(".journal")[0] in err, err
        assert "--overwrite" in err and (place / output).read_text() == "a stranger's"
        assert names(place) == sorted([*clean, output])
        (place / output).unlink()
    for _ in range(2):
        code, out, err = command(capsys, *line)
        assert code == 0, err
    made = names(place)
    assert not [each for each in made if each.startswith(".") or each.endswith((".part", ".journal"))]
    # Another model's is not this command's own, and is replaced where that is asked for.
    zoo.save(zoo.build("nin_digits", padding="valid"), place / "other.keras")
    other = [each.replace("m.keras", "other.keras") for each in line]
    if name != "tile":
        code, _, err = command(capsys, *other)
        assert code == 2 and "--overwrite" in err, err
        code, _, err = command(capsys, *other, "--overwrite")
        assert code == 0, err
        assert names(place) == sorted([*made, "other.keras"])


def test_zarr_folders_of_others_are_kept(capsys, place):
    for output in ("scores.zarr", "scores.zarr.part"):
        (place / output).mkdir()
        (place / output / "thesis.txt").write_text("mine")
        code, _, err = command(capsys, "scan", "m.keras", "image.png", "-o", ".", "--format", "zarr")
        assert code == 2 and "scores.zarr" in err and (place / output / "thesis.txt").read_text() == "mine"
        (place / output / "thesis.txt").unlink()
        (place / output).rmdir()


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (("scan", "m.keras", "scores.npy", "-o", "."), "scores.npy"),
        (("scan", "m.keras", "overlay.png", "-o", "."), "overlay.png"),
        (("scan", "m.keras", "image.npy", "-o", ".", "--mask", "overlay.png"), "overlay.png"),
        (("scan", "m.keras", "scores.npy.part", "-o", "."), "scores.npy.part"),
        (("tile", "in.tif", "-o", "in.tif"), "in.tif"),
        (("tile", "in.tif", "-o", "link.tif"), "in.tif"),
        (("regions", "m.keras", "image.png", "boxes.csv", "-o", "boxes.csv"), "boxes.csv"),
        (("plot", "m.keras", "--cell", "1,1", "--image", "overlay.png", "-o", "overlay.png"), "overlay.png"),
        (("convert", "m.keras", "-o", "m.keras"), "m.keras"),
        (("export", "m.keras", "-o", "m.keras"), "m.keras"),
    ],
)
def test_what_is_read_is_never_written_over(capsys, place, line, read):
    image = np.load("image.npy")
    if read.startswith("scores"):
        with (place / read).open("wb") as file:
            np.save(file, image)
    for name in ("in.tif", *(["overlay.png"] if read == "overlay.png" else [])):
        Image.fromarray(image).save(place / name)
    (place / "link.tif").symlink_to("in.tif")
    before = (place / read).read_bytes()
    for extra in ((), ("--overwrite",)):
        code, _, err = command(capsys, *line, *extra)
        assert code == 2 and err.count("\n") == 1 and read in err, err
        assert (place / read).read_bytes() == before and (place / "link.tif").is_symlink()


def test_a_scan_in_python_keeps_to_the_same_rule(place):
    model = zoo.load("m.keras")
    with pytest.raises(InputError, match=r"image\.npy.*is read by this command"):
        zoo.scan(model, "image.npy", output="image.npy", overwrite=True)
    np.save("mine.npy", np.arange(3))
    with pytest.raises(InputError, match=r"mine\.npy.*overwrite"):
        zoo.scan(model, "image.npy", output="mine.npy")
    assert np.load("mine.npy").tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="overwrite: received True without an output; accepted: False, or an output"):
        zoo.scan(model, "image.npy", overwrite=True)
    first = np.array(zoo.scan(model, "image.npy", output="mine.npy", overwrite=True).scores)
    again = zoo.scan(model, "image.npy", output="mine.npy").scores
    np.testing.assert_array_equal(np.load("mine.npy"), first)
    np.testing.assert_array_equal(again, first)
    assert names(place) == sorted(["boxes.csv", "image.npy", "image.png", "m.keras", "mine.npy"])


@pytest.mark.parametrize(
    "where",
    some_by_default(
        [
            "zoo.scanning.summary.Summary",
            "zoo.plots.overlay",
            "zoo.scanning.viewer.write_viewer",
            "zoo.cli.scan_results._keep",
            "zoo.cli.scan_results._remove_others",
        ]
    ),
)
def test_a_scan_that_was_stopped_while_it_drew_is_not_done_again(capsys, place, monkeypatch, where):
    from zoo.scanning.store import Store

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    line = ("scan", "m.keras", "image.png", "-o", "out", "--format", "npy", "--scales", "1,0.8")
    with monkeypatch.context() as patched:
        patched.setattr(where, stop)
        code, _, err = command(capsys, *line)
        assert code == 130, err
    written = []
    monkeypatch.setattr(Store, "write", lambda self, index, *rest: written.append(index))
    code, _, err = command(capsys, *line)
    assert code == 0 and not written, err
    assert names(place / "out") == ["geometry.json", "overlay.png", "scores.npy", "viewer.html"]
    record = json.loads((place / "out" / "geometry.json").read_text())["made_by"]
    assert record["command"] == "zoo scan" and record["inputs"]["image"].startswith("image.png")


def test_a_run_directory_of_something_else_is_refused(capsys, tmp_path):
    for name, content in (("config.yaml", "my: settings\n"), ("notes.txt", "mine"), (".lockers", "mine")):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text(content)
        code, _, err = command(capsys, "train", "nin_digits", "--workdir", folder)
        assert code == 2 and err.count("\n") == 1, err
        assert (folder / name).read_text() == content


def test_an_evaluation_is_never_written_into_the_data_that_it_reads(capsys, tmp_path):
    from data_sets import write_images

    root = write_images(tmp_path / "set", count=12)
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"data: {{name: image_folder, dir: {root}, validation: 0}}\n"
        "model: {family: nin, num_classes: 2, image_size: [6, 5], channels: 3, mlpconvs: [{kernel: 3, filters: [4]}]}\n"
        "train: {epochs: 1, batch_size: 8, optimizer: {name: sgd, learning_rate: 0.01}}\ncanvas: null\n"
    )
    assert command(capsys, "train", config, "--workdir", tmp_path / "run")[0] == 0
    image = next(root.glob("*/*.png"))
    before = image.read_bytes()
    for output in (image, root / "new.json"):
        code, _, err = command(capsys, "evaluate", tmp_path / "run", "-o", output, "--overwrite")
        assert code == 2 and "is read by this command" in err, err
    assert image.read_bytes() == before
    line = ("evaluate", tmp_path / "run", "-o", tmp_path / "gate.json")
    assert command(capsys, *line)[0] == command(capsys, *line)[0] == 0
    Image.new("RGB", (5, 6)).save(image.with_name("one_more.png"))
    code, _, err = command(capsys, *line)
    assert code == 2 and "made from another data" in err, err


@pytest.mark.extended
def test_what_is_missing_of_a_finished_scan_is_made_again(capsys, place):
    np.save("second.npy", np.load("image.npy")[::-1])
    line = ("scan", "m.keras", "image.npy", "second.npy", "-o", "out")
    assert command(capsys, *line)[0] == 0
    assert command(capsys, *line)[1].count("is there already") == 2
    (place / "out" / "image" / "viewer.html").unlink()
    code, out, _ = command(capsys, *line)
    assert code == 0 and out.count("is there already") == 1 and (place / "out" / "image" / "viewer.html").exists()


def test_no_image_of_a_command_is_written_over_by_the_results_of_another(capsys, place):
    folder = place / "out" / "image"
    folder.mkdir(parents=True)
    Image.fromarray(np.load("image.npy")).save(folder / "overlay.png")
    before = (folder / "overlay.png").read_bytes()
    line = ("scan", "m.keras", "image.npy", folder / "overlay.png", "-o", "out", "--overwrite")
    code, _, err = command(capsys, *line)
    assert code == 2 and "is read by this command" in err and (folder / "overlay.png").read_bytes() == before


def test_the_scores_of_a_link_lie_where_it_leads_to(place):
    (place / "disk").mkdir()
    (place / "link.npy").symlink_to(place / "disk" / "scores.npy")
    zoo.scan(zoo.load("m.keras"), "image.npy", output="link.npy")
    assert (place / "link.npy").is_symlink() and np.load("disk/scores.npy").ndim == 3


def test_a_run_refused_before_its_first_checkpoint_is_nobodys(capsys, tmp_path):
    """What it made before does not lock its directory against the same command with the advised learning rate."""
    overrides = ("canvas=null", "train.epochs=1", "train.optimizer={name: sgd, learning_rate: 1.0e+38}")
    code, _, err = command(capsys, "train", "nin_digits", *overrides, "--workdir", tmp_path / "run")
    assert code == 2 and "diverged" in err, err
    assert not (tmp_path / "run").exists()


def test_what_a_user_put_beside_an_unbegun_run_is_kept(capsys, tmp_path):
    """Its config was written by a run that was refused before its first checkpoint; the weights are a user's."""
    config = zoo.load_config("nin_digits", ["canvas=null", "train.epochs=1"])
    weights = tmp_path / "run" / "checkpoints" / "mine.h5"
    weights.parent.mkdir(parents=True)
    weights.write_text("mine")
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    code, _, err = command(
        capsys, "train", "nin_digits", "canvas=null", "train.epochs=1", "--workdir", tmp_path / "run"
    )
    assert code == 2 and "holds files that are no run's" in err and weights.read_text() == "mine", err
