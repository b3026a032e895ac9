"""A network as a program of moves: sizes, spans and strides carried from the image to every tensor.

Pure Python: it can be written as data, and read again where there is no Keras.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from zoo.errors import InputError
from zoo.network.moves import Move, move_from
from zoo.network.positions import Span, Value

Ints = tuple[int, ...]

# How many sizes are tried for one at which merged maps, some of them upsampled, have one size.
_STEPS = 256


class Instruction(NamedTuple):
    """What one layer does along each axis, the keys of what it takes and makes, and the layer's path."""

    moves: tuple[Move, ...]
    inputs: Ints
    output: int
    path: str

    @property
    def merges(self) -> bool:
        """Whether several maps become one, position by position."""
        return len(self.inputs) > 1


def last_uses(steps: Sequence[Collection[int]], wanted: Collection[int]) -> list[frozenset[int]]:
    """For each step, given by the keys of its tensors, those that no later step needs and that are not `wanted`."""
    needed, unused = set(wanted), []
    for keys in reversed(steps):
        unused.append(frozenset(keys) - needed)
        needed |= set(keys)
    return unused[::-1]


@dataclass(frozen=True)
class Program:
    """A network as moves, with the keys of image and grid."""

    instructions: tuple[Instruction, ...]
    image: int
    grid: int
    axes: int

    def values(self, start: Value, combine: Callable[[Move, Sequence[Value]], Value], axis: int) -> dict[int, Value]:
        """A value carried along one axis to every tensor, by its key: `combine(move, values) -> value`.

        Raises:
            InputError: what `combine` raises, with the layer's path before it.
        """
        values: dict[int, Value] = {self.image: start}
        for each in self.instructions:
            try:
                values[each.output] = combine(each.moves[axis], [values[key] for key in each.inputs])
            except InputError as error:
                raise InputError(f"layer {each.path!r}: {error}") from None
        return values

    def sizes(self, axis: int, side: int) -> dict[int, int]:
        """Rows of every tensor for an image of `side` rows, by its key; zero where a window does not fit."""
        return self.values(side, lambda move, sizes: move.size(sizes), axis)

    def cells(self, axis: int, side: int) -> int:
        """Rows of the grid for an image of `side` rows."""
        return max(self.sizes(axis, side)[self.grid], 0)

    def fits(self, *size: int) -> bool:
        """Whether every window fits into an image of that size, and maps that are merged have one size."""
        return all(self.fits_along(axis, side) for axis, side in enumerate(size))

    def fits_along(self, axis: int, side: int) -> bool:
        """`fits` along one axis alone."""
        start: int | None = side
        return 0 not in self.values(start, lambda move, sizes: move.fitting_size(sizes), axis).values()

    def fitting(self, axis: int, side: int, step: int) -> int:
        """The least side from `side` on, in steps, that `fits_along` is true of; `side` itself where none is near."""
        near = range(side, side + _STEPS * step, step)
        return next((each for each in near if self.fits_along(axis, each)), side)

    def smallest_image(self, limit: int = 4096) -> Ints | None:
        """The least equal sides that `fits` is true of; None where a reach is not known, or none fits up to `limit`."""
        if self.any(lambda move: not move.is_local):
            return None
        fitting = (side for side in range(1, limit + 1) if self.fits(*(side,) * self.axes))
        return next(((side,) * self.axes for side in fitting), None)

    def spans(self, sides: Sequence[int | None]) -> tuple[Span, ...]:
        """What the cells of the grid look at along each axis of an image of `sides`.

        Raises:
            InputError: naming the layer, where upsampling leaves no whole stride, or a reach is not known.
        """
        return tuple(
            self.values(Span(0, 1, 1, side), lambda move, spans: move.span(spans), axis)[self.grid]
            for axis, side in enumerate(sides)
        )

    def known_spans(self, sides: Sequence[int | None]) -> dict[int, tuple[Span, ...] | None]:
        """What the cells of every tensor look at, by its key; None where it is not known."""
        starts: list[Span | None] = [Span(0, 1, 1, side) for side in sides]
        along = [
            self.values(start, lambda move, spans: move.known_span(spans), axis) for axis, start in enumerate(starts)
        ]
        known = {key: tuple(span for values in along if (span := values[key]) is not None) for key in along[0]}
        return {key: spans if len(spans) == len(along) else None for key, spans in known.items()}

    def alignment(self, axis: int, side: int) -> Ints:
        """By how many pixels the branches that meet at each merge lie apart in an image of `side` rows.

        Strided SAME layers pad by the size that they are given, so this may differ from size to size, and with it the
        function that the network is.
        """
        image: Span | None = Span(0, 1, 1, side)
        spans = self.values(image, lambda move, spans: move.placed_span(spans), axis)
        apart: list[int] = []
        for each in self.instructions:
            starts = [span.start for key in each.inputs if (span := spans[key]) is not None]
            apart += [start - starts[0] for start in starts[1:]]
        return tuple(apart)

    def any(self, condition: Callable[[Move], bool]) -> tuple[str, ...]:
        """The paths of the layers with a move that fulfils a condition."""
        return tuple(each.path for each in self.instructions if any(map(condition, each.moves)))

    @property
    def padding(self) -> tuple[str, ...]:
        """The paths of the layers that add rows or columns of their own."""
        return self.any(lambda move: move.pads)

    def up_to(self, key: int) -> "Program":
        """The part of it that makes one tensor, given by its key, which is the grid of that program."""
        needed, kept = {key}, []
        for each in reversed(self.instructions):
            if each.output in needed:
                needed |= set(each.inputs)
                kept.append(each)
        return replace(self, instructions=tuple(reversed(kept)), grid=key)

    def unused_after(self) -> list[frozenset[int]]:
        """For each instruction, the keys of its tensors, the grid excepted, that no later one needs."""
        return last_uses([{*each.inputs, each.output} for each in self.instructions], {self.grid})

    def to_data(self) -> dict[str, Any]:
        """The program as JSON holds it."""
        rows = [
            {
                "layer": each.path,
                "inputs": list(each.inputs),
                "output": each.output,
                "moves": [move.to_data() for move in each.moves],
            }
            for each in self.instructions
        ]
        return {"image": self.image, "grid": self.grid, "axes": self.axes, "layers": rows}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Program":
        """The program that `to_data` wrote.

        Raises:
            InputError: naming the move that is none.
        """
        instructions = tuple(
            Instruction(tuple(map(move_from, row["moves"])), tuple(row["inputs"]), row["output"], row["layer"])
            for row in data["layers"]
        )
        return cls(instructions, data["image"], data["grid"], data["axes"])
