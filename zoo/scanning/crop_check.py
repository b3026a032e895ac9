"""Some cells of a scan beside the same network's answers to their crops: what a padded network makes of borders.

A network without padding gives the same scores by its arithmetic, and is not checked.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.network.geometry import Geometry
from zoo.scanning.score_map import ScoreMap
from zoo.scores import LOW_AGREEMENT, WAY_OUT, same_answers

# Cells of a command's images, all together, and the part of a scan's time that they take.
MOST_CELLS, _PART = 100, 0.1
# Cells that are drawn for one that is compared: some were not scanned, or reach beyond the image.
_DRAWN = 20
# What is told of a map that no crop's answer can be compared with.
OF_SCALES = "same answer as the crop: not compared, as the scores are merged from several scales"


@dataclass(frozen=True)
class CropCheck:
    """How many cells were compared with their crops, and of how many the answer is the same."""

    compared: int = 0
    same: int = 0

    def __add__(self, other: "CropCheck") -> "CropCheck":
        """Both together."""
        return CropCheck(self.compared + other.compared, self.same + other.same)

    def sentence(self) -> str:
        """The numbers for people to read, with the way out where they are low."""
        if not self.compared:
            return "same answer as the crop: not compared, a tenth of the scan's time is too short for it"
        low = self.same / self.compared < LOW_AGREEMENT
        text = f"same answer as the crop: {self.same} of {self.compared} grid cells compared"
        return f"{text}; {WAY_OUT}" if low else text

    def to_dict(self) -> dict[str, int]:
        """The numbers as JSON holds them."""
        return {"compared": self.compared, "same_answer": self.same}

    @classmethod
    def of(cls, record: Any) -> "CropCheck | None":
        """The numbers that JSON holds; None where it holds none."""
        return None if record is None else cls(record["compared"], record["same_answer"])


def needs_check(geometry: Geometry) -> bool:
    """Whether cells may answer otherwise than their crops, and there are crops: layers pad, or look at all pixels."""
    return bool(not geometry.padding_free or geometry.global_blocks) and all(map(np.isfinite, geometry.window))


def shares(images: Sequence[Path]) -> dict[Path, int]:
    """How many cells of each of a command's images are compared."""
    count = len(images)
    return {
        image: (index + 1) * MOST_CELLS // count - index * MOST_CELLS // count for index, image in enumerate(images)
    }


def check_crops(
    scores: ScoreMap,
    pixels: Any,
    run: Callable[[np.ndarray], np.ndarray],
    dtype: np.dtype,
    count: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    box: Callable[[int, int], tuple[int, int, int, int]] | None = None,
) -> CropCheck:
    """Compare cells of a score map, drawn at random, with the answers to their crops.

    Args:
        scores: the map.
        pixels: the image that was scanned, (H, W, C), an array or what is read by slices like one.
        run: gives the scores of the network whose map it is: (1, h, w, C) -> (1, 1, 1, K) of a window.
        dtype: the type that it takes pixels in.
        count: how many cells at most.
        seconds: how long the scan took; no cell is begun after a tenth of that.
        clock: tells the time in seconds.
        box: gives the crop in `pixels` that a cell (row, column) stands for; default: that of the map.
    """
    end = clock() + _PART * seconds
    generator, box = np.random.default_rng(0), scores.cell_box if box is None else box
    found, scanned = CropCheck(), np.asarray(scores.scanned)
    drawn = generator.choice(scanned.size, min(_DRAWN * count, scanned.size), replace=False)
    for row, column in zip(*np.unravel_index(drawn, scanned.shape), strict=True):
        if found.compared == count or clock() >= end:
            break
        top, left, bottom, right = box(row, column)
        if not scanned[row, column] or min(top, left) < 0 or bottom > pixels.shape[0] or right > pixels.shape[1]:
            continue
        crop = np.asarray(pixels[top:bottom, left:right]).astype(dtype, copy=False)
        alone, cell = run(crop[None]).reshape(1, -1), np.asarray(scores.scores[row, column]).reshape(1, -1)
        found += CropCheck(1, int(same_answers(alone, cell, scores.outputs)[0]))
    return found
