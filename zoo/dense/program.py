"""A network as a program of moves: sizes, spans and strides carried from the image to every tensor."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
from zoo.graph import Graph

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Program:
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
                raise InputError(f"geometry: upsampling by {move.times} at stride {first.stride} has no whole stride")
            return Span(first.start, first.extent, first.stride // move.times, size)
        case Everywhere():
            return Span(first.start, math.inf, 0, size)
        case Pointwise():
            start = min(span.start for span in spans)
            end = max(span.start + span.extent for span in spans)
            return Span(start, end - start, max(span.stride for span in spans), size)


def program_of(graph: Graph, training_size: Ints | None, as_it_stands: bool = False) -> Program:
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
                along = ([sizes[source][axis] for source in step.inputs] for axis in range(axes))
                sizes[key] = tuple(map(size_after, step_moves, along))
    return Program(tuple(steps), graph.inputs[0], graph.outputs[0], axes)


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
    if any(not isinstance(graph.steps[index].layer, GLOBAL_POOLINGS) for index in head_collapses(graph)):
        return built
    program = program_of(graph, None, as_it_stands=True)
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
    return size_after(move, list(known)) if len(known) == 1 and known != {0} else 0


def _known_span(move: Move, spans: list[Span | None]) -> Span | None:
    if isinstance(move, Unknown) or None in spans:
        return None
    try:
        return span_after(move, spans)
    except InputError:  # upsampling to less than a pixel has no whole stride
        return None
