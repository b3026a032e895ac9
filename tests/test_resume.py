"""Runs that were killed, interrupted or out of room go on and end bit for bit as if they had not been.

Most are trained in this process: a run that is taken for killed leaves the folder of that instant (`killed`). One real
SIGKILL and one real SIGINT see that a process does no more than that.
"""

import contextlib
import csv
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TRAIN_DIGITS, train_digits
from cut_trainings import at_a_step

import zoo
from zoo import files
from zoo.cli import main
from zoo.training import checkpoint, loop

QUICK = "canvas=null"
PROCESS = [sys.executable, "-m", "zoo", *TRAIN_DIGITS, QUICK]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run directory of a training that nothing stopped; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_digits(folder, QUICK)
    return folder


def weights(folder):
    return [np.asarray(weight) for weight in zoo.load(folder).weights]


def same_run(a, b):
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("history.csv", "evaluation.json"):
        assert (a / name).read_text() == (b / name).read_text()


def until(process, there, seconds=120):
    """Wait until `there()` holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not there() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.extended
def test_an_interrupted_process_says_how_it_goes_on_and_ends_in_the_same_bits(finished, tmp_path):
    folder = tmp_path / "cut"
    process = subprocess.Popen(
        [*PROCESS, "--workdir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(process, lambda: list(folder.glob("checkpoints/step-*.npz")))
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130 and "the same command continues" in output, output
    assert (folder / "model.keras").is_file() and not (folder / "evaluation.json").exists()
    assert "resuming from step" in train_digits(folder, QUICK)
    same_run(finished, folder)


SUICIDE = """
import os, signal, sys
from zoo import files
from zoo.cli import main

replace = os.replace

