"""The result of a scan: scores on a grid, and where each cell lies in the image."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.dense.geometry import Geometry
from zoo.dense.outputs import Outputs, to_probabilities
from zoo.errors import InputError
from zoo.saving import replacing


@dataclass(frozen=True)
class ScoreMap:
    """Scores (rows, cols, classes) of a large image; cell (row, col) answers for `geometry.cell_box(row, col)`.

    The scores are what the model gives, logits for the zoo's own; `outputs` says what they are. `image_size` is
    (height, width) in pixels.
    """

    scores: np.ndarray
    geometry: Geometry
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    outputs: Outputs = "logits"

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax over the classes, cell by cell, or the scores where they are probabilities: (rows, cols, classes)."""
        return to_probabilities(self.scores, self.outputs)

    def save(self, folder: str | Path) -> Path:
        """Write `scores.npz` (scores, class_names) and `geometry.json` into `folder`."""
        folder = Path(folder)
        with replacing(folder / "scores.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, scores=self.scores, class_names=np.array(self.class_names))
        about = {
            **self.geometry.to_dict(),
            "image_size": list(self.image_size),
            "grid_shape": list(self.scores.shape[:2]),
            "uncovered": dict(zip(("top", "left", "bottom", "right"), self.uncovered, strict=True)),
        }
        with replacing(folder / "geometry.json") as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n")
        return folder

    @property
    def uncovered(self) -> tuple[int, int, int, int]:
        """Rows and columns of pixels at the (top, left, bottom, right) border that no cell's crop covers."""
        rows, columns = self.scores.shape[:2]
        top, left, *_ = self.geometry.cell_box(0, 0)
        *_, bottom, right = self.geometry.cell_box(rows - 1, columns - 1)
        height, width = self.image_size
        return max(top, 0), max(left, 0), max(height - bottom, 0), max(width - right, 0)

    def _distance_from_median(self) -> np.ndarray:
        """How far each cell's scores are from the median cell's, 0 to 1: (rows, cols).

        1 begins at the 95th percentile, or at a quarter of the largest distance where fewer cells stand out.
        """
        scores = self.scores.astype(np.float64)
        distance = np.linalg.norm(scores - np.median(scores, axis=(0, 1)), axis=-1)
        far = max(np.percentile(distance, 95), distance.max() / 4)
        return np.clip(distance / far, 0, 1) if far > 0 else np.ones_like(distance)

    def cells_of_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row and each column of pixels, the cell whose crop is centred nearest; -1 beyond the grid.

        A cell's own pixels are the stride x stride ones in the middle of its crop.
        """
        found = []
        first = self.geometry.cell_box(0, 0)
        for axis, side in enumerate(self.image_size):
            stride, window = self.geometry.stride[axis], self.geometry.window[axis]
            begin = first[axis] + (window - stride) // 2
            cell = (np.arange(side) - begin) // stride
            found.append(np.where((cell >= 0) & (cell < self.scores.shape[axis]), cell, -1))
        return tuple(found)

    def overlay(self, image: np.ndarray, class_index: int | None = None, opacity: float = 0.65) -> np.ndarray:
        """Colour the image by its scores: (H, W, 1 or 3) -> RGB (H, W, 3) uint8.

        Each cell colours its own pixels, the image in grey below. With `class_index`, that class's colour is as opaque
        as its probability. Without, the colour is the winner's, as opaque as the cell's scores are far from the median
        cell's: a classifier has an answer for empty background too, and what stands out is what is not background.

        Raises:
            InputError: where the image is not of the size that was scanned.
        """
        if tuple(image.shape[:2]) != tuple(self.image_size):
            raise InputError(f"overlay: received an image of {image.shape[:2]}; accepted: {self.image_size}")
        probabilities = self.probabilities
        classes = probabilities.shape[-1]
        if class_index is None:
            colours = palette(classes)[probabilities.argmax(-1)]
            strength = self._distance_from_median()
        else:
            colours = np.broadcast_to(palette(classes)[class_index], (*probabilities.shape[:2], 3))
            strength = probabilities[..., class_index]
        rows, columns = self.cells_of_pixels()
        known = (rows >= 0)[:, None] & (columns >= 0)[None, :]
        where = np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))
        weight = (strength[where] * known * opacity)[..., None]
        grey = to_grey(image)[..., None] * np.ones(3)
        return np.round(grey * (1 - weight) + 255 * colours[where] * weight).astype(np.uint8)


def to_grey(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) of any depth as grey values 0 to 255, (H, W) float; 16-bit images by their own range."""
    grey = image.astype(np.float64).mean(-1)
    if image.dtype == np.uint8:
        return grey
    low, high = grey.min(), grey.max()
    return (grey - low) * (255 / (high - low) if high > low else 0)


def palette(classes: int) -> np.ndarray:
    """One colour a class, (classes, 3) in 0 to 1, well apart; the tenth and later ones repeat in shades."""
    from matplotlib import colormaps

    names = "tab10" if classes <= 10 else "tab20"
    if classes <= 20:
        return np.array(colormaps[names].colors)[:classes]
    return colormaps["gist_rainbow"](np.linspace(0, 1, classes))[:, :3]
