"""The exact field of every cell at once: which pixels can influence it, borders and padding considered."""

import numpy as np

from zoo.network.positions import Bounds
from zoo.network.program import Ints, Program

# A term is a product of intervals: for each axis the first and past-the-last pixel of every cell. Where branches meet
# and one of them sees padding alone, the union is no product any more: then both terms are kept.
Term = tuple[Bounds, ...]


def fields_of(program: Program, size: Ints) -> list[Term]:
    """For every cell of the grid, the terms whose union is what it looks at."""
    start = tuple((np.arange(side), np.arange(side) + 1) for side in size)
    values: dict[int, list[Term]] = {program.image: [start]}
    for each in program.instructions:
        if each.merges:
            values[each.output] = _merge([values[key] for key in each.inputs])
        else:
            (source,) = each.inputs
            values[each.output] = [
                tuple(move.bounds(bounds) for move, bounds in zip(each.moves, term, strict=True))
                for term in values[source]
            ]
    return values[program.grid]


def _merge(sources: list[list[Term]]) -> list[Term]:
    merged: dict[tuple[bytes, ...], Term] = {}
    sides = [max(len(terms[0][axis][0]) for terms in sources) for axis in range(len(sources[0][0]))]
    for term in (term for terms in sources for term in terms):
        term = tuple(
            (np.broadcast_to(first, side), np.broadcast_to(last, side))
            for (first, last), side in zip(term, sides, strict=True)
        )
        key = tuple((first < last).tobytes() for first, last in term)
        if key in merged:
            term = tuple(
                (np.minimum(a[0], b[0]), np.maximum(a[1], b[1])) for a, b in zip(merged[key], term, strict=True)
            )
        merged[key] = term
    return list(merged.values())
