"""Batches whose order is a function of seed, epoch and step alone, so that training resumes anywhere."""

from collections.abc import Iterator

import keras
import numpy as np

from zoo.config.recipe import Augment
from zoo.data import Split
from zoo.training.distribution import ALONE, Job
from zoo.training.jitter import is_needed, jittered

NOTHING = Augment()


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(n, ...) whole numbers -> (n, ..., num_classes) float32; zeros where the number is that of no class."""
    return (labels[..., None] == np.arange(num_classes)).astype(np.float32)


def training_batches(
    split: Split,
    num_classes: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    job: Job = ALONE,
    augment: Augment = NOTHING,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (images, one-hot labels) without end, from `first_step` on.

    Every epoch is a new permutation; the images that do not fill a last batch wait for another epoch. Of several
    processes each gets its share of the same batches. What `augment` asks for of turns, brightness and colour is done
    here, the rest inside the training step.
    """
    steps = len(split) // batch_size
    step = first_step
    while True:
        epoch, start = divmod(step, steps)
        order = np.random.default_rng([seed, epoch]).permutation(len(split))
        for position in range(start, steps):
            chosen = order[job.share(position * batch_size, (position + 1) * batch_size)]
            images = _as_they_travel(split.images[chosen])
            if is_needed(augment):
                images = jittered(images, augment, seed, epoch, chosen)
            yield images, one_hot(split.labels[chosen], num_classes)
        step = (epoch + 1) * steps


class EvaluationBatches(keras.utils.PyDataset):
    """The whole split in its own order: (images, one-hot labels), the last batch smaller; `job`'s share of each."""

    def __init__(self, split: Split, num_classes: int, batch_size: int, job: Job = ALONE):
        """Take the split, the batch size, and the processes that evaluate it together."""
        super().__init__()
        self.split, self.num_classes, self.batch_size, self.job = split, num_classes, batch_size, job

    def __len__(self) -> int:
        """How many batches."""
        return -(-len(self.split) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One batch."""
        start = index * self.batch_size
        part = self.job.share(start, min(start + self.batch_size, len(self.split)))
        return _as_they_travel(self.split.images[part]), one_hot(self.split.labels[part], self.num_classes)


def _as_they_travel(images: np.ndarray) -> np.ndarray:
    """Images as they go to the step, which makes float32 of them: bytes stay bytes, which are a quarter as much."""
    return images if images.dtype == np.uint8 else np.asarray(images, np.float32)
