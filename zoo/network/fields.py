"""The exact field of every cell at once: which pixels can influence it, borders and padding considered."""

import numpy as np

from zoo.network.positions import Border, Everywhere, Move, Pointwise, Repeat, Slide
from zoo.network.program import Ints, Program

_NONE = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)  # first and past-the-last pixel of an empty field

# A term is a product of intervals: for each axis the first and past-the-last pixel of every cell. Where branches meet
# and one of them sees padding alone, the union is no product any more: then both terms are kept.
_Bounds = tuple[np.ndarray, np.ndarray]
Term = tuple[_Bounds, ...]


def fields_of(program: Program, size: Ints) -> list[Term]:
    """For every cell of the grid, the terms whose union is what it looks at."""
    start = tuple((np.arange(side), np.arange(side) + 1) for side in size)
    values: dict[int, list[Term]] = {program.image: [start]}
    for row in program.rows:
        sources = [values[key] for key in row.inputs]
        if all(isinstance(move, Pointwise) for move in row.moves):
            values[row.output] = _merge(sources)
        else:
            values[row.output] = [tuple(map(_bounds, row.moves, term)) for term in sources[0]]
    return values[program.grid]


def _merge(sources: list[list[Term]]) -> list[Term]:
    merged: dict[tuple[bytes, ...], Term] = {}
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
