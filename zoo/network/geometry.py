"""Grid cells and pixel rectangles: receptive field, stride, offset, window, and the exact field of every cell."""

import bisect
import math
from dataclasses import dataclass, field
from functools import cached_property, partial

from zoo.errors import InputError
from zoo.network.fields import Term, fields_of
from zoo.network.program import Ints, Program

# The sides that an image may have, and how far apart those are, at most, at which merged maps have one size.
_SIDES = range(1, 1 << 24)
_REPEATS = 4096


@dataclass(frozen=True)
class Geometry:
    """The relation between a model's score grid and the image's pixels; every tuple is (vertical, horizontal).

    `receptive_field`: side in pixels of what one cell may depend on, infinite where a global block makes it so.
    `stride`: pixels between neighbouring cells. `window`: side of the crop that a cell stands for; infinite where the
    head pools over the whole image. `offset`: top left of cell (0, 0)'s crop, None where it depends on the image's
    size and none was given. `image_size`: the sides of the image, None where none were given. `program`: the moves from
    the image to the grid. `training_size`: the sides that the model was trained at, None where they are not known.
    """

    receptive_field: tuple[float, ...]
    stride: Ints
    window: tuple[float, ...]
    offset: Ints | None
    image_size: Ints | None
    program: Program = field(repr=False, compare=False)
    training_size: Ints | None = field(repr=False, compare=False)

    def grid_shape(self, *size: int) -> Ints:
        """Rows and columns of the grid for an image of height and width `size`; zero where no window fits."""
        self._check_axes("image size", size)
        return tuple(self.program.cells(axis, side) for axis, side in enumerate(size))

    def fits(self, *size: int) -> bool:
        """Whether every layer takes an image of height and width `size`: windows fit, merged maps have one size."""
        self._check_axes("image size", size)
        return self.program.fits(*size)

    def fitting(self, *size: int) -> Ints:
        """The least sides from `size` on, congruent to it modulo the stride, that every layer takes."""
        self._check_axes("image size", size)
        return tuple(self.program.fitting(axis, side, self.stride[axis]) for axis, side in enumerate(size))

    def keeps_function(self, *size: int) -> bool:
        """Whether branches meet in an image of height and width `size` as they do at the training size.

        Strided SAME layers pad by the size that they are given. Where one meets a shortcut or another branch, a size
        of another remainder modulo the stride aligns the two differently: another function inside, not only at the
        border. True where the training size is not known.
        """
        self._check_axes("image size", size)
        return self.training_size is None or all(
            self.program.alignment(axis, side) == self.program.alignment(axis, self.training_size[axis])
            for axis, side in enumerate(size)
        )

    @cached_property
    def sizes_that_keep_function(self) -> tuple[tuple[int, Ints], ...]:
        """For each axis (modulus, remainders): sides, above the receptive field, that `keeps_function` is true of."""
        kept = []
        for axis, reach in enumerate(self.receptive_field):
            modulus = math.lcm(*self.program.values(1, lambda move, strides: move.modulus(strides), axis).values())
            remainders = tuple(range(modulus))
            if self.training_size is not None and self.shifts_with_size:
                trained = self.training_size[axis]
                wanted = self.program.alignment(axis, trained)
                least = trained + (0 if math.isinf(reach) else int(reach))
                base = -(-least // modulus) * modulus
                remainders = tuple(r for r in remainders if self.program.alignment(axis, base + r) == wanted)
            kept.append((modulus, remainders) if len(remainders) < modulus else (1, (0,)))
        return tuple(kept)

    def other_function(self, *size: int) -> str:
        """What to know of an image of `size` that `keeps_function` is not true of, in a sentence; else empty."""
        if self.keeps_function(*size):
            return ""
        accepted = []
        for name, (modulus, remainders) in zip(("height", "width"), self.sizes_that_keep_function, strict=False):
            if modulus > 1:
                accepted.append(f"{name} {modulus}k + {' or '.join(map(str, remainders))}")
        return (
            f"at {' x '.join(map(str, size))} pixels branches after strided SAME layers meet displaced, unlike at the "
            f"training size: another function inside, not only at the border; sizes that keep it: {', '.join(accepted)}"
        )

    def size_for(self, *cells: int) -> Ints:
        """The least sides of an image whose grid has at least so many rows and columns, and that every layer takes.

        With window w, stride s and u last rows that the training size leaves unused, sides of w to w + s - u - 1 give
        one cell, and w + s - u two.

        Raises:
            InputError: where no image has such a grid.
        """
        self._check_axes("grid", cells)
        sides = []
        for axis, count in enumerate(cells):
            least = 1 + bisect.bisect_left(_SIDES, count, key=partial(self.program.cells, axis))
            fitting = (side for side in range(least, least + _REPEATS) if self.program.fits_along(axis, side))
            side = next(fitting, None) if least in _SIDES else None
            if side is None:
                raise InputError(f"geometry: no image gives a grid of {' x '.join(map(str, cells))} cells")
            sides.append(side)
        return tuple(sides)

    def cell_box(self, *cell: int) -> Ints:
        """The crop that a cell stands for, as (top, left, bottom, right), half-open, not clipped at the image."""
        self._check_axes("cell", cell)
        offsets = self.known_offset
        if math.inf in self.window:
            if self.image_size is None:
                raise InputError("geometry: the one cell stands for the whole image; give image_size=(height, width)")
            return (*(0,) * len(cell), *self.image_size)
        first = [offset + index * stride for offset, index, stride in zip(offsets, cell, self.stride, strict=True)]
        return (*first, *(top + side for top, side in zip(first, self.window_sides, strict=True)))

    def cell_field(self, *cell: int) -> Ints:
        """The smallest rectangle around all pixels that can influence a cell, as (top, left, bottom, right).

        Exact at the borders, and inside the image; of no area where the cell looks at padding alone.

        Raises:
            InputError: where the geometry has no image size, or the grid no such cell.
        """
        self._check_cell(cell)
        rectangles = []
        for term in self._fields:
            sides = [(int(first[index]), int(last[index])) for (first, last), index in zip(term, cell, strict=True)]
            if all(first < last for first, last in sides):
                rectangles.append(sides)
        if not rectangles:
            return (0,) * (2 * len(cell))
        starts = [min(sides[axis][0] for sides in rectangles) for axis in range(len(cell))]
        ends = [max(sides[axis][1] for sides in rectangles) for axis in range(len(cell))]
        return (*starts, *ends)

    def nearest_cell(self, *box: int) -> Ints:
        """The cell whose crop is centred nearest to the centre of a box (top, left, bottom, right); may lie outside."""
        axes = self.program.axes
        self._check_axes("box corner", box[:axes])
        first = self.cell_box(*(0,) * axes)
        centres = [(box[axis] + box[axis + axes] - first[axis] - first[axis + axes]) / 2 for axis in range(axes)]
        return tuple(math.floor(centre / stride + 0.5) for centre, stride in zip(centres, self.stride, strict=True))

    @property
    def padding_free(self) -> bool:
        """Whether no layer adds rows or columns of its own, so that a cell sees a crop as it would see it alone."""
        return not self.program.padding

    @property
    def upsampling(self) -> tuple[str, ...]:
        """The names of the layers that repeat rows, so that cells between them see pixels as their crops do not."""
        return self.program.any(lambda move: move.repeats)

    @property
    def shifts_with_size(self) -> bool:
        """Whether strided SAME layers pad by the image's size, which the offset depends on then."""
        return bool(self.program.any(lambda move: move.shifts_with_size))

    @property
    def bounded(self) -> bool:
        """Whether the receptive field is finite."""
        return not any(math.isinf(side) for side in self.receptive_field)

    @property
    def global_blocks(self) -> tuple[str, ...]:
        """The names of the layers that look at the whole image, which make the receptive field infinite."""
        return self.program.any(lambda move: move.is_global)

    def first_pixel(self) -> Ints:
        """Where the field of cell (0, 0) begins, negative where padding comes first; `image_size` is needed."""
        return tuple(span.start for span in self.program.spans(self.known_size))

    @cached_property
    def _fields(self) -> list[Term]:
        return fields_of(self.program, self.known_size)

    @property
    def known_size(self) -> Ints:
        """The image's sides.

        Raises:
            InputError: where the geometry was made without them.
        """
        if self.image_size is None:
            raise InputError("geometry: needs image_size=(height, width), that of the image")
        return self.image_size

    @property
    def known_offset(self) -> Ints:
        """`offset`.

        Raises:
            InputError: where it depends on the image's size, and the geometry was made without.
        """
        if self.offset is None:
            raise InputError("geometry: the offset depends on the image's size here; give image_size=(height, width)")
        return self.offset

    @property
    def window_sides(self) -> Ints:
        """`window` as whole numbers.

        Raises:
            InputError: where it is infinite.
        """
        return _whole(self.window)

    @property
    def field_sides(self) -> Ints:
        """`receptive_field` as whole numbers.

        Raises:
            InputError: where it is infinite.
        """
        return _whole(self.receptive_field)

    def _check_cell(self, cell: tuple[int, ...]) -> None:
        self._check_axes("cell", cell)
        shape = self.grid_shape(*self.known_size)
        if any(not 0 <= index < side for index, side in zip(cell, shape, strict=True)):
            raise InputError(f"geometry: cell {cell} is outside the grid of {shape}")

    def _check_axes(self, what: str, values: tuple[int, ...]) -> None:
        if len(values) != self.program.axes:
            raise InputError(f"geometry: {what} {values}; accepted: {self.program.axes} numbers")

    def sentence(self) -> str:
        """The numbers for people to read."""
        if math.inf in self.window:
            return "one answer for the whole image"
        stride, window = (" x ".join(map(str, sides)) for sides in (self.stride, self.window))
        reach = f"{' x '.join(map(str, self.receptive_field))} pixels" if self.bounded else "the whole image"
        return f"stride {stride}, window {window} pixels, receptive field {reach}"

    def to_dict(self) -> dict[str, list | None]:
        """The numbers as JSON holds them; infinite sides are null."""

        def finite(sides: tuple[float, ...]) -> list[int | None]:
            return [None if math.isinf(side) else int(side) for side in sides]

        return {
            "receptive_field": finite(self.receptive_field),
            "stride": list(self.stride),
            "window": finite(self.window),
            "offset": None if self.offset is None else list(self.offset),
        }


def _whole(sides: tuple[float, ...]) -> Ints:
    if math.inf in sides:
        raise InputError("geometry: a cell looks at the whole image here; accepted: one of finite windows")
    return tuple(map(int, sides))


def place(
    program: Program, size: Ints | None, training_size: Ints | None, window: Ints | None, is_global: bool = False
) -> Geometry:
    """The geometry of a program's grid.

    Args:
        program: the moves from image to grid.
        size: (height, width) of the image, where it is known.
        training_size: that of the images that the model was trained at, where it is known.
        window: the crop that a cell stands for; None where that is its receptive field.
        is_global: whether there is one cell, for the whole image.
    """
    sides = size or training_size or (None,) * program.axes
    spans = program.spans(sides)
    reach = tuple(span.extent for span in spans)
    offset: Ints | None = tuple(span.start for span in spans)
    if window is not None:
        # A cell's crop lies where the crop itself, seen alone, would put its single cell.
        trained = program.spans(window)
        offset = tuple(span.start - alone.start for span, alone in zip(spans, trained, strict=True))
    if is_global:
        offset = (0,) * program.axes
    elif size is None and program.any(lambda move: move.shifts_with_size):
        offset = None
    return Geometry(
        receptive_field=reach,
        stride=tuple(span.stride for span in spans),
        window=tuple(window) if window is not None else reach,
        offset=offset,
        image_size=size,
        program=program,
        training_size=training_size,
    )
