"""Grid cells and pixel rectangles: receptive field, stride, offset, window, and the exact field of every cell."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import keras

from zoo.dense.fields import Term, fields_of
from zoo.dense.head import head_collapses
from zoo.dense.positions import Border, Move, Slide
from zoo.dense.program import Ints, Program, Span, program_of, size_after, span_after
from zoo.errors import InputError
from zoo.graph import check_one_image, check_size, trace
from zoo.saving import card


@dataclass(frozen=True)
class Geometry:
    """The relation between a model's score grid and the image's pixels; every tuple is (vertical, horizontal).

    `receptive_field`: side in pixels of what one cell may depend on, infinite where a global block makes it so.
    `stride`: pixels between neighbouring cells. `window`: side of the crop that a cell stands for. `offset`: top left
    of cell (0, 0)'s crop, None where it depends on the image's size and none was given.
    """

    receptive_field: tuple[float, ...]
    stride: Ints
    window: Ints
    offset: Ints | None
    image_size: Ints | None
    _program: Program = field(repr=False, compare=False)

    def grid_shape(self, *size: int) -> Ints:
        """Rows and columns of the grid for an image of height and width `size`; zero where no window fits."""
        self._check_axes("image size", size)
        return tuple(max(self._program.fold(side, size_after, axis), 0) for axis, side in enumerate(size))

    def fits(self, *size: int) -> bool:
        """Whether every layer takes an image of height and width `size`: windows fit, merged maps have one size."""
        self._check_axes("image size", size)
        return self._program.fits(*size)

    def cell_box(self, *cell: int) -> Ints:
        """The crop that a cell stands for, as (top, left, bottom, right), half-open, not clipped at the image."""
        self._check_axes("cell", cell)
        if self.offset is None:
            raise InputError("geometry: the offset depends on the image's size here; give image_size=(height, width)")
        first = [offset + index * stride for offset, index, stride in zip(self.offset, cell, self.stride, strict=True)]
        return (*first, *(top + side for top, side in zip(first, self.window, strict=True)))

    def cell_field(self, *cell: int) -> Ints:
        """The smallest rectangle around all pixels that can influence a cell, as (top, left, bottom, right).

        Exact at the borders, and inside the image; of no area where the cell looks at padding alone.

        Raises:
            InputError: where the geometry has no image size, or the grid no such cell.
        """
        self._check_axes("cell", cell)
        if self.image_size is None:
            raise InputError("geometry: cell_field needs image_size=(height, width)")
        shape = self.grid_shape(*self.image_size)
        if any(not 0 <= index < side for index, side in zip(cell, shape, strict=True)):
            raise InputError(f"geometry: cell {cell} is outside the grid of {shape}")
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
        axes = self._program.axes
        self._check_axes("box corner", box[:axes])
        first = self.cell_box(*(0,) * axes)
        centres = [(box[axis] + box[axis + axes] - first[axis] - first[axis + axes]) / 2 for axis in range(axes)]
        return tuple(math.floor(centre / stride + 0.5) for centre, stride in zip(centres, self.stride, strict=True))

    @property
    def padding_free(self) -> bool:
        """Whether no layer adds rows or columns of its own, so that a cell sees a crop as it would see it alone."""
        return not any(_pads(move) for step_moves, *_ in self._program.steps for move in step_moves)

    @property
    def bounded(self) -> bool:
        """Whether the receptive field is finite."""
        return not any(math.isinf(side) for side in self.receptive_field)

    def first_pixel(self) -> Ints:
        """Where the field of cell (0, 0) begins, negative where padding comes first; `image_size` is needed."""
        sides = enumerate(self.image_size)
        return tuple(self._program.fold(Span(0, 1, 1, side), span_after, axis).start for axis, side in sides)

    @cached_property
    def _fields(self) -> list[Term]:
        return fields_of(self._program, self.image_size)

    def _check_axes(self, what: str, values: tuple[int, ...]) -> None:
        if len(values) != self._program.axes:
            raise InputError(f"geometry: {what} {values}; accepted: {self._program.axes} numbers")

    def sentence(self) -> str:
        """The numbers for people to read."""
        stride, window = (" x ".join(map(str, sides)) for sides in (self.stride, self.window))
        reach = f"{' x '.join(map(str, self.receptive_field))} pixels" if self.bounded else "the whole image"
        return f"stride {stride}, window {window} pixels, receptive field {reach}"

    def to_dict(self) -> dict[str, list | None]:
        """The numbers as JSON holds them; an infinite receptive field is null."""
        finite = [None if math.isinf(side) else int(side) for side in self.receptive_field]
        return {
            "receptive_field": finite,
            "stride": list(self.stride),
            "window": list(self.window),
            "offset": None if self.offset is None else list(self.offset),
        }


def geometry(model: keras.Model, image_size: tuple[int, ...] | None = None) -> Geometry:
    """The geometry of a fully-convolutional model's grid; of a classifier, that of its conversion.

    Args:
        model: a Functional or Sequential model.
        image_size: (height, width) of the image. `cell_field` needs it, and so does the offset where SAME padding at
            a stride makes it depend on the size.

    Raises:
        InputError: naming a layer whose reach is not known; where a classifier's training size is not, or the model
            takes something else than one image.
    """
    graph = trace(model)
    axes = max(len(graph.model.inputs[0].shape) - 2, 1)
    check_one_image(graph, axes)
    size = None if image_size is None else check_size(image_size, axes)
    training_size = card(model).image_size
    if training_size is None and None not in graph.model.inputs[0].shape[1:-1]:
        training_size = tuple(graph.model.inputs[0].shape[1:-1])
    has_head = bool(head_collapses(graph))
    program = program_of(graph, training_size)
    window = card(model).window or (training_size if has_head else None)
    sides = size or training_size or (None,) * axes
    spans = [program.fold(Span(0, 1, 1, side), span_after, axis) for axis, side in enumerate(sides)]
    reach = tuple(span.extent for span in spans)
    offset: Ints | None = tuple(span.start for span in spans)
    if window is not None:
        # A cell's crop lies where the crop itself, seen alone, would put its single cell.
        trained = [program.fold(Span(0, 1, 1, side), span_after, axis) for axis, side in enumerate(window)]
        offset = tuple(span.start - alone.start for span, alone in zip(spans, trained, strict=True))
    if size is None and _offset_depends_on_size(program):
        offset = None
    return Geometry(
        receptive_field=reach,
        stride=tuple(span.stride for span in spans),
        window=tuple(window) if window is not None else reach,
        offset=offset,
        image_size=size,
        _program=program,
    )


def _offset_depends_on_size(program: Program) -> bool:
    return any(
        isinstance(move, Slide) and move.shifts_with_size for step_moves, *_ in program.steps for move in step_moves
    )


def _pads(move: Move) -> bool:
    if isinstance(move, Border):
        return move.before > 0 or move.after > 0
    return isinstance(move, Slide) and move.same and move.extent > 1
