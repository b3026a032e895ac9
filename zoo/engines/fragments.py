"""A network without padding run on a finer grid, in fragments; `zoo.network.finer` says what they are."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.network.finer import FinerGeometry, too_small
from zoo.network.moves import Border, Slide
from zoo.network.network import Network
from zoo.network.positions import Lattice, pair


class Fragments:
    """The scores of a network without padding at every cell of a finer grid.

    Cell (r, c) is its answer to the crop that begins at pixel (r * stride, c * stride). A crop that ends beyond the
    image only by last rows that the network leaves unused has a cell too, which `geometry.grid_shape` does not count.
    """

    def __init__(
        self, network: Network, geometry: FinerGeometry, applied: Sequence[keras.Operation | None] | None = None
    ):
        """Take the network, and the geometry of the finer grid.

        `applied`: for every step the layer to call in its layer's place, or None, to hand its input on.
        """
        self.geometry, self._graph = geometry, network.graph
        called = [step.layer for step in network.graph.steps] if applied is None else applied
        moves = map(network.moves, range(len(called)))
        self._steps = list(zip(self._graph.steps, called, moves, strict=True))
        self._last_use = {key: index for index, step in enumerate(self._graph.steps) for key in step.inputs}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores of images (B, h, w, C): (B, rows, cols, K), in the model's precision.

        Raises:
            InputError: where the images are too small for a cell.
        """
        return ops.convert_to_numpy(self.tensor(ops.convert_to_tensor(images, self._graph.model.inputs[0].dtype)))

    def tensor(self, images: Any) -> Any:
        """The scores of images that are a tensor of the backend, as one; gradients flow to the images.

        Raises:
            InputError: where the images are too small for a cell.
        """
        batch, *size = images.shape[:3]
        values = {self._graph.inputs[0]: images}
        lattices = {self._graph.inputs[0]: (Lattice(size[0]), Lattice(size[1]))}
        for index, (step, layer, step_moves) in enumerate(self._steps):
            before = [lattices[key] for key in step.inputs]
            after = pair(
                move.lattice(along, stride)
                for move, along, stride in zip(step_moves, zip(*before, strict=True), self.geometry.stride, strict=True)
            )
            if 0 in (after[0].size, after[1].size):
                raise too_small(self.geometry, size)
            if layer is None:
                made = values[step.inputs[0]]
            elif slides := [move for move in step_moves if isinstance(move, Slide)]:
                made = _slide(layer, slides, values[step.inputs[0]], before[0], after, batch)
            elif isinstance(step_moves[0], Border):
                made = layer(values[step.inputs[0]])
            else:
                cut = {key: values[key][:, : after[0].length, : after[1].length] for key in step.inputs}
                args, kwargs = step.refill(cut)
                made = layer(*args, **kwargs)
            for key, value in zip(step.outputs, keras.tree.flatten(made), strict=True):
                values[key], lattices[key] = value, after
            for key in step.inputs:
                if self._last_use[key] == index and key in values:
                    del values[key]
        rows, columns = lattices[self._graph.outputs[0]]
        scores = values[self._graph.outputs[0]]
        scores = ops.reshape(scores, (rows.fragments, columns.fragments, batch, rows.length, columns.length, -1))
        scores = ops.transpose(scores, (2, 3, 0, 4, 1, 5))
        scores = ops.reshape(scores, (batch, rows.length * rows.fragments, columns.length * columns.fragments, -1))
        return scores[:, : rows.size, : columns.size]


def _slide(
    layer: keras.Operation,
    slides: Sequence[Slide],
    maps: Any,
    before: Sequence[Lattice],
    after: Sequence[Lattice],
    batch: int,
) -> Any:
    """Run a windowed layer on every phase that the lattice after it needs: fragments in, fragments out."""
    phases = [_phases(*each) for each in zip(before, after, strict=True)]
    made, order = [], []
    for (top, rows), (left, columns) in product(*(each.items() for each in phases)):
        taken = [(source[0] * before[1].fragments + source[1]) for source in product(rows.values(), columns.values())]
        order += [row * after[1].fragments + column for row, column in product(rows, columns)]
        part = _take(maps, taken, batch)
        for axis, first in enumerate((top, left)):
            rows_needed = (after[axis].length - 1) * slides[axis].stride + slides[axis].extent
            part = _rows(part, axis + 1, first, rows_needed)
        made.append(layer(part))
    joined = ops.concatenate(made) if len(made) > 1 else made[0]
    return _take(joined, np.argsort(order).tolist(), batch)


def _phases(before: Lattice, after: Lattice) -> dict[int, dict[int, int]]:
    """For each phase of a strided layer, which fragments after it come from which ones before it."""
    phases: dict[int, dict[int, int]] = {}
    for fragment in range(after.fragments):
        phase, source = divmod(fragment * (after.pitch // before.pitch), before.fragments)
        phases.setdefault(phase, {})[fragment] = source
    return phases


def _take(maps: Any, fragments: list[int], batch: int) -> Any:
    """The given fragments, in that order, of those on the batch axis."""
    if fragments == list(range(maps.shape[0] // batch)):
        return maps
    return ops.take(maps, [fragment * batch + image for fragment in fragments for image in range(batch)], axis=0)


def _rows(maps: Any, axis: int, first: int, count: int) -> Any:
    """Rows [first, first + count) along an axis, with zeros beyond the end."""
    missing = first + count - maps.shape[axis]
    if missing > 0:
        maps = ops.pad(maps, [(0, missing if each == axis else 0) for each in range(4)])
    return maps[(slice(None),) * axis + (slice(first, first + count),)]
