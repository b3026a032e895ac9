"""Training on images of the training size, each with a label of its own."""

from collections.abc import Iterator

import keras
import numpy as np

from zoo.config import Config
from zoo.data import Dataset
from zoo.errors import refuse
from zoo.training.batches import EvaluationBatches, training_batches
from zoo.training.distribution import Job
from zoo.training.precision import resolve, training_copy
from zoo.training.recipe import balanced, trainer


class CropTraining:
    """What the loop runs: `trainer` with `batches`, for `steps` an epoch, and `validation` after each.

    `learner`: the trainer's model without what is there for training alone. `validation`: None where nothing is held
    out.
    """

    def __init__(self, model: keras.Model, dataset: Dataset, config: Config, job: Job):
        """Prepare the training of `model`.

        Raises:
            InputError: where recipe and data do not go together.
        """
        recipe = config.train
        self.dataset, self.config, self.job = dataset, config, job
        self.steps = len(dataset.train) // recipe.batch_size
        if self.steps == 0:
            accepted = f"at most {len(dataset.train)}, the number of training images"
            refuse("train.batch_size", recipe.batch_size, accepted)
        kind = dataset.train.images.dtype
        if recipe.augment.randaugment and kind != np.uint8:
            refuse("train.augment.randaugment", f"{kind} images", "uint8, or null")
        job.check("train.batch_size", recipe.batch_size)
        if dataset.validation is not None:
            job.check("data.validation", len(dataset.validation))
        self.learner = training_copy(model, resolve(recipe.precision))
        classes = config.model.num_classes
        weights = balanced(np.bincount(dataset.train.labels, minlength=classes)) if recipe.class_weight else None
        self.trainer = trainer(self.learner, recipe, config.model.preprocess.mean, self.steps, weights)
        self.validation = None
        if dataset.validation is not None:
            self.validation = EvaluationBatches(dataset.validation, classes, recipe.batch_size, job)

    def batches(self, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches without end, from `first_step` on."""
        classes, recipe = self.config.model.num_classes, self.config.train
        return training_batches(
            self.dataset.train, classes, recipe.batch_size, self.config.seed, first_step, self.job, recipe.augment
        )
