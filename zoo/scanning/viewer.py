"""A score map over its image as one HTML file, to look at in any browser, without a network."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import refuse
from zoo.files import check_output, replacing
from zoo.objects.cell_classes import NONE
from zoo.objects.peaks import FoundObjects, inside_image
from zoo.scanning.density import Density, density_unit, why_approximate
from zoo.scanning.overlay import DENSEST, MARK, opacity_of, palette, pattern, shown
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.thumbnails import Thumbnail, read_by
from zoo.scores import to_probabilities

# Bytes of the picture and of the scores, before base64 makes four of three: a file below 20 MB.
_PICTURE_BYTES = 5_000_000
_SCORES_BYTES = 9_500_000
# In place of a winner's number, where no cell was scanned, and where a cell is of no class.
_NOT_SCANNED, _NO_CLASS = 65535, 65534
# What pages look like.
LOOK = Path(__file__).with_name("look.css")
# Pixels a side of the picture.
MOST_PIXELS = 2048
# Classes of a cell that are kept before cells are shown together: those of the read-out.
_LEAST_KEPT = 5
# Objects that the page has room for, and bytes of each, taken from those of the scores.
_MOST_OBJECTS, _OBJECT_BYTES = 100_000, 12


def view_of(image: Any, most: int = MOST_PIXELS) -> tuple[np.ndarray, int]:
    """A down-sampled picture of an image: (H, W, C) -> (h, w, 3) uint8, and the side of the squares it averages.

    The image may be anything with a shape that is read by slices, and is read in bands of rows. Samples that are not
    uint8 are stretched to their own range; other channels than RGB's become grey.

    Args:
        image: an array, or an open raster.
        most: pixels a side that the picture has at most.
    """
    thumbnail = Thumbnail(image, most, in_colour=True)
    read_by(image, thumbnail)
    return thumbnail.rgb, thumbnail.factor


def write_viewer(
    score_map: ScoreMap,
    view: np.ndarray,
    path: str | Path,
    factor: int = 1,
    cells: "Cells | Density | None" = None,
    found: FoundObjects | None = None,
    image_name: str = "",
) -> Path:
    """Write a viewer of a score map: one .html file below 20 MB that needs nothing else.

    It shows the colours of `ScoreMap.overlay`, with zoom and pan, a choice of winner or class, opacity, the classes
    and the crop of the cell under the pointer, a legend and a scale bar; mouse, touch and keyboard. Probabilities are
    kept in steps of 1/65,535; where the grid is too large for all classes, as many as find room, the highest of each
    cell; where fewer than five do, squares of cells are shown as one: each class by its maximum, the winner of the cell
    that stands out most. The page says which. Cells that were not scanned stay without a colour.

    Of a model that knows a background the cells of no class have none either, and the objects are drawn, by class as
    the user chooses, with their counts; at most the 100,000 of the highest scores. What is wrong there can be marked:
    the page saves the marks as the .csv file that `data.marks` takes. Of a counter the density of objects is shown by
    class, with the counts, and the page sums it over a rectangle that the user draws.

    Args:
        score_map: the scores.
        view: the image, (h, w, 3) uint8, down-sampled: see `view_of`.
        path: the file.
        factor: the side in image pixels of what one pixel of `view` shows.
        cells: what has read the scores; default: they are read here.
        found: the objects of the map, where `cells` is given and it has some.
        image_name: what the image is called in lists of labels.

    Raises:
        InputError: where `view` is not the image's at that factor, or `path` does not end in .html.
    """
    path = check_output(path, "viewer", ".html")
    height, width = score_map.image_size
    expected = (-(-height // factor), -(-width // factor), 3)
    if view.shape != expected or view.dtype != np.uint8:
        refuse("view", f"{view.shape} of {view.dtype}", f"{expected} of uint8")
    if cells is None:
        cells, finder = cells_of(score_map), score_map.peak_finder() if score_map.cell_classes.find_objects else None
        score_map.read_by(cells, *([] if finder is None else [finder]))
        found = None if finder is None else finder.found()
    picture, shrunk = _picture(view)
    classes, (first_pixels, window) = len(score_map.class_names), score_map.crop_places
    content = {
        "picture": picture,
        "image": image_name,
        "factor": factor * shrunk,
        "imageSize": score_map.image_size,
        "pixelSize": None if score_map.pixel_size is None else score_map.pixel_size[1],
        "gridShape": score_map.scores.shape[:2],
        "window": window,
        "sentence": score_map.sentence(),
        "crops": [starts.tolist() for starts in first_pixels],
        "own": [edges.tolist() for edges in score_map.own_pixels],
        "classNames": score_map.class_names,
        "colours": np.round(255 * palette(classes), 3).tolist(),
        "patterns": [pattern(index) for index in range(classes)],
        "opacity": DENSEST if isinstance(cells, Density) else opacity_of(score_map.cell_classes),
        "counted": _counted(score_map),
        "objects": None if found is None else _objects(score_map, found),
        "density": _density(score_map, cells) if isinstance(cells, Density) else None,
        **(_cells_of_density(cells) if isinstance(cells, Density) else cells.to_dict()),
    }
    # A "<" in a class's name must not end the script that holds it.
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    page = Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")
    page = page.replace("{{look}}", LOOK.read_text(encoding="utf-8"))
    with replacing(path, score_map.made_by) as temporary:
        temporary.write_text(page.replace("{{content}}", text), encoding="utf-8")
    return path


def cells_of(score_map: ScoreMap) -> "Cells | Density":
    """The reader that keeps what the page knows of each cell."""
    return Density(score_map) if score_map.outputs == "counts" else Cells(score_map)


def _counted(score_map: ScoreMap) -> list[tuple[int, int]]:
    """The rows and the columns of cells that shares are of, each as the first and the one after the last."""
    whole = [(0, side) for side in score_map.scores.shape[:2]]
    if not score_map.cell_classes.find_objects:
        return whole
    places = (np.flatnonzero(each) for each in inside_image(score_map.centres, score_map.image_size))
    return [(int(each[0]), int(each[-1]) + 1) if len(each) else (0, 0) for each in places]


def _objects(score_map: ScoreMap, found: FoundObjects) -> dict[str, Any]:
    """The objects as the page reads them, those of the highest scores, and how many there are of each class."""
    first, numbers = slice(_MOST_OBJECTS), score_map.counts_of(found)
    return {
        "counts": [[index, numbers[score_map.class_names[index]]] for index in score_map.cell_classes.objects],
        "radius": min(score_map.crop_places[1]) * MARK,
        "classes": _packed(found.classes[first]),
        "scores": _packed(np.round(65535 * found.scores[first])),
        "places": base64.b64encode(found.centres[first].astype("<f4").tobytes()).decode(),
    }


def _density(score_map: ScoreMap, density: Density) -> dict[str, Any]:
    """A counter's numbers as the page reads them: how many objects a square's own pixels have, and how many all."""
    by, unit = density_unit(score_map)
    return {
        "values": base64.b64encode(density.values.astype("<f4").tobytes()).decode(),
        "cells": _packed(density.cells),
        "edges": [edges.tolist() for edges in score_map.edges],
        "counts": list(density.counts.values()),
        "shown": density.most_counted,
        "by": by,
        "unit": unit,
        "approximate": why_approximate(score_map),
    }


def _cells_of_density(density: Density) -> dict[str, Any]:
    """What the page knows of the cells of a counter's map besides, which have no classes."""
    classes = dict.fromkeys(("winners", "strength", "highest", "probable"), "")
    return {"cellsShown": density.cells.shape, "side": density.square, "kept": 0, **classes}


