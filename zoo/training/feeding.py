"""How batches reach `fit`."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

# Batches that are made while a step runs.
_AHEAD = 2


def fed(batches: Iterator[tuple[np.ndarray, ...]] | keras.utils.PyDataset) -> Any:
    """Batches, or a set of them that can be gone through again, as the backend's `fit` takes them at once.

    With TensorFlow, Keras would make of them a set of tf.data that tunes itself, whose tuning thread sleeps for as long
    as the set has been in use, up to a minute, and is not woken where the set is no longer needed: `fit` waits for it.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    if isinstance(batches, keras.utils.PyDataset):
        first, count = batches[0], len(batches)
        again: Iterable[tuple[np.ndarray, ...]] = batches
    else:
        first, count = next(batches), tf.data.INFINITE_CARDINALITY
        again = itertools.chain([first], batches)
    # The last batch may be smaller.
    signature = tuple(tf.TensorSpec((None, *each.shape[1:]), each.dtype) for each in first)
    made = tf.data.Dataset.from_generator(lambda: again, output_signature=signature)
    made = made.apply(tf.data.experimental.assert_cardinality(count)).prefetch(_AHEAD)
    options = tf.data.Options()
    options.autotune.enabled = False
    return made.with_options(options)
