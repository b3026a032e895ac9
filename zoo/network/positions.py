"""What is known of the positions of a map along one axis: plain numbers, which moves carry from layer to layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")
# Of an image: (height, width), (rows, columns), (vertical, horizontal).
Pair = tuple[int, int]

# For every cell the first and the past-the-last pixel that it looks at; an empty field ends before it begins.
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Span:
    """Cell i of a map looks at pixels [start + i * stride, start + i * stride + extent); the map has `size` rows."""

    start: int
    extent: float
    stride: int
    size: int | None

    @property
    def known_size(self) -> int:
        """`size`, of a map whose image has a known size.

        Raises:
            ValueError: where that is open.
        """
        if self.size is None:
            raise ValueError("span: the image's size is open, and with it the map's")
        return self.size


@dataclass(frozen=True)
class Lattice:
    """The positions at which a finer grid needs a map: `size` of them, `pitch` pixels apart, the first at 0.

    Fragment f of `fragments` holds the positions f, f + fragments, ...: neighbours in it are one stride of the plain
    network apart, so that the network's layers run on a fragment as they are.
    """

    size: int
    pitch: int = 1
    fragments: int = 1

    @property
    def stride(self) -> int:
        """Pixels between neighbours in a fragment: the stride of the plain network."""
        return self.pitch * self.fragments

    @property
    def length(self) -> int:
        """Rows of every fragment; the last one may lie beyond the map, and holds nothing of meaning then."""
        return -(-self.size // self.fragments)


@dataclass(frozen=True)
class Cells:
    """The cells of a map in a padding-free twin: the number of the first in the padded net, their stride and reach.

    An image of n rows has (n - reach) // stride + 1 of these cells.
    """

    first: int
    stride: int
    reach: int

    def cropped(self, before: int, after: int) -> "Cells":
        """Without some cells at the beginning and at the end."""
        return Cells(self.first + before, self.stride, self.reach + (before + after) * self.stride)


def pair(values: Iterable[Value]) -> tuple[Value, Value]:
    """What there is of each axis of an image, (vertical, horizontal): where an image's two axes are taken for granted.

    Raises:
        ValueError: where there are not two.
    """
    vertical, horizontal = values
    return vertical, horizontal
