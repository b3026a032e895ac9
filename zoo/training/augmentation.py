"""Augmentation inside the training step; its random states are variables, so that a checkpoint resumes them."""

import keras
from keras import layers, ops

from zoo.config.recipe import Augment, RandAugment


def augmented(
    images: keras.KerasTensor, config: Augment, fill: tuple[float, ...]
) -> tuple[keras.KerasTensor, dict[str, keras.KerasTensor] | None]:
    """Raw images (B, H, W, C) as training sees them, and how they were mixed: what `mixed_labels` takes, or None.

    `fill` is the raw value that preprocessing maps to zero.
    """
    if config.randaugment:
        images = rand_augment(config.randaugment)(images)
    if config.shift or (config.flip and not config.alternate):
        images = ShiftAndFlip(config, fill)(images)
    if config.mixup or config.cutmix:
        return Mixing(config)(images)
    return images, None


def rand_augment(config: RandAugment) -> layers.Layer:
    """Keras's RandAugment of 8-bit images; the operations are drawn for the batch, how far each goes for each image."""
    return layers.RandAugment((0, 255), config.operations, config.magnitude, name="randaugment")


class Mixing(layers.Layer):
    """Each image mixed with another of its batch, by Keras's MixUp or CutMix; with both, each batch has one, by a coin.

    (B, H, W, C) -> images of the same shape, and which image each was mixed with and what share remained of itself.
    """

    def __init__(self, config: Augment):
        """Take the alphas of the augmentation's config."""
        super().__init__(name="mixing")
        self.mixers = [layers.MixUp(config.mixup)] if config.mixup else []
        # Keras's CutMix draws its alpha from a range; this one has no width.
        self.mixers += [layers.CutMix((config.cutmix, config.cutmix))] if config.cutmix else []
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        """Nothing to build: the mixers have no weights."""
        self.built = True

    def call(self, images, training=False):
        """Mix in training; otherwise every image keeps all of itself."""
        count = ops.shape(images)[0]
        if not training:
            return images, {"partner": ops.arange(count), "share": ops.ones((count,))}
        first, *others = [self._mixed(mixer, images) for mixer in self.mixers]
        for other in others:
            coin = keras.random.uniform((), seed=self.seed_generator) < 0.5
            first = keras.tree.map_structure(lambda a, b, coin=coin: ops.where(coin, a, b), first, other)
        return first

    def _mixed(self, mixer, images):
        drawn = mixer.get_random_transformation(images, training=True)
        partner, share = drawn["permutation_order"], ops.reshape(drawn["mix_weight"], (-1,))
        mixed = mixer.transform_images(images, drawn, training=True)
        return mixed, {"partner": ops.cast(partner, "int32"), "share": ops.cast(share, "float32")}


def mixed_labels(labels: keras.KerasTensor, mix: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
    """One-hot labels (B, K), mixed as the images were."""
    share = mix["share"][:, None]
    return share * labels + (1 - share) * ops.take(labels, mix["partner"], axis=0)


class ShiftAndFlip(keras.layers.Layer):
    """Each image shifted by its own whole number of pixels, and mirrored left to right by its own coin, if by any.

    (B, H, W, C) -> (B, H, W, C). As in the ResNet papers: pad by `shift` on each side, crop at random; with `reflect`
    the padding is the mirrored image, its outermost pixels not repeated. Its random state is a variable of the model,
    so a checkpoint of all variables resumes it.
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
        sides = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        if self.config.reflect:
            padded = ops.pad(images, sides, mode="reflect")
        else:
            fill = ops.convert_to_tensor(self.fill, images.dtype)
            padded = ops.pad(images - fill, sides) + fill
        down, right = ops.unstack(
            keras.random.randint((2, batch, 1), 0, 2 * shift + 1, seed=self.seed_generator, dtype="int32")
        )
        rows = ops.arange(height)[None] + down
        columns = ops.arange(width)[None]
        if self.config.flip and not self.config.alternate:
            mirrored = keras.random.randint((batch, 1), 0, 2, seed=self.seed_generator, dtype="int32")
            columns = columns + mirrored * (width - 1 - 2 * columns)
        columns = columns + right
        # One gather of whole pixels: (B, H, W) positions in each padded image.
        where = rows[:, :, None] * (width + 2 * shift) + columns[:, None, :]
        flat = ops.reshape(padded, (batch, (height + 2 * shift) * (width + 2 * shift), -1))
        moved = ops.take_along_axis(flat, ops.reshape(where, (batch, height * width, 1)), axis=1)
        return ops.reshape(moved, ops.shape(images))
