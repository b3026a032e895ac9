"""What every test shares: TensorFlow started so that runs repeat bit for bit, and small random models."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def one_operation_at_a_time():
    from zoo.training import start

    start(seed=0, deterministic=True)


@pytest.fixture(scope="session")
def tfds_dir():
    """The folder of prepared tensorflow-datasets, or a skip."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TFDS_DATA_DIR names no folder with real data sets")
    return Path(folder)


# Code that makes a process one of a machine without TensorFlow.
WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.startswith("tensorflow") else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
"""
# What `zoo scan` writes into a folder for a small image.
SCAN_FILES = ["geometry.json", "overlay.png", "scores.npz", "viewer.html"]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A small classifier without padding, of random weights, in a file."""
    import zoo

    model = randomize(zoo.build("nin_digits", padding="valid"))
    return zoo.save(model, tmp_path_factory.mktemp("model") / "digits.keras")


# A short training on the bundled digits, which writes a checkpoint every few steps.
TRAIN_DIGITS = [sys.executable, "-m", "zoo", "train", "nin_digits", "train.epochs=2", "train.checkpoint_every_steps=3"]


def train_digits(folder, *extra):
    """Run the training in a process of its own to its end: what it prints."""
    done = subprocess.run(
        [*TRAIN_DIGITS, "--workdir", str(folder), *extra], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The run directory of a finished training; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_digits(folder)
    return folder


def command(capsys, *arguments):
    """Run `zoo ...` in this process: exit code, standard output, standard error."""
    from zoo.cli import main

    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


def randomize(model, seed=0):
    """Put random values into every weight, moving averages too, so that no fault hides behind zeros and ones."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(weight)
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, value.shape))
        elif value.ndim == 1:
            weight.assign(generator.normal(0, 0.1, value.shape))
        else:
            fan_in = np.prod(value.shape[:-1])
            weight.assign(generator.normal(0, np.sqrt(2 / fan_in), value.shape))
    return model


def noise(*shape, seed=0):
    """A batch of raw images, (B, H, W, C) float32 in 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
