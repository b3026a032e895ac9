"""Labelled images scanned by a model, beside the labels of their grid cells."""

import keras
import numpy as np

from zoo.convert.conversion import convert
from zoo.large_images import scanner_of
from zoo.layer_table import describe
from zoo.network.network import Network
from zoo.network.positions import pair
from zoo.objects.cell_labels import IGNORED, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.scanning.options import Options
from zoo.scanning.pixels import Pixels
from zoo.scanning.score_map import ScoreMap


class SceneScanner:
    """Scans labelled images by a model, each with its whole border, at the scale that they were read at."""

    def __init__(self, model: keras.Model, scenes: Scenes):
        """Make ready.

        Args:
            model: a classifier with the scenes' classes, or its conversion.
            scenes: what the images are of.

        Raises:
            InputError: where the model cannot be converted.
        """
        self.scenes = scenes
        self.network = convert(Network.of(model)).network
        self._scan = scanner_of(self.network, Options(border="full"))
        self._macs: dict[tuple[int, ...], int | None] = {}

    def scan(self, scene: Scene) -> ScoreMap:
        """The scores of an image, whose places are in pixels of the given one."""
        # Of the given image the size alone is known here; what is scanned was brought to the model's scale before.
        blank = np.broadcast_to(np.zeros((), scene.pixels.dtype), (*scene.image_size, scene.pixels.shape[2]))
        return self._scan(Pixels(scene.pixels, given=Pixels(blank)))

    def labels(self, scene: Scene, score_map: ScoreMap) -> np.ndarray:
        """The labels of its grid cells, (rows, cols); see `scene_labels`."""
        rows, columns = (middles * by for middles, by in zip(score_map.centres, scene.scale, strict=True))
        return scene_labels(scene, self.scenes, rows, columns, pair(score_map.geometry.stride))

    def labelled(self, scene: Scene, score_map: ScoreMap) -> tuple[np.ndarray, np.ndarray]:
        """The scores (n, K) and the labels (n,) of the grid cells that have one."""
        return of_labelled_cells(score_map, self.labels(scene, score_map))

    def macs(self, score_map: ScoreMap) -> int | None:
        """The multiply-adds of a map, in one pass."""
        size = score_map.geometry.known_size
        if size not in self._macs:
            self._macs[size] = describe(self.network.model, size).macs
        return self._macs[size]


def of_labelled_cells(score_map: ScoreMap, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores (n, K) and the labels (n,) of the grid cells that have one, of labels (rows, cols)."""
    known = labels != IGNORED
    return np.asarray(score_map.scores)[known], labels[known]
