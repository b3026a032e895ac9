"""How the sides of a network's maps follow from those of its image, as a rule that other programs are told."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from zoo.errors import InputError, refuse
from zoo.network.network import Network
from zoo.network.program import Ints

# The n of sizes that a rule is tried on, the last of them more than what a map of one size needs to be told from one
# that grows slowly; and the largest step.
_TRIED = (*range(12), 100, 1_000)
_MOST = 512


@dataclass(frozen=True)
class MapRule:
    """Of `side` pixels a map has side / `stride` + `offset` rows; where `stride` is 0, `offset` rows.

    `halo`: how many rows at each border see what the network itself puts beyond the image's.
    """

    stride: Fraction
    offset: int
    halo: int = 0

    def rows(self, side: int) -> int:
        """Rows of the map."""
        return (side // self.stride if self.stride else 0) + self.offset


@dataclass(frozen=True)
class SizeRule:
    """Along one axis an image has `least` + n * `step` pixels, n = 0, 1, ...; `maps`: what becomes of it, by output.

    `step` is 0 where there is one size alone, and where no side that fits is a whole number of strides. An output that
    is no map has no rule.
    """

    least: int
    step: int
    maps: dict[int, MapRule]

    def side(self, count: int) -> int:
        """The side of an image with n = `count`."""
        return self.least + count * self.step


def size_rules(network: Network) -> tuple[SizeRule, ...]:
    """The rule of every axis.

    Raises:
        InputError: where the sides of maps follow none, or the image has to be too large.
    """
    kinds = network.head.kinds
    maps = [number for number, key in enumerate(network.graph.outputs) if kinds[key] != "vector"]
    return tuple(_rule(network, axis, maps) for axis in range(network.axes.count))


def _rule(network: Network, axis: int, maps: list[int]) -> SizeRule:
    rows, built = _rows_of(network, axis, maps), network.graph.built_sides[axis]
    if built is not None:
        return _one_size(rows, built, maps)
    start = network.own_size[axis] if network.own_size else 1
    begin = next((side for side in range(start, start + 8 * _MOST) if rows(side) is not None), None)
    steps = () if begin is None else range(1, _MOST)
    step = next((step for step in steps if _growth(rows, begin or 0, step) is not None), None)
    if begin is None or step is None:
        refuse(f"model {network.name!r}", "an output whose size follows no rule", "one of a size for every image")
    growths = {least: _growth(rows, least, step) for least in range(begin, begin + step)}

    def remainder(least: int) -> Fraction:
        """What is left of side / stride, of the map where it is most."""
        return max((Fraction(least * grown, step) % 1 for grown in growths[least] or ()), default=Fraction(0))

    # Programs round side / stride in ways of their own, and the checker not at all, so it is to be whole.
    first = min((least for least in growths if growths[least] is not None), key=lambda each: (remainder(each), each))
    if remainder(first):
        return _one_size(rows, begin, maps)
    growth = growths[first] or ()
    for least in range(first, first + 64 * _MOST, step):
        made, halos = rows(least), _halos(network, axis, maps, least)
        if made is None or any(count <= 2 * halo for count, halo in zip(made, halos, strict=True)):
            continue
        found = {}
        for number, count, grown, halo in zip(maps, made, growth, halos, strict=True):
            stride = Fraction(step, grown) if grown else Fraction(0)
            found[number] = MapRule(stride, count - (least * grown // step), halo if grown else 0)
        return SizeRule(least, step, found)
    refuse(f"model {network.name!r}", "a halo that no image of a fair size has room for", "a smaller receptive field")


def _one_size(rows: "Rows", side: int, maps: list[int]) -> SizeRule:
    """The rule of images of one size."""
    made = rows(side)
    assert made is not None
    return SizeRule(side, 0, {number: MapRule(Fraction(0), count) for number, count in zip(maps, made, strict=True)})


Rows = Callable[[int], Ints | None]


def _rows_of(network: Network, axis: int, maps: list[int]) -> Rows:
    """A function from the side of an image to the rows of maps; None where the network does not take it."""
    program, keys = network.program_as_built, [network.graph.outputs[number] for number in maps]
    if not program.any(lambda move: not move.is_local):

        def by_moves(side: int) -> Ints | None:
            if not program.fits_along(axis, side):
                return None
            sizes = program.sizes(axis, side)
            return tuple(sizes[key] for key in keys)

        return by_moves
    kinds = network.head.kinds
    others = network.own_size or tuple(side or _MOST for side in network.graph.built_sides)

    def by_shapes(side: int) -> Ints | None:
        try:
            shapes = network.shapes((*others[:axis], side, *others[axis + 1 :]))
        except InputError:
            return None
        first = network.axes.spatial.start - 1
        places = [axis if kinds[key] == "plane" else first + axis for key in keys]
        return tuple(shapes[key][place] or 0 for key, place in zip(keys, places, strict=True))

    return by_shapes


def _growth(rows: Rows, least: int, step: int) -> Ints | None:
    """By how many rows each map grows when the image does by `step`; None where it is not always as many."""
    first, second = rows(least), rows(least + step)
    if first is None or second is None:
        return None
    growth = tuple(after - before for before, after in zip(first, second, strict=True))
    for number in _TRIED:
        wanted = tuple(count + number * grown for count, grown in zip(first, growth, strict=True))
        if rows(least + number * step) != wanted or 0 in wanted:
            return None
    return growth


def _halos(network: Network, axis: int, maps: list[int], side: int) -> list[int]:
    """How many rows of each map see beyond the border of an image of `side`, on the side where they are more."""
    sides: list[int | None] = [None] * network.axes.count
    sides[axis] = side
    spans, halos = network.spans(tuple(sides)), []
    for number in maps:
        known = spans[network.graph.outputs[number]]
        span = None if known is None else known[axis]
        if span is None or math.isinf(span.extent) or span.size is None:
            halos.append(0)
            continue
        beyond = span.start + (span.size - 1) * span.stride + int(span.extent) - side
        halos.append(max(-(span.start // span.stride), -(-beyond // span.stride), 0))
    return halos
