"""One image scanned at several scales, and the maps merged to one on the image's own grid."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError, quoted, refuse
from zoo.network.positions import Pair, pair
from zoo.pictures import release, scaled_size
from zoo.scanning.byte_counts import bytes_text
from zoo.scanning.grid import Grid
from zoo.scanning.merging import Merge, merge
from zoo.scores import Outputs


@contextlib.contextmanager
def at_scale(scale: float) -> Iterator[None]:
    """Name the scale at which an input is wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(f"scale {scale:g}: {error}") from None


def scaled_sizes(grid: Grid, scales: Sequence[float]) -> list[Pair]:
    """Height and width of an image at some scales.

    Raises:
        InputError: where a window, of 16 pixels at least, is smaller than a pixel of the image at one; or where cells
            have no windows that can be scaled.
    """
    if not np.isfinite(grid.window).all():
        raise InputError(
            "scales: the cells of this model have no window, as a block inside it pools over the whole image; accepted "
            "for it: no scales"
        )
    most = max(*grid.window, 16)
    if max(scales) > most:
        refuse("scales", f"{max(scales):g}", f"up to {most:g}, beyond which the model's window is smaller than a pixel")
    return [scaled_size(grid.image_size, scale) for scale in scales]


def check_room(grid: Grid, sizes: Sequence[Pair], cell: int, room: int, output: Path | None) -> None:
    """Check that scores of `cell` bytes a cell, for images of these sizes, fit `room` bytes; by arithmetic alone.

    Raises:
        InputError: where they do not, naming the `output`, if there is one.
    """
    need = int(sum(map(math.prod, sizes)) / math.prod(grid.geometry.stride) * cell)
    if need > room:
        where = "in memory" if output is None else f"in {quoted(str(output))}"
        raise InputError(
            f"scales: the scores take {bytes_text(need, up=True)} {where}; accepted: what fits {bytes_text(room)}, as "
            "fewer or smaller scales do"
        )


@dataclass(frozen=True)
class Match:
    """Which cells of an image's grid a scan at one scale has answers for, and which of its own cells those are.

    `nearest`: for each row and each column of the image's grid, that of the scaled image's grid which is centred
    nearest to it, by the ratio of the two images' sides. `known`: whether that one is at most half a stride of its grid
    away; beyond, a window of that scale leaves the image, and there is no answer.
    """

    nearest: tuple[np.ndarray, np.ndarray]
    known: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, grid: Grid, scaled: Grid) -> "Match":
        """Match the grid of an image with that of the same image at a scale."""
        sides = []
        for axis, (side, made) in enumerate(zip(grid.image_size, scaled.image_size, strict=True)):
            centres = (grid.starts[axis] + grid.window[axis] / 2) * (made / side)
            others = scaled.starts[axis] + scaled.window[axis] / 2
            nearest = np.searchsorted((others[1:] + others[:-1]) / 2, centres, side="right")
            half = scaled.geometry.stride[axis] / 2
            known = (centres >= others[0] - half) & (centres <= others[-1] + half)
            sides.append((nearest, known))
        return cls(*zip(*sides, strict=True))

    @property
    def covers(self) -> np.ndarray:
        """The cells that have an answer: (rows, cols) bool."""
        return np.logical_and.outer(*self.known)

    def needed(self, scanned: np.ndarray, shape: Pair) -> np.ndarray:
        """The cells at that scale, of a grid of `shape`, whose scores some `scanned` cells of the image's grid take."""
        needed = np.zeros(shape, bool)
        for row in np.flatnonzero(self.known[0]):
            needed[self.nearest[0][row], self.nearest[1][scanned[row] & self.known[1]]] = True
        return needed


