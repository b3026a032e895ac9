"""Moves: what a layer does to the positions of its maps along one axis, and everything that follows from it.

Pure Python and NumPy. A move takes what is known of a layer's inputs and gives the same of its output: how many rows
there are (`size`), which pixels a cell looks at (`span`, and exactly, at the borders too, `bounds`), which positions a
finer grid needs (`lattice`), and which cells a padding-free twin has (`skipped`, `cells`). Sizes, strides and spans are
those of one axis; `zoo.network.program` carries them through a network. A move is plain numbers, so that a program can
be written as data.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.network.positions import Bounds, Cells, Lattice, Span

_NOTHING = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Move(ABC):
    """One layer along one axis. A kind of move says what it is, and overrides what it does to positions.

    `pads`: adds rows that are no map's. `repeats`: rows follow that are copies. `is_global`: every output looks at the
    whole map. `is_local`: its reach over positions is known.
    """

    repeats = False
    is_global = False
    is_local = True

    @property
    def pads(self) -> bool:
        """Whether it adds rows."""
        return False

    @property
    def shifts_with_size(self) -> bool:
        """Whether how many rows come before the first depends on the input's size."""
        return False

    @abstractmethod
    def size(self, sizes: Sequence[int]) -> int:
        """Rows after the move; zero where it does not fit."""

    @abstractmethod
    def span(self, spans: Sequence[Span]) -> Span:
        """What the cells after the move look at.

        Raises:
            InputError: where they have no whole stride, or the reach is not known.
        """

    def bounds(self, bounds: Bounds) -> Bounds:
        """The exact pixels of every cell after the move, of those before it."""
        return bounds

    def modulus(self, strides: Sequence[int]) -> int:
        """A multiple of the pixels between the cells after the move, by which sizes of images are compared."""
        return max(strides)

    def lattice(self, lattices: Sequence[Lattice], stride: int) -> Lattice:
        """The positions that a grid of `stride` pixels needs after the move, where it pads nothing."""
        return replace(lattices[0], size=min(each.size for each in lattices))

    def skipped(self, sources: Sequence[Cells], size: int) -> list[int]:
        """In a twin: how many cells of each input come before the first that is used; `size`: the padded net's rows.

        Raises:
            InputError: where no twin has such a move.
        """
        raise InputError("repeats rows; accepted for a padding-free twin: convolutions, pooling, merges")

    def cells(self, source: Cells, size: int) -> Cells:
        """In a twin: the cells after the move, of those of its input from the first used on."""
        return source

    def reach(self, spans: Sequence[Span]) -> Span:
        """`span`, with room for where copies of a row truly lie."""
        return self.span(spans)

    def fitting_size(self, sizes: Sequence[int | None]) -> int | None:
        """`size`, where inputs without positions are None and fit every size; zero where the inputs differ."""
        known = {size for size in sizes if size is not None}
        if self.is_global or not known:
            return 0 if known == {0} else None
        return self.size(list(known)) if len(known) == 1 and known != {0} else 0

    def placed_span(self, spans: Sequence[Span | None]) -> Span | None:
        """`span`, None for what a global pooling made, which has no place."""
        known = [span for span in spans if span is not None]
        return self.span(known) if known and not self.is_global else None

    def known_span(self, spans: Sequence[Span | None]) -> Span | None:
        """`span`, None where it is not known."""
        known = [span for span in spans if span is not None]
        try:
            return self.span(known) if len(known) == len(spans) else None
        except InputError:
            return None

    def to_data(self) -> dict[str, Any]:
        """The move as JSON holds it."""
        return {"move": type(self).__name__.lower(), **asdict(self)}


def _size_of(move: Move, spans: Sequence[Span]) -> int | None:
    sizes = [span.size for span in spans if span.size is not None]
    return move.size(sizes) if len(sizes) == len(spans) else None


