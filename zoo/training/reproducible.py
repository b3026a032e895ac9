"""What makes two runs of one config the same, bit for bit."""

import random
import warnings

import keras
import numpy as np


def start(seed: int, deterministic: bool) -> None:
    """Seed Python and NumPy, and so Keras; with `deterministic`, let TensorFlow run one operation at a time.

    TensorFlow on a CPU sums in another order in every process unless its inter-operation parallelism is 1; the
    threads inside an operation stay, and the speed with them. It takes effect before TensorFlow's first operation
    only: later, a warning reports that the run may differ in its last bits.
    """
    if deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.threading.get_inter_op_parallelism_threads() != 1:
            try:
                tf.config.threading.set_inter_op_parallelism_threads(1)
            except RuntimeError:
                warnings.warn(
                    "TensorFlow was started before the run: train.deterministic cannot take effect in this process",
                    stacklevel=2,
                )
    # What Keras draws without a seed of its own comes from Python's generator; no global of a backend is touched.
    random.seed(seed)
    np.random.seed(seed)