def _picture(view: np.ndarray) -> tuple[str, int]:
    """A picture as a data URL, lossless where that is small enough, and how far it had to be shrunk for its room."""
    from PIL import Image

    shrunk = 1
    while True:
        for kind, options in (("png", {}), ("jpeg", {"quality": 90})):
            buffer = io.BytesIO()
            Image.fromarray(view).save(buffer, kind, **options)
            if buffer.tell() <= _PICTURE_BYTES:
                return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", shrunk
        view, _ = view_of(view, -(-max(view.shape[:2]) // 2))
        shrunk *= 2


class Cells:
    """A reader of scores (see `ScoreMap.read_by`) that keeps what the page knows of each cell.

    That is its class, how opaque that is shown (see `zoo.scanning.overlay.shown`), the highest classes and their
    probabilities; of squares of `side` cells a side, where there are too many cells.
    """

    def __init__(self, score_map: ScoreMap):
        """Choose how many classes are kept, and of how many cells at a time."""
        rows, columns, classes = score_map.scores.shape
        room = _SCORES_BYTES - _MOST_OBJECTS * _OBJECT_BYTES * score_map.cell_classes.find_objects
        kept, side = min(classes, max(_LEAST_KEPT, room // (4 * rows * columns) - 1)), 1
        while -(-rows // side) * -(-columns // side) * 4 * (1 + kept) > room:
            side += 1
        self._map, self.side, self._kept = score_map, side, kept
        self._shown = (-(-rows // side), -(-columns // side))
        self._winners, self._strength = (np.empty(self._shown, np.uint16) for _ in range(2))
        self._highest, self._probable = (np.empty((*self._shown, kept), np.uint16) for _ in range(2))

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map, which begins at a square's first cell."""
        side, kept = self.side, self._kept
        classes, strength = shown(self._map, scores)
        outstanding = _squares(np.where(scanned, strength, -1), side)
        best = outstanding.argmax(-1)[..., None]
        missing = ~_squares(scanned, side).any(-1)
        probabilities = np.where(scanned[..., None], to_probabilities(scores, self._map.outputs), -1)
        probabilities = _squares(probabilities, side).max(-2)
        order = np.argpartition(-probabilities, kept - 1, axis=-1)[..., :kept]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(probabilities, order, -1), axis=-1), -1)
        winners = np.take_along_axis(_squares(np.where(classes == NONE, _NO_CLASS, classes), side), best, -1)[..., 0]
        (top, left), (height, width) = (row // side, column // side), winners.shape
        part = np.s_[top : top + height, left : left + width]
        self._winners[part] = np.where(missing, _NOT_SCANNED, winners)
        self._strength[part] = np.round(65535 * np.maximum(np.take_along_axis(outstanding, best, -1)[..., 0], 0))
        self._highest[part] = order
        self._probable[part] = np.round(65535 * np.maximum(np.take_along_axis(probabilities, order, -1), 0))

    def to_dict(self) -> dict[str, Any]:
        """The cells as the page reads them."""
        cells = {
            "winners": self._winners,
            "strength": self._strength,
            "highest": self._highest,
            "probable": self._probable,
        }
        packed = {name: _packed(values) for name, values in cells.items()}
        return {"cellsShown": self._shown, "side": self.side, "kept": self._kept, **packed}


@dataclass(frozen=True)
class Page:
    """What a viewer shows, of a map and an image that are yet to be read; `cells` of a counter is its density."""

    cells: Cells | Density
    view: Thumbnail

    @classmethod
    def of(cls, score_map: ScoreMap, image: Any) -> "Page":
        """The page of a score map and its image, (H, W, C), an array or what is read by slices like one."""
        return cls(cells_of(score_map), Thumbnail(image, MOST_PIXELS, in_colour=True))

    def write(self, score_map: ScoreMap, path: Path, found: FoundObjects | None = None, image_name: str = "") -> Path:
        """Write it, with the objects that were found; see `write_viewer`."""
        return write_viewer(score_map, self.view.rgb, path, self.view.factor, self.cells, found, image_name)


def _squares(block: np.ndarray, side: int) -> np.ndarray:
    """Cut a block into squares, the last ones filled up with copies: (h, w, ...) -> (rows, cols, cells, ...)."""
    height, width, *rest = block.shape
    block = np.pad(block, [(0, -height % side), (0, -width % side)] + [(0, 0)] * len(rest), mode="edge")
    block = block.reshape(-(-height // side), side, -(-width // side), side, *rest).swapaxes(1, 2)
    return block.reshape(*block.shape[:2], side * side, *rest)


def _packed(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.astype("<u2").tobytes()).decode()
