"""The colours of a score map's cells, laid over its image."""

from typing import Any, Protocol

import numpy as np

from zoo.objects.cell_classes import NONE, CellClasses, of_class
from zoo.scanning.thumbnails import factor_for
from zoo.scores import Outputs, to_probabilities

# How opaque the strongest colour is: over grey; over an image in colour, whose own colours stay to be seen; and that of
# the largest density, of which most is less.
_OVER_GREY, _OVER_COLOUR, DENSEST = 0.65, 0.4, 0.65
# The radius of the circle about an object, as a part of the window's lesser side.
MARK = 0.2
# Which colour of matplotlib's sequence each of ten classes has, and how much white those of the second ten.
_ORDER, _LIGHTER = (0, 1, 2, 4, 6, 9, 5, 7, 3, 8), 0.5
# Rows of a picture that are blended at a time.
_ROWS_AT_ONCE = 128


class Placed(Protocol):
    """What is needed of a map to place its cells: `zoo.scanning.score_map.ScoreMap` has it."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def cells_of_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row and each column of pixels, the cell whose crop is centred nearest; -1 beyond the grid."""


class Coloured(Placed, Protocol):
    """What is needed of a score map to colour its cells."""

    @property
    def scores(self) -> Any:
        """The scores, (rows, cols, classes)."""

    @property
    def outputs(self) -> Outputs:
        """What they are."""

    @property
    def cell_classes(self) -> CellClasses:
        """What makes a class of a cell's scores."""

    def standing_out(self, scores: np.ndarray) -> np.ndarray:
        """How far scores are from the median cell's, 0 to 1: (..., K) -> (...)."""


class Overlay:
    """A reader of scores (see `ScoreMap.read_by`) that keeps the colour of every cell that its picture shows.

    The picture has at most `most` pixels a side. A pixel of it stands for a square of `factor` pixels a side of the
    image, and is coloured by the cell of that square's middle pixel.
    """

    side = 1

    def __init__(self, score_map: Coloured, class_index: int | None = None, most: int | None = None):
        """Name the map; with `class_index`, that class is shown, else the winners."""
        self._map, self.class_index = score_map, class_index
        self.factor = factor_for(score_map.image_size, most)
        self._cells = cells_of_picture(score_map, self.factor)
        self._shown = tuple(np.unique(np.maximum(each, 0)) for each in self._cells)
        smallest = np.min_scalar_type(-score_map.scores.shape[-1])
        self._classes = np.full([len(each) for each in self._shown], class_index or 0, smallest)
        self._strength = np.zeros(self._classes.shape, np.float32)

    def add(self, row: int, column: int, scores: np.ndarray, scanned: np.ndarray) -> None:
        """Take a part of the map."""
        picked, part = [], []
        for cells, begin, extent in zip(self._shown, (row, column), scanned.shape, strict=True):
            part.append(slice(*np.searchsorted(cells, (begin, begin + extent))))
            picked.append(cells[part[-1]] - begin)
        scores, scanned = scores[np.ix_(*picked)], scanned[np.ix_(*picked)]
        if self.class_index is None:
            self._classes[*part], strength = shown(self._map, scores)
        else:
            strength = to_probabilities(scores, self._map.outputs)[..., self.class_index]
        self._strength[*part] = np.where(scanned, strength, 0)

    def over(self, below: np.ndarray, opacity: float | None = None) -> np.ndarray:
        """The picture over the image: (h, w, 3 or 1) in 0 to 255 -> RGB (h, w, 3) uint8; see `ScoreMap.overlay`."""
        if opacity is None:
            opacity = opacity_of(self._map.cell_classes)
        known, where = self._of_pixels()
        colours = palette(self._map.scores.shape[-1]).astype(np.float32)
        return blended(below, self._strength[where] * known * np.float32(opacity), colours, self._classes[where])

    @property
    def classes(self) -> np.ndarray:
        """The class whose colour each pixel of the picture has, (h, w); -1 where it has none."""
        known, where = self._of_pixels()
        return np.where(known & (self._strength[where] > 0), self._classes[where], NONE)

    def _of_pixels(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Which pixels of the picture, (h, w), a cell colours, and where that is among those that are kept."""
        rows, columns = self._cells
        known = (rows >= 0)[:, None] & (columns >= 0)[None, :]
        return known, np.ix_(np.searchsorted(self._shown[0], rows), np.searchsorted(self._shown[1], columns))


def cells_of_picture(score_map: Placed, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells that colour the rows and the columns of a picture, a pixel of which stands for `factor` a side.

    They are those of the squares' middle pixels; -1 beyond the grid.
    """
    rows, columns = (
        of_pixels[_middles(side, factor)]
        for of_pixels, side in zip(score_map.cells_of_pixels(), score_map.image_size, strict=True)
    )
    return rows, columns


def blended(below: np.ndarray, opacity: np.ndarray, colours: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Colours over an image, a few rows at a time: RGB (h, w, 3) uint8.

    Args:
        below: (h, w, 3 or 1) in 0 to 255.
        opacity: (h, w) in 0 to 1.
        colours: (n, 3) in 0 to 1.
        which: which of them lies over each pixel, (h, w).
    """
    picture = np.empty((*below.shape[:2], 3), np.uint8)
    for top in range(0, len(picture), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        weight = opacity[rows, :, None]
        picture[rows] = np.round(below[rows] * (1 - weight) + 255 * colours[which[rows]] * weight)
    return picture


def opacity_of(cell_classes: CellClasses) -> float:
    """How opaque the strongest colour is, where nothing else is asked for."""
    return _OVER_COLOUR if cell_classes.find_objects else _OVER_GREY


def shown(score_map: Coloured, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of cells, and how opaque the colours of these are, 0 to 1: (..., K) -> (...), (...).

    That is how far a cell stands out or, of a model that knows a background, how probable its class is; of a cell of no
    class 0.
    """
    classes = score_map.cell_classes.of(scores, score_map.outputs)
    if not score_map.cell_classes.find_objects:
        return classes, score_map.standing_out(scores)
    probable = of_class(to_probabilities(scores, score_map.outputs), np.maximum(classes, 0))
    return classes, np.where(classes == NONE, 0, probable)


def _middles(side: int, factor: int) -> np.ndarray:
    """The middle pixel of every `factor` pixels, the last ones being what is left."""
    begins = np.arange(0, side, factor)
    return begins + np.diff(begins, append=side) // 2


def palette(classes: int) -> np.ndarray:
    """One colour a class, (classes, 3) in 0 to 1.

    Ten colours are well apart for colour-blind readers too, and seen on black: those of Petroff, Accessible Color
    Sequences for Data Visualization (arXiv 2107.02270), the greys last, as images may be grey. Then they repeat, in
    every second ten lighter, and a class has a `pattern` too.
    """
    from matplotlib import color_sequences

    ten, index = np.array(color_sequences["petroff10"])[list(_ORDER)], np.arange(classes)
    lighter = _LIGHTER * (index // len(ten) % 2)[:, None]
    return ten[index % len(ten)] * (1 - lighter) + lighter


def pattern(index: int) -> int:
    """Which of six patterns is over the colour of a class: 0, that is none, of the first ten, and so on."""
    return index // len(_ORDER) % 6
