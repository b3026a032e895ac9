"""All that is shown of a scan, from one pass over its scores and one reading of its image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from zoo.objects.peaks import FoundObjects, inside_image
from zoo.scanning.answers import Answering
from zoo.scanning.density import Density
from zoo.scanning.merging import Merge
from zoo.scanning.overlay import Overlay
from zoo.scanning.readers import Uncertainty, Wins
from zoo.scanning.score_map import ScoreMap
from zoo.scanning.thumbnails import Thumbnail, read_by
from zoo.scanning.viewer import Page

# The most pixels a side of the picture with a legend.
_OVERLAY_PIXELS = 2000


class Summary:
    """A score map and its image, each read once.

    Attributes:
        score_map: the map.
        class_index: the class that the picture shows, None for the winners; of a counter it is always one.
        picture: the overlay, at most 2,000 pixels a side; see `ScoreMap.overlay`.
        factor: how many pixels of the image a pixel of it stands for.
        overlay: the colours of its cells; None of a counter.
        wins: how many cells are of each class, (classes,).
        cells: how many cells there are, those of no class too. Of a model that knows a background neither counts those
            whose middle is beyond the image.
        found: the objects, None of a model that knows no background; see `ScoreMap.objects`.
        density: of a counter the counts and the density of objects, else None. A counter has no wins.
        uncertainty: how uncertain the map is, 0 to 1 (see `zoo.scanning.readers.Uncertainty`); None of counts.
        answer: the answer for the whole image, (classes,), None where none was asked for; see `zoo.answer`.
    """

    def __init__(
        self,
        score_map: ScoreMap,
        image: Any,
        class_index: int | None = None,
        how: Merge | None = None,
        page: Page | None = None,
    ):
        """Read both.

        Args:
            score_map: the scores.
            image: the image that was scanned, (H, W, C), an array or what is read by slices like one.
            class_index: the class to show instead of the winners, or of the most counted.
            how: makes one answer for the whole image.
            page: what the viewer shows, which is read along.

        Raises:
            InputError: where the image is not of the size that was scanned, or scores are not finite.
        """
        score_map.check_image(image)
        self.score_map, self.class_index = score_map, class_index
        self.factor = score_map.factor(_OVERLAY_PIXELS)
        self.wins, self.cells = np.zeros(len(score_map.class_names), int), 0
        self.overlay: Overlay | None = None
        self.found: FoundObjects | None = None
        self.answer: np.ndarray | None = None
        self.density: Density | None = None
        self.uncertainty: float | None = None
        answering = None if how is None else Answering(score_map.outputs, how)
        over = self._add_up(page) if score_map.outputs == "counts" else self._look_at_classes(page, answering)
        in_colour = score_map.cell_classes.find_objects or self.density is not None
        below = Thumbnail(image, _OVERLAY_PIXELS, in_colour)
        read_by(image, below, *(() if page is None else (page.view,)))
        self.picture = over(below.values)

    def _look_at_classes(self, page: Page | None, answering: Answering | None) -> Callable[[np.ndarray], np.ndarray]:
        """Read a classifier's scores; what lays their colours over an image."""
        score_map, find_objects = self.score_map, self.score_map.cell_classes.find_objects
        self.overlay = Overlay(score_map, self.class_index, _OVERLAY_PIXELS)
        # Shares are those of the image, and not of what a border adds to it.
        counted = inside_image(score_map.centres, score_map.image_size) if find_objects else None
        wins = Wins(score_map.scores.shape[-1], score_map.classes_of, counted)
        finder = score_map.peak_finder() if find_objects else None
        uncertain = Uncertainty(score_map.outputs, score_map.cell_classes.background_index, counted)
        readers = (self.overlay, wins, None if page is None else page.cells, answering, finder, uncertain)
        score_map.read_by(*(each for each in readers if each is not None))
        self.wins, self.cells = wins.counts, wins.cells
        self.found = None if finder is None else finder.found()
        self.uncertainty = uncertain.mean
        self.answer = None if answering is None else answering.probabilities
        return self.overlay.over

    def _add_up(self, page: Page | None) -> Callable[[np.ndarray], np.ndarray]:
        """Read a counter's numbers; what lays the density of a class over an image."""
        density = Density(self.score_map) if page is None or not isinstance(page.cells, Density) else page.cells
        self.score_map.read_by(density)
        self.density = density
        self.class_index = density.most_counted if self.class_index is None else self.class_index
        return partial(density.over, class_index=self.class_index, most=_OVERLAY_PIXELS)
