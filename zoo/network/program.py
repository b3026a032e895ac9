"""A network as a program of moves: sizes, spans and strides carried from the image to every tensor."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from zoo.errors import InputError
from zoo.network.graph import Graph
from zoo.network.head import head_collapses
from zoo.network.positions import (
    Border,
    Everywhere,
    Move,
    Pointwise,
    Repeat,
    Slide,
    Unknown,
    global_pooling,
    moves,
)

Ints = tuple[int, ...]

# How many sizes are tried for one at which merged maps, some of them upsampled, have one size.
_STEPS = 256


class Row(NamedTuple):
    """What one step does along each axis, the keys of what it takes and makes, and the layer's path."""

    moves: tuple[Move, ...]
    inputs: Ints
    output: int
    path: str


@dataclass(frozen=True)
class Program:
    """A network as moves, with the keys of image and grid."""

    rows: tuple[Row, ...]
    image: int
    grid: int
    axes: int

    def fold(self, start: object, combine: Callable, axis: int) -> object:
        """Carry a value along one axis from image to grid: `combine(move, values) -> value` at every step."""
        return self.values(start, combine, axis)[self.grid]

    def fits(self, *size: int) -> bool:
        """Whether every window fits into an image of that size, and maps that are merged have one size."""
        return all(self.fits_along(axis, side) for axis, side in enumerate(size))

    def fits_along(self, axis: int, side: int) -> bool:
        """`fits` along one axis alone."""
        return 0 not in self.values(side, _fitting_size, axis).values()

    def fitting(self, axis: int, side: int, step: int) -> int:
        """The least side from `side` on, in steps, that `fits_along` is true of; `side` itself where none is near."""
        near = range(side, side + _STEPS * step, step)
        return next((each for each in near if self.fits_along(axis, each)), side)

    def values(self, start: object, combine: Callable, axis: int) -> dict[int, object]:
        """What `fold` carries, at every tensor on the way, by its key."""
        values = {self.image: start}
        for row in self.rows:
            try:
                values[row.output] = combine(row.moves[axis], [values[key] for key in row.inputs])
            except InputError as error:
                raise InputError(f"layer {row.path!r}: {error}") from None
        return values

    def spans(self, sides: tuple[int | None, ...]) -> tuple["Span", ...]:
        """What the cells of the grid look at along each axis of an image of `sides`.

        Raises:
            InputError: naming the layer, where upsampling leaves no whole stride.
        """
        return tuple(self.fold(Span(0, 1, 1, side), span_after, axis) for axis, side in enumerate(sides))

    def any(self, condition: Callable[[Move], bool]) -> tuple[str, ...]:
        """The paths of the layers with a move that fulfils a condition."""
        return tuple(row.path for row in self.rows if any(map(condition, row.moves)))


def size_after(move: Move, sizes: list[int]) -> int:
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


def span_after(move: Move, spans: list[Span]) -> Span:
    """What the cells of a map look at after a move."""
    first = spans[0]
    size = None if any(span.size is None for span in spans) else size_after(move, [span.size for span in spans])
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
                raise InputError(
                    f"upsamples by {move.times} at stride {first.stride}; accepted: a multiple of {move.times}"
                )
            return Span(first.start, first.extent, first.stride // move.times, size)
        case Everywhere():
            return Span(first.start, math.inf, 0, size)
        case Pointwise():
            start = min(span.start for span in spans)
            end = max(span.start + span.extent for span in spans)
            return Span(start, end - start, max(span.stride for span in spans), size)


def alignment(program: Program, axis: int, size: int) -> tuple[int, ...]:
    """By how many pixels the branches that meet at each merge lie apart in an image of `size` rows.

    Strided SAME layers pad by the size that they are given, so this may differ from size to size, and with it the
    function that the network is.
    """
    found = program.values(Span(0, 1, 1, size), _positioned_span, axis)
    apart = []
    for row in program.rows:
        starts = [found[key].start for key in row.inputs if found[key] is not None]
        apart += [start - starts[0] for start in starts[1:]]
    return tuple(apart)


def program_of(graph: Graph, training_size: Ints | None, as_it_stands: bool = False) -> Program:
    """The moves of the graph's first output; a head counts as the window that its conversion is.

    `as_it_stands`: a head looks everywhere, and a layer of unknown reach is kept as such.
    """
    if len(graph.inputs) != 1:
        raise InputError(f"model {graph.model.name!r}: has {len(graph.inputs)} inputs; accepted: one image")
    layout = graph.layout
    collapses = head_collapses(graph)
    rows: list[Row] = []
    vectors: set[int] = set()  # tensors without positions, in the head or between a global pooling and its merge
    sizes: dict[int, Ints] = {}
    if training_size is not None:
        sizes = {graph.inputs[0]: tuple(training_size)}
    for index, step in enumerate(graph.steps):
        if all(key in vectors for key in step.inputs):
            step_moves = (Pointwise(),) * layout.axes
        elif index in collapses and as_it_stands:
            step_moves = (Everywhere(),) * layout.axes
        elif index in collapses:
            if not sizes:
                raise InputError(
                    f"model {graph.model.name!r}: its training size is not known; convert it with image_size first"
                )
            step_moves = tuple(Slide(side) for side in sizes[step.inputs[0]])
        else:
            try:
                step_moves = moves(step, layout)
            except InputError:
                if not as_it_stands:
                    raise
                step_moves = (Unknown(),) * layout.axes
        if index in collapses or isinstance(step_moves[0], Everywhere) or set(step.inputs) <= vectors:
            vectors.update(step.outputs)
        for key in step.outputs:
            rows.append(Row(step_moves, step.inputs, key, step.path))
            if sizes:
                along = ([sizes[source][axis] for source in step.inputs] for axis in range(layout.axes))
                sizes[key] = tuple(map(size_after, step_moves, along))
    return Program(tuple(rows), graph.inputs[0], graph.outputs[0], layout.axes)


def spans(graph: Graph, image_size: Ints | None = None) -> dict[int, tuple[Span, ...] | None]:
    """What every tensor looks at along each axis, by its key: a head at the whole map; None where it is not known.

    Raises:
        InputError: for a model with several inputs.
    """
    program = program_of(graph, None, as_it_stands=True)
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
    if any(global_pooling(graph.steps[index], graph.layout) is None for index in head_collapses(graph)):
        return built
    program = program_of(graph, None, as_it_stands=True)
    if program.any(lambda move: isinstance(move, Unknown)):
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
    return size_after(move, list(known)) if len(known) == 1 and known != {0} else 0


def _known_span(move: Move, spans: list[Span | None]) -> Span | None:
    if isinstance(move, Unknown) or None in spans:
        return None
    try:
        return span_after(move, spans)
    except InputError:  # upsampling to less than a pixel has no whole stride
        return None


def _positioned_span(move: Move, spans: list[Span | None]) -> Span | None:
    """What the cells of a map look at, None for what a global pooling made, which has no place."""
    known = [span for span in spans if span is not None]
    return span_after(move, known) if known and not isinstance(move, Everywhere) else None
