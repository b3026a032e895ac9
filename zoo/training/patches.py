"""Patches of labelled images with the labels of their grids, as functions of seed, epoch and step alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from zoo.config.recipe import Augment
from zoo.data.crops import MARKED, overlap
from zoo.errors import refuse
from zoo.network.geometry import Geometry
from zoo.network.positions import Pair, pair
from zoo.objects.cell_labels import marked_cells, scene_labels
from zoo.objects.marked import Scene, Scenes
from zoo.pictures import as_pixel
from zoo.training.batches import one_hot
from zoo.training.jitter import draw_move, generator, moved, tinted


@dataclass(frozen=True)
class PatchForm:
    """The patches of a training: their sides in scanned pixels, and their grids.

    `size` is `window` and `cells` - 1 strides, so that a flipped or turned patch has the flipped or turned grid.
    """

    size: Pair
    window: Pair
    stride: Pair
    cells: Pair

    @classmethod
    def of(cls, geometry: Geometry, asked: Pair) -> "PatchForm":
        """The largest that fits into `asked` (height, width).

        Raises:
            InputError: where no window does.
        """
        window, stride = pair(geometry.window_sides), pair(geometry.stride)
        if any(side < least for side, least in zip(asked, window, strict=True)):
            refuse("train.dense.patch", list(asked), f"at least the model's window, {list(window)} pixels")
        steps = pair((side - least) // step for side, least, step in zip(asked, window, stride, strict=True))
        size = pair(least + count * step for least, count, step in zip(window, steps, stride, strict=True))
        return cls(size, window, stride, pair(count + 1 for count in steps))

    @property
    def is_square(self) -> bool:
        """Whether a quarter turn of a patch is one of another patch's shape with the same windows."""
        return self.window[0] == self.window[1] and self.stride[0] == self.stride[1]

    @property
    def turned(self) -> "PatchForm":
        """The form whose quarter turn is this one."""
        return PatchForm(self.size[::-1], self.window[::-1], self.stride[::-1], self.cells[::-1])

    def first(self, axis: int) -> int:
        """Where an image's first window begins: its middle is on the border, or half a pixel inside."""
        return -(self.window[axis] // 2)

    def ends(self, axis: int, side: int) -> tuple[int, int]:
        """The first and the last place at which a patch holds as many cells as it can of an image of so many rows."""
        first = self.first(axis)
        last = side - first - self.size[axis]
        return min(first, last), max(first, last)

    def about(self, axis: int, side: int, place: float) -> tuple[int, int]:
        """The first and the last of these places at which the window of a cell has its middle at `place`, or near."""
        first = round(place - self.size[axis] + self.window[axis] / 2)
        low, high = self.ends(axis, side)
        last = first + self.size[axis] - self.window[axis]
        return min(max(first, low), high), min(max(last, low), high)

    def pixels(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """The patch that begins at (top, left), float32, filled beyond the image's border."""
        region, inside = overlap(at, self.size, scene.pixels.shape)
        patch = np.empty((*self.size, scene.pixels.shape[2]), np.float32)
        patch[...] = as_pixel(scenes.fill, scene.pixels.dtype)
        patch[inside] = scene.pixels[region]
        return patch

    def labels(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """The labels of its cells, (rows, columns) int32; see `scene_labels`."""
        return scene_labels(scene, scenes, *self._middles(at), self.stride)

    def marked(self, scene: Scene, scenes: Scenes, at: Pair) -> np.ndarray:
        """Which of its cells are those of marks, (rows, columns) bool."""
        return marked_cells(scene, scenes, *self._middles(at), self.stride)

    def _middles(self, at: Pair) -> tuple[np.ndarray, np.ndarray]:
        """The middles of the windows of its rows and of its columns of cells."""
        rows, columns = (
            start + window / 2 + stride * np.arange(count)
            for start, window, stride, count in zip(at, self.window, self.stride, self.cells, strict=True)
        )
        return rows, columns


def training_patches(
    scenes: Scenes,
    form: PatchForm,
    augment: Augment,
    patches: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches without end, from `first_step` on: patches (B, H, W, C), one-hot labels (B, rows, columns, K).

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
            images, labels, are_marked = map(np.stack, zip(*drawn, strict=True))
            batch = (images, one_hot(labels, len(scenes.class_names)))
            yield (*batch, are_marked.astype(np.float32)) if marks else batch
        step = (epoch + 1) * steps


def _draw(
    scenes: Scenes,
    marks: Sequence[tuple[Scene, np.ndarray]],
    index: int,
    form: PatchForm,
    augment: Augment,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...]:
    """A patch of an image, its labels and which of them are marks, all turned, and the patch tinted."""
    scene, sides = scenes.labelled[index % len(scenes.labelled)], range(2)
    move = draw_move(augment.turns, augment.flip, form.is_square, rng)
    source = form.turned if move[0] % 2 else form
    if marks and rng.random() < MARKED:
        scene, place = marks[int(rng.integers(len(marks)))]
        bounds = [source.about(axis, scene.pixels.shape[axis], place[axis]) for axis in sides]
    else:
        bounds = [source.ends(axis, scene.pixels.shape[axis]) for axis in sides]
    at = pair(int(rng.integers(first, last + 1)) for first, last in bounds)
    image = tinted(source.pixels(scene, scenes, at), augment, rng)
    return tuple(
        moved(each, move) for each in (image, source.labels(scene, scenes, at), source.marked(scene, scenes, at))
    )


class WholeImages(keras.utils.PyDataset):
    """Every grid cell of images once, patch by patch: (patches, one-hot labels, the cells' weights).

    The images are extended by half a window, filled, so that the middles of the windows cover them. The mean loss of
    an epoch, weighed so, is the weighted mean over all labelled cells.
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
    def counts(self) -> np.ndarray:
        """How many cells each class has, (K,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.num_classes)

    def __len__(self) -> int:
        """How many batches."""
        return -(-len(self.places) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch."""
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        labels = one_hot(self.labels[part], self.num_classes)
        share = self.labels.size / (self.counts @ self.weights)
        patches = np.stack([self.form.pixels(scene, self.scenes, at) for scene, at in self.places[part]])
        return patches, labels, (labels @ self.weights * share).astype(np.float32)


def _places(scene: Scene, form: PatchForm) -> Iterator[Any]:
    """Where the patches of an image begin."""
    starts = []
    for axis in range(2):
        step = form.cells[axis] * form.stride[axis]
        count = -(-scene.pixels.shape[axis] // step)
        starts.append(form.first(axis) + step * np.arange(count))
    return ((int(top), int(left)) for top in starts[0] for left in starts[1])
