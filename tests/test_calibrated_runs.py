"""Runs that know a background: calibrated at the end of their training, once, and evaluated on whole images."""

import json
import shutil

import imagecodecs
import numpy as np
import pytest
from conftest import command
from data_sets import write_images

import zoo
from zoo import experiment
from zoo.calibration import expected_calibration_error
from zoo.card import card
from zoo.config import Config
from zoo.data import load
from zoo.errors import InputError
from zoo.evaluation import predict
from zoo.scores import softmax

MODEL = {
    "family": "nin",
    "padding": "valid",
    "mlpconvs": [{"kernel": 3, "filters": [8, 8]}, {"kernel": 3, "filters": [8]}],
}
TRAIN = {"epochs": 3, "batch_size": 8, "optimizer": {"name": "adamw", "learning_rate": 0.01}}


def config(data, **model):
    return Config.model_validate({"name": "test", "data": data, "model": MODEL | model, "train": TRAIN, "canvas": None})


def write_scenes(folder, count=9):
    """Images with bright and with dim spots of 5 x 5 pixels on noise, and their centres in points.csv."""
    folder.mkdir()
    rows = ["image,x,y,class"]
    for index in range(count):
        generator = np.random.default_rng(index)
        pixels = generator.integers(0, 30, (40, 44, 3))
        for kind, value in (("bright", 250), ("dim", 120)):
            for cell in generator.choice(16, 2, replace=False):
                y, x = 5 + 10 * (cell // 4), (5 if kind == "bright" else 10) + 9 * (cell % 4)
                pixels[y - 2 : y + 3, x - 2 : x + 3] = value
                rows.append(f"{index}.png,{x + 0.5},{y + 0.5},{kind}")
        (folder / f"{index}.png").write_bytes(imagecodecs.png_encode(pixels.astype(np.uint8)))
    (folder.parent / f"{folder.name}.csv").write_text("\n".join(rows))
    return folder


def scenes_config(folder, **options):
    data = {"name": "scenes", "dir": folder, "labels": f"{folder}.csv", "tolerance": 3, "validation": 0.3, "test": 0.3}
    return config(data | options, num_classes=3, image_size=[9, 9], channels=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on scenes that was killed after its model was calibrated, and was finished by the same command."""
    folder = tmp_path_factory.mktemp("cells")
    wanted = scenes_config(write_scenes(folder / "images"))

    def killed(*arguments):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "evaluate", killed)
        zoo.run(wanted, folder / "run")
    before = zoo.load(folder / "run")
    assert card(before).peaks and not (folder / "run" / "evaluation.json").exists()
    zoo.run(wanted, folder / "run")
    return folder, before


@pytest.mark.extended
def test_a_run_killed_after_its_calibration_is_calibrated_once(finished):
    folder, before = finished
    after = zoo.load(folder / "run")
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert card(after) == card(before) and card(after).background == "background"


@pytest.mark.extended
def test_the_record_of_a_run_on_scenes_is_of_the_model_in_its_directory(finished):
    folder, _ = finished
    record = json.loads((folder / "run" / "evaluation.json").read_text())
    model = zoo.load(folder / "run")
    peaks = {name: each.model_dump() for name, each in card(model).peaks.items()}
    assert set(peaks) == {"bright", "dim"} and record["dense"]["peaks"] == peaks
    assert record["dense"]["tolerance"] == 3 and record["dense"]["rule"].startswith("by falling score")
    place, calibration = record["dense"]["accuracy_by_location"], record["calibration"]
    assert calibration["of"] == "grid cells" and calibration["n_test"] == place["n"]
    assert calibration["after"]["loss"] == pytest.approx(place["loss"], rel=1e-4)
    assert calibration["after"]["loss"] <= calibration["before"]["loss"] + 0.02
    assert record["dense"]["classes"]["bright"]["n"] == 2 * record["dense"]["n_images"]
    # Every image has two spots of each kind: so does the mean of the training images.
    for name, scores in record["dense"]["classes"].items():
        counts = record["dense"]["counts"][name]
        assert counts["bias"] == pytest.approx(scores["found"] / record["dense"]["n_images"] - 2)
        assert abs(counts["bias"]) <= counts["mean_absolute_error"] + 1e-9
        assert (counts["training_mean"], counts["training_mean_error"]) == (2, 0)
    assert (folder / "run" / "dense.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("key", ["data_fingerprint", "test_fingerprint"])
def test_an_unfinished_run_goes_on_with_the_images_and_the_division_that_it_began_with(finished, tmp_path, key):
    folder, _ = finished
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "evaluation.json").unlink()
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, key: "another"}))
    with pytest.raises(InputError, match="the data have changed since this run began; use a new one"):
        zoo.run(scenes_config(folder / "images"), run)


def test_an_evaluation_says_that_the_test_part_has_changed(finished, capsys, tmp_path):
    folder, _ = finished
    text = "the test images or their labels have changed since this run, which may have been trained on some of them"
    for options in ((), ("--dense",)):
        code, out, _ = command(capsys, "evaluate", folder / "run", *options)
        assert code == 0 and text not in out
    table, files = folder / "images.csv", write_scenes(tmp_path / "more", count=12)
    kept = table.read_text()
    for index in (9, 10, 11):
        (files / f"{index}.png").rename(folder / "images" / f"{index}.png")
    table.write_text((tmp_path / "more.csv").read_text())
    try:
        for options in ((), ("--dense",)):
            code, out, _ = command(capsys, "evaluate", folder / "run", *options)
            assert code == 0 and f"{text}: scenes\n" in out
    finally:
        table.write_text(kept)
        for index in (9, 10, 11):
            (folder / "images" / f"{index}.png").unlink()


@pytest.mark.extended
def test_whole_images_by_command(finished, capsys, tmp_path):
    folder, _ = finished
    result = tmp_path / "dense.json"
    code, out, _ = command(capsys, "evaluate", folder / "run", "--dense", "-o", result)
    record, before = (json.loads(path.read_text()) for path in (result, folder / "run" / "evaluation.json"))
    assert code == 0 and "average precision" in out and "labelled grid cells" in out
    assert record["classes"] == before["dense"]["classes"] and result.with_suffix(".png").exists()
    # The same command again replaces its own files.
    assert command(capsys, "evaluate", folder / "run", "--dense", "-o", result)[0] == 0


def test_another_folder_by_command_is_evaluated_whole_with_the_models_classes(finished, capsys, tmp_path):
    folder, _ = finished
    others = write_scenes(tmp_path / "others", count=2)
    labels = tmp_path / "others.csv"
    labels.write_text("\n".join(row for row in labels.read_text().splitlines() if not row.endswith("dim")))
    arguments = ("evaluate", folder / "run", "--dense", "--images", others, "--labels", labels)
    assert command(capsys, *arguments, "-o", tmp_path / "dense.json")[0] == 0
    record = json.loads((tmp_path / "dense.json").read_text())
    assert record["n_images"] == 2
    assert record["classes"]["bright"]["n"] == 4 and record["classes"]["dim"]["n"] == 0
    assert record["classes"]["dim"]["recall"] is None
    labels.write_text(labels.read_text().replace("bright", "blue"))
    code, _, error = command(capsys, *arguments)
    assert code == 2 and "unknown class 'blue'" in error and error.count("\n") == 1


def test_what_is_asked_of_another_folders_labels_can_be_said(finished, capsys, tmp_path):
    folder, _ = finished
    others, labels = write_scenes(tmp_path / "others", count=2), tmp_path / "others.csv"
    labels.write_text("\n".join(row for row in labels.read_text().splitlines() if not row.startswith("1.png")))
    arguments = ("evaluate", folder / "run", "--dense", "--images", others, "--labels", labels)
    code, _, error = command(capsys, *arguments)
    assert code == 2 and "data.unlabelled=skip" in error
    said = ("data.unlabelled=skip", "data.tolerance=2.5")
    assert command(capsys, *arguments, *said, "-o", tmp_path / "dense.json")[0] == 0
    record = json.loads((tmp_path / "dense.json").read_text())
    assert (record["n_images"], record["tolerance"]) == (1, 2.5)
    code, _, error = command(capsys, *arguments, "data.scale=2")
    assert (
        code == 2 and "override: received 'data.scale=2'; accepted: data.tolerance, data.unlabelled, data.unr" in error
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("data.tolerance=4", "--dense"), "data.tolerance=4 has no effect without --images and --labels"),
        (("--dense", "--images", "there"), "--images has no effect without --labels"),
        (("--images", "there", "--labels", "here"), "--images has no effect without --dense"),
        (("--dense", "--tolerance", "0.1"), "--tolerance has no effect without --against"),
        (("--dense", "-o", "result.png"), "--output: received 'result.png'; accepted: a JSON file"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(finished, capsys, options, text):
    code, _, error = command(capsys, "evaluate", finished[0] / "run", *options)
    assert code == 2 and text in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """The config and the result of a run on an image folder, one of whose classes is the background."""
    folder = tmp_path_factory.mktemp("folder")
    root = write_images(folder / "set", classes=("cat", "none"), count=40, size=(9, 9))
    data = {"name": "image_folder", "dir": root, "background": "none", "validation": 0.3, "test": 0.3}
    wanted = config(data, num_classes=2, image_size=[9, 9], channels=3)
    return wanted, zoo.run(wanted, folder / "run")


@pytest.mark.extended
def test_an_image_folder_with_a_background_is_calibrated_on_validation_images(folder_run):
    wanted, result = folder_run
    model, dataset = zoo.load(result.folder), load(wanted)
    assert card(model).background == "none" and not card(model).peaks
    calibration = result.evaluation["calibration"]
    assert calibration["of"] == "images" and calibration["n"] == len(dataset.validation)
    logits, labels = predict(model, dataset.test.images), dataset.test.labels
    after, before = softmax(logits), softmax(calibration["temperature"] * logits)
    for name, probabilities in (("after", after), ("before", before)):
        error = calibration[name]["expected_calibration_error"]
        assert error == pytest.approx(expected_calibration_error(probabilities, labels), abs=1e-4)
    lower = calibration["gain"] > calibration["spread"]
    assert calibration["temperature"] == (calibration["found"] if lower else 1) and calibration["found"] != 1
    assert result.evaluation["loss"] == pytest.approx(calibration["after"]["loss"], rel=1e-4)
    assert "dense" not in result.evaluation


def test_dense_evaluation_of_a_run_without_labelled_images_is_refused(folder_run, capsys):
    code, _, error = command(capsys, "evaluate", folder_run[1].folder, "--dense")
    assert code == 2 and "--dense: received a run on data.name = image_folder; accepted: " in error


def test_a_background_that_is_no_class_is_refused_with_the_classes(folder_run):
    data = folder_run[0].data.model_copy(update={"background": "nome"})
    with pytest.raises(
        InputError, match=r"unknown data.background 'nome' \(did you mean 'none'\?\); accepted: cat, none"
    ):
        load(folder_run[0].model_copy(update={"data": data}))


@pytest.mark.extended
def test_nothing_held_out_is_said_and_calibrates_nothing(folder_run, capsys, tmp_path):
    data = folder_run[0].data.model_copy(update={"validation": 0})
    train = folder_run[0].train.model_copy(update={"epochs": 1})
    result = zoo.run(folder_run[0].model_copy(update={"data": data, "train": train}), tmp_path / "run")
    assert "not calibrated: no images are held out for validation" in capsys.readouterr().out
    assert "calibration" not in result.evaluation and card(zoo.load(result.folder)).background == "none"


@pytest.mark.extended
def test_a_model_that_cannot_slide_is_trained_and_says_what_is_left_out(finished, capsys, tmp_path):
    wanted = scenes_config(finished[0] / "images").model_dump(mode="json")
    wanted["model"]["head"] = {"kind": "pyramid", "levels": [1, 2]}
    wanted["train"]["epochs"] = 1
    result = zoo.run(Config.model_validate(wanted), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "not calibrated: " in printed and "not evaluated on whole images: " in printed
    assert "dense" not in result.evaluation and 0 <= result.evaluation["accuracy"] <= 1
