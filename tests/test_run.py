import csv
import datetime
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import command, train_digits

import zoo
from zoo.config import load_config
from zoo.data import Split
from zoo.errors import Diverged, InputError
from zoo.evaluation import evaluate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run directory of a finished training; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_digits(folder)
    return folder


def test_a_finished_run_says_so_and_changes_nothing(finished):
    before = {
        path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"
    }
    output = train_digits(finished)
    assert "this run is finished" in output and "test accuracy" in output
    after = {path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


def test_a_run_directory_holds_what_it_should(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "model.keras", "config.yaml", "evaluation.json", "environment.json", "history.csv", "curves.png",
        "confusion.png", "filters.png", "canvas.png", "canvas_input.png", "checkpoints", "tensorboard",
    } <= names  # fmt: skip
    report = json.loads((finished / "evaluation.json").read_text())
    assert {"accuracy", "loss", "n", "per_class_accuracy", "protocol", "weights", "canvas_accuracy"} <= set(report)
    assert report["n"] == 360 and 0 <= report["canvas_accuracy"] <= 1 and report["weights"] == "last"
    assert np.array(report["confusion"]).sum() == 360 and 0 < report["expected_calibration_error"] < 1
    environment = json.loads((finished / "environment.json").read_text())
    began, ended = (datetime.datetime.fromisoformat(environment[key]) for key in ("began", "ended"))
    assert datetime.timedelta(0) <= ended - began < datetime.timedelta(hours=1) and began.tzinfo is not None
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and "val_accuracy" in rows[0]
    assert load_config(finished / "config.yaml") == load_config(
        "nin_digits", ["train.epochs=2", "train.checkpoint_every_steps=3"]
    )


def test_changed_data_are_refused_and_a_refused_start_leaves_nothing(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    arrays = {"x_train": images, "y_train": np.arange(40) % 10, "x_test": images, "y_test": np.arange(40) % 10}
    np.savez(tmp_path / "data.npz", **arrays)
    common = ["data.name=npz", f"data.dir={tmp_path / 'data.npz'}", "train.epochs=1", "train.batch_size=20"]
    config = load_config("nin_digits", [*common, "canvas=null"])
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="accepted: 0 to 6"):
        zoo.run(load_config("nin_digits", [*common, "model.num_classes=7"]), folder)
    assert not folder.exists()
    zoo.run(config, folder)
    (folder / "evaluation.json").unlink()
    arrays["y_train"] = arrays["y_train"][::-1]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match="the data have changed"):
        zoo.run(config, folder)


@pytest.mark.extended
def test_fine_tuning_keeps_the_backbone_and_saves_the_logits_alone(finished, tmp_path):
    """Another head on a run's weights, the first stage frozen; the saved model is not frozen."""
    overrides = ["train.freeze=mlpconv1", "model.head={kind: pooled}", "train.epochs=1", "canvas=null"]
    overrides.append(f"train.weights={finished}")
    tuned = zoo.run(load_config("nin_digits", overrides), tmp_path / "tuned")
    a, b = (zoo.load(folder) for folder in (finished, tuned.folder))
    for layer in b.layers:
        if layer.name.startswith("mlpconv1") and layer.weights:
            for old, new in zip(a.get_layer(layer.name).weights, layer.weights, strict=True):
                np.testing.assert_array_equal(np.asarray(old), np.asarray(new))
    assert b.trainable_weights and all(layer.trainable for layer in b.layers)


@pytest.mark.extended
def test_a_head_that_does_not_convert_leaves_the_canvas_out(tmp_path, capsys):
    overrides = ["model.head={kind: pyramid, levels: [1, 2]}", "train.epochs=1"]
    result = zoo.run(load_config("nin_digits", overrides), tmp_path / "run")
    assert "canvas_accuracy" not in result.evaluation and "no canvas: " in capsys.readouterr().out
    assert not (tmp_path / "run" / "canvas.png").exists()
    assert zoo.run(load_config("nin_digits", overrides), tmp_path / "run").evaluation == result.evaluation


