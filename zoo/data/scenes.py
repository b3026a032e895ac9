"""Scenes: large images made of small ones at known places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config.experiment import scene_grid
from zoo.errors import InputError
from zoo.pictures import as_pixel


@dataclass(frozen=True)
class Scene:
    """A large image with what was pasted where.

    `image`: (H, W, C). `boxes`: (n, 4) whole numbers: top, left, bottom, right, half-open. `labels`: (n,).
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def make_scene(
    images: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int] | None = None,
    count: int = 100,
    background: float | Sequence[float] = (0,),
    seed: int = 0,
) -> Scene:
    """Paste images at random places that do not overlap, each somewhere in its own cell of a grid.

    The grid has ceil(sqrt(count)) columns and as many rows as that needs. Boxes and labels are in the order of
    `images`: with `count` equal to their number, box i holds image i.

    Args:
        images: (n, h, w, C).
        labels: (n,).
        size: (H, W) of the canvas; None makes each cell twice as high and wide as an image.
        count: how many images, chosen without replacement.
        background: the canvas's value, one or one a channel; rounded for whole-number images.
        seed: what choice and places are a function of.

    Raises:
        InputError: where there are fewer than `count` images, the canvas is too small, or `background` has another
            number of channels.
    """
    if not 1 <= count <= len(images):
        raise InputError(f"scene.count: received {count}; accepted: 1 to {len(images)} images")
    height, width, channels = images.shape[1:]
    rows, columns = scene_grid(count)
    size = (2 * height * rows, 2 * width * columns) if size is None else tuple(size)
    if size[0] < height * rows or size[1] < width * columns:
        raise InputError(
            f"scene.size: received {list(size)}; accepted for {count} images of {height} x {width}: "
            f"at least [{height * rows}, {width * columns}]"
        )
    pixel = as_pixel(background, images.dtype)
    if len(pixel) not in (1, channels):
        raise InputError(
            f"background: received {len(pixel)} values; accepted: 1, or one for each of {channels} channels"
        )

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(images), count, replace=False))
    cells = rng.permutation(rows * columns)[:count]
    canvas = np.empty((*size, channels), images.dtype)
    canvas[...] = pixel
    boxes = np.empty((count, 4), np.int64)
    for box, image, cell in zip(boxes, images[chosen], cells, strict=True):
        row, column = divmod(int(cell), columns)
        top = rng.integers(size[0] * row // rows, size[0] * (row + 1) // rows - height, endpoint=True)
        left = rng.integers(size[1] * column // columns, size[1] * (column + 1) // columns - width, endpoint=True)
        box[:] = top, left, top + height, left + width
        canvas[top : top + height, left : left + width] = image
    return Scene(canvas, boxes, np.asarray(labels)[chosen])
