"""What every test shares: TensorFlow started so that runs repeat bit for bit, and small random models."""

import contextlib
import io
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import settings

from zoo import progress

# How long a command takes is no part of what it says in a test; tests/test_commands.py has this told.
progress.PERIOD = 3600.0

# Property tests try the same inputs in every run; `pytest -m hypothesis --hypothesis-profile random` tries others.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("fixed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What runs in a browser is extended."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.extended)


def some_by_default(names, *chosen):
    """Parameters: by default the chosen names, or the first where none is; the others, of the same code, extended."""
    names = list(names)
    assert set(chosen) <= set(names), chosen
    return [pytest.param(name, marks=() if name in (chosen or names[:1]) else pytest.mark.extended) for name in names]


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


# A short training on the bundled digits, twenty steps an epoch, which writes a checkpoint every few steps.
TRAIN_DIGITS = ["train", "nin_digits", "train.epochs=2", "train.checkpoint_every_steps=3"]


def train_digits(folder, *extra, code=0):
    """Run the training in this process, to the exit code `code`: what it prints."""
    from zoo.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        main([*TRAIN_DIGITS, "--workdir", str(folder), *extra])
    assert (stopped.value.code or 0) == code, printed.getvalue()
    return printed.getvalue()


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
