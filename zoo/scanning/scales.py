"""One image scanned at several scales, and the maps merged to one on the image's own grid."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.pictures import release
from zoo.scanning.answers import Pooling, pool
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.tiles import Layout


def rescale(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image: (H, W, C) -> (round(H scale), round(W scale), C) float32, not rounded to whole numbers.

    Pillow's bilinear filter, channel by channel in 32-bit float; where it shrinks, its triangle is as wide as the
    pixels that go into one, so that nothing is skipped (anti-aliasing). Pixel centres stay aligned: pixel i of the
    result is centred at (i + 0.5) / scale - 0.5 of the image.
    """
    from PIL import Image

    size = scaled_size(image.shape[:2], scale)
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)) for plane in planes], axis=-1)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image of `size` at a scale."""
    height, width = (max(round(side * scale), 1) for side in size)
    return height, width


def check_scales(scales: Any) -> tuple[float, ...]:
    """Scales as floats.

    Raises:
        InputError: where they are none, or not all of them finite numbers above 0.
    """
    try:
        found = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(np.isfinite(scale) and scale > 0 for scale in found):
        raise InputError(f"scales: received {scales!r}; accepted: numbers above 0, such as [0.7, 1, 1.4]")
    return found


def merger(
    score_maps: Sequence[ScoreMap], layout: Layout, how: Pooling = "average-probabilities"
) -> Callable[[slice], np.ndarray]:
    """Maps of one image at several scales as one on the image's own grid: some of its rows -> (rows, cols, classes).

    Each cell takes, from every map, the cell whose crop is centred nearest to where its own crop's centre lies at that
    scale, which is the ratio of the two images' sides; at the border, where the map has no such cell, its last one.
    Cells of a map that were not scanned (NaN) count for nothing.

    Args:
        score_maps: the map of each scale, all of one model.
        layout: the grid of the image at scale 1, which is the result's.
        how: how each cell's scores are merged: see `zoo.scanning.answers.answer`.
    """
    places = [[_nearest(axis, layout, score_map) for axis in range(2)] for score_map in score_maps]

    def rows(wanted: slice) -> np.ndarray:
        found = []
        for score_map, (down, across) in zip(score_maps, places, strict=True):
            down = down[wanted]
            part = np.asarray(score_map.scores[down[0] : down[-1] + 1, :])
            found.append(part[np.ix_(down - down[0], across)])
            release(score_map.scores)
        return pool(np.stack(found), score_maps[0].outputs, how)[0]

    return rows


def _nearest(axis: int, layout: Layout, score_map: ScoreMap) -> np.ndarray:
    """For each cell of the grid along an axis, the map's nearest one."""
    scale = score_map.image_size[axis] / layout.image_size[axis]
    centres = (layout.starts[axis] + layout.geometry.window[axis] / 2) * scale
    others = score_map.starts[axis] + score_map.geometry.window[axis] / 2
    return np.searchsorted((others[1:] + others[:-1]) / 2, centres, side="right")
