"""The measured influence of every pixel on one cell's score: the effective receptive field.

Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks"
(arXiv:1701.04128), section 2: the gradient of a unit's output with respect to the input. Theirs is an average over
random inputs and weights; here it is that of one trained model on one image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.network.positions import pair
from zoo.progress import aligned
from zoo.scores import Outputs, to_probabilities

Box = tuple[int, int, int, int]
# The share of all influence that makes the effective field.
_EFFECTIVE = 0.95


@dataclass(frozen=True)
class Influence:
    """What one cell of a grid looks at; boxes are (top, left, bottom, right) in pixels of the given image, half-open.

    `values`: how much each pixel of `part` matters to the score of class `class_index`, (h, w) float64; no pixel beyond
    that box does. `scores`: the cell's own, (classes,); `outputs` says what they are. `window`: the crop that the cell
    stands for, `receptive_field`: its theoretical field, None where that is infinite; neither is clipped at the image.
    `field`: the smallest rectangle around all pixels that can influence the cell, inside the image. `grid_shape` and
    `stride`: those of the grid, the latter in pixels of the given image. `notes`: what to know of the scale that it was
    brought to, a line each.
    """

    cell: tuple[int, int]
    class_index: int
    values: np.ndarray
    part: Box
    scores: np.ndarray
    window: Box
    field: Box
    receptive_field: Box | None
    grid_shape: tuple[int, int]
    stride: tuple[float, float]
    class_names: tuple[str, ...]
    outputs: Outputs
    notes: tuple[str, ...] = ()

    @property
    def probability(self) -> float:
        """The class's probability at the cell."""
        return float(to_probabilities(self.scores, self.outputs)[self.class_index])

    def over(self, box: Box) -> np.ndarray:
        """The influence of the pixels of a box, zero where there is none: (h, w) float64."""
        values = np.zeros((box[2] - box[0], box[3] - box[1]))
        top, left = map(max, box[:2], self.part[:2])
        bottom, right = map(min, box[2:], self.part[2:])
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
        if not held.any():
            return None
        half = np.searchsorted(held, _EFFECTIVE * held[-1]) / 2
        return (*(math.ceil(middle - half) for middle in centre), *(math.floor(middle + half) for middle in centre))

    @property
    def boxes(self) -> dict[str, Box]:
        """The boxes by name, without the infinite and the empty."""
        boxes = {
            "window": self.window,
            "theoretical field": self.receptive_field,
            "exact field": self.field,
            "effective field": self.effective_field,
        }
        return {name: box for name, box in boxes.items() if box is not None and box[0] < box[2]}

    def sentence(self) -> str:
        """Cell, class, score and stride for people to read."""
        number = f"{self.scores[self.class_index]:.4g}"
        if self.outputs == "counts":
            answer = f"{number} objects in the window"
        else:
            answer = f"{f'score {number}, ' if self.outputs == 'logits' else ''}probability {self.probability:.1%}"
        rows, columns = self.grid_shape
        return (
            f"cell {self.cell[0]},{self.cell[1]} of {rows} x {columns}, class {self.class_names[self.class_index]}: "
            f"{answer}; stride {' x '.join(f'{side:g}' for side in self.stride)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Cell, class, scores by class, stride, and every box with its share of the influence, as JSON holds it."""
        return {
            "cell": list(self.cell),
            "grid": list(self.grid_shape),
            "class": self.class_names[self.class_index],
            self.outputs: dict(zip(self.class_names, map(float, self.scores), strict=True)),
            "stride": [*map(float, self.stride)],
            "boxes": {
                name: {"box": [*map(int, box)], "influence_inside": self.share(box)} for name, box in self.boxes.items()
            },
        }

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
    return pair(slice(inner[axis] - outer[axis], inner[axis + 2] - outer[axis]) for axis in range(2))