@pytest.mark.extended
def test_a_run_that_is_tried_on_no_large_image_says_nothing_of_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys.modules["zoo.experiment"], "convolutionalize", lambda model: pytest.fail("converted for nothing")
    )
    result = zoo.run(load_config("nin_digits", ["train.epochs=1", "canvas=null"]), tmp_path / "run")
    assert not {"canvas", "canvas_accuracy"} & set(result.evaluation) and "canvas" not in result.summary()
    assert "canvas" not in capsys.readouterr().out and not list((tmp_path / "run").glob("canvas*"))
    assert load_config(tmp_path / "run" / "config.yaml").canvas is None


def test_another_config_in_the_same_directory_is_refused(finished):
    with pytest.raises(InputError, match="train.epochs: 2 there, 3 asked for"):
        zoo.run(load_config("nin_digits", ["train.epochs=3", "train.checkpoint_every_steps=3"]), finished)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        zoo.run(load_config("nin_digits"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_second_process_in_the_same_directory_is_refused(tmp_path):
    from filelock import FileLock

    config = load_config("nin_digits")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another process"):
        zoo.run(config, tmp_path)


DIVERGING = ["train.optimizer={name: sgd, learning_rate: 1.0e+30}", "train.warmup=0", "model.normalization=none"]


def test_a_diverging_learning_rate_stops_with_a_clear_line(tmp_path):
    config = load_config("nin_digits", ["train.epochs=3", *DIVERGING])
    with pytest.raises(InputError, match="the loss is .* by step .*, before the first checkpoint; try a lower .*rate"):
        zoo.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.extended
def test_a_validation_loss_alone_that_is_no_number_has_diverged_too(tmp_path, monkeypatch):
    """As where the running averages of a normalisation blow up, but not the batches' own statistics."""
    from zoo.training.batches import EvaluationBatches

    item = EvaluationBatches.__getitem__
    monkeypatch.setattr(EvaluationBatches, "__getitem__", lambda *at: (item(*at)[0], item(*at)[1] * np.nan))
    config = load_config("nin_digits", ["train.epochs=1", "canvas=null"])
    with pytest.raises(InputError, match="epoch 1: the validation loss is nan by step .*, before the first"):
        zoo.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_whose_scores_overflow_has_diverged(tmp_path):
    model = zoo.build("nin_digits")
    for weight in model.trainable_weights:
        weight.assign(weight * 1e20)
    split = Split(np.full((3, 8, 8, 1), 255, np.uint8), np.arange(3))
    with pytest.raises(InputError, match="not finite, as of a training that diverged"):
        evaluate(model, split, tuple("0123456789"))


@pytest.mark.extended
def test_a_loss_that_diverges_late_leaves_the_model_and_the_history_before_it(tmp_path, monkeypatch):
    """The rate explodes after one epoch; what the first epoch reached is kept as a run of that epoch has it."""
    from zoo.training import loop

    overrides = ["train.epochs=2", "train.batch_size=431", "train.optimizer={name: sgd, learning_rate: 0.01}"]
    config = load_config("nin_digits", [*overrides, "train.warmup=0", "model.normalization=none"])
    ends = []

    def explode(keeper, epoch, logs=None):
        end(keeper, epoch, logs)
        ends.append([np.array(weight) for weight in keeper.model.weights])
        for weight in keeper.model.trainable_weights:
            weight.assign(weight * 1e20)

    end = loop._Keeper.on_epoch_end
    monkeypatch.setattr(loop._Keeper, "on_epoch_end", explode)
    with pytest.raises(InputError, match=r"the loss is .* by step 6; .*run keeps the checkpoint and model.keras of"):
        zoo.run(config, tmp_path / "run")
    (at_end,) = ends
    for kept, wanted in zip(zoo.load(tmp_path / "run").weights, at_end, strict=True):
        np.testing.assert_array_equal(np.asarray(kept), wanted)
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


@pytest.mark.extended
def test_images_that_cannot_be_read_are_counted_and_named(capsys, tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / "set" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray(generator.integers(0, 256, (8, 8)).astype(np.uint8))
        pixels.save(tmp_path / "set" / "ab"[number % 2] / f"{number:02}.png")
    for name in ("a/00.png", "b/01.png"):
        (tmp_path / "set" / name).write_bytes(b"broken")
    arguments = [
        "train", "nin_digits", "data.name=image_folder", f"data.dir={tmp_path / 'set'}", "model.num_classes=2",
        "train.epochs=1", "train.batch_size=4", "canvas=null", "--workdir", tmp_path / "run",
    ]  # fmt: skip
    code, _, err = command(capsys, *arguments)
    line = err.splitlines()[-1]
    assert code == 2 and line.startswith("zoo: ") and not (tmp_path / "run").exists()
    assert all(text in line for text in ("a/00.png: ", "b/01.png: 2 images in all", "data.unreadable=skip"))
    code, out, err = command(capsys, *arguments, "data.unreadable=skip")
    assert code == 0, err
    assert "2 images are left out, being unreadable: a/00.png, b/01.png" in out
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert report["unreadable"] == {"n": 2, "files": ["a/00.png", "b/01.png"]}


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="train.batch_size: received 5000; accepted: at most 1293"):
        zoo.run(load_config("nin_digits", ["train.batch_size=5000"]), tmp_path / "run")


def test_more_batches_an_update_than_there_are_is_refused(tmp_path):
    with pytest.raises(InputError, match="train.accumulate: received 50; accepted: at most 40"):
        zoo.run(load_config("nin_digits", ["train.accumulate=50", "train.epochs=2"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.extended
def test_the_first_command_reaches_what_the_readme_says(tmp_path):
    """The whole of nin_digits: two minutes at the most, of which training takes half a minute."""
    command = [sys.executable, "-m", "zoo", "train", "nin_digits", "--workdir", str(tmp_path / "digits")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "digits" / "evaluation.json").read_text())
    assert report["n"] == 360 and report["accuracy"] >= 0.985
    assert report["canvas"]["n"] == 100 and report["canvas_accuracy"] >= 0.95
    assert str(tmp_path / "digits") in done.stdout and "canvas.png" in done.stdout


@pytest.mark.slow
def test_mnist_in_minutes(tfds_dir, tmp_path):
    """The whole of nin_mnist_bn on real MNIST."""
    if not (tfds_dir / "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR holds no mnist")
    report = zoo.run(load_config("nin_mnist_bn"), tmp_path / "mnist").evaluation
    assert report["n"] == 10_000 and report["accuracy"] >= 0.992
    assert report["canvas_accuracy"] >= 0.95 and report["canvas"]["crops_accuracy"] >= 0.95


@pytest.mark.extended
@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"val_loss": float("nan")}, r"in epoch 2: the validation loss is nan by step 6; "),
        ({"val_loss": float("inf")}, r"in epoch 2: the validation loss is inf by step 6; "),
        ({"loss": 3e22}, r"in epoch 2: the loss is 3e\+22 by step 6; "),
        ({"val_loss": 3e22}, r"in epoch 2: the validation loss is 3e\+22 by step 6; "),
    ],
)
def test_a_validation_loss_that_blew_up_is_diverged_and_goes_back_to_the_checkpoint(
    tmp_path, monkeypatch, losses, named
):
    from zoo.training import loop

    overrides = ["train.epochs=2", "train.batch_size=431", "data.validation=60", "canvas=null"]
    ends = []

    def explode(keeper, epoch, logs=None):
        end(keeper, epoch, {**logs, **(losses if epoch else {})})
        ends.append([np.array(weight) for weight in keeper.learner.weights])

    end = loop._Keeper.on_epoch_end
    monkeypatch.setattr(loop._Keeper, "on_epoch_end", explode)
    with pytest.raises(Diverged, match=named + r".*run keeps the checkpoint and model.keras of step 3; try a lower"):
        zoo.run(load_config("nin_digits", overrides), tmp_path / "run")
    for kept, wanted in zip(zoo.load(tmp_path / "run").weights, *ends, strict=True):
        np.testing.assert_array_equal(np.asarray(kept), wanted)
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


@pytest.mark.extended
def test_a_huge_loss_is_no_end_before_the_last_epoch(tmp_path, monkeypatch):
    from zoo.training import loop

    def large(keeper, epoch, logs=None):
        end(keeper, epoch, {**logs, "loss": 1e7 if epoch == 0 else logs["loss"]})

    end = loop._Keeper.on_epoch_end
    monkeypatch.setattr(loop._Keeper, "on_epoch_end", large)
    assert zoo.run(load_config("nin_digits", ["train.epochs=2", "canvas=null"]), tmp_path / "run").evaluation
