"""The measured influence of every pixel on one cell's score: the effective receptive field.

Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks"
(arXiv:1701.04128), section 2: the gradient of a unit's output with respect to the input. Theirs is an average over
random inputs and weights; here it is that of one trained model on one image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.convert.conversion import convolutionalize
from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.network.network import Network
from zoo.network.outputs import before_activation
from zoo.pictures import check_finite
from zoo.progress import aligned
from zoo.scanning.engines import check_scores
from zoo.scanning.grid import check_fit
from zoo.scanning.pixels import open_pixels
from zoo.scanning.tiles import tile_of
from zoo.scores import Outputs, to_probabilities
from zoo.settings import own_settings

Box = tuple[int, int, int, int]
# The share of all influence that makes the effective field.
_EFFECTIVE = 0.95


@dataclass(frozen=True)
class Influence:
    """What one cell of a grid looks at; boxes are (top, left, bottom, right) in pixels, half-open.

    `values`: how much each pixel of `part` matters to the score of class `class_index`, (h, w) float64; no pixel beyond
    that box does. `scores`: the cell's own, (classes,), as the model gives them; `outputs` says what they are.
    """

    cell: tuple[int, int]
    class_index: int
    values: np.ndarray
    part: Box
    scores: np.ndarray
    geometry: Geometry
    class_names: tuple[str, ...]
    outputs: Outputs

    @property
    def window(self) -> Box:
        """The crop that the cell stands for, not clipped at the image."""
        return self.geometry.cell_box(*self.cell)

    @property
    def field(self) -> Box:
        """The smallest rectangle around all pixels that can influence the cell, inside the image."""
        return self.geometry.cell_field(*self.cell)

    @property
    def receptive_field(self) -> Box | None:
        """The theoretical field, not clipped at the image; None where it is infinite."""
        if not self.geometry.bounded:
            return None
        starts = zip(self.geometry.first_pixel(), self.cell, self.geometry.stride, strict=True)
        first = tuple(start + index * stride for start, index, stride in starts)
        return (*first, *(start + int(side) for start, side in zip(first, self.geometry.receptive_field, strict=True)))

    @property
    def probability(self) -> float:
        """The class's probability at the cell."""
        return float(to_probabilities(self.scores, self.outputs)[self.class_index])

    def over(self, box: Box) -> np.ndarray:
        """The influence of the pixels of a box, zero where there is none: (h, w) float64."""
        values = np.zeros((box[2] - box[0], box[3] - box[1]))
        top, left, bottom, right = (*np.maximum(box[:2], self.part[:2]), *np.minimum(box[2:], self.part[2:]))
        if top < bottom and left < right:
            source = self.values[_within(self.part, (top, left, bottom, right))]
            values[_within(box, (top, left, bottom, right))] = source
        return values

    def share(self, box: Box) -> float:
        """The share of all influence that lies inside a box; zero where nothing has any."""
        return float(self.over(box).sum() / (self.values.sum() or 1))

    @property
    def effective_field(self) -> Box | None:
        """The smallest square, centred where the window is, that holds 95 % of all influence; None where none has any.

        It may reach beyond the image. Of a window with one odd side, it is a pixel short along one axis.
        """
        (top, left, bottom, right), part = self.window, self.part
        centre = (top + bottom) / 2, (left + right) / 2
        rows, columns = (np.arange(part[axis], part[axis + 2]) + 0.5 - centre[axis] for axis in range(2))
        sides = (2 * np.maximum.outer(abs(rows), abs(columns))).astype(int) + 1
        held = np.cumsum(np.bincount(sides.ravel(), self.values.ravel()))
        if not held[-1]:
            return None
        half = np.searchsorted(held, _EFFECTIVE * held[-1]) / 2
        return (*(math.ceil(middle - half) for middle in centre), *(math.floor(middle + half) for middle in centre))

    @property
    def boxes(self) -> dict[str, Box]:
        """The boxes by name, without the infinite and the empty."""
        found = {
            "window": self.window,
            "theoretical field": self.receptive_field,
            "exact field": self.field,
            "effective field": self.effective_field,
        }
        return {name: box for name, box in found.items() if box is not None and box[0] < box[2]}

    def sentence(self) -> str:
        """Cell, class, score and stride for people to read."""
        score = "" if self.outputs != "logits" else f"score {self.scores[self.class_index]:.4g}, "
        rows, columns = self.geometry.grid_shape(*self.geometry.image_size)
        return (
            f"cell {self.cell[0]},{self.cell[1]} of {rows} x {columns}, class {self.class_names[self.class_index]}: "
            f"{score}probability {self.probability:.1%}; stride {' x '.join(map(str, self.geometry.stride))}"
        )

    def table(self) -> str:
        """The sentence, and a line for every box: its sides, and the share of the influence inside it."""
        rows = [(name, *map(str, box), f"{self.share(box):.1%}") for name, box in self.boxes.items()]
        lines = [self.sentence(), aligned([("", "top", "left", "bottom", "right", "influence inside"), *rows])]
        if self.receptive_field is None:
            lines.append("the theoretical field is infinite: a block inside this model pools over the whole image")
        if not self.values.any():
            lines.append("no pixel has any influence here: the gradient is zero everywhere")
        return "\n".join(lines)


