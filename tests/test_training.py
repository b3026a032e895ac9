import csv
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import noise

import zoo
from zoo.config import load_config
from zoo.config.experiment import Augment
from zoo.data import Split
from zoo.errors import InputError
from zoo.training import checkpoint
from zoo.training.batches import EvaluationBatches, training_batches
from zoo.training.checkpoint import Progress
from zoo.training.recipe import ShiftAndFlip, optimizer, trainer


@pytest.fixture
def split():
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)
    return Split(images, np.arange(50, dtype=np.int32) % 10)


def first(batches, count):
    return [next(batches) for _ in range(count)]


def test_an_epoch_sees_every_image_at_most_once_and_the_next_in_another_order(split):
    batches = first(training_batches(split, 10, 8, seed=0), 12)
    epochs = [np.concatenate([images.ravel() for images, _ in part]) for part in (batches[:6], batches[6:])]
    assert all(len(set(epoch)) == 48 for epoch in epochs)
    assert not np.array_equal(*epochs)
    for images, labels in batches:
        np.testing.assert_array_equal(labels.argmax(1), images.ravel() % 10)


@pytest.mark.parametrize("step", [0, 1, 5, 6, 7, 13])
def test_batches_begin_anywhere_as_if_they_had_come_from_the_start(split, step):
    wanted = first(training_batches(split, 10, 8, seed=3), step + 3)[step:]
    given = first(training_batches(split, 10, 8, seed=3, first_step=step), 3)
    for (a, b), (c, d) in zip(wanted, given, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_evaluation_batches_cover_the_split_in_order(split):
    batches = EvaluationBatches(split, 10, 16)
    images = np.concatenate([batches[index][0].ravel() for index in range(len(batches))])
    np.testing.assert_array_equal(images, np.arange(50))


def test_every_augmented_image_is_a_shift_or_mirrored_shift_of_its_own():
    images = noise(64, 6, 5, 2)
    fill = (7.0, 9.0)
    moved = np.asarray(ShiftAndFlip(Augment(shift=2, flip=True), fill)(images, training=True))
    seen = set()
    for image, given in zip(images, moved, strict=True):
        found = []
        for flip in (False, True):
            source = image[:, ::-1] if flip else image
            padded = np.tile(np.float32(fill), (10, 9, 1))
            padded[2:8, 2:7] = source
            for down in range(5):
                for right in range(5):
                    if np.array_equal(padded[down : down + 6, right : right + 5], given):
                        found.append((flip, down, right))
        assert len(found) == 1
        seen.add(found[0])
    assert {flip for flip, *_ in seen} == {False, True}
    assert {down for _, down, _ in seen} == {right for *_, right in seen} == set(range(5))


def test_augmentation_acts_in_training_only_and_differs_from_call_to_call():
    layer = ShiftAndFlip(Augment(shift=2), (0.0,))
    images = noise(8, 6, 6, 1)
    np.testing.assert_array_equal(np.asarray(layer(images, training=False)), images)
    calls = [np.asarray(layer(images, training=True)) for _ in range(2)]
    assert not np.array_equal(*calls)


def test_warm_up_and_cosine():
    config = load_config("nin_digits", ["train.epochs=10", "train.warmup=0.2"]).train
    schedule = optimizer(config, zoo.build("nin_digits"), steps_per_epoch=10)._learning_rate
    top = config.optimizer.learning_rate
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(rates[1:], [top * (0.5 + 0.5 / 20), top, top / 2, 0], rtol=1e-3, atol=1e-9)
    assert 0 < rates[0] < rates[1]
    without = load_config("nin_digits", ["train.warmup=0"]).train
    assert float(optimizer(without, zoo.build("nin_digits"), 10)._learning_rate(0)) == pytest.approx(top)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_biases_and_normalisations(name):
    config = load_config(
        "nin_digits",
        [f"train.optimizer={{name: {name}, learning_rate: 0.1, weight_decay: 0.5}}", "train.warmup=0"],
    ).train
    model = zoo.build("nin_digits")
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    made = optimizer(config, model, 10)
    made.build(model.trainable_variables)
    made.apply([np.zeros(weight.shape, np.float32) for weight in model.trainable_weights], model.trainable_variables)
    for weight in model.trainable_weights:
        value = np.asarray(weight)
        assert (value == 1).all() if value.ndim < 2 else (value < 1).all(), weight.path


def test_the_saved_model_has_no_augmentation():
    config = load_config("nin_digits")
    model = zoo.build(config.model)
    training_model = trainer(model, config.train, (0.0,), 10)
    assert any(isinstance(layer, ShiftAndFlip) for layer in training_model.layers)
    assert not any(isinstance(layer, ShiftAndFlip) for layer in model.layers)
    assert {id(weight) for weight in model.weights} == {id(weight) for weight in training_model.weights}


def small_trainer(seed=0):
    keras.utils.set_random_seed(seed)
    config = load_config("nin_digits")
    made = trainer(zoo.build(config.model), config.train, (0.0,), 10)
    made.optimizer.build(made.trainable_variables)
    made.compute_metrics(x=None, y=np.zeros((1, 10), np.float32), y_pred=np.zeros((1, 10), np.float32))
    return made


def test_a_checkpoint_brings_back_every_variable(tmp_path):
    source, other = small_trainer(0), small_trainer(1)
    source.train_on_batch(noise(4, 8, 8, 1), np.eye(10, dtype=np.float32)[:4])
    checkpoint.save(tmp_path, source, Progress(1, [{"epoch": 1, "loss": 0.5}]))
    progress, metrics = checkpoint.restore(tmp_path, other)
    checkpoint.restore_metrics(other, metrics)
    assert progress == Progress(1, [{"epoch": 1, "loss": 0.5}])
    state = [*source.variables, *source.optimizer.variables]
    again = [*other.variables, *other.optimizer.variables]
    assert any("seed_generator" in variable.path for variable in state)
    for a, b in zip(state, again, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    made = small_trainer()
    assert checkpoint.restore(tmp_path, made) is None
    for step in (1, 2, 3):
        newest = checkpoint.save(tmp_path, made, Progress(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000002.npz", "step-000000003.npz"]
    content = newest.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:-2000] + bytes(2000)):
        newest.write_bytes(damaged)
        with pytest.warns(UserWarning, match="step-000000003.npz is damaged"):
            progress, _ = checkpoint.restore(tmp_path, made)
        assert progress.step == 2


COMMAND = [sys.executable, "-m", "zoo", "train", "nin_digits", "train.epochs=2", "train.checkpoint_every_steps=3"]


def finish(folder, *extra):
    done = subprocess.run([*COMMAND, "--workdir", str(folder), *extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finish(folder)
    return folder


def weights(folder):
    return [np.asarray(weight) for weight in zoo.load(folder).weights]


def same_run(a, b):
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (a / "history.csv").read_text() == (b / "history.csv").read_text()
    reports = [json.loads((folder / "evaluation.json").read_text()) for folder in (a, b)]
    for report in reports:
        for key in ("scan_seconds", "crops_seconds"):
            report["scene"].pop(key)
    assert reports[0] == reports[1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_bit_for_bit_as_if_it_had_not_stopped(finished, tmp_path, how):
    folder = tmp_path / "cut"
    process = subprocess.Popen([*COMMAND, "--workdir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*.npz")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(how)
    output = process.communicate()[0].decode()
    if how == signal.SIGINT:
        assert process.returncode == 130 and "the same command continues" in output, output
        assert (folder / "model.keras").is_file()
    assert not (folder / "evaluation.json").exists()
    assert "resuming from step" in finish(folder)
    same_run(finished, folder)


def test_a_finished_run_says_so_and_changes_nothing(finished):
    before = {
        path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"
    }
    output = finish(finished)
    assert "this run is finished" in output and "test accuracy" in output
    after = {path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


def test_a_run_directory_holds_what_it_should(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "model.keras", "config.yaml", "evaluation.json", "environment.json", "history.csv", "curves.png",
        "confusion.png", "filters.png", "scene.png", "scene_input.png", "checkpoints", "tensorboard",
    } <= names  # fmt: skip
    report = json.loads((finished / "evaluation.json").read_text())
    assert {"accuracy", "loss", "n", "per_class_accuracy", "protocol", "weights", "scene_accuracy"} <= set(report)
    assert report["n"] == 360 and 0 <= report["scene_accuracy"] <= 1 and report["weights"] == "last"
    assert np.array(report["confusion"]).sum() == 360
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and "val_accuracy" in rows[0]
    assert load_config(finished / "config.yaml") == load_config(
        "nin_digits", ["train.epochs=2", "train.checkpoint_every_steps=3"]
    )


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


def test_a_diverging_learning_rate_stops_with_a_clear_line(tmp_path):
    config = load_config(
        "nin_digits",
        [
            "train.epochs=3",
            "train.optimizer={name: sgd, learning_rate: 1.0e+30}",
            "train.warmup=0",
            "model.normalization=none",
        ],
    )
    with pytest.raises(InputError, match="training diverged: the loss is .* at step .*learning_rate"):
        zoo.run(config, tmp_path / "run")


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="train.batch_size: received 5000; accepted: at most 1293"):
        zoo.run(load_config("nin_digits", ["train.batch_size=5000"]), tmp_path / "run")