def die(source, target):
    if str(target).endswith("step-000000009.npz"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

files.os.replace = die
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_killed_before_a_checkpoint_has_its_name_ends_in_the_same_bits(finished, tmp_path):
    folder = tmp_path / "cut"
    command = [sys.executable, "-c", SUICIDE, *TRAIN_DIGITS, QUICK, "--workdir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    assert "resuming from step 6" in train_digits(folder, QUICK)
    assert all(path.name.startswith("step-") for path in (folder / "checkpoints").iterdir())
    same_run(finished, folder)
    assert logged(finished) == logged(folder)


class Killed(BaseException):
    """Ends a training that is taken for killed."""


def in_the_middle_of_a_checkpoint(patch, at, die):
    savez, calls = np.savez, iter(range(1, at + 1))

    def dying(file, **arrays):
        if next(calls) < at:
            return savez(file, **arrays)
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()

    patch.setattr(checkpoint.np, "savez", dying)


def before_a_checkpoint_has_its_name(patch, at, die):
    replace, calls = files.os.replace, iter(range(1, at + 1))

    def dying(source, target):
        if str(target).endswith(".npz") and next(calls) == at:
            die()
        replace(source, target)

    patch.setattr(files.os, "replace", dying)


def after_an_epoch(patch, at, die):
    end = loop._Keeper.on_epoch_end

    def dying(keeper, epoch, logs=None):
        end(keeper, epoch, logs)
        if epoch + 1 == at:
            die()

    patch.setattr(loop._Keeper, "on_epoch_end", dying)


def killed(folder, monkeypatch, when, at, *overrides):
    """Train in `folder` up to an instant, and leave the folder as a kill at that instant would: what was printed.

    Files that the exception removes on its way, and the dead do not, are kept.
    """
    left = folder.with_name("left")

    def die():
        shutil.copytree(folder, left)
        raise Killed

    printed = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stdout(printed), pytest.raises(Killed):
        when(patch, at, die)
        main([*TRAIN_DIGITS, QUICK, "--workdir", str(folder), *overrides])
    shutil.rmtree(folder)
    left.rename(folder)
    assert not (folder / "evaluation.json").exists()
    return printed.getvalue()


def logged(folder):
    """Every scalar in TensorBoard's files, by split, tag and step."""
    import tensorflow as tf

    return {
        (path.parent.name, value.tag, event.step): float(tf.make_ndarray(value.tensor))
        for path in (folder / "tensorboard").glob("*/events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


@pytest.mark.extended
def test_kills_at_random_steps_and_while_a_checkpoint_is_written_leave_no_trace(finished, monkeypatch, tmp_path):
    """Twenty steps an epoch, a checkpoint every three and at the end of an epoch."""
    seed = int(time.time())
    print("seed", seed)
    choose, folder = random.Random(seed), tmp_path / "cut"
    first = choose.randint(4, 14)
    killed(folder, monkeypatch, at_a_step, first)
    output = killed(folder, monkeypatch, in_the_middle_of_a_checkpoint, choose.randint(1, 4))
    assert f"resuming from step {(first - 1) // 3 * 3}" in output
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    killed(folder, monkeypatch, before_a_checkpoint_has_its_name, choose.randint(1, 4))
    train_digits(folder, QUICK)
    assert all(path.name.startswith("step-") for path in (folder / "checkpoints").iterdir())
    same_run(finished, folder)
    assert logged(finished) == logged(folder) and len(logged(folder)) > 8


@pytest.mark.extended
def test_a_modern_recipe_resumes_too(monkeypatch, tmp_path):
    """Averages, accumulated gradients, the best weights so far, and the random states of MixUp, CutMix and the rest."""
    recipe = ["train.ema=0.9", "train.accumulate=2", "train.patience=2", "train.augment={mixup: 0.2, cutmix: 0.5}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_digits(whole, QUICK, *recipe)
    killed(cut, monkeypatch, at_a_step, random.Random(int(time.time())).randint(4, 39), *recipe)
    assert "resuming from step" in train_digits(cut, QUICK, *recipe)
    same_run(whole, cut)


@pytest.mark.extended
def test_a_run_killed_between_epochs_logs_what_the_whole_one_logs(finished, monkeypatch, tmp_path):
    """The newest checkpoint is the end of epoch 1: its metrics do not leak into epoch 2."""
    seldom, cut = "train.checkpoint_every_steps=null", tmp_path / "cut"
    killed(cut, monkeypatch, after_an_epoch, 1, seldom)
    assert f"resuming from step {1293 // 64}" in train_digits(cut, QUICK, seldom)
    same_run(finished, cut)
    assert logged(finished) == logged(cut)


@pytest.mark.slow
def test_kills_at_random_instants_leave_no_trace(finished, tmp_path):
    """Wherever it strikes: imports, reading, tracing, steps, checkpoints, the final evaluation, the pictures."""
    seed = int(time.time())
    print("seed", seed)
    choose, folder = random.Random(seed), tmp_path / "cut"
    for _ in range(20):
        process = subprocess.Popen([*PROCESS, "--workdir", str(folder)], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("run directory"):
                break
        time.sleep(choose.uniform(0, 12))
        process.kill()
        process.communicate()
        if (folder / "evaluation.json").exists():
            break
    train_digits(folder, QUICK)
    same_run(finished, folder)
    assert logged(finished) == logged(folder)


@pytest.mark.extended
def test_no_room_for_a_checkpoint_stops_with_one_line_and_the_one_before_goes_on(
    finished, capsys, monkeypatch, tmp_path
):
    """A limit on the size of files, as a full disk, falls in the middle of the file."""
    folder, save, before = tmp_path / "full", checkpoint.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(folder, trainer, progress):
        if progress.step == 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        return save(folder, trainer, progress)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", limited)
            train_digits(folder, QUICK, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    *_, line = capsys.readouterr().err.splitlines()  # after those of the epochs
    assert "the same command goes on from there" in line and "step-000000012.npz" in line
    names = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert names == ["step-000000006.npz", "step-000000009.npz"]
    assert "resuming from step 9" in train_digits(folder, QUICK)
    same_run(finished, folder)


@pytest.mark.slow
def test_a_busy_neighbour_changes_no_bit(finished, tmp_path):
    """Two processes that never rest, beside the same training."""
    code = "while True: sum(i * i for i in range(10_000))"
    neighbours = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        train_digits(tmp_path / "beside", QUICK)
    finally:
        for each in neighbours:
            each.kill()
            each.wait()
    same_run(finished, tmp_path / "beside")
    about = json.loads((tmp_path / "beside" / "environment.json").read_text())
    assert about["cores"] >= 1 and about["processor"] and about["devices"] and about["versions"]["keras"]
    assert about["data_fingerprint"] == json.loads((finished / "environment.json").read_text())["data_fingerprint"]


@pytest.mark.extended
def test_an_interrupted_last_step_still_has_its_epochs_history(capsys, monkeypatch, tmp_path):
    """A signal in the only step of an epoch waits for its validation and its row."""
    folder, overrides = tmp_path / "run", ["train.epochs=3", "train.batch_size=1293", QUICK]

    def rows():
        with (folder / "history.csv").open() as file:
            return [row["epoch"] for row in csv.DictReader(file)]

    with monkeypatch.context() as patch:
        patch.setattr(loop._Keeper, "on_train_batch_begin", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        train_digits(folder, *overrides, code=130)
    assert "interrupted at step 1;" in capsys.readouterr().err and rows() == ["1"]
    train_digits(folder, *overrides)
    assert rows() == ["1", "2", "3"]
