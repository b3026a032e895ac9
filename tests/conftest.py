"""What every test shares: TensorFlow started so that runs repeat bit for bit, and small random models."""

import os
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
