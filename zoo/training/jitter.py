"""Turns, flips, brightness and colour of images, on the host: each image's are drawn by a generator of its own.

Flips that alternate are here too, since what they do to an image depends on the epoch.
"""

import numpy as np

from zoo.config.recipe import Augment

# Quarter turns to the left, and whether the turned image is mirrored left to right.
Move = tuple[int, bool]


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """What draws all that is drawn for one image in an epoch, whatever batch it is in."""
    # A seed with zeros at its end is the seed without them, which orders the epoch.
    return np.random.default_rng([seed, epoch, index + 1])


def draw_move(turns: bool, flip: bool, is_square: bool, rng: np.random.Generator) -> Move:
    """One of the moves that keep an image's shape: with `turns` all of them, with `flip` left to right alone.

    Where it is no square, quarter turns are left out.
    """
    quarters = rng.integers(4 if is_square else 2) * (1 if is_square else 2) if turns else 0
    return int(quarters), bool((turns or flip) and rng.integers(2))


def moved(array: np.ndarray, move: Move) -> np.ndarray:
    """An image or a grid of labels, (H, W, ...), turned and mirrored."""
    quarters, is_mirrored = move
    turned = np.rot90(array, quarters)
    return turned[:, ::-1] if is_mirrored else turned


def tinted(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Raw samples (H, W, C) times a factor for all of them and one for each channel, float32 and not clipped."""
    factors = 1 + augment.brightness * rng.uniform(-1, 1)
    factors = factors * (1 + augment.colour * rng.uniform(-1, 1, image.shape[-1]))
    return image * np.float32(factors)


def is_needed(augment: Augment) -> bool:
    """Whether anything is done to images here; flips by a coin are left to the training step."""
    return bool(augment.turns or augment.brightness or augment.colour or augment.alternate)


def alternately_flipped(images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """A batch (B, H, W, C), each image mirrored left to right in every other epoch, from the first or the second on.

    Which of the two is drawn once for each image (Jordan 2024, arXiv:2404.00498, section 3.6, where it is a hash).
    """
    # A seed of another length than those that draw an epoch's order and its images.
    coins = np.random.default_rng([seed, 0, 0, 1]).random(indices.max() + 1)[indices] < 0.5
    is_mirrored = coins ^ (epoch % 2 == 1)
    return np.where(is_mirrored[:, None, None, None], images[:, :, ::-1], images)


def jittered(images: np.ndarray, augment: Augment, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """A batch of crops (B, H, W, C), turned and tinted; `indices` are those of the images in their split.

    Float32, but for images that are flipped at most, which keep their samples.
    """
    if augment.alternate:
        images = alternately_flipped(images, seed, epoch, indices)
    if not (augment.turns or augment.brightness or augment.colour):
        return images
    is_square = images.shape[1] == images.shape[2]
    made = np.empty(images.shape, np.float32)
    for place, index in enumerate(indices):
        rng = generator(seed, epoch, int(index))
        made[place] = tinted(moved(images[place], draw_move(augment.turns, False, is_square, rng)), augment, rng)
    return made
