"""A large image to a ScoreMap, whole or in tiles, with the same answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import keras
import numpy as np

from zoo.dense.convert import convolutionalize
from zoo.dense.geometry import Geometry, geometry
from zoo.dense.outputs import outputs_are
from zoo.dense.pixels import check_pixels, read_pixels
from zoo.dense.program import smallest_image
from zoo.dense.score_map import ScoreMap
from zoo.errors import InputError
from zoo.graph import check_one_output, trace
from zoo.progress import track
from zoo.saving import card, class_names

# Pixels a side up to which an image is scanned in one pass where no tile is asked for.
_ONE_PASS = 1024


def scan(fcn: keras.Model, image: np.ndarray | str | Path, tile: int | None = None, progress: bool = False) -> ScoreMap:
    """Slide a model over a large image in one pass: (H, W, C) -> scores (rows, cols, classes).

    Args:
        fcn: a converted model; a classifier is converted first.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file. Values are those
            that the model was trained on: raw pixels, of the same type or as floats.
        tile: side in pixels of the region that one tile answers for; what its cells see beyond it comes on top. The
            scores do not depend on it. Default: one pass up to 1,024 pixels a side, tiles of that size beyond.
        progress: show a bar over the tiles, on a terminal.

    Raises:
        InputError: where the image has other channels or samples than the model's images, values that are not finite,
            or no window fits; a tile is smaller than the stride, or tiles are asked of a model whose cells depend on
            the whole image; or the model gives no map: several outputs, or one answer for an image of any size.
    """
    check_one_output(fcn)
    fcn = convolutionalize(fcn)
    image = read_pixels(fcn, image) if isinstance(image, str | Path) else check_pixels(fcn, image)
    placed = geometry(fcn, image.shape[:2])
    _check_fit(fcn, placed)
    _check_tile(tile, max(placed.stride))
    rows, columns = placed.grid_shape(*image.shape[:2])
    if not placed.bounded:
        if tile is not None:
            raise InputError("tile: a block inside this model pools over the whole image, so it is scanned whole only")
        tile = max(image.shape[:2])
    scores = np.empty((rows, columns, fcn.output_shape[-1]), np.float32)
    parts = list(tiles(placed, tile or _ONE_PASS))
    for part in track(parts, "scanning", len(parts)) if progress else parts:
        pixels = np.asarray(image[part.pixels], np.float32)
        if not np.isfinite(pixels).all():
            raise InputError("image: received values that are not finite; accepted: numbers")
        scores[part.cells] = keras.ops.convert_to_numpy(fcn(pixels[None], training=False))[0][part.inner]
    return ScoreMap(scores, placed, class_names(fcn), tuple(image.shape[:2]), outputs_are(fcn))


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


def _check_fit(fcn: keras.Model, placed: Geometry) -> None:
    """See that at least one window lies in the image, and every layer takes it."""
    height, width = placed.image_size
    window = card(fcn).window
    if window is not None and (height < window[0] or width < window[1]):
        accepted = f"at least one window of {window[0]} x {window[1]}"
    elif not placed.fits(height, width):
        least = smallest_image(trace(fcn))
        accepted = f"sides that every layer fits, from {least[0]} x {least[1]} on" if least else "a larger one"
    else:
        return
    raise InputError(f"image: received {height} x {width} pixels; accepted: {accepted}")


def _check_tile(tile: object, stride: int) -> None:
    is_number = isinstance(tile, int | np.integer) and not isinstance(tile, bool)
    if tile is not None and not (is_number and tile >= stride):
        raise InputError(f"tile: received {tile!r}; accepted: a whole number of pixels, at least one stride, {stride}")
