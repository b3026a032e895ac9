"""A large image to a ScoreMap, whole or in tiles, with the same answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import keras
import numpy as np

from zoo.dense.convert import convolutionalize
from zoo.dense.geometry import Geometry, geometry
from zoo.dense.score_map import ScoreMap
from zoo.errors import InputError
from zoo.images import read_image
from zoo.progress import track
from zoo.saving import class_names

# Pixels a side up to which an image is scanned in one pass where no tile is asked for.
_ONE_PASS = 1024


def scan(fcn: keras.Model, image: np.ndarray | str | Path, tile: int | None = None, progress: bool = False) -> ScoreMap:
    """Slide a model over a large image in one pass: (H, W, C) -> scores (rows, cols, classes).

    Args:
        fcn: a converted model; a classifier is converted first.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file. Values are those
            that the model was trained on: raw pixels.
        tile: side in pixels of the region that one tile answers for; what its cells see beyond it comes on top. The
            scores do not depend on it. Default: one pass up to 1,024 pixels a side, tiles of that size beyond.
        progress: show a bar over the tiles, on a terminal.

    Raises:
        InputError: where the image has other channels than the model or no window fits, a tile is smaller than the
            stride, or tiles are asked of a model whose cells depend on the whole image.
    """
    fcn = convolutionalize(fcn)
    channels = fcn.inputs[0].shape[-1]
    image = read_image(image, channels) if isinstance(image, str | Path) else _as_image(image, channels)
    placed = geometry(fcn, image.shape[:2])
    rows, columns = placed.grid_shape(*image.shape[:2])
    if min(rows, columns) == 0 or any(side < least for side, least in zip(image.shape, placed.window, strict=False)):
        raise InputError(
            f"image: received {image.shape[0]} x {image.shape[1]} pixels; accepted: at least one window of "
            f"{placed.window[0]} x {placed.window[1]}"
        )
    if tile is not None and tile < max(placed.stride):
        raise InputError(f"tile: received {tile} pixels; accepted: at least one stride, {max(placed.stride)}")
    if not placed.bounded:
        if tile is not None:
            raise InputError("tile: a block inside this model pools over the whole image, so it is scanned whole only")
        tile = max(image.shape[:2])
    scores = np.empty((rows, columns, fcn.output_shape[-1]), np.float32)
    parts = list(tiles(placed, tile or _ONE_PASS))
    for part in track(parts, "scanning", len(parts)) if progress else parts:
        answer = keras.ops.convert_to_numpy(fcn(np.asarray(image[part.pixels], np.float32)[None], training=False))[0]
        scores[part.cells] = answer[part.inner]
    return ScoreMap(scores, placed, class_names(fcn), tuple(image.shape[:2]))


@dataclass(frozen=True)
class Tile:
    """The `cells` that a tile answers for, the `pixels` that it reads, and where in its answer those cells are."""

    cells: tuple[slice, slice]
    pixels: tuple[slice, slice]
    inner: tuple[slice, slice]


def tiles(placed: Geometry, tile: int) -> Iterator[Tile]:
    """Cut the grid of an image, so that every part's cells come out as they do from the whole.

    A part's pixels hold the whole field of its cells, begin at a multiple of the stride, and end as many strides
    before the image's end, so that strided SAME layers pad a part as they pad the image.
    """
    grid = placed.grid_shape(*placed.image_size)
    begins = placed.first_pixel()
    axes = []
    for axis in range(len(grid)):
        stride, height, reach = placed.stride[axis], placed.image_size[axis], placed.receptive_field[axis]
        step = max(tile // stride, 1)
        parts = []
        for first in range(0, grid[axis], step):
            last = min(first + step, grid[axis])
            if placed.bounded:
                begin = max((begins[axis] + first * stride) // stride * stride, 0)
                end = begins[axis] + (last - 1) * stride + int(reach)
                end = height - max(height - end, 0) // stride * stride
            else:
                begin, end = 0, height
            skipped = begin // stride
            parts.append((slice(first, last), slice(begin, end), slice(first - skipped, last - skipped)))
        axes.append(parts)
    for parts in product(*axes):
        yield Tile(*zip(*parts, strict=True))


def _as_image(image: np.ndarray, channels: int) -> np.ndarray:
    shape = getattr(image, "shape", None)
    if shape is None or len(shape) not in (2, 3):
        raise InputError(f"image: received {type(image).__name__} of shape {shape}; accepted: (H, W) or (H, W, C)")
    if len(shape) == 2 and channels == 1:
        return np.asarray(image)[..., None]
    if shape[2:] != (channels,):
        raise InputError(f"image: received shape {tuple(shape)}; accepted: (H, W, {channels})")
    return image