@dataclass(frozen=True)
class Slide(Move):
    """A window of `kernel` taps, `dilation` apart, moved by `stride`.

    `same` pads as TensorFlow does; `causal` pads before the first row alone, so that no output looks ahead.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    same: bool = False
    causal: bool = False

    @property
    def extent(self) -> int:
        """Rows from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def pads(self) -> bool:
        """Whether it adds rows."""
        return (self.same or self.causal) and self.extent > 1

    @property
    def shifts_with_size(self) -> bool:
        """Whether the rows of padding at the top depend on the input's size."""
        return self.same and (self.extent - 1) // 2 != max(self.extent - self.stride, 0) // 2

    def padding(self, size: int) -> tuple[int, int]:
        """Rows added before and after an input of `size` rows."""
        if self.causal:
            return self.extent - 1, 0
        if not self.same:
            return 0, 0
        total = max((-(-size // self.stride) - 1) * self.stride + self.extent - size, 0)
        return total // 2, total - total // 2

    def size(self, sizes: Sequence[int]) -> int:
        """Positions of the window."""
        return max((sizes[0] + sum(self.padding(sizes[0])) - self.extent) // self.stride + 1, 0)

    def span(self, spans: Sequence[Span]) -> Span:
        """The pixels of all taps; where the size is open, with the padding of a window in the middle."""
        (first,) = spans
        before = (self.extent - 1) // 2 * self.same if first.size is None else self.padding(first.size)[0]
        return Span(
            first.start - before * first.stride,
            first.extent + (self.extent - 1) * first.stride,
            first.stride * self.stride,
            _size_of(self, spans),
        )

    def bounds(self, bounds: Bounds) -> Bounds:
        """From the first pixel of any tap to the last of any."""
        padded = _extended(bounds, *self.padding(len(bounds[0])))
        count = (len(padded[0]) - self.extent) // self.stride + 1
        taps = [
            slice(tap * self.dilation, tap * self.dilation + (count - 1) * self.stride + 1, self.stride)
            for tap in range(self.kernel)
        ]
        return np.minimum.reduce([padded[0][tap] for tap in taps]), np.maximum.reduce([padded[1][tap] for tap in taps])

    def modulus(self, strides: Sequence[int]) -> int:
        """The input's, times the stride."""
        return strides[0] * self.stride

    def lattice(self, lattices: Sequence[Lattice], stride: int) -> Lattice:
        """The multiples of the greatest common divisor of the grid's stride and the map's.

        A cell at a multiple of `stride` looks at positions whole strides of the map away from it, and at no others.
        """
        (first,) = lattices
        plain = first.stride * self.stride
        pitch = math.gcd(stride, plain)
        room = first.size - 1 - (self.extent - 1) * first.fragments
        return Lattice(max(room // (pitch // first.pitch) + 1, 0), pitch, plain // pitch)

    def skipped(self, sources: Sequence[Cells], size: int) -> list[int]:
        """Cells up to the next one at which the padded net's window begins."""
        return [(-sources[0].first - self.padding(size)[0]) % self.stride]

    def cells(self, source: Cells, size: int) -> Cells:
        """One for every window."""
        number = (source.first + self.padding(size)[0]) // self.stride
        return Cells(number, source.stride * self.stride, source.reach + (self.extent - 1) * source.stride)


@dataclass(frozen=True)
class Border(Move):
    """Rows of zeros added before and after; negative numbers crop."""

    before: int
    after: int

    @property
    def pads(self) -> bool:
        """Whether it adds rows."""
        return self.before > 0 or self.after > 0

    def size(self, sizes: Sequence[int]) -> int:
        """The rows there are, and those added."""
        return max(sizes[0] + self.before + self.after, 0)

    def span(self, spans: Sequence[Span]) -> Span:
        """As it was, from another row on."""
        (first,) = spans
        return Span(first.start - self.before * first.stride, first.extent, first.stride, _size_of(self, spans))

    def bounds(self, bounds: Bounds) -> Bounds:
        """As they were; added rows look at nothing."""
        cropped = slice(max(-self.before, 0), len(bounds[0]) - max(-self.after, 0))
        return _extended((bounds[0][cropped], bounds[1][cropped]), max(self.before, 0), max(self.after, 0))

    def lattice(self, lattices: Sequence[Lattice], stride: int) -> Lattice:
        """Every fragment is cropped."""
        (first,) = lattices
        return replace(first, size=max(first.size + (self.before + self.after) * first.fragments, 0))

    def skipped(self, sources: Sequence[Cells], size: int) -> list[int]:
        """None: a twin leaves the layer out, and crops where cells must meet."""
        return [0]

    def cells(self, source: Cells, size: int) -> Cells:
        """The same ones by other numbers."""
        return Cells(source.first + self.before, source.stride, source.reach)


@dataclass(frozen=True)
class Repeat(Move):
    """Every row `times` times over (nearest-neighbour upsampling)."""

    times: int

    repeats = True

    def size(self, sizes: Sequence[int]) -> int:
        """The rows there are, so many times."""
        return sizes[0] * self.times

    def span(self, spans: Sequence[Span]) -> Span:
        """As if the copies of a row were as many cells, evenly between it and the next."""
        (first,) = spans
        if first.stride % self.times:
            raise InputError(
                f"upsamples by {self.times} at stride {first.stride}; accepted: a multiple of {self.times}"
            )
        return Span(first.start, first.extent, first.stride // self.times, _size_of(self, spans))

    def bounds(self, bounds: Bounds) -> Bounds:
        """Every row's, so many times."""
        return np.repeat(bounds[0], self.times), np.repeat(bounds[1], self.times)

    def reach(self, spans: Sequence[Span]) -> Span:
        """Copies of a row do not lie where evenly spaced cells would."""
        span = self.span(spans)
        wider = spans[0].stride - span.stride
        return replace(span, start=span.start - wider, extent=span.extent + wider)


@dataclass(frozen=True)
class Pointwise(Move):
    """Each position by itself; several inputs are merged position by position, a single one being broadcast."""

    def size(self, sizes: Sequence[int]) -> int:
        """The larger of the inputs', of which one position is repeated."""
        return max(sizes)

    def span(self, spans: Sequence[Span]) -> Span:
        """The pixels that any input's cell looks at."""
        start = min(span.start for span in spans)
        end = max(span.start + span.extent for span in spans)
        return Span(start, end - start, max(span.stride for span in spans), _size_of(self, spans))

    def skipped(self, sources: Sequence[Cells], size: int) -> list[int]:
        """Cells up to the first that all inputs have."""
        if len({source.stride for source in sources}) > 1:
            strides = ", ".join(str(source.stride) for source in sources)
            raise InputError(f"merges maps of strides {strides}; accepted: one stride")
        first = max(source.first for source in sources)
        return [first - source.first for source in sources]


@dataclass(frozen=True)
class Everywhere(Move):
    """Every output looks at the whole map (global pooling inside the network)."""

    is_global = True

    def size(self, sizes: Sequence[int]) -> int:
        """One position."""
        return 1

    def span(self, spans: Sequence[Span]) -> Span:
        """All pixels."""
        return Span(spans[0].start, math.inf, 0, 1)

    def bounds(self, bounds: Bounds) -> Bounds:
        """From the first pixel of any cell to the last of any."""
        return bounds[0].min(keepdims=True), bounds[1].max(keepdims=True)


@dataclass(frozen=True)
class Unknown(Move):
    """A layer that may look anywhere: what only describes a model goes on past it."""

    is_local = False

    def size(self, sizes: Sequence[int]) -> int:
        """Not known."""
        raise InputError("its reach over positions is not known")

    def span(self, spans: Sequence[Span]) -> Span:
        """Not known."""
        raise InputError("its reach over positions is not known")

    def bounds(self, bounds: Bounds) -> Bounds:
        """Not known."""
        raise InputError("its reach over positions is not known")


_KINDS = {kind.__name__.lower(): kind for kind in (Slide, Border, Repeat, Pointwise, Everywhere, Unknown)}


def move_from(data: dict[str, Any]) -> Move:
    """The move that `Move.to_data` wrote.

    Raises:
        InputError: for a kind that is none, or other numbers than its own.
    """
    numbers = {name: value for name, value in data.items() if name != "move"}
    try:
        return _KINDS[data["move"]](**numbers)
    except (KeyError, TypeError):
        raise InputError(f"move: received {data}; accepted: one of {', '.join(_KINDS)} with its numbers") from None


def _extended(bounds: Bounds, before: int, after: int) -> Bounds:
    first, last = (
        np.pad(bound, (before, after), constant_values=empty) for bound, empty in zip(bounds, _NOTHING, strict=True)
    )
    return first, last
