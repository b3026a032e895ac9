"""Canvases: large images made of small ones at known places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config.experiment import canvas_grid
from zoo.errors import refuse
from zoo.pictures import as_pixel


@dataclass(frozen=True)
class Canvas:
    """A large image with what was pasted where.

    `image`: (H, W, C). `boxes`: (n, 4) whole numbers: top, left, bottom, right, half-open. `labels`: (n,).
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def make_canvas(
    images: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int] | None = None,
    count: int = 100,
    background: float | Sequence[float] = (0,),
    seed: int = 0,
) -> Canvas:
    """Paste images at random places that do not overlap, each somewhere in its own rectangle of a grid.

    The grid has ceil(sqrt(count)) columns and as many rows as that needs. Boxes and labels are in the order of
    `images`: with `count` equal to their number, box i holds image i.

    Args:
        images: (n, h, w, C).
        labels: (n,).
        size: (H, W) of the canvas; None makes each rectangle twice as high and wide as an image.
        count: how many images, chosen without replacement.
        background: the canvas's value, one or one a channel; rounded for whole-number images.
        seed: what choice and places are a function of.

    Raises:
        InputError: where there are fewer than `count` images, the canvas is too small, or `background` has another
            number of channels.
    """
    if not 1 <= count <= len(images):
        refuse("canvas.count", count, f"1 to {len(images)} images")
    height, width, channels = images.shape[1:]
    rows, columns = canvas_grid(count)
    sides = (2 * height * rows, 2 * width * columns) if size is None else size
    if sides[0] < height * rows or sides[1] < width * columns:
        least = f"at least [{height * rows}, {width * columns}], for {count} images of {height} x {width}"
        refuse("canvas.size", list(sides), least)
    pixel = as_pixel(background, images.dtype)
    if len(pixel) not in (1, channels):
        refuse("background", f"{len(pixel)} values", f"1, or one for each of {channels} channels")

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(images), count, replace=False))
    places = rng.permutation(rows * columns)[:count]
    picture = np.empty((*sides, channels), images.dtype)
    picture[...] = pixel
    boxes = np.empty((count, 4), np.int64)
    for box, image, place in zip(boxes, images[chosen], places, strict=True):
        row, column = divmod(int(place), columns)
        top = rng.integers(sides[0] * row // rows, sides[0] * (row + 1) // rows - height, endpoint=True)
        left = rng.integers(sides[1] * column // columns, sides[1] * (column + 1) // columns - width, endpoint=True)
        box[:] = top, left, top + height, left + width
        picture[top : top + height, left : left + width] = image
    return Canvas(picture, boxes, np.asarray(labels)[chosen])
