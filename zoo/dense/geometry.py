"""Grid cells and pixel rectangles: receptive field, stride, offset, window, and the exact field of every cell."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np

from zoo.dense.head import head_collapses
from zoo.dense.positions import (
    GLOBAL_POOLINGS,
    Border,
    Everywhere,
    Move,
    Pointwise,
    Repeat,
    Slide,
    Unknown,
    moves,
    refuse_channels_first,
)
from zoo.errors import InputError
from zoo.graph import Graph, check_one_image, check_size, trace
from zoo.saving import card

Ints = tuple[int, ...]
_NONE = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)  # first and past-the-last pixel of an empty field


@dataclass(frozen=True)
class _Program:
    """A network as moves: (moves along each axis, keys of inputs, key of output), and the keys of image and grid."""

    steps: tuple[tuple[tuple[Move, ...], Ints, int], ...]
    image: int
    grid: int
    axes: int

    def fold(self, start: object, combine: Callable, axis: int) -> object:
        """Carry a value along one axis from image to grid: `combine(move, values) -> value` at every step."""
        return self.values(start, combine, axis)[self.grid]

    def fits(self, *size: int) -> bool:
        """Whether every window fits into an image of that size, and maps that are merged have one size."""
        return all(0 not in self.values(side, _fitting_size, axis).values() for axis, side in enumerate(size))

    def values(self, start: object, combine: Callable, axis: int) -> dict[int, object]:
        """What `fold` carries, at every tensor on the way, by its key."""
        values = {self.image: start}
        for step_moves, inputs, output in self.steps:
            values[output] = combine(step_moves[axis], [values[key] for key in inputs])
        return values


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
    _program: _Program = field(repr=False, compare=False)

    def grid_shape(self, *size: int) -> Ints:
        """Rows and columns of the grid for an image of height and width `size`; zero where no window fits."""
        self._check_axes("image size", size)
        return tuple(max(self._program.fold(side, _size, axis), 0) for axis, side in enumerate(size))

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
        return tuple(self._program.fold(Span(0, 1, 1, side), _span, axis).start for axis, side in sides)

    @cached_property
    def _fields(self) -> list["_Term"]:
        return _fields(self._program, self.image_size)

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
    program = _program(graph, training_size)
    window = card(model).window or (training_size if has_head else None)
    sides = size or training_size or (None,) * axes
    spans = [program.fold(Span(0, 1, 1, side), _span, axis) for axis, side in enumerate(sides)]
    reach = tuple(span.extent for span in spans)
    offset: Ints | None = tuple(span.start for span in spans)
    if window is not None:
        # A cell's crop lies where the crop itself, seen alone, would put its single cell.
        trained = [program.fold(Span(0, 1, 1, side), _span, axis) for axis, side in enumerate(window)]
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


def spans(graph: Graph, image_size: Ints | None = None) -> dict[int, tuple["Span", ...] | None]:
    """What every tensor looks at along each axis, by its key: a head at the whole map; None where it is not known.

    Raises:
        InputError: for a model with several inputs.
    """
    program = _program(graph, None, as_it_stands=True)
    sizes = image_size or (None,) * program.axes
    along = [program.values(Span(0, 1, 1, size), _known_span, axis) for axis, size in enumerate(sizes)]
    sides = {key: tuple(values[key] for values in along) for key in along[0]}
    return {key: None if None in known else known for key, known in sides.items()}


def smallest_image(graph: Graph, built: Ints | None = None, limit: int = 4096) -> Ints | None:
    """The least equal sides at which every window fits and the maps that are merged have one size.

    A head that flattens its map takes the size it was built for, `built`, and no other. None where a layer's reach is
    not known, or no side up to `limit` fits.

    Raises:
        InputError: for a model with several inputs.
    """
    if any(not isinstance(graph.steps[index].layer, GLOBAL_POOLINGS) for index in head_collapses(graph)):
        return built
    program = _program(graph, None, as_it_stands=True)
    if any(isinstance(move, Unknown) for step_moves, *_ in program.steps for move in step_moves):
        return None
    for side in range(1, limit + 1):
        if program.fits(*(side,) * program.axes):
            return (side,) * program.axes
    return None


def _fitting_size(move: Move, sizes: list[int | None]) -> int | None:
    """Rows after a move, zero where it does not fit, None for a vector (it fits every size)."""
    known = {size for size in sizes if size is not None}
    if isinstance(move, Everywhere) or not known:
        return 0 if known == {0} else None
    return _size(move, list(known)) if len(known) == 1 and known != {0} else 0


def _known_span(move: Move, spans: list["Span | None"]) -> "Span | None":
    if isinstance(move, Unknown) or None in spans:
        return None
    try:
        return _span(move, spans)
    except InputError:  # upsampling to less than a pixel has no whole stride
        return None


def _program(graph: Graph, training_size: Ints | None, as_it_stands: bool = False) -> _Program:
    """The moves of the graph's first output; a head counts as the window that its conversion is.

    `as_it_stands`: a head looks everywhere, and a layer of unknown reach is kept as such.
    """
    if len(graph.inputs) != 1:
        raise InputError(f"model {graph.model.name!r}: has {len(graph.inputs)} inputs; accepted: one image")
    axes = len(graph.model.inputs[0].shape) - 2
    collapses = head_collapses(graph)
    steps: list[tuple[tuple[Move, ...], Ints, int]] = []
    vectors: set[int] = set()  # tensors without positions, in the head or between a global pooling and its merge
    sizes: dict[int, Ints] = {}
    if training_size is not None:
        sizes = {graph.inputs[0]: tuple(training_size)}
    for index, step in enumerate(graph.steps):
        if all(key in vectors for key in step.inputs):
            step_moves = (Pointwise(),) * axes
        elif index in collapses and as_it_stands:
            step_moves = (Everywhere(),) * axes
        elif index in collapses:
            refuse_channels_first(step)
            if not sizes:
                raise InputError(
                    f"model {graph.model.name!r}: its training size is not known; convert it with image_size first"
                )
            step_moves = tuple(Slide(side) for side in sizes[step.inputs[0]])
        else:
            try:
                step_moves = moves(step, axes)
            except InputError:
                if not as_it_stands:
                    raise
                step_moves = (Unknown(),) * axes
        if index in collapses or isinstance(step_moves[0], Everywhere) or set(step.inputs) <= vectors:
            vectors.update(step.outputs)
        for key in step.outputs:
            steps.append((step_moves, step.inputs, key))
            if sizes:
                sizes[key] = tuple(
                    _size(step_moves[axis], [sizes[source][axis] for source in step.inputs]) for axis in range(axes)
                )
    return _Program(tuple(steps), graph.inputs[0], graph.outputs[0], axes)


def _size(move: Move, sizes: list[int]) -> int:
    """Rows after a move."""
    match move:
        case Slide():
            return move.output_size(sizes[0])
        case Border():
            return max(sizes[0] + move.before + move.after, 0)
        case Repeat():
            return sizes[0] * move.times
        case Everywhere():
            return 1
        case Pointwise():
            return max(sizes)


@dataclass(frozen=True)
class Span:
    """Cell i of a map looks at pixels [start + i * stride, start + i * stride + extent); the map has `size` rows."""

    start: int
    extent: float
    stride: int
    size: int | None


def _span(move: Move, spans: list[Span]) -> Span:
    first = spans[0]
    size = None if any(span.size is None for span in spans) else _size(move, [span.size for span in spans])
    match move:
        case Slide():
            before = move.padding(first.size)[0] if first.size is not None else (move.extent - 1) // 2 * move.same
            return Span(
                first.start - before * first.stride,
                first.extent + (move.extent - 1) * first.stride,
                first.stride * move.stride,
                size,
            )
        case Border():
            return Span(first.start - move.before * first.stride, first.extent, first.stride, size)
        case Repeat():
            if first.stride % move.times:
                raise InputError(f"geometry: upsampling by {move.times} at stride {first.stride} has no whole stride")
            return Span(first.start, first.extent, first.stride // move.times, size)
        case Everywhere():
            return Span(first.start, math.inf, 0, size)
        case Pointwise():
            start = min(span.start for span in spans)
            end = max(span.start + span.extent for span in spans)
            return Span(start, end - start, max(span.stride for span in spans), size)


def _offset_depends_on_size(program: _Program) -> bool:
    return any(
        isinstance(move, Slide) and move.shifts_with_size for step_moves, *_ in program.steps for move in step_moves
    )


def _pads(move: Move) -> bool:
    if isinstance(move, Border):
        return move.before > 0 or move.after > 0
    return isinstance(move, Slide) and move.same and move.extent > 1


# A term is a product of intervals: for each axis the first and past-the-last pixel of every cell. Where branches meet
# and one of them sees padding alone, the union is no product any more: then both terms are kept.
_Bounds = tuple[np.ndarray, np.ndarray]
_Term = tuple[_Bounds, ...]


def _fields(program: _Program, size: Ints) -> list[_Term]:
    """For every cell of the grid, the terms whose union is what it looks at."""
    start = tuple((np.arange(side), np.arange(side) + 1) for side in size)
    values: dict[int, list[_Term]] = {program.image: [start]}
    for step_moves, inputs, output in program.steps:
        sources = [values[key] for key in inputs]
        if all(isinstance(move, Pointwise) for move in step_moves):
            values[output] = _merge(sources)
        else:
            values[output] = [tuple(map(_bounds, step_moves, term)) for term in sources[0]]
    return values[program.grid]


def _merge(sources: list[list[_Term]]) -> list[_Term]:
    merged: dict[tuple[bytes, ...], _Term] = {}
    sides = [max(len(terms[0][axis][0]) for terms in sources) for axis in range(len(sources[0][0]))]
    for term in (term for terms in sources for term in terms):
        term = tuple(
            tuple(np.broadcast_to(bound, side) for bound in bounds) for bounds, side in zip(term, sides, strict=True)
        )
        key = tuple((first < last).tobytes() for first, last in term)
        if key in merged:
            term = tuple(
                (np.minimum(a[0], b[0]), np.maximum(a[1], b[1])) for a, b in zip(merged[key], term, strict=True)
            )
        merged[key] = term
    return list(merged.values())


def _bounds(move: Move, bounds: _Bounds) -> _Bounds:
    """The bounds along one axis after a move."""
    match move:
        case Slide():
            padded = _extend(bounds, *move.padding(len(bounds[0])))
            count = (len(padded[0]) - move.extent) // move.stride + 1
            taps = [
                slice(tap * move.dilation, tap * move.dilation + (count - 1) * move.stride + 1, move.stride)
                for tap in range(move.kernel)
            ]
            return (
                np.minimum.reduce([padded[0][tap] for tap in taps]),
                np.maximum.reduce([padded[1][tap] for tap in taps]),
            )
        case Border():
            cropped = slice(max(-move.before, 0), len(bounds[0]) - max(-move.after, 0))
            return _extend((bounds[0][cropped], bounds[1][cropped]), max(move.before, 0), max(move.after, 0))
        case Repeat():
            return np.repeat(bounds[0], move.times), np.repeat(bounds[1], move.times)
        case Everywhere():
            return bounds[0].min(keepdims=True), bounds[1].max(keepdims=True)
        case Pointwise():
            return bounds


def _extend(bounds: _Bounds, before: int, after: int) -> _Bounds:
    return tuple(
        np.pad(bound, (before, after), constant_values=empty) for bound, empty in zip(bounds, _NONE, strict=True)
    )
