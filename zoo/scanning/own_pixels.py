"""Which pixels of an image are each cell's own: those nearer to its middle than to any other's."""

import numpy as np

from zoo.network.positions import Pair


def edges_between(centres: np.ndarray, stride: float) -> np.ndarray:
    """Where each cell's own part of an axis begins, and where the last one's ends: (n,) -> (n + 1,), not rounded.

    It is a stride long about the middle of the cell's window, less where the next one is nearer.
    """
    gaps = np.diff(centres, prepend=centres[0] - stride)
    # Rounded a little, as what a scale divides is not quite a whole number.
    return np.round(np.append(centres - gaps / 2, centres[-1] + stride / 2), 6)


def cells_of_pixels(own: tuple[np.ndarray, np.ndarray], image_size: Pair) -> tuple[np.ndarray, np.ndarray]:
    """For each row and each column of pixels, the cell that it is own to; -1 beyond the grid.

    `own`: where the own pixels of rows and columns begin, and where the last one's end.
    """
    rows, columns = (
        np.where(np.arange(side) < each[-1], np.searchsorted(each[:-1], np.arange(side), side="right") - 1, -1)
        for each, side in zip(own, image_size, strict=True)
    )
    return rows, columns
