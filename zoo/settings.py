"""The settings of Keras and the random states that are the caller's: ours while we work, the caller's again after."""

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def keras_defaults() -> Iterator[None]:
    """Keras as it comes: float32 layers, channels last, epsilon 1e-7; at the end, as it was before.

    What a model computes in, and how its images lie, is decided by its own config and its file alone. Where nothing has
    imported Keras there is no model of it, and nothing is set.
    """
    if "keras" not in sys.modules:
        yield
        return
    from keras import config

    before = config.dtype_policy(), config.floatx(), config.epsilon(), config.image_data_format()
    limits = config.max_epochs(), config.max_steps_per_epoch()
    _set("float32", "float32", 1e-7, "channels_last")
    _limit(None, None)
    try:
        yield
    finally:
        _set(*before)
        _limit(*limits)


def _limit(epochs: int | None, steps: int | None) -> None:
    from keras import config

    config.set_max_epochs(epochs)
    config.set_max_steps_per_epoch(steps)


def _set(policy: "str | keras.DTypePolicy", floatx: str, epsilon: float, data_format: str) -> None:
    from keras import config

    config.set_floatx(floatx)
    config.set_epsilon(epsilon)
    config.set_image_data_format(data_format)
    # The last, since floatx is the policy where none was set.
    config.set_dtype_policy(policy)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Keras as it comes, and the states of Python's and NumPy's generators kept: nothing here draws for the caller.

    Keras draws every seed that is not given from Python's generator, so making layers moves it on.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with keras_defaults():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
