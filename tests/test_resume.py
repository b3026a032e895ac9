import csv
import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TRAIN_DIGITS, train_digits

import zoo


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


# SIGKILL at steps of a test's own choice is below.
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_and_ends_bit_for_bit_as_if_it_had_not_stopped(finished, tmp_path, how):
    folder = tmp_path / "cut"
    command = [*TRAIN_DIGITS, "--workdir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*.npz")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(how)
    output = process.communicate()[0].decode()
    if how == signal.SIGINT:
        assert process.returncode == 130 and "the same command continues" in output, output
        assert (folder / "model.keras").is_file()
    assert not (folder / "evaluation.json").exists()
    assert "resuming from step" in train_digits(folder)
    same_run(finished, folder)


KILLER = """
import io, os, signal, sys
import numpy as np
from zoo import files
from zoo.cli import main
from zoo.training import loop

how, at = sys.argv[1], int(sys.argv[2])
calls, savez, replace, end = 0, np.savez, os.replace, loop._Keeper._count

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at_a_step(keeper):
    if keeper.progress.step + 1 == at:
        die()
    end(keeper)

def half(file, **arrays):
    global calls
    calls += 1
    if calls == at:
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()
    savez(file, **arrays)

def before_the_rename(source, target):
    global calls
    calls += str(target).endswith(".npz")
    if calls == at:
        die()
    replace(source, target)

if how == "step": loop._Keeper._count = at_a_step
if how == "half": np.savez = half
if how == "rename": files.os.replace = before_the_rename
main(sys.argv[3:])
"""


def logged(folder):
    """Every scalar in TensorBoard's files, by split, tag and step."""
    import tensorflow as tf

    return {
        (path.parent.name, value.tag, event.step): float(tf.make_ndarray(value.tensor))
        for path in (folder / "tensorboard").glob("*/events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


def killed(folder, how, at, *overrides):
    command = [sys.executable, "-c", KILLER, how, str(at), *TRAIN_DIGITS[3:], "--workdir", str(folder), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, (how, at, done.stdout, done.stderr)
    assert not (folder / "evaluation.json").exists()
    return done.stdout


def test_kills_at_random_steps_and_while_a_checkpoint_is_written_leave_no_trace(finished, tmp_path):
    """Twenty steps an epoch, a checkpoint every three and at the end of an epoch."""
    seed = int(time.time())
    print("seed", seed)
    choose, folder = random.Random(seed), tmp_path / "cut"
    first = choose.randint(4, 14)
    killed(folder, "step", first)
    output = killed(folder, "half", choose.randint(1, 4))
    assert f"resuming from step {(first - 1) // 3 * 3}" in output
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    killed(folder, "rename", choose.randint(1, 4))
    train_digits(folder)
    assert all(path.name.startswith("step-") for path in (folder / "checkpoints").iterdir())
    same_run(finished, folder)
    assert logged(finished) == logged(folder) and len(logged(folder)) > 8


def test_a_modern_recipe_resumes_too(tmp_path):
    """Averages, accumulated gradients, the best weights so far, and the random states of MixUp, CutMix and the rest."""
    recipe = ["train.ema=0.9", "train.accumulate=2", "train.patience=2", "train.augment={mixup: 0.2, cutmix: 0.5}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_digits(whole, *recipe)
    killed(cut, "step", random.Random(int(time.time())).randint(4, 39), *recipe)
    assert "resuming from step" in train_digits(cut, *recipe)
    same_run(whole, cut)


@pytest.mark.slow
def test_kills_at_random_instants_leave_no_trace(finished, tmp_path):
    """Wherever it strikes: imports, reading, tracing, steps, checkpoints, the final evaluation, the pictures."""
    seed = int(time.time())
    print("seed", seed)
    choose, folder = random.Random(seed), tmp_path / "cut"
    for _ in range(20):
        process = subprocess.Popen([*TRAIN_DIGITS, "--workdir", str(folder)], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("run directory"):
                break
        time.sleep(choose.uniform(0, 12))
        process.kill()
        process.communicate()
        if (folder / "evaluation.json").exists():
            break
    train_digits(folder)
    same_run(finished, folder)
    assert logged(finished) == logged(folder)


FULL = """
import os, resource, sys
from zoo import saving
from zoo.cli import main
from zoo.training import checkpoint

save = checkpoint.save

def limited(folder, trainer, progress):
    if progress.step == 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    return save(folder, trainer, progress)

checkpoint.save = limited
main(sys.argv[1:])
"""


def test_no_room_for_a_checkpoint_stops_with_one_line_and_the_one_before_goes_on(finished, tmp_path):
    """A limit on the size of files, as a full disk, falls in the middle of the file."""
    folder = tmp_path / "full"
    command = [sys.executable, "-c", FULL, *TRAIN_DIGITS[3:], "--workdir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "the same command goes on from there: " in line and "step-000000012.npz" in line
    names = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert names == ["step-000000006.npz", "step-000000009.npz"]
    assert "resuming from step 9" in train_digits(folder)
    same_run(finished, folder)


def test_a_busy_neighbour_changes_no_bit(finished, tmp_path):
    """Two processes that never rest, beside the same training."""
    code = "while True: sum(i * i for i in range(10_000))"
    neighbours = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        train_digits(tmp_path / "beside")
    finally:
        for each in neighbours:
            each.kill()
            each.wait()
    same_run(finished, tmp_path / "beside")
    about = json.loads((tmp_path / "beside" / "environment.json").read_text())
    assert about["cores"] >= 1 and about["processor"] and about["devices"] and about["versions"]["keras"]
    assert about["data_fingerprint"] == json.loads((finished / "environment.json").read_text())["data_fingerprint"]


def test_an_interrupted_last_step_still_has_its_epochs_history(tmp_path):
    """A signal in the only step of an epoch waits for its validation and its row."""
    command = [*TRAIN_DIGITS[:-2], "train.epochs=3", "train.batch_size=1293", "--workdir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith("Epoch 1/3"):
            process.send_signal(signal.SIGINT)
            break
    output = process.stdout.read()
    assert process.wait() == 130 and "interrupted at step 1;" in output, output
    process.stdout.close()
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_a_run_killed_between_epochs_logs_what_the_whole_one_logs(tmp_path):
    """The newest checkpoint is the end of epoch 1: its metrics do not leak into epoch 2."""
    command = [*TRAIN_DIGITS[:-2], "train.epochs=2", "--workdir"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, str(whole)], capture_output=True, check=True)
    process = subprocess.Popen([*command, str(cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (cut / "history.csv").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = subprocess.run([*command, str(cut)], capture_output=True, text=True, check=True)
    assert f"resuming from step {1293 // 64}" in done.stdout
    same_run(whole, cut)
    assert logged(whole) == logged(cut)
