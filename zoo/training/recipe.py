"""The recipe: optimizer, learning-rate schedule, loss, and the model after its augmentation, compiled."""

import re

import keras
import numpy as np

from zoo.config.recipe import SGD, Muon, TrainConfig
from zoo.errors import quoted, refuse
from zoo.training.augmentation import augmented, mixed_labels
from zoo.training.muon import Orthogonal

# Szegedy et al. 2014, section 5: the discount of the auxiliary classifiers' losses.
_AUXILIARY_WEIGHT = 0.3


def optimizer(config: TrainConfig, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with momentum, AdamW or Muon under the config's schedule; weight decay spares biases and normalisations."""
    row = config.optimizer
    # Keras asks it by batches, also where several make an update.
    schedule = learning_rates(config, config.epochs * steps_per_epoch)
    common = {
        "weight_decay": row.weight_decay or None,
        "global_clipnorm": config.clip_norm,
        "gradient_accumulation_steps": config.accumulate if config.accumulate > 1 else None,
        "use_ema": config.ema is not None,
        "ema_momentum": config.ema or 0.0,
    }
    if isinstance(row, SGD):
        made = keras.optimizers.SGD(schedule, momentum=row.momentum, nesterov=row.nesterov, **common)
    elif isinstance(row, Muon):
        made = Orthogonal(schedule, row, model, **common)
    else:
        made = keras.optimizers.AdamW(schedule, **{**common, "weight_decay": row.weight_decay})
    if row.weight_decay and not isinstance(row, Muon):
        made.exclude_from_weight_decay(var_list=[weight for weight in model.trainable_weights if len(weight.shape) < 2])
    return made


def learning_rates(config: TrainConfig, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each of `steps` batches: warm-up and cosine, or falls by ten (see `TrainConfig`)."""
    rate, warmup = config.optimizer.learning_rate, round(config.warmup * steps)
    if config.milestones:
        # Keras's boundaries are the last steps of their pieces.
        ends = [round(share * steps) - 1 for share in config.milestones]
        rates = [rate / 10**falls for falls in range(len(ends) + 1)]
        if warmup:
            ends, rates = [warmup - 1, *ends], [rate / 10, *rates]
        return keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate / max(warmup, 1) if warmup else rate,
        decay_steps=steps - warmup,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def freeze(model: keras.Model, pattern: str) -> list[str]:
    """Keep the layers whose names match `pattern` from the start as they are; their names.

    Raises:
        InputError: where it matches no layer with weights, or all of them.
    """
    layers = [layer for layer in model.layers if layer.weights]
    frozen = [layer for layer in layers if re.match(pattern, layer.name)]
    if not frozen or len(frozen) == len(layers):
        names = ", ".join(dict.fromkeys(layer.name.split("_")[0] for layer in layers))
        which = "every layer" if frozen else "no layer"
        refuse("train.freeze", f"{quoted(pattern)}, which matches {which}", f"one of some; names begin with {names}")
    for layer in frozen:
        layer.trainable = False
    return [layer.name for layer in frozen]


def trainer(
    model: keras.Model,
    config: TrainConfig,
    fill: tuple[float, ...],
    steps_per_epoch: int,
    class_weights: np.ndarray | None = None,
) -> keras.Model:
    """`model` after its augmentation, compiled: raw images (B, H, W, C) and one-hot labels (B, K) to a loss.

    The weights are those of `model`; saving `model` saves no augmentation. `fill` is the raw value that preprocessing
    maps to zero. `class_weights`, (K,): what an image's loss counts by its class, in training and validation; accuracy
    counts all alike.
    """
    inputs = keras.Input(model.input_shape[1:], name="image")
    images, mix = augmented(inputs, config.augment, fill)
    logits = model(images)
    outputs = {"logits": logits if isinstance(logits, list) else [logits], **({"mix": mix} if mix else {})}
    training_model = _Trainer(inputs, outputs, name=f"{model.name}_trainer")
    training_model.class_weights = class_weights
    return compiled(training_model, model, config, steps_per_epoch, metrics=["accuracy"])


def compiled(
    training_model: keras.Model, model: keras.Model, config: TrainConfig, steps_per_epoch: int, **metrics: list
) -> keras.Model:
    """`training_model`, which trains `model`, with the recipe's optimizer and loss; frozen layers are frozen first.

    The loss of numbers of objects is their mean absolute error, as Cohen et al. 2017 have it (section 3).
    """
    if config.freeze:
        freeze(model, config.freeze)
    training_model.compile(
        optimizer=optimizer(config, model, steps_per_epoch),
        loss=keras.losses.MeanAbsoluteError()
        if config.target == "count"
        else keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        **metrics,
    )
    return training_model


def balanced(counts: np.ndarray) -> np.ndarray:
    """What each of `counts` images or cells of a class counts so that all classes weigh the same, (K,), on average 1.

    A class without any has the weight 0.
    """
    there = counts > 0
    weights = counts.sum() / (there.sum() * np.maximum(counts, 1))
    return np.where(there, weights, 0).astype(np.float32)


class _Trainer(keras.Model):
    """A model whose loss counts auxiliary logits, and labels mixed as the images were, in training.

    Metrics see the first logits and the images' own labels.
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        main, *auxiliary = y_pred["logits"]
        if training and "mix" in y_pred:
            y = mixed_labels(y, y_pred["mix"])
        if self.class_weights is not None:
            sample_weight = keras.ops.matmul(y, self.class_weights)
        loss = super().compute_loss(x, y, main, sample_weight, training)
        if training:
            for logits in auxiliary:
                loss = loss + _AUXILIARY_WEIGHT * super().compute_loss(x, y, logits, sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["logits"][0], sample_weight)
