"""The recipe: optimizer, learning-rate schedule, loss, and augmentation inside the training step."""

import re

import keras
from keras import ops

from zoo.config.experiment import SGD, Augment, TrainConfig
from zoo.errors import InputError

# Szegedy et al. 2014, section 5: the discount of the auxiliary classifiers' losses.
_AUXILIARY_WEIGHT = 0.3


def optimizer(config: TrainConfig, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with momentum or AdamW under the config's schedule; weight decay spares biases and normalisations."""
    row = config.optimizer
    schedule = learning_rates(config, config.epochs * steps_per_epoch)
    common = {"weight_decay": row.weight_decay or None, "global_clipnorm": config.clip_norm}
    if isinstance(row, SGD):
        made = keras.optimizers.SGD(schedule, momentum=row.momentum, nesterov=row.nesterov, **common)
    else:
        made = keras.optimizers.AdamW(schedule, **{**common, "weight_decay": row.weight_decay})
    if row.weight_decay:
        made.exclude_from_weight_decay(var_list=[weight for weight in model.trainable_weights if len(weight.shape) < 2])
    return made


def learning_rates(config: TrainConfig, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each of `steps` steps: warm-up and cosine, or falls by ten (see `TrainConfig`)."""
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
        raise InputError(f"train.freeze: received {pattern!r}, which matches {which}; names begin with {names}")
    for layer in frozen:
        layer.trainable = False
    return [layer.name for layer in frozen]


def trainer(model: keras.Model, config: TrainConfig, fill: tuple[float, ...], steps_per_epoch: int) -> keras.Model:
    """`model` behind its augmentation, compiled: raw images (B, H, W, C) and one-hot labels (B, K) to a loss.

    The weights are those of `model`; saving `model` saves no augmentation. `fill` is the raw value that preprocessing
    maps to zero.
    """
    if config.freeze:
        freeze(model, config.freeze)
    inputs = keras.Input(model.input_shape[1:], name="image")
    x = ShiftAndFlip(config.augment, fill)(inputs) if config.augment != Augment() else inputs
    training_model = _Trainer(inputs, model(x), name=f"{model.name}_trainer")
    training_model.compile(
        optimizer=optimizer(config, model, steps_per_epoch),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    return training_model


class _Trainer(keras.Model):
    """A model whose loss counts auxiliary outputs, behind the first, in training; metrics see the first alone."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        main, *auxiliary = y_pred if isinstance(y_pred, list) else [y_pred]
        loss = super().compute_loss(x, y, main, sample_weight, training)
        if training:
            for logits in auxiliary:
                loss = loss + _AUXILIARY_WEIGHT * super().compute_loss(x, y, logits, sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred[0] if isinstance(y_pred, list) else y_pred, sample_weight)


class ShiftAndFlip(keras.layers.Layer):
    """Each image shifted by its own whole number of pixels, and mirrored left to right by its own coin.

    (B, H, W, C) -> (B, H, W, C). As in the ResNet papers: pad by `shift` on each side, crop at random. Its random
    state is a variable of the model, so a checkpoint of all variables resumes it.
    """

    def __init__(self, config: Augment, fill: tuple[float, ...]):
        """Take the augmentation's config and the raw value to pad with."""
        super().__init__(name="augment")
        self.config = config
        self.fill = fill
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """Augment in training, give back the images as they are otherwise."""
        if not training:
            return images
        shift = self.config.shift
        batch, height, width, _ = ops.shape(images)
        fill = ops.convert_to_tensor(self.fill, images.dtype)
        padded = ops.pad(images - fill, ((0, 0), (shift, shift), (shift, shift), (0, 0))) + fill
        down, right = ops.unstack(
            keras.random.randint((2, batch, 1), 0, 2 * shift + 1, seed=self.seed_generator, dtype="int32")
        )
        rows = ops.arange(height)[None] + down
        columns = ops.arange(width)[None]
        if self.config.flip:
            mirrored = keras.random.randint((batch, 1), 0, 2, seed=self.seed_generator, dtype="int32")
            columns = columns + mirrored * (width - 1 - 2 * columns)
        columns = columns + right
        # One gather of whole pixels: (B, H, W) positions in each padded image.
        where = rows[:, :, None] * (width + 2 * shift) + columns[:, None, :]
        flat = ops.reshape(padded, (batch, (height + 2 * shift) * (width + 2 * shift), -1))
        moved = ops.take_along_axis(flat, ops.reshape(where, (batch, height * width, 1)), axis=1)
        return ops.reshape(moved, ops.shape(images))