@dataclass(frozen=True)
class ScalePart:
    """One scale's part of a scan: the grid of the image at that scale, and how its cells lie on the image's own."""

    scale: float
    grid: Grid
    match: Match

    @classmethod
    def of(cls, scale: float, grid: Grid, scaled: Grid) -> "ScalePart":
        """The part of a scale with the grid `scaled`, of an image with the grid `grid`."""
        return cls(scale, scaled, Match.of(grid, scaled))

    def needed(self, wanted: np.ndarray | None) -> np.ndarray:
        """The cells to score of this grid, where those `wanted` of the image's are; all of them where that is None."""
        return self.grid.all_cells if wanted is None else self.match.needed(wanted, self.grid.shape)


@dataclass(frozen=True)
class Windows:
    """What the cells of a grid look at, in pixels of the given image.

    `starts`: the first pixel of every row and of every column of windows, `sides`: those of one, infinite where it is
    the whole image; whole pixels. `centres`: the middles of the rows and of the columns, continuous, the first pixel's
    centre at 0.5; where the window is infinite, a stride apart about the image's middle.
    """

    starts: tuple[np.ndarray, np.ndarray]
    sides: tuple[float, float]
    centres: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, grid: Grid, image_size: Pair, scales: Sequence[float] | None = None) -> "Windows":
        """The windows of a grid on an image of `image_size`, which was scanned at the size that the grid is of.

        They end at the pixels nearest to where they end; with `scales` they are those of the smallest one, and end at
        whole pixels outwards, so that the windows of all scales lie in them.
        """
        axes = zip(grid.starts, grid.window, grid.geometry.stride, image_size, grid.image_size, strict=True)
        starts, sides, centres = zip(*(_along(*axis, scales) for axis in axes), strict=True)
        return cls(pair(starts), pair(sides), pair(centres))


def _along(
    first: np.ndarray, window: float, stride: int, side: int, scanned: int, scales: Sequence[float] | None
) -> tuple[np.ndarray, float, np.ndarray]:
    """Starts, side and centres of windows along an axis of `side` pixels, of which `scanned` were made."""
    ratio = side / scanned
    if math.isinf(window):
        cells = np.arange(len(first))
        return np.floor(first * ratio).astype(int), window, side / 2 + (cells - (len(first) - 1) / 2) * stride * ratio
    centres = (first + window / 2) * ratio
    if scales is None:
        length = max(round(window * ratio), 1)
        return np.floor(np.round(centres - length / 2, 6) + 0.5).astype(int), length, centres
    # 21 / 0.7 is a little more than 30.
    half = round(window * ratio / min(scales), 6) / 2
    begins = np.floor(np.round(centres - half, 6)).astype(int)
    # At a scale of the model itself windows lie differently to the pixels, so that the longest one is taken.
    ends = np.ceil(np.round(centres + half, 6)).astype(int)
    return begins, int((ends - begins).max()), centres


def merger(
    maps: Sequence[Any], matches: Sequence[Match], outputs: Outputs, how: Merge = "average-probabilities"
) -> Callable[[slice, np.ndarray], np.ndarray]:
    """Maps of one image at several scales as one on the image's own grid.

    Each cell takes the score of every scale that has one for it (see `Match`).

    Args:
        maps: the scores (rows, cols, classes) of each scale, all of one model.
        matches: how the cells of each lie on the grid of the image.
        outputs: what the scores are.
        how: how each cell's scores are merged: see `zoo.scanning.answers.answer`.

    Returns:
        A function from some rows of the grid, and which of their cells are wanted, (rows, cols) bool, to the scores of
        those, (rows, cols, classes), NaN elsewhere.
    """

    def rows(part: slice, scanned: np.ndarray) -> np.ndarray:
        of_scales, known = [], []
        for scores, match in zip(maps, matches, strict=True):
            down, across = match.nearest[0][part], match.nearest[1]
            read = np.asarray(scores[down[0] : down[-1] + 1, :])
            of_scales.append(read[np.ix_(down - down[0], across)])
            known.append(scanned & np.logical_and.outer(match.known[0][part], match.known[1]))
            release(scores)
        return merge(np.stack(of_scales), np.stack(known), outputs, how)

    return rows
