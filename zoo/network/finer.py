"""The geometry of scores on a finer grid than a network's own stride: a cell at every multiple of a divisor of it.

A strided layer looks at every s-th position and leaves s - 1 phases out. On the finer grid it is run on each phase that
is wanted, and the results go side by side on the batch axis as fragments, on which the later layers run unchanged; at
the end the fragments are interleaved (Giusti et al. 2013, "Fast image scanning with deep max-pooling convolutional
neural networks", section 2; Sermanet et al. 2014, OverFeat, section 3.3, for the last pooling alone). The result is
that of shift-and-stitch (Long et al. 2015, section 3.2), the network run on the image shifted by 0, t, 2t ... pixels,
without computing twice what the shifts share. No backend is needed here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np

from zoo.errors import InputError, quoted, refuse
from zoo.network.geometry import Geometry
from zoo.network.positions import Lattice
from zoo.network.program import Ints
from zoo.network.scannable import Scannable


@dataclass(frozen=True)
class FinerGeometry(Geometry):
    """The geometry of a grid of `stride` pixels, a divisor of the network's `total_stride`.

    Without padding the grid holds the windows that lie in the image: (side - window) // stride + 1 along an axis. With
    padding it is that of shift-and-stitch, where every shifted image has a border of its own.
    """

    total_stride: Ints

    @property
    def phases(self) -> Ints:
        """How many cells there are for each of the network's own, along each axis."""
        return tuple(total // step for total, step in zip(self.total_stride, self.stride, strict=True))

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
            return (*first, *(start + reach for start, reach in zip(first, self.field_sides, strict=True)))
        shifted = [
            list(self.shifts(side, axis))[index % count]
            for axis, (side, index, count) in enumerate(zip(self.known_size, cell, self.phases, strict=True))
        ]
        plain = replace(self._plain(), image_size=tuple(length for _, length in shifted))
        field = plain.cell_field(*(index // count for index, count in zip(cell, self.phases, strict=True)))
        return tuple(pixel + shift for pixel, (shift, _) in zip(field, shifted * 2, strict=True))

    def shifts(self, side: int, axis: int) -> Iterator[tuple[int, int]]:
        """For a padded net: by how many pixels to shift an image of `side`, and how many then to take, where any are.

        All `side - shift` are taken, unless a strided SAME layer aligns its windows by the size: then so many fewer
        that the size aligns them as the window's does.
        """
        stride, total = self.stride[axis], self.total_stride[axis]
        for shift in range(0, total, stride):
            length = side - shift
            if stride < total and self.shifts_with_size:
                length -= (length - self.window_sides[axis]) % total
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
        inside = (side - self.known_offset[axis] - self.window_sides[axis]) // self.stride[axis] + 1
        return max(min(positions, inside), 0)

    def _plain(self) -> Geometry:
        return Geometry(**{each.name: getattr(self, each.name) for each in fields(Geometry)})


def finer_geometry(network: Scannable, stride: int | Ints, image_size: Ints | None = None) -> FinerGeometry:
    """The geometry of a fully-convolutional network's scores at every `stride` pixels.

    Args:
        network: a converted model's, or a classifier's, which counts as its conversion.
        stride: a divisor of the network's stride, or one for rows and one for columns.
        image_size: (height, width) of the image, where fields or tiles are wanted.

    Raises:
        InputError: where `stride` is no divisor; for a model that pools over the whole image, or enlarges its maps.
    """
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
            offset[axis] = network.geometry(plain.window_sides).known_offset[axis]
    known = plain.offset is not None or all(map(int.__lt__, steps, plain.stride))
    return replace(finer, offset=tuple(offset) if known else None)


def _check_stride(stride: object, total: Ints) -> Ints:
    steps = stride if isinstance(stride, tuple | list) else (stride,) * len(total)
    whole = [int(step) for step in steps if isinstance(step, int | np.integer) and not isinstance(step, bool)]
    fits = len(whole) == len(steps) == len(total) and min(whole) > 0
    if not fits or any(side % step for side, step in zip(total, whole, strict=True)):
        common = math.gcd(*total)
        divisors = ", ".join(str(step) for step in range(1, common + 1) if common % step == 0)
        accepted = f"a divisor of the network's stride {' x '.join(map(str, total))}: {divisors}"
        refuse("stride", quoted(stride), f"{accepted}, or one for rows and one for columns")
    return tuple(whole)


def _refuse_no_grid(network: Scannable, plain: Geometry) -> None:
    """Check that the network does the same at every shift of its image."""
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


def too_small(geometry: FinerGeometry, size: Sequence[int]) -> InputError:
    """The error for an image of `size` that has no cell."""
    window = " x ".join(map(str, geometry.window))
    return InputError(
        f"image: received {size[0]} x {size[1]} pixels; accepted for scores every "
        f"{' x '.join(map(str, geometry.stride))} pixels: sides that every layer fits, at least one window of {window}"
    )
