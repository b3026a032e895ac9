"""Training on the grid itself: one pass over a patch of an image trains the window of every grid cell.

What is trained is the classifier's converted form, whose weights are the classifier's own, some in another shape.
Where normalisations are frozen and nothing is dropped, the gradient of the loss summed over a grid is the sum of those
over its windows' crops. A normalisation that is trained takes the statistics of whole maps; Dropout is drawn for every
position of a map, whose windows share it.
"""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from zoo.config import Config
from zoo.config.recipe import TrainConfig
from zoo.convert.conversion import convert
from zoo.data import Dataset
from zoo.errors import InputError, listing, quoted, refuse
from zoo.network.last_layer import fold_affine, linear_layer
from zoo.network.network import Network
from zoo.objects.marked import Scene
from zoo.training.patches import PatchForm, WholeImages, training_patches
from zoo.training.precision import resolve, training_copy
from zoo.training.recipe import balanced, compiled

# Of how many others a cell that is marked has the weight: see docs/correcting.md.
MARK_WEIGHT = 4.0


class DenseTraining:
    """What the loop runs: see `zoo.training.crops.CropTraining`; `learner` is the classifier's converted form."""

    def __init__(self, model: keras.Model, dataset: Dataset, config: Config):
        """Prepare the training of `model`.

        Raises:
            InputError: where model, recipe and data do not go together.
        """
        recipe = config.train
        if recipe.dense is None or dataset.scenes is None:
            refuse("train.dense", f"{dataset.name} images", "scenes, large images with labelled objects")
        self.scenes, self.config, self.dense = dataset.scenes, config, recipe.dense
        network = Network.of(model)
        check_model(network)
        self.form = PatchForm.of(network.geometry(), self.dense.patch, recipe.target)
        if recipe.target == "count":
            begin_at_mean(network, WholeImages(self.scenes, self.scenes.train, self.form, recipe.batch_size).labels)
        converted = convert(network).network
        total = len(self.scenes.labelled) * self.dense.patches
        self.steps = total // recipe.batch_size
        if self.steps == 0:
            refuse("train.batch_size", recipe.batch_size, f"at most {total}, the patches of an epoch")
        check_weights(model, converted.model)
        self.learner = training_copy(converted.model, resolve(recipe.precision))
        self.validation = self._whole(self.scenes.validation)
        if recipe.target == "count":
            self.trainer = count_trainer(self.learner, recipe, self.steps)
            return
        background = self.scenes.background_index
        weights = None
        if recipe.class_weight:
            counts = WholeImages(self.scenes, self.scenes.train, self.form, recipe.batch_size).counts
            if self.validation:
                self.validation.weights = balanced(counts)
            weights = balanced(_chosen(counts, background, self.dense.hardest))
        self.trainer = grid_trainer(self.learner, recipe, self.steps, background, self.dense.hardest, weights)

    def _whole(self, images: tuple[Scene, ...]) -> WholeImages | None:
        if images:
            return WholeImages(self.scenes, images, self.form, self.config.train.batch_size)
        if self.config.train.patience:
            refuse("train.patience", self.config.train.patience, "null where no image is held out for validation")
        return None

    def batches(self, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches without end, from `first_step` on."""
        recipe, seed = self.config.train, self.config.seed
        patches = self.dense.patches
        return training_patches(self.scenes, self.form, recipe.augment, patches, recipe.batch_size, seed, first_step)


def check_model(network: Network) -> None:
    """Check that the answer of a model's grid cell is its answer to the cell's crop.

    Raises:
        InputError: naming what stands in the way, and the way out.
    """
    geometry = network.geometry()
    for names, does, way_out in (
        (geometry.global_blocks, "looks at the whole image", "a model whose layers look at a part of it"),
        (geometry.program.padding, "pads its map", "model.padding: valid"),
        (geometry.upsampling, "repeats rows", "a model in which no layer does"),
    ):
        if names:
            refuse("train.dense", f"a model whose layer {quoted(names[0])} {does}", way_out)
    if not network.has_head:
        refuse("train.dense", f"model {network.name!r}, which gives a map", "a classifier of one window")
    if len(network.model.outputs) > 1:
        outputs = listing([quoted(name) for name in network.output_names])
        refuse("train.dense", f"a model with the outputs {outputs}", "one; model.auxiliary: []")


def check_weights(model: keras.Model, converted: keras.Model) -> None:
    """Check that what the converted form learns can be given back to the classifier.

    Raises:
        InputError: naming a layer whose weights are in another one's there, or not the same numbers.
    """
    theirs = {layer.name: layer.get_weights() for layer in converted.layers if layer.weights}
    for layer in model.layers:
        if not layer.weights:
            continue
        values = layer.get_weights()
        given = theirs.pop(layer.name, [])
        if len(values) != len(given) or not all(map(_same_numbers, values, given)):
            received = f"a model whose layer {quoted(layer.name)} becomes part of another one when it slides"
            refuse("train.dense", received, "a head without normalisations between Flatten and Dense")
    if theirs:
        raise RuntimeError(f"converted model: layer {next(iter(theirs))!r} is none of the classifier's")


def begin_at_mean(network: Network, counts: np.ndarray) -> None:
    """Make a new model's first answers as large, and as different, as the numbers that it is to learn.

    Its last layer's bias becomes their mean, and its kernel is multiplied by their standard deviation. A layer whose
    bias is no longer zero has learned before, and stays as it is.

    Args:
        network: a model whose outputs are to be numbers of objects; its model is changed.
        counts: those numbers, (..., K).

    Raises:
        InputError: where its outputs are not those of a linear layer, and could not be any number.
    """
    try:
        layer = linear_layer(network)
    except InputError as error:
        accepted = "one whose last layer is linear and has a bias; model.head: {kind: pooled}"
        refuse("train.target", f"count for a model that cannot give any number ({error})", accepted)
    if np.any(layer.bias):
        return
    every = counts.reshape(-1, counts.shape[-1]).astype(np.float64)
    fold_affine(network, np.maximum(every.std(0), 1e-3), every.mean(0))


def _same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    return a.size == b.size and np.array_equal(a.ravel(), b.ravel())


def _chosen(counts: np.ndarray, background: int, hardest: float | None) -> np.ndarray:
    """How many cells of each class count, of all that are labelled so."""
    if hardest is None:
        return counts
    chosen = counts.copy()
    chosen[background] = min(counts[background], round(hardest * (counts.sum() - counts[background])))
    return chosen


def grid_trainer(
    model: keras.Model,
    config: TrainConfig,
    steps_per_epoch: int,
    background: int,
    hardest: float | None = None,
    class_weights: np.ndarray | None = None,
) -> keras.Model:
    """`model`, (B, H, W, C) -> (B, rows, columns, K), compiled to learn from one-hot labels of its grid cells.

    The loss of a batch is the weighted mean over the cells that count: those whose label is not zeros and, of the
    `background`'s, the hardest (see `Dense`), at least one for each patch, and all that are marked: a batch may have a
    third array, 1 at these and else 0 (B, rows, columns). A marked cell counts as much as `MARK_WEIGHT` others.
    `class_weights`: what a cell counts by its class, (K,); 1 where None.
    """
    inputs = keras.Input(model.input_shape[1:], name="image")
    made = _GridTrainer(inputs, {"logits": model(inputs)}, name=f"{model.name}_trainer")
    made.background, made.hardest = background, hardest
    made.class_weights = class_weights
    # The metric of the cells that are labelled, where a plain one would count all.
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    return compiled(made, model, config, steps_per_epoch, weighted_metrics=[accuracy])


def count_trainer(model: keras.Model, config: TrainConfig, steps_per_epoch: int) -> keras.Model:
    """`model`, (B, H, W, C) -> (B, rows, columns, K), compiled to learn the numbers of objects of its grid cells."""
    inputs = keras.Input(model.input_shape[1:], name="image")
    made = _CountTrainer(inputs, {"logits": model(inputs)}, name=f"{model.name}_trainer")
    error = keras.metrics.MeanAbsoluteError(name="mean_absolute_error")
    return compiled(made, model, config, steps_per_epoch, weighted_metrics=[error])


class _CountTrainer(keras.Model):
    """A model of grids of numbers."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred["logits"], sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["logits"], sample_weight)


class _GridTrainer(keras.Model):
    """A model of grids, whose loss is a mean over the cells that count."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits = y_pred["logits"]
        if training:
            weights = self.cell_weights(y, logits, sample_weight)
            # Keras divides by the number of all cells.
            every = ops.cast(ops.size(weights), weights.dtype)
            sample_weight = weights * every / ops.maximum(ops.sum(weights), 1e-9)
        return super().compute_loss(x, y, logits, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["logits"], ops.sum(y, -1))

    def cell_weights(self, y, logits, are_marked=None):
        """What each cell's loss counts in training: labels (B, R, S, K) and logits of that shape -> (B, R, S)."""
        is_counted = ops.sum(y, -1)
        if self.hardest is not None:
            nothing = y[..., self.background]
            losses = keras.losses.categorical_crossentropy(y, ops.stop_gradient(logits), from_logits=True)
            losses = ops.where(nothing > 0, losses, -np.inf)
            objects = ops.sum(is_counted) - ops.sum(nothing)
            count = ops.maximum(ops.ceil(self.hardest * objects), ops.shape(y)[0])
            falling = -ops.sort(-ops.reshape(losses, (-1,)))
            count = ops.minimum(ops.cast(count, "int32"), ops.size(falling))
            is_hard = losses >= ops.take(falling, count - 1)
            if are_marked is not None:
                is_hard = ops.logical_or(is_hard, are_marked > 0)
            is_counted = ops.where(nothing > 0, ops.cast(is_hard, is_counted.dtype), is_counted)
        if are_marked is not None:
            is_counted = is_counted * (1 + (MARK_WEIGHT - 1) * ops.cast(are_marked, is_counted.dtype))
        if self.class_weights is None:
            return is_counted
        return is_counted * ops.matmul(y, self.class_weights)
