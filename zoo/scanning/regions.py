"""Scores of boxes in an image: by one feature map, by the cells of a scan, or by a crop for each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np

from zoo.engines.engine import Run, check_scores
from zoo.errors import InputError, refuse
from zoo.pictures import check_finite
from zoo.progress import track
from zoo.scanning.boxes import Boxes, BoxScores, check_boxes
from zoo.scanning.byte_counts import bytes_text
from zoo.scanning.density import counts_in
from zoo.scanning.memory import available, tile_memory
from zoo.scanning.model_scale import at_model_scale
from zoo.scanning.pixels import Pixels, open_pixels
from zoo.scanning.scan import Scanner
from zoo.scanning.score_map import ScoreMap

if TYPE_CHECKING:
    from zoo.engines.regions import Regions
    from zoo.network.network import Network

Way = Literal["roi", "cells", "crops"]
WAYS: tuple[Way, ...] = get_args(Way)

# Windows that "crops" gives the model at once; benchmarks/regions.py finds the best number for a machine.
CROPS_AT_ONCE = 64


class BoxScorer(Protocol):
    """One of the ways: gives the scores (n, classes) of boxes (n, 4), cut off at the image, in an open image.

    Image and boxes are at the scale at which the model sees them.
    """

    def __call__(self, source: Pixels, boxes: np.ndarray) -> np.ndarray:
        """Score boxes."""


def score(
    network: "Network",
    image: np.ndarray | str | Path | Pixels,
    boxes: Sequence | Boxes,
    scorer: BoxScorer,
    pixel_size: float | None = None,
) -> BoxScores:
    """Score boxes in an image one of the ways; see `zoo.score_boxes`."""
    with open_pixels(network, image) as opened, at_model_scale(network.card, opened, pixel_size) as source:
        further, size = boxes.further if isinstance(boxes, Boxes) else (), source.image_size
        given = check_boxes(boxes, size)
        inside = np.clip(given, 0, [*size, *size])
        scores = scorer(source, inside * [*source.scale, *source.scale])
        # Those of the given image are its reader's to say, and are printed with its name.
        notes = tuple(f"{source.name} {note}" for note in source.scale_notes)
    beyond = int((inside != given).any(1).sum())
    return BoxScores(given, scores, network.class_names, network.outputs_are[0], further, beyond, notes)


@dataclass(frozen=True)
class ByRegions:
    """Each box's part of one feature map is pooled and given to the head."""

    regions: "Regions"
    progress: bool = False

    def __call__(self, source: Pixels, boxes: np.ndarray) -> np.ndarray:
        """Score boxes."""
        regions, network = self.regions, self.regions.network
        height, width = source.shape[:2]
        cells = regions.cells(boxes, (height, width))
        need, room = tile_memory(network.up_to(regions.map))(height, width), available()
        if need > room:
            raise InputError(
                f"image: the feature map of {height} x {width} pixels takes {bytes_text(need, up=True)} to compute; "
                f"accepted for the way 'roi': what fits {bytes_text(room)}; 'cells' and 'crops' take images of any size"
            )
        maps = regions.feature_map(check_finite(source[:, :].astype(np.float32), source.name)[None])
        # Boxes of like size together: the largest of those pooled together decides what all of them take.
        order = np.argsort((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]), kind="stable")
        scores = np.empty((len(boxes), network.units()), np.float32)
        for part in _parts(order, lambda rest: regions.at_once(cells[rest]), self.progress):
            scores[part] = _checked(regions.answers(maps, cells[part][None]), part, network)
        return scores


@dataclass(frozen=True)
class ByCells:
    """Each box has the scores of the cell whose window is centred nearest."""

    scanner: Scanner

    def __call__(self, source: Pixels, boxes: np.ndarray) -> np.ndarray:
        """Score boxes."""
        return nearest_scores(self.scanner(source), boxes)


def nearest_scores(score_map: ScoreMap, boxes: np.ndarray) -> np.ndarray:
    """The scores (n, classes) of the cells whose windows are centred nearest to boxes (n, 4), in scanned pixels."""
    last = np.array(score_map.scores.shape[:2]) - 1
    nearest = [score_map.geometry.nearest_cell(*box) for box in boxes.tolist()]
    rows, columns = np.clip(nearest, 0, last).T
    return score_map.scores[rows, columns]


@dataclass(frozen=True)
class ByDensity:
    """Each box has the sums of a counter's density over it."""

    scanner: Scanner

    def __call__(self, source: Pixels, boxes: np.ndarray) -> np.ndarray:
        """Estimate the counts of boxes."""
        score_map = self.scanner(source)
        # The map's places are in pixels of the given image.
        return counts_in(score_map, score_map.scanned, boxes / (*score_map.scale, *score_map.scale))


@dataclass(frozen=True)
class ByCrops:
    """The classifier itself runs on the window that is centred at each box, moved into the image where it leaves it.

    `run`: the classifier. `window`: its training size.
    """

    network: "Network"
    run: Run
    window: tuple[int, int]
    progress: bool = False

    def __call__(self, source: Pixels, boxes: np.ndarray) -> np.ndarray:
        """Score boxes."""
        window, size = self.window, np.array(source.shape[:2])
        if (size < window).any():
            refuse("image", f"{size[0]} x {size[1]} pixels", f"at least one window of {window[0]} x {window[1]}")
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        corners = np.clip(np.floor(centres - np.array(window) / 2 + 0.5), 0, size - window).astype(int)
        scores = np.empty((len(boxes), self.network.units()), np.float32)
        for part in _parts(np.arange(len(boxes)), lambda _: CROPS_AT_ONCE, self.progress):
            crops = [source[top : top + window[0], left : left + window[1]] for top, left in corners[part]]
            pixels = check_finite(np.stack(crops).astype(np.float32), source.name)
            scores[part] = _checked(self.run(pixels), part, self.network)
        return scores


def _checked(scores: np.ndarray, boxes: np.ndarray, network: "Network") -> np.ndarray:
    """The scores of some boxes, if they are finite."""
    broken = ~np.isfinite(scores).all(-1)
    return check_scores(scores, f"box {boxes[broken].min() + 1}" if broken.any() else "boxes", network)


def _parts(order: np.ndarray, at_once: Callable[[np.ndarray], int], progress: bool) -> Iterator[np.ndarray]:
    """Cut `order` into parts of at most `at_once(part)`, the largest boxes of each last."""
    parts = []
    while len(order):
        count = len(order)
        while count > (fitting := at_once(order[:count])):
            count = max(fitting, count // 2)
        parts.append(order[:count])
        order = order[count:]
    return iter(track(parts, "scoring boxes", len(parts)) if progress else parts)
