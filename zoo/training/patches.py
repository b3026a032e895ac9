"""Patches of labelled images with the labels of their grids, as functions of seed, epoch and step alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from zoo.card import Target
from zoo.config.recipe import Augment
from zoo.data.crops import MARKED, overlap
from zoo.errors import refuse
from zoo.network.geometry import Geometry
from zoo.network.positions import Pair, pair
from zoo.objects.cell_labels import marked_cells, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.objects.window_counts import scene_counts
from zoo.pictures import as_pixel
from zoo.training.batches import one_hot
from zoo.training.jitter import draw_move, generator, moved, tinted


@dataclass(frozen=True)
class PatchForm:
    """The patches of a training: their sides in scanned pixels, and their grids.

    `size` is `window` and `cells` - 1 strides, so that a flipped or turned patch has the flipped or turned grid.
    `target`: what a cell is to give, see `zoo.config.recipe.TrainConfig`. The middles of the windows of an image cover
    it; where objects are counted, they are all windows that reach it, as a scan has them with `border="full"`.
    """

    size: Pair
    window: Pair
    stride: Pair
    cells: Pair
    target: Target = "class"

    @classmethod
    def of(cls, geometry: Geometry, asked: Pair, target: Target = "class") -> "PatchForm":
        """The largest that fits into `asked` (height, width).

        Raises:
            InputError: where no window does.
        """
        window, stride = pair(geometry.window_sides), pair(geometry.stride)
        if any(side < least for side, least in zip(asked, window, strict=True)):
            refuse("train.dense.patch", list(asked), f"at least the model's window, {list(window)} pixels")
        steps = pair((side - least) // step for side, least, step in zip(asked, window, stride, strict=True))
        size = pair(least + count * step for least, count, step in zip(window, steps, stride, strict=True))
        return cls(size, window, stride, pair(count + 1 for count in steps), target)

    @property
    def is_square(self) -> bool:
        """Whether a quarter turn of a patch is one of another patch's shape with the same windows."""
        return self.window[0] == self.window[1] and self.stride[0] == self.stride[1]

    @property
    def turned(self) -> "PatchForm":
        """The form whose quarter turn is this one."""
        return replace(
            self, size=self.size[::-1], window=self.window[::-1], stride=self.stride[::-1], cells=self.cells[::-1]
        )

    def first(self, axis: int) -> int:
        """Where an image's first window begins.

        Its middle is on the border, or half a pixel inside; or, to be counted, its last stride is the image's first.
        """
        if self.target == "count":
            return self.stride[axis] - self.window[axis]
        return -(self.window[axis] // 2)

    def starts(self, axis: int, side: int) -> np.ndarray:
        """Where patches begin that hold each cell of an image of so many rows once."""
        step = self.cells[axis] * self.stride[axis]
        length = side - self.first(axis) if self.target == "count" else side
        return self.first(axis) + step * np.arange(-(-length // step))

    def ends(self, axis: int, side: int) -> tuple[int, int]:
        """The first and the last place at which a patch holds as many cells as it can of an image of so many rows."""
        first = self.first(axis)
        last = side - first - self.size[axis]
        return min(first, last), max(first, last)

    def draw(self, axis: int, side: int, rng: np.random.Generator) -> int:
        """One of these places.

        Those at the ends are drawn more often where objects are counted, as the outermost windows are in no others.
        """
        first, last = self.ends(axis, side)
        around = (self.size[axis] - self.window[axis]) // 2 if self.target == "count" else 0
        return min(max(int(rng.integers(first - around, last + around + 1)), first), last)

    def draw_about(self, axis: int, side: int, place: float, rng: np.random.Generator) -> int:
        """One of these places at which the window of a cell has its middle at `place`, or near."""
        first = round(place - self.size[axis] + self.window[axis] / 2)
        low, high = self.ends(axis, side)
        last = first + self.size[axis] - self.window[axis]
        return int(rng.integers(min(max(first, low), high), min(max(last, low), high) + 1))

    def pixels(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """The patch that begins at (top, left), float32, filled beyond the image's border."""
        region, inside = overlap(at, self.size, scene.pixels.shape)
        patch = np.empty((*self.size, scene.pixels.shape[2]), np.float32)
        patch[...] = as_pixel(scenes.fill, scene.pixels.dtype)
        patch[inside] = scene.pixels[region]
        return patch

    def labels(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """The labels of its cells, (rows, columns) int32; see `scene_labels`.

        Or their numbers of objects, (rows, columns, K) float32; see `scene_counts`.
        """
        if self.target == "count":
            return scene_counts(scene, *self._windows(at), self.window, len(scenes.class_names))
        return scene_labels(scene, scenes, *self._middles(at), self.stride)

    def marked(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """Which of its cells are those of marks, (rows, columns) bool."""
        return marked_cells(scene, scenes, *self._middles(at), self.stride)

    def _middles(self, at: Pair) -> tuple[np.ndarray, np.ndarray]:
        """The middles of the windows of its rows and of its columns of cells."""
        rows, columns = (starts + side / 2 for starts, side in zip(self._windows(at), self.window, strict=True))
        return rows, columns

    def reaches(self, scene: Scene, at: Pair) -> np.ndarray:
        """Whether the windows of its cells have a pixel of the image, (rows, columns) bool."""
        rows, columns = (
            (starts > -window) & (starts < side)
            for starts, window, side in zip(self._windows(at), self.window, scene.pixels.shape, strict=False)
        )
        return rows[:, None] & columns

    def one_hot(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """The labels of a batch as training takes them, (..., rows, columns, K) float32: one-hot, or numbers."""
        return labels if self.target == "count" else one_hot(labels, num_classes)

    def _windows(self, at: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Where the windows of its cells begin: of the rows, and of the columns."""
        return pair(
            start + stride * np.arange(count) for start, stride, count in zip(at, self.stride, self.cells, strict=True)
        )


def training_patches(
    scenes: Scenes,
    form: PatchForm,
    augment: Augment,
    patches: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches without end, from `first_step` on: patches (B, H, W, C), one-hot labels or numbers (B, rows, columns, K).

    Of every training image an epoch takes `patches`, in an order of its own, at places drawn evenly from those at which
    a patch holds as many of the image's cells as it can. The label of a cell that does not count is zeros.

    Where images have marks, the share `MARKED` of the patches is about one of these in their place, each mark being as
    likely as any, and a third array says which cells are those of marks, (B, rows, columns) float32: 1 of these, else
    0. An image that is known at its marks alone has no other patches.
    """
    total = len(scenes.labelled) * patches
    marks = [(scene, place) for scene in scenes.marked for place in scene.scanned_marks.centres]
    steps = total // batch_size
    step = first_step
    while True:
        epoch, start = divmod(step, steps)
        order = np.random.default_rng([seed, epoch]).permutation(total)
        for position in range(start, steps):
            chosen = order[position * batch_size : (position + 1) * batch_size]
            drawn = [
                _draw(scenes, marks, int(index), form, augment, generator(seed, epoch, int(index))) for index in chosen
            ]
            images, labels, *marked = map(np.stack, zip(*drawn, strict=True))
            labels = form.one_hot(labels, len(scenes.class_names))
            yield images, labels, *(each.astype(np.float32) for each in marked)
        step = (epoch + 1) * steps


def _draw(
    scenes: Scenes,
    marks: Sequence[tuple[Scene, np.ndarray]],
    index: int,
    form: PatchForm,
    augment: Augment,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...]:
    """A patch of an image, its labels and, where there are marks, which of them these are; turned, the patch tinted."""
    scene = scenes.labelled[index % len(scenes.labelled)]
    move = draw_move(augment.turns, augment.flip, form.is_square, rng)
    source = form.turned if move[0] % 2 else form
    if marks and rng.random() < MARKED:
        scene, place = marks[int(rng.integers(len(marks)))]
        at = pair(source.draw_about(axis, scene.pixels.shape[axis], place[axis], rng) for axis in range(2))
    else:
        at = pair(source.draw(axis, scene.pixels.shape[axis], rng) for axis in range(2))
    image = tinted(source.pixels(scene, scenes, at), augment, rng)
    arrays = [image, source.labels(scene, scenes, at), *([source.marked(scene, scenes, at)] if marks else [])]
    return tuple(moved(each, move) for each in arrays)


class WholeImages(keras.utils.PyDataset):
    """Every grid cell of images once, patch by patch: (patches, one-hot labels or numbers, the cells' weights).

    The images are extended, filled, as far as their cells' windows reach (see `PatchForm`). The mean loss of an epoch,
    weighed so, is the weighted mean over all labelled cells; or, of numbers, the mean over all cells of the images.
    """

    def __init__(self, scenes: Scenes, images: Sequence[Scene], form: PatchForm, batch_size: int):
        """Take labelled images, the patches that they are cut into, and how many of those make a batch."""
        super().__init__()
        self.scenes, self.form, self.batch_size = scenes, form, batch_size
        self.num_classes = len(scenes.class_names)
        self.places = [(scene, at) for scene in images for at in _places(scene, form)]
        self.labels = np.stack([form.labels(scene, scenes, at) for scene, at in self.places])
        self.weights = np.ones(self.num_classes, np.float32)

    @cached_property
    def reached(self) -> np.ndarray:
        """Which cells are an image's, (patches, rows, columns) bool; the last patches of one have others too."""
        return np.stack([self.form.reaches(scene, at) for scene, at in self.places])

    @cached_property
    def counts(self) -> np.ndarray:
        """How many cells each class has, (K,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.num_classes)

    def __len__(self) -> int:
        """How many batches."""
        return -(-len(self.places) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch."""
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        labels = self.form.one_hot(self.labels[part], self.num_classes)
        if self.form.target == "count":
            weights, total = self.reached[part], self.reached.sum()
        else:
            weights, total = labels @ self.weights, self.counts @ self.weights
        share = math.prod(self.labels.shape[:3]) / total
        patches = np.stack([self.form.pixels(scene, self.scenes, at) for scene, at in self.places[part]])
        return patches, labels, (weights * share).astype(np.float32)


def _places(scene: Scene, form: PatchForm) -> Iterator[Any]:
    """Where the patches of an image begin."""
    tops, lefts = (form.starts(axis, scene.pixels.shape[axis]) for axis in range(2))
    return ((int(top), int(left)) for top in tops for left in lefts)
