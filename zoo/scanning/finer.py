"""Scores on a finer grid than a network's own stride: one cell at every multiple of any divisor of it.

A strided layer looks at every s-th position and leaves s - 1 phases out. Here it is run on each phase that the wanted
grid needs, and the results go side by side on the batch axis as fragments, on which the later layers run unchanged; at
the end the fragments are interleaved (Giusti et al. 2013, "Fast image scanning with deep max-pooling convolutional
neural networks", section 2; Sermanet et al. 2014, OverFeat, section 3.3, for the last pooling alone). The result is
that of shift-and-stitch (Long et al. 2015, section 3.2), the network run on the image shifted by 0, t, 2t ... pixels,
without computing twice what the shifts share.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.convert.conversion import convolutionalize
from zoo.errors import InputError
from zoo.network.geometry import Geometry
from zoo.network.graph import Step
from zoo.network.moves import Border, Slide
from zoo.network.network import Network
from zoo.network.positions import Lattice
from zoo.network.program import Ints
from zoo.scanning.engines import Run, make_engine


@dataclass(frozen=True)
class FinerGeometry(Geometry):
    """The geometry of a grid of `stride` pixels, a divisor of the network's `total_stride`.

    Without padding the grid holds the windows that lie in the image: (side - window) // stride + 1 along an axis. With
    padding it is that of shift-and-stitch, where every shifted image has a border of its own.
    """

    total_stride: Ints

    def grid_shape(self, *size: int) -> Ints:
        """Rows and columns of the grid for an image of height and width `size`; zero where no window fits."""
        self._check_axes("image size", size)
        return tuple(self._cells(side, axis) for axis, side in enumerate(size))

    def fits(self, *size: int) -> bool:
        """Whether an image of height and width `size` has a cell, and its layers take every shift that has some."""
        if 0 in self.grid_shape(*size):
            return False
        if self.padding_free:
            return True
        shifted = ([length for _, length in self.shifts(side, axis)] for axis, side in enumerate(size))
        return all(self.program.fits(*lengths) for lengths in product(*shifted))

    def keeps_function(self, *size: int) -> bool:
        """Whether branches meet in every shift of an image as at the training size; see `Geometry.keeps_function`."""
        self._check_axes("image size", size)
        if self.padding_free:
            return True
        shifted = ([length for _, length in self.shifts(side, axis)] for axis, side in enumerate(size))
        keeps = super().keeps_function
        return all(keeps(*lengths) for lengths in product(*shifted))

    def cell_field(self, *cell: int) -> Ints:
        """The smallest rectangle around all pixels that can influence a cell; see `Geometry.cell_field`."""
        self._check_cell(cell)
        if self.padding_free:
            sides = zip(self.first_pixel(), cell, self.stride, strict=True)
            first = [start + index * step for start, index, step in sides]
            return (*first, *(start + int(reach) for start, reach in zip(first, self.receptive_field, strict=True)))
        phases = [total // step for total, step in zip(self.total_stride, self.stride, strict=True)]
        shifted = [
            list(self.shifts(side, axis))[index % count]
            for axis, (side, index, count) in enumerate(zip(self.image_size, cell, phases, strict=True))
        ]
        plain = replace(self._plain(), image_size=tuple(length for _, length in shifted))
        found = plain.cell_field(*(index // count for index, count in zip(cell, phases, strict=True)))
        return tuple(pixel + shift for pixel, (shift, _) in zip(found, shifted * 2, strict=True))

    def shifts(self, side: int, axis: int) -> Iterator[tuple[int, int]]:
        """For a padded net: by how many pixels to shift an image of `side`, and how many then to take, where any are.

        All `side - shift` are taken, unless a strided SAME layer aligns its windows by the size: then so many fewer
        that the size aligns them as the window's does.
        """
        stride, total = self.stride[axis], self.total_stride[axis]
        for shift in range(0, total, stride):
            length = side - shift
            if stride < total and self.shifts_with_size:
                length -= (length - self.window[axis]) % total
            if length > 0 and self.program.cells(axis, length) > 0:
                yield shift, length

    def lattices(self, axis: int, side: int) -> dict[int, Lattice]:
        """The positions at which the grid needs every tensor, by its key, for an image of `side` rows, unpadded."""
        return self.program.values(
            Lattice(side), lambda move, lattices: move.lattice(lattices, self.stride[axis]), axis
        )

    def _cells(self, side: int, axis: int) -> int:
        if not self.padding_free:
            return sum(self.program.cells(axis, length) for _, length in self.shifts(side, axis))
        positions = self.lattices(axis, side)[self.program.grid].size
        inside = (side - self.offset[axis] - self.window[axis]) // self.stride[axis] + 1
        return max(min(positions, inside), 0)

    def _plain(self) -> Geometry:
        return Geometry(**{each.name: getattr(self, each.name) for each in fields(Geometry)})


def finer_geometry(
    fcn: keras.Model, stride: int | tuple[int, int], image_size: tuple[int, int] | None = None
) -> FinerGeometry:
    """The geometry of a fully-convolutional model's scores at every `stride` pixels.

    Args:
        fcn: a converted model, or a classifier, which counts as its conversion.
        stride: a divisor of the network's stride, or one for rows and one for columns.
        image_size: (height, width) of the image, where fields or tiles are wanted.

    Raises:
        InputError: where `stride` is no divisor; for a model that pools over the whole image, or enlarges its maps.
    """
    network = Network.of(fcn)
    network.check_one_image()
    plain = network.geometry(image_size)
    _refuse_no_grid(network, plain)
    steps = _check_stride(stride, plain.stride)
    finer = FinerGeometry(
        **{each.name: getattr(plain, each.name) for each in fields(Geometry)} | {"stride": steps},
        total_stride=plain.stride,
    )
    if plain.padding_free:
        return finer
    aligns = plain.shifts_with_size
    offset = list(plain.offset or (0, 0))
    for axis, (step, total) in enumerate(zip(steps, plain.stride, strict=True)):
        if aligns and step < total:
            offset[axis] = network.geometry(plain.window).offset[axis]
    known = plain.offset is not None or all(map(int.__lt__, steps, plain.stride))
    return replace(finer, offset=tuple(offset) if known else None)


class FinerRunner:
    """A fully-convolutional model on a grid of `stride` pixels: images (B, h, w, C) -> scores (B, rows, cols, K).

    A model without padding is run once, in fragments, and cell (r, c) is its answer to the crop that begins at pixel
    (r * stride, c * stride). A crop that ends beyond the image only by last rows that the network leaves unused has a
    cell too, which `geometry.grid_shape` does not count. A model with padding is run once for every shift of the image
    (shift-and-stitch), each of which sees a border of its own.
    """

    def __init__(self, fcn: keras.Model, stride: int | tuple[int, int], run: Run | None = None):
        """Take a model, and how many pixels apart its cells shall be.

        Args:
            fcn: a converted model; a classifier is converted first.
            stride: a divisor of the network's stride, or one for rows and one for columns.
            run: what gives the converted model's scores for every shift of an image, where it has padding; default:
                the engine that Keras is.

        Raises:
            InputError: see `finer_geometry`; and for a model with several outputs.
        """
        Network.of(fcn).check_one_output()
        self.fcn = convolutionalize(fcn)
        self.geometry = finer_geometry(self.fcn, stride)
        self._run = run or make_engine(self.fcn)
        network = Network.of(self.fcn)
        self._graph = network.graph
        self._steps = [(step, network.moves(index)) for index, step in enumerate(self._graph.steps)]
        self._last_use = {key: index for index, step in enumerate(self._graph.steps) for key in step.inputs}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores of images (B, h, w, C): (B, rows, cols, K), in the model's precision.

        Raises:
            InputError: where the images are too small for a cell.
        """
        return self._in_fragments(images) if self.geometry.padding_free else self._by_shifts(images)

    def _in_fragments(self, images: np.ndarray) -> np.ndarray:
        batch, *size = images.shape[:3]
        values = {self._graph.inputs[0]: ops.convert_to_tensor(images, dtype=self.fcn.inputs[0].dtype)}
        lattices = {self._graph.inputs[0]: (Lattice(size[0]), Lattice(size[1]))}
        for index, (step, step_moves) in enumerate(self._steps):
            before = [lattices[key] for key in step.inputs]
            after = tuple(
                move.lattice(along, stride)
                for move, along, stride in zip(step_moves, zip(*before, strict=True), self.geometry.stride, strict=True)
            )
            if 0 in (after[0].size, after[1].size):
                raise self._too_small(size)
            if isinstance(step_moves[0], Slide):
                made = _slide(step, step_moves, values[step.inputs[0]], before[0], after, batch)
            elif isinstance(step_moves[0], Border):
                made = step.layer(values[step.inputs[0]])
            else:
                cut = {key: values[key][:, : after[0].length, : after[1].length] for key in step.inputs}
                args, kwargs = step.refill(cut)
                made = step.layer(*args, **kwargs)
            for key, value in zip(step.outputs, keras.tree.flatten(made), strict=True):
                values[key], lattices[key] = value, after
            for key in step.inputs:
                if self._last_use[key] == index and key in values:
                    del values[key]
        rows, columns = lattices[self._graph.outputs[0]]
        scores = ops.convert_to_numpy(values[self._graph.outputs[0]])
        scores = scores.reshape(rows.fragments, columns.fragments, batch, rows.length, columns.length, -1)
        scores = scores.transpose(2, 3, 0, 4, 1, 5)
        scores = scores.reshape(batch, rows.length * rows.fragments, columns.length * columns.fragments, -1)
        return scores[:, : rows.size, : columns.size]

    def _by_shifts(self, images: np.ndarray) -> np.ndarray:
        batch, *size = images.shape[:3]
        grid = self.geometry.grid_shape(*size)
        if not self.geometry.fits(*size):
            raise self._too_small(size)
        phases = [total // step for total, step in zip(self.geometry.total_stride, self.geometry.stride, strict=True)]
        scores = np.empty((batch, *grid, self.fcn.output_shape[-1]), self.fcn.outputs[0].dtype)
        shifts = (list(self.geometry.shifts(side, axis)) for axis, side in enumerate(size))
        for (row, (top, height)), (column, (left, width)) in product(*map(enumerate, shifts)):
            part = self._run(images[:, top : top + height, left : left + width])
            scores[:, row :: phases[0], column :: phases[1]] = part
        return scores

    def _too_small(self, size: list[int]) -> InputError:
        window = " x ".join(map(str, self.geometry.window))
        return InputError(
            f"image: received {size[0]} x {size[1]} pixels; accepted for scores every "
            f"{' x '.join(map(str, self.geometry.stride))} pixels: sides that every layer fits, at least one window "
            f"of {window}"
        )


def _slide(
    step: Step, slides: Sequence[Slide], maps: Any, before: Sequence[Lattice], after: Sequence[Lattice], batch: int
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
        made.append(step.layer(part))
    joined = ops.concatenate(made) if len(made) > 1 else made[0]
    return _take(joined, np.argsort(order).tolist(), batch)


def _phases(before: Lattice, after: Lattice) -> dict[int, dict[int, int]]:
    """For each phase of a strided layer, which fragments after it come from which ones before it."""
    found: dict[int, dict[int, int]] = {}
    for fragment in range(after.fragments):
        phase, source = divmod(fragment * (after.pitch // before.pitch), before.fragments)
        found.setdefault(phase, {})[fragment] = source
    return found


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


def _check_stride(stride: int | tuple[int, int], total: Ints) -> Ints:
    is_number = isinstance(stride, int | np.integer) and not isinstance(stride, bool)
    steps = (stride,) * len(total) if is_number else stride
    whole = isinstance(steps, tuple | list) and all(
        isinstance(step, int | np.integer) and not isinstance(step, bool) and step > 0 for step in steps
    )
    if not whole or len(steps) != len(total) or any(side % step for side, step in zip(total, steps, strict=True)):
        common = math.gcd(*total)
        divisors = ", ".join(str(step) for step in range(1, common + 1) if common % step == 0)
        raise InputError(
            f"stride: received {stride!r}; accepted: a divisor of the network's stride {' x '.join(map(str, total))}: "
            f"{divisors}, or one for rows and one for columns"
        )
    return tuple(int(step) for step in steps)


def _refuse_no_grid(network: Network, plain: Geometry) -> None:
    """See that the network does the same at every shift of its image."""
    if not plain.bounded:
        raise InputError(
            f"stride: a block inside model {network.name!r} pools over the whole image, so its cells are no crops' "
            "answers; accepted for it: no stride"
        )
    if plain.upsampling or plain.global_blocks:
        raise InputError(
            f"stride: model {network.name!r} enlarges its maps, so neighbouring cells share what they see; "
            "accepted for it: no stride"
        )
