"""One image scanned at several scales, and the maps merged to one on the image's own grid."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.pictures import release
from zoo.scanning.answers import Pooling, pool
from zoo.scanning.memory import size_text
from zoo.scanning.tiles import Layout
from zoo.scores import Outputs


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image of `size` at a scale."""
    height, width = (max(round(side * scale), 1) for side in size)
    return height, width


def check_scales(scales: Any) -> tuple[float, ...]:
    """Scales as floats.

    Raises:
        InputError: where they are none, not all of them finite numbers above 0, or the same in six digits.
    """
    try:
        found = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(np.isfinite(scale) and scale > 0 for scale in found):
        raise InputError(f"scales: received {scales!r}; accepted: numbers above 0, such as [0.7, 1, 1.4]")
    # Parts of a scan are named by six digits.
    if len({f"{scale:g}" for scale in found}) < len(found):
        raise InputError(f"scales: received {scales!r}, the same one twice; accepted: each once")
    return found


def scaled_sizes(layout: Layout, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Height and width of an image at some scales.

    Raises:
        InputError: where a window, of 16 pixels at least, is smaller than a pixel of the image at one; or where cells
            have no windows that can be scaled.
    """
    if not np.isfinite(layout.geometry.window).all():
        raise InputError(
            "scales: the cells of this model have no window, as a block inside it pools over the whole image; accepted "
            "for it: no scales"
        )
    most = max(*layout.geometry.window, 16)
    if max(scales) > most:
        raise InputError(
            f"scales: received {max(scales):g}; accepted: up to {most:g}, beyond which the model's window is smaller "
            "than a pixel"
        )
    return [scaled_size(layout.image_size, scale) for scale in scales]


def check_room(layout: Layout, sizes: Sequence[tuple[int, int]], cell: int, room: int, output: Path | None) -> None:
    """See that scores of `cell` bytes a cell, for images of these sizes, fit `room` bytes; by arithmetic alone.

    Raises:
        InputError: where they do not, naming the `output`, if there is one.
    """
    need = int(sum(map(math.prod, sizes)) / math.prod(layout.geometry.stride) * cell)
    if need > room:
        where = "in memory" if output is None else f"in {str(output)!r}"
        raise InputError(
            f"scales: the scores take about {size_text(need)} {where}; accepted: what fits {size_text(room)}, as fewer "
            "or smaller scales do"
        )


@dataclass(frozen=True)
class ScaledGrid:
    """Which cells of an image's grid a scan at one scale has answers for, and which of its own cells those are.

    `nearest`: for each row and each column of the image's grid, that of the scaled image's grid which is centred
    nearest to it, by the ratio of the two images' sides. `known`: whether that one is at most half a stride of its grid
    away; beyond, a window of that scale leaves the image, and there is no answer.
    """

    nearest: tuple[np.ndarray, np.ndarray]
    known: tuple[np.ndarray, np.ndarray]

    @property
    def covers(self) -> np.ndarray:
        """The cells that have an answer: (rows, cols) bool."""
        return np.logical_and.outer(*self.known)

    def needed(self, scanned: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The cells at that scale, of a grid of `shape`, whose scores some `scanned` cells of the image's grid take."""
        found = np.zeros(shape, bool)
        for row in np.flatnonzero(self.known[0]):
            found[self.nearest[0][row], self.nearest[1][scanned[row] & self.known[1]]] = True
        return found


def scaled_grid(layout: Layout, scaled: Layout) -> ScaledGrid:
    """Match the grid of an image, `layout`, with that of the same image at a scale, `scaled`."""
    found = []
    for axis, (side, made) in enumerate(zip(layout.image_size, scaled.image_size, strict=True)):
        centres = (layout.starts[axis] + layout.geometry.window[axis] / 2) * (made / side)
        others = scaled.starts[axis] + scaled.geometry.window[axis] / 2
        nearest = np.searchsorted((others[1:] + others[:-1]) / 2, centres, side="right")
        half = scaled.geometry.stride[axis] / 2
        known = (centres >= others[0] - half) & (centres <= others[-1] + half)
        found.append((nearest, known))
    return ScaledGrid(*zip(*found, strict=True))


def widest_windows(layout: Layout, scales: Sequence[float]) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """What cells look at, at the smallest of some scales, in pixels of the image: the starts and sides of the windows.

    They are centred where those of `layout` are, and end at whole pixels, outwards.
    """
    starts, sides = [], []
    for first, window in zip(layout.starts, layout.geometry.window, strict=True):
        # 21 / 0.7 is a little more than 30.
        half, centres = round(window / min(scales), 6) / 2, first + window / 2
        begins = np.floor(centres - half).astype(int)
        starts.append(begins)
        sides.append(int(np.ceil(centres[0] + half)) - int(begins[0]))
    return tuple(starts), tuple(sides)


def merger(
    maps: Sequence[Any], grids: Sequence[ScaledGrid], outputs: Outputs, how: Pooling = "average-probabilities"
) -> Callable[[slice, np.ndarray], np.ndarray]:
    """Maps of one image at several scales as one on the image's own grid.

    Each cell takes the score of every scale that has one for it (see `ScaledGrid`).

    Args:
        maps: the scores (rows, cols, classes) of each scale, all of one model.
        grids: how the cells of each lie on the grid of the image.
        outputs: what the scores are.
        how: how each cell's scores are merged: see `zoo.scanning.answers.answer`.

    Returns:
        A function from some rows of the grid, and which of their cells are wanted, (rows, cols) bool, to the scores of
        those, (rows, cols, classes), NaN elsewhere.
    """

    def rows(part: slice, scanned: np.ndarray) -> np.ndarray:
        found, known = [], []
        for scores, grid in zip(maps, grids, strict=True):
            down, across = grid.nearest[0][part], grid.nearest[1]
            read = np.asarray(scores[down[0] : down[-1] + 1, :])
            found.append(read[np.ix_(down - down[0], across)])
            known.append(scanned & np.logical_and.outer(grid.known[0][part], grid.known[1]))
            release(scores)
        return pool(np.stack(found), np.stack(known), outputs, how)[0]

    return rows
