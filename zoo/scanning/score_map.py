"""The result of a scan: scores on a grid, and where each cell lies in the image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.card import Peaks
from zoo.errors import refuse
from zoo.files import replacing, write_json
from zoo.made_by import MadeBy
from zoo.network.geometry import Geometry
from zoo.network.positions import Pair, pair
from zoo.objects.cell_classes import CellClasses
from zoo.objects.peaks import FoundObjects, PeakFinder
from zoo.pictures import release
from zoo.scanning.density import Density, windows_of_pixel
from zoo.scanning.model_scale import on_image, sides_record
from zoo.scanning.options import BorderRule
from zoo.scanning.overlay import Overlay
from zoo.scanning.own_pixels import cells_of_pixels, edges_between
from zoo.scanning.readers import Reader, Wins, check_known
from zoo.scanning.thumbnails import factor_for, view_below
from zoo.scanning.usual_scores import usual_scores
from zoo.scores import Outputs, check_no_counts, to_probabilities

# Numbers of a score map that are read at a time.
_SCORES_AT_ONCE = 2**20


@dataclass(frozen=True)
class ScoreMap:
    """Scores (rows, cols, classes) of a large image; cell (row, col) answers for `cell_box(row, col)`.

    The scores are what the model gives, logits for the zoo's own, of a counter the numbers of objects in each window;
    `outputs` says what they are. They are an array, or what is read by slices like one. `image_size`: (height, width)
    in pixels of the given image. `geometry`: that of the pixels that were scanned; `scale` of them, (down, across),
    make one of the given image, and `border` "reflect" and "full" add some. `pixel_size`: that of the given image in
    micrometres, (down, across), where it is known.
    `made_from`: the model, image and options of a scan with an output, by their hashes. `other_function`: a sentence
    where the image's size makes another function of the model than the trained one (see `Geometry.other_function`),
    else empty.

    `scanned`, (rows, cols) bool, alone says which cells have scores. Scores that are not finite there are refused, of
    an array when the map is made, else when they are read; elsewhere they are NaN, and nothing looks at them.

    All boxes are in pixels of the given image. `starts`: the first pixel of every row and of every column of windows,
    `window`: the sides of one, infinite where it is the whole image; both are rounded where the image was scaled.
    `middles`: `centres`, where `starts` and `window` do not say. `scales`: those that the image was scanned at, on top
    of `scale`. A cell then looks, at scale s, at a window of 1/s times the model's (`windows`), and `window` and
    `cell_box` are those of the smallest scale, in which those of all others lie. `notes`: what the reader has to say of
    image and mask, a line each. `crops`: how many cells were compared with their crops, and of how many the answer is
    the same, as JSON holds it (see `zoo.scanning.crop_check`); None where none were. `background` and `peaks`: see
    `zoo.card.Card`; of a map with neither, every cell is of the class that wins, else see `zoo.objects.cell_classes`.
    `further`: what else `geometry.json` is to say.
    """

    scores: np.ndarray
    geometry: Geometry
    class_names: tuple[str, ...]
    image_size: Pair
    starts: tuple[np.ndarray, np.ndarray]
    window: tuple[float, float]
    scanned: np.ndarray
    outputs: Outputs = "logits"
    border: BorderRule = "none"
    made_from: Mapping[str, Any] | None = None
    other_function: str = ""
    scales: Sequence[float] | None = None
    notes: tuple[str, ...] = ()
    crops: dict[str, int] | None = None
    background: str | None = None
    peaks: Mapping[str, Peaks] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)
    scale: tuple[float, float] = (1.0, 1.0)
    pixel_size: tuple[float, float] | None = None
    middles: tuple[np.ndarray, np.ndarray] | None = None

    def __post_init__(self) -> None:
        """Check that the scores are known where cells were scanned.

        Raises:
            InputError: where they are not, `scanned` has another shape than the grid, or a class has no scores.
        """
        self.cell_classes  # noqa: B018 - which checks the names
        grid = self.scores.shape[:2]
        scanned = np.asarray(self.scanned)
        if scanned.dtype != bool or not scanned.all() and scanned.shape != grid:
            refuse("scanned", f"{scanned.shape} of {scanned.dtype}", f"{grid} of bool")
        # Where all were: a single value, whatever the grid's size.
        scanned = np.broadcast_to(True, grid) if scanned.all() else scanned
        object.__setattr__(self, "scanned", scanned)
        if type(self.scores) is np.ndarray:
            check_known(self.scores, scanned)

    def cell_box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The crop that a cell stands for, (top, left, bottom, right), half-open, not clipped at the image."""
        (tops, lefts), (height, width) = self.crop_places
        top, left = int(tops[row]), int(lefts[column])
        return top, left, top + height, left + width

    @property
    def crop_places(self) -> tuple[tuple[np.ndarray, np.ndarray], Pair]:
        """`starts` and `window` in whole pixels: those of the image itself where the window is infinite."""
        if math.inf in self.window:
            return pair(0 * starts for starts in self.starts), self.image_size
        return self.starts, pair(map(int, self.window))

    @property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """The middles of the rows and of the columns of windows, (rows,) and (cols,).

        They are continuous pixels of the given image, not rounded; the first pixel's centre is at 0.5. Where the window
        is infinite they are a stride apart about the image's middle.
        """
        if self.middles is not None:
            return self.middles
        axes = zip(self.starts, self.window, self.stride, self.image_size, strict=True)
        return pair(
            starts + window / 2
            if math.isfinite(window)
            else side / 2 + (np.arange(len(starts)) - (len(starts) - 1) / 2) * stride
            for starts, window, stride, side in axes
        )

    @property
    def stride(self) -> tuple[float, float]:
        """Pixels of the given image between neighbouring cells; whole numbers where it was not scaled."""
        return on_image(self.geometry.stride, self.scale)

    @property
    def windows(self) -> dict[float, tuple[float, float]]:
        """The sides in the image's pixels of what a cell looks at, at every scale; empty for a scan without scales."""
        height, width = on_image(self.geometry.window, self.scale)
        return {scale: (height / scale, width / scale) for scale in self.scales or ()}

    def sentence(self) -> str:
        """Stride, window and receptive field for people to read; with scales, the window of each."""
        stride = f"stride {_sides_text(self.stride)}"
        if self.scales:
            windows = (f"{_sides_text(window)} at scale {scale:g}" for scale, window in self.windows.items())
            return f"{stride}, windows in pixels: {', '.join(windows)}{self._scale_text}"
        if not self._scale_text or math.inf in self.window:
            return f"{self.geometry.sentence()}{self._scale_text}"
        window = _sides_text(on_image(self.geometry.window, self.scale))
        return f"{stride}, window {window} pixels{self._scale_text}"

    @property
    def _scale_text(self) -> str:
        """What the image was scaled by, for people to read; nothing where it was not."""
        if self.scale == (1, 1):
            return ""
        down, across = (f"{scale:.4g}" for scale in self.scale)
        by = down if down == across else f"{down} x {across}"
        return f"; the image was scaled by {by}"

    @property
    def made_by(self) -> MadeBy | None:
        """What the files that show this map are made to say of their origin; None of a scan without an output."""
        return None if self.made_from is None else MadeBy("zoo scan", self.made_from)

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax over the classes, cell by cell, or the scores where they are probabilities: (rows, cols, classes)."""
        return to_probabilities(np.asarray(self.scores), self.outputs)

    def save(self, folder: str | Path) -> Path:
        """Write `scores.npz` (scores, scanned, class_names) and `geometry.json` into `folder`."""
        folder = Path(folder)
        with replacing(folder / "scores.npz", self.made_by) as temporary, temporary.open("wb") as file:
            names = np.array(self.class_names)
            np.savez_compressed(file, scores=self.scores, scanned=self.scanned, class_names=names)
        self.save_geometry(folder)
        return folder

    def save_geometry(self, folder: str | Path, scores: str = "scores.npz") -> Path:
        """Write `geometry.json` into `folder`: where the cells of the file `scores` lie, and what their numbers are.

        Its `scanned` names the file that says which cells were scanned: `scores.npz` itself, or `scanned.npy`, which is
        written beside other scores; null where all were.
        """
        rows, columns = self.scores.shape[:2]
        beside = "scores.npz" if scores == "scores.npz" else "scanned.npy"
        known = None if self.scanned.all() else beside
        if known == "scanned.npy":
            with replacing(Path(folder) / known, self.made_by) as temporary, temporary.open("wb") as file:
                np.save(file, self.scanned)
        record = {
            **sides_record(self.geometry, self.scale, self.window, self.windows),
            "offset": list(self.cell_box(0, 0)[:2]),
            "image_size": list(self.image_size),
            "grid_shape": [rows, columns],
            "border": self.border,
            "scale": list(self.scale),
            "pixel_size": None if self.pixel_size is None else list(self.pixel_size),
            "last_cell_box": list(self.cell_box(rows - 1, columns - 1)),
            "uncovered": dict(zip(("top", "left", "bottom", "right"), self.uncovered, strict=True)),
            "scores": scores,
            "scanned": known,
            "cells_not_scanned": self.not_scanned,
            "crops": self.crops,
            "outputs": self.outputs,
            **({"windows_per_pixel": windows_of_pixel(self)} if self.outputs == "counts" else {}),
            "other_function": self.other_function or None,
            "class_names": list(self.class_names),
            **self.further,
            "made_from": self.made_from,
        }
        return write_json(Path(folder) / "geometry.json", record, self.made_by)

    @property
    def uncovered(self) -> tuple[int, int, int, int]:
        """Rows and columns of pixels at the (top, left, bottom, right) border that no scanned cell's crop covers."""
        height, width = self.image_size
        rows, columns = (np.flatnonzero(self.scanned.any(axis)) for axis in (1, 0))
        if not len(rows):
            return height, width, height, width
        top, left, *_ = self.cell_box(rows[0], columns[0])
        *_, bottom, right = self.cell_box(rows[-1], columns[-1])
        return max(top, 0), max(left, 0), max(height - bottom, 0), max(width - right, 0)

    @cached_property
    def cell_classes(self) -> CellClasses:
        """What makes a class of a cell's scores."""
        return CellClasses(self.class_names, self.background, self.peaks)

    def classes_of(self, scores: np.ndarray) -> np.ndarray:
        """The classes of cells, (..., K) -> (...); `zoo.objects.cell_classes.NONE` of those that are of none."""
        return self.cell_classes.of(scores, self.outputs)

    def objects(self) -> FoundObjects:
        """The objects of the image: peaks of the classes that are not the background; see `PeakFinder`.

        Raises:
            InputError: of a map without a background and without `peaks`, whose every cell is of a class, and of a
                counter's, whose numbers have no peaks.
        """
        finder = self.peak_finder()
        self.read_by(finder)
        return finder.found()

    def counts(self) -> dict[str, int] | dict[str, float]:
        """How many objects of each class there are: of a counter what its map adds up to, else see `objects`."""
        if self.outputs != "counts":
            return self.counts_of(self.objects())
        density = Density(self)
        self.read_by(density)
        return density.counts

    @property
    def density(self) -> np.ndarray:
        """Of a counter: objects in the pixels that are each cell's own, (rows, cols, classes), which sum to the counts.

        Raises:
            InputError: of a map that is no counter's.
        """
        return np.asarray(self.scores) / windows_of_pixel(self)

    def counts_of(self, found: FoundObjects) -> dict[str, int]:
        """How many of the objects found are of each class that objects may have."""
        numbers = np.bincount(found.classes, minlength=len(self.class_names)).tolist()
        return {self.class_names[index]: numbers[index] for index in self.cell_classes.objects}

    def peak_finder(self) -> PeakFinder:
        """The reader that finds the objects; see `objects`. A class without a distance has half the window's side."""
        check_no_counts("objects", self.outputs)
        if not self.cell_classes.find_objects:
            refuse("objects", "a map of a model without a background", "one trained with data.background, or on scenes")
        window = [side for side in self.geometry.window if math.isfinite(side)] or self.image_size
        distance = min(window) / 2
        return PeakFinder(self.cell_classes, self.outputs, self.centres, self.scale, distance, self.image_size)

    def wins(self) -> tuple[np.ndarray, int]:
        """How many cells are of each class, (classes,), and how many cells were not scanned."""
        wins = Wins(self.scores.shape[-1], self.classes_of)
        self.read_by(wins)
        return wins.counts, self.not_scanned

    @property
    def not_scanned(self) -> int:
        """How many cells were not scanned."""
        return int(self.scanned.size - np.count_nonzero(self.scanned))

    def read_by(self, *readers: Reader) -> None:
        """Read the scores once, part by part, and give every part to all readers.

        Raises:
            InputError: where scores are not finite of cells that were scanned.
        """
        for part in self.blocks(math.lcm(*(reader.side for reader in readers))):
            for reader in readers:
                reader.add(*part)

    def blocks(self, side: int = 1) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """The scores part by part: (first row, first column, scores of the part, which of its cells were scanned).

        Parts begin at multiples of `side`, so that squares of so many cells lie in one. Chunks of a Zarr array are read
        as a whole where that is a part of bearable size.

        Raises:
            InputError: where scores are not finite of cells that were scanned.
        """
        rows, columns, classes = self.scores.shape
        height, width = getattr(self.scores, "chunks", (1, columns))[:2]
        width = -(-width // side) * side
        height = -(-max(height, _SCORES_AT_ONCE // (width * classes)) // side) * side
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                part = np.s_[row : row + height, column : column + width]
                scores, scanned = np.asarray(self.scores[part]), self.scanned[part]
                check_known(scores, scanned, row, column)
                yield row, column, scores, scanned
                release(self.scores)

    def standing_out(self, scores: np.ndarray) -> np.ndarray:
        """How far the scores of cells that were scanned are from the median cell's, 0 to 1: (..., K) -> (...)."""
        median, far = self._usual_scores
        distance = np.linalg.norm(scores.astype(np.float64) - median, axis=-1)
        return np.clip(distance / far, 0, 1) if far > 0 else np.ones_like(distance)

    @cached_property
    def _usual_scores(self) -> tuple[np.ndarray, float]:
        return usual_scores(self.scores, self.scanned)

    @cached_property
    def own_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's and each column's own pixels begin, and where the last one's end: (rows + 1,), (cols + 1,).

        A cell's own pixels are the stride x stride ones in the middle of its crop, fewer where the next is nearer.
        Where the window is infinite, they lie side by side about the image's middle.
        """
        return pair(np.floor(edges).astype(int) for edges in self.edges)

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """`own_pixels` as they are before they are rounded."""
        return pair(map(edges_between, self.centres, self.stride))

    def cells_of_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row and each column of pixels, the cell whose crop is centred nearest; -1 beyond the grid."""
        return cells_of_pixels(self.own_pixels, self.image_size)

    def overlay(
        self, image: Any, class_index: int | None = None, opacity: float | None = None, side: int | None = None
    ) -> np.ndarray:
        """Colour the image by its scores: (H, W, 1 or 3) -> RGB (H, W, 3) uint8.

        Each cell colours its own pixels, the image in grey below. With `class_index`, that class's colour is as opaque
        as its probability. Without, the colour is the winner's, as opaque as the cell's scores are far from the median
        cell's: a classifier has an answer for empty background too, and what stands out is what is not background.

        Of a model that knows a background the image is in colour, and a cell of none of the other classes has no
        colour; that of the others is as opaque as their class is probable. Of a counter the image is in colour too, and
        the density of a class is shown, by default of that of which there are most objects (see
        `zoo.scanning.density.Density.over`).

        Args:
            image: the image that was scanned, an array or what is read by slices like one.
            class_index: the class to show instead of the winners.
            opacity: of the strongest colour; default: 0.65, and 0.4 over an image in colour.
            side: the most pixels that the picture may have along a side. A larger image is shown `factor(side)` times
                smaller: a pixel is the mean of its block of the image, coloured by the cell of the block's centre.

        Raises:
            InputError: where the image is not of the size that was scanned.
        """
        self.check_image(image)
        if self.outputs == "counts":
            density = Density(self)
            self.read_by(density)
            return density.over(view_below(image, side, in_colour=True), class_index, side, opacity)
        overlay = Overlay(self, class_index, side)
        self.read_by(overlay)
        return overlay.over(view_below(image, side, self.cell_classes.find_objects), opacity)

    def check_image(self, image: Any) -> None:
        """Check that an image has the size of the one that was scanned.

        Raises:
            InputError: where it has not.
        """
        if tuple(image.shape[:2]) != tuple(self.image_size):
            refuse("overlay", f"an image of {image.shape[:2]}", f"{self.image_size}")

    def factor(self, side: int | None) -> int:
        """How many pixels of the image one pixel of a picture of at most `side` pixels a side stands for."""
        return factor_for(self.image_size, side)


def _sides_text(sides: tuple[float, float]) -> str:
    """Two sides for people to read."""
    return " x ".join(f"{side:g}" for side in sides)