def _within(outer: Box, inner: Box) -> tuple[slice, slice]:
    return tuple(slice(inner[axis] - outer[axis], inner[axis + 2] - outer[axis]) for axis in range(2))


@own_settings()
def influence(
    fcn: keras.Model, image: np.ndarray | str | Path, cell: tuple[int, int], class_index: int | None = None
) -> Influence:
    """Measure how much each pixel of an image matters to one cell of its score map.

    That is the absolute gradient of the class's score, before a softmax or sigmoid at the end of the model, with
    respect to the pixel, summed over the channels. Only the part of the image that the cell can depend on is run.

    Args:
        fcn: a converted model; a classifier is converted first.
        image: an array (H, W) or (H, W, C), anything with a shape that is read by slices, or a file.
        cell: row and column in the grid of `scan`.
        class_index: the class whose score it is; default: the cell's winner.

    Raises:
        InputError: where the image does not suit the model, the grid has no such cell, the model gives no map, or the
            backend has no gradients.
    """
    backend = keras.backend.backend()
    if backend not in _GRADIENTS:
        raise InputError(f"influence: KERAS_BACKEND is {backend!r}; accepted: {', '.join(_GRADIENTS)}")
    Network.of(fcn).check_one_output()
    fcn = convolutionalize(fcn)
    network = Network.of(fcn)
    with open_pixels(fcn, image) as source:
        placed = network.geometry(source.shape[:2])
        check_fit(fcn, placed)
        _check_cell(placed, cell)
        names = network.class_names
        if class_index is not None and class_index not in range(len(names)):
            raise InputError(f"class: received {class_index!r}; accepted: 0 to {len(names) - 1}")
        tile = tile_of(placed, *cell)
        pixels = check_finite(source[tile.pixels], source.name)
    batch = pixels[None].astype(np.float64 if fcn.inputs[0].dtype == "float64" else np.float32)
    here = (0, *(inner.start for inner in tile.inner))
    scores = keras.ops.convert_to_numpy(fcn(batch, training=False))[here].astype(np.float64)
    check_scores(scores, f"cell {cell[0]},{cell[1]}", fcn)
    chosen = int(scores.argmax()) if class_index is None else class_index
    outputs = before_activation(network.graph)
    gradient = _GRADIENTS[backend](lambda images: outputs(images)[0][(*here, chosen)], batch)
    check_scores(gradient, f"cell {cell[0]},{cell[1]}: influence", fcn)
    rows, columns = tile.pixels
    return Influence(
        cell=tuple(cell),
        class_index=chosen,
        values=np.abs(gradient[0].astype(np.float64)).sum(-1),
        part=(rows.start, columns.start, rows.stop, columns.stop),
        scores=scores,
        geometry=placed,
        class_names=names,
        outputs=network.outputs_are[0],
    )


def _check_cell(placed: Geometry, cell: tuple[int, int]) -> None:
    """See that the grid has the cell; else say from which size of image on it would."""
    if len(cell) != 2 or not all(isinstance(index, int | np.integer) for index in cell):
        raise InputError(f"cell: received {cell!r}; accepted: row and column, two whole numbers")
    grid = placed.grid_shape(*placed.image_size)
    if all(0 <= index < count for index, count in zip(cell, grid, strict=True)):
        return
    size = " x ".join(map(str, placed.image_size))
    known = [f"{size} pixels give a grid of {grid[0]} x {grid[1]}"]
    for axis, (line, side) in enumerate((("row", "height"), ("column", "width"))):
        if cell[axis] >= grid[axis]:
            more = placed.size_for(*(count + (each == axis) for each, count in enumerate(grid)))[axis]
            known.append(f"{line} {grid[axis]} appears at a {side} of {more:,} pixels")
    raise InputError(
        f"cell: received {cell[0]},{cell[1]}; accepted: rows 0 to {grid[0] - 1}, columns 0 to {grid[1] - 1} "
        f"({'; '.join(known)})"
    )


def _tensorflow_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    # As a graph, which leaves out the kernels' gradients that nobody asks for: TensorFlow 2.21 crashes over those of a
    # strided 1x1 convolution on one image of even sides.
    @tf.function
    def gradient(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            value = score(images)
        return tape.gradient(value, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return gradient(tf.constant(images)).numpy()


def _jax_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import jax

    return np.asarray(jax.grad(score)(images))


def _torch_gradient(score: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import torch

    images = keras.ops.convert_to_tensor(images).requires_grad_()
    (gradient,) = torch.autograd.grad(score(images), images, materialize_grads=True)
    return keras.ops.convert_to_numpy(gradient)


_GRADIENTS = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}
