"""Which cells of a grid a region of interest leaves in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InputError, refuse

# Pixels of a mask that are read at a time.
_AT_ONCE = 2**22


def cells_inside(mask: Any, starts: tuple[np.ndarray, np.ndarray], window: tuple[float, float]) -> np.ndarray:
    """The cells of which a pixel of the window, inside the image, lies inside the mask: (rows, cols) bool.

    The mask is read once, in strips.

    Args:
        mask: (H, W, C), read by slices; a pixel is inside where any of its channels is not 0.
        starts: the first pixel of every row and of every column of windows, ascending; may lie beyond the image.
        window: the sides of the windows in pixels; an infinite one is the whole image.
    """
    height, width = mask.shape[:2]
    (tops, bottoms), (lefts, rights) = (
        (np.clip(first if np.isfinite(extent) else 0 * first, 0, side), np.clip(first + extent, 0, side).astype(int))
        for first, extent, side in zip(starts, window, (height, width), strict=True)
    )
    inside = np.zeros((len(tops), len(lefts)), bool)
    # For each column of windows the last row of pixels, up to here, of which one lies inside.
    last = np.full(len(lefts), -1)
    step = max(_AT_ONCE // width, 1)
    for begin in range(0, height, step):
        strip = (mask[begin : min(begin + step, height), 0:width] != 0).any(-1)
        counts = np.zeros((len(strip), width + 1), np.int32)
        np.cumsum(strip, axis=1, out=counts[:, 1:])
        hit = counts[:, rights] > counts[:, lefts]
        rows = np.where(hit, np.arange(begin, begin + len(strip))[:, None], -1)
        rows[0] = np.maximum(rows[0], last)
        np.maximum.accumulate(rows, axis=0, out=rows)
        last = rows[-1]
        # Windows whose last row lies in this strip.
        ended = np.flatnonzero((bottoms > begin) & (bottoms <= begin + len(strip)))
        inside[ended] = rows[bottoms[ended] - 1 - begin] >= tops[ended, None]
    return inside


def check_some(scanned: np.ndarray, is_inside: bool, mask: Any, scales: Sequence[float] | None) -> None:
    """Check that a cell is left to scan; `is_inside`: the mask leaves some.

    Raises:
        InputError: naming the mask, or the scales.
    """
    if scanned.any():
        return
    cells = f"{scanned.shape[0]} x {scanned.shape[1]} cells"
    if is_inside and scales is not None:
        more = "" if mask is None else " inside the mask"
        refuse("scales", f"{list(scales)}, without an answer for any of {cells}{more}", "1")
    name = f"mask {mask}" if isinstance(mask, str | Path) else "mask"
    raise InputError(f"{name}: none of {cells} has a pixel inside it; accepted: at least one")
