import csv
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import WITHOUT_TENSORFLOW

import zoo
from zoo.config import load_config
from zoo.data import Split
from zoo.errors import InputError
from zoo.training.batches import EvaluationBatches, training_batches
from zoo.training.distribution import Job, environment

# Ten steps with augmentation and dropout; a signal to this process after a step, where one is asked for.
CODE = f"""{WITHOUT_TENSORFLOW}
import os, signal
from zoo.cli import main
from zoo.training import loop
number, at = int(sys.argv[1]), int(sys.argv[2])
end = loop._Keeper._count
def then_signal(keeper):
    if keeper.progress.step + 1 == at:
        os.kill(os.getpid(), number)
    end(keeper)
loop._Keeper._count = then_signal
main(sys.argv[3:])
"""
TRAIN = [
    "train", "nin_digits", "train.epochs=1", "train.batch_size=128", "train.checkpoint_every_steps=2", "canvas=null",
    "model.mlpconvs.1.dropout=0.1", "train.optimizer={name: sgd, learning_rate: 0.01}",
]  # fmt: skip


def launch(folder, distribute="data", number=0, at=0, devices=1, **variables):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **variables}
    command = [sys.executable, "-c", CODE, str(number), str(at), *TRAIN, f"train.distribute={distribute}"]
    return subprocess.Popen(
        [*command, "--workdir", str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def two(folder, number=0, at=0):
    """Two processes on loopback, the second of which is signalled and has another folder, that it does not need."""
    pytest.importorskip("jax")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    processes = [
        launch(folder, KERAS_DISTRIBUTION_PROCESS_ID="0", **common),
        launch(elsewhere, number=number, at=at, KERAS_DISTRIBUTION_PROCESS_ID="1", **common),
    ]
    results = [outcome(process) for process in processes]
    assert not elsewhere.exists()
    return results


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair") / "run"
    for code, out, err in two(folder):
        assert code == 0, out + err
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("single") / "run"
    code, out, err = outcome(launch(folder, distribute="null"))
    assert code == 0, out + err
    return folder


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def same_training(folder, other):
    for a, b in zip(history(folder), history(other), strict=True):
        assert a.keys() == b.keys()
        for key in ("loss", "val_loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-5)
    models = [zoo.load(each) for each in (folder, other)]
    for a, b in zip(*(model.weights for model in models), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max(), a.shape


@pytest.mark.slow
def test_two_processes_train_as_one(pair, single):
    same_training(pair, single)


@pytest.mark.extended
def test_four_devices_of_one_process_train_as_one(single, tmp_path):
    code, out, err = outcome(launch(tmp_path / "four", devices=4))
    assert code == 0, out + err
    same_training(tmp_path / "four", single)


@pytest.mark.slow
def test_a_process_that_stops_or_dies_ends_the_job_and_the_next_one_goes_on(pair, tmp_path):
    """Ctrl-C in the second process stops both in the same step; its death ends the first with a line."""
    folder = tmp_path / "cut"
    for code, _, err in two(folder, signal.SIGINT, 3):
        assert code == 130 and "interrupted at step 3; the same command continues" in err
    (first, out, err), (second, *_) = two(folder, signal.SIGKILL, 8)
    assert (first, second) == (1, -signal.SIGKILL) and "resuming from step 3" in out
    assert "process 0 of 2: the job has ended, another process was lost" in err.splitlines()[-1], err
    assert "Traceback" not in err and (folder / "checkpoints" / "step-000000006.npz").is_file()
    results = two(folder)
    assert [code for code, *_ in results] == [0, 0] and "resuming from step 6" in results[0][1]
    assert (folder / "history.csv").read_text() == (pair / "history.csv").read_text()
    for a, b in zip(zoo.load(folder).weights, zoo.load(pair).weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow
def test_a_finished_run_ends_both_processes(pair):
    (first, out, _), (second, *_) = two(pair)
    assert (first, second) == (0, 0) and "this run is finished" in out


def test_another_backend_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="received 'data' on the tensorflow backend; accepted: KERAS_BACKEND=jax"):
        zoo.run(load_config("nin_digits", ["train.distribute=data"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_shares_of_all_processes_are_the_batches_of_one():
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)
    split = Split(images, np.arange(50, dtype=np.int32) % 10)
    whole = training_batches(split, 10, 12, seed=3, first_step=2)
    shares = [training_batches(split, 10, 12, 3, 2, Job(process, 3, 3)) for process in range(3)]
    for _ in range(5):
        wanted, parts = next(whole), [next(share) for share in shares]
        for k in range(2):
            np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), wanted[k])
    # 50 images in batches of 20: the last one of 10 has 5 for each.
    whole, *shares = (EvaluationBatches(split, 10, 20, job) for job in (Job(), Job(0, 2, 2), Job(1, 2, 2)))
    for index in range(len(whole)):
        for k in range(2):
            np.testing.assert_array_equal(np.concatenate([share[index][k] for share in shares]), whole[index][k])


def test_a_batch_that_does_not_divide_is_refused():
    Job(0, 2, 8).check("train.batch_size", 128)
    with pytest.raises(
        InputError, match="train.batch_size: received 100 images; accepted: a multiple of 8, the devices"
    ):
        Job(0, 2, 8).check("train.batch_size", 100)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, (None, 1, 0)),
        ({"JOB_ADDRESSES": "a:1", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}, ("a:1", 2, 1)),
        ({"JOB_ADDRESSES": "10.0.0.1:1234, b:2", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}, ("10.0.0.1:1234", 2, 0)),
        ({"JOB_ADDRESSES": "a:1", "PROCESS_ID": "1"}, "NUM_PROCESSES: is not set"),
        ({"JOB_ADDRESSES": "a:1", "NUM_PROCESSES": "two", "PROCESS_ID": "1"}, "received 'two'"),
        (
            {"JOB_ADDRESSES": "a:1", "NUM_PROCESSES": "2", "PROCESS_ID": "2"},
            "received 2; accepted: 0 to 1 for 2 processes",
        ),
        ({"JOB_ADDRESSES": "a", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}, "received 'a'; accepted: host:port"),
    ],
)
def test_the_environment_names_the_processes(monkeypatch, values, wanted):
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    for name, value in values.items():
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    if isinstance(wanted, str):
        with pytest.raises(InputError, match=wanted):
            environment()
    else:
        assert environment() == wanted
