"""How the branches of an Inception module are written, and what they look at together.

`1x1 64, 3x3 96` is a branch: tiers one after another. A tier is one layer, or several side by side, joined by `+`.
"""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from zoo.errors import quoted
from zoo.models.architecture import Padding, Window
from zoo.schema import Positive, Schema, problem


class Layer(Schema):
    """One layer of an Inception branch, written `3x3 64`, `3x3/2 96 valid`, `1x7 128`, `max 3x3/2`, `average 3x3`.

    Rows x columns, the stride after a slash, then the filters of a convolution; `valid` where it has no padding in a
    padded network, as even sides need. Layers joined by `+` stand side by side on the same input, and are concatenated.
    """

    kind: Literal["conv", "max", "average"]
    kernel: tuple[Positive, Positive]
    stride: Positive = 1
    filters: Positive | None = None
    padding: Padding = "same"

    @model_validator(mode="after")
    def _check_kernel(self) -> "Layer":
        if self.kind == "conv" and self.padding == "same" and not all(side % 2 for side in self.kernel):
            raise problem(f"received {self.kernel}; accepted: odd sides, so that padding is symmetric, or `valid`")
        if (self.kind == "conv") != (self.filters is not None):
            raise problem(f"received {self.filters} filters; accepted: a number in a convolution, none in a pooling")
        return self

    @property
    def row_window(self) -> Window:
        """The window along the rows, as a padded network has it."""
        kernel = self.kernel[0]
        padded = self.stride - 1 if self.rounds_up else kernel - 1
        return Window(kernel, self.stride, 0 if self.padding == "valid" else padded)

    def taps(self, axis: int) -> tuple[int, int]:
        """First and past-the-last row (column for axis 1) under the first output of a padded net, padding below 0."""
        kernel = self.kernel[axis]
        before = 0 if self.padding == "valid" or self.rounds_up else (kernel - 1) // 2
        return -before, kernel - before

    @property
    def rounds_up(self) -> bool:
        """Whether it is a pooling whose size a padded network rounds up, by padding at the end alone."""
        return self.kind != "conv" and self.stride > 1


_LAYER = re.compile(r"(?:(max|average) )?(\d{1,10})x(\d{1,10})(?:/(\d{1,10}))?(?: (\d{1,10}))?( valid)?")


def _as_tier(value: Any) -> Any:
    """`1x3 384 + 3x1 384` to the layers that stand side by side."""
    if not isinstance(value, str):
        return value
    tier = []
    for text in value.split(" + "):
        match = _LAYER.fullmatch(text.strip())
        if match is None or (match[1] is None) == (match[5] is None):
            raise problem(f"received {quoted(text)}; accepted: 3x3 64, 3x3/2 96 valid, 1x7 128, max 3x3/2, average 3x3")
        kind, rows, columns, stride, filters, valid = match.groups()
        tier.append(
            {
                "kind": kind or "conv",
                "kernel": (int(rows), int(columns)),
                "stride": int(stride or 1),
                "filters": int(filters) if filters else None,
                "padding": "valid" if valid else "same",
            }
        )
    return tier


def _as_branch(value: Any) -> Any:
    return value.split(", ") if isinstance(value, str) else value


# Layers that stand side by side, and a branch: a row of such tiers.
Tier = Annotated[tuple[Layer, ...], Field(min_length=1, max_length=8), BeforeValidator(_as_tier)]
Branch = Annotated[tuple[Tier, ...], Field(min_length=1, max_length=100), BeforeValidator(_as_branch)]


def _hull(intervals: Iterable[tuple[int, int]]) -> tuple[int, int]:
    firsts, lasts = zip(*intervals, strict=True)
    return min(firsts), max(lasts)


def _field(branch: Branch, axis: int) -> tuple[int, int]:
    """First and past-the-last row (column for axis 1) that a branch's first output looks at in a padded network."""
    first, last, stride = 0, 1, 1
    for tier in branch:
        begin, end = _hull(layer.taps(axis) for layer in tier)
        first, last = first + begin * stride, last + (end - 1) * stride
        stride *= tier[0].stride
    return first, last


def stride_of(branches: tuple[Branch, ...]) -> int:
    """Pixels of the input between neighbouring outputs of branches side by side, the same in all."""
    return math.prod(tier[0].stride for tier in branches[0])


def window_of(branches: tuple[Branch, ...]) -> Window:
    """What branches side by side look at together along the rows, where none of them pads."""
    first, last = _hull(_field(branch, 0) for branch in branches)
    return Window(last - first, stride_of(branches))


def crops(branches: tuple[Branch, ...], axis: int) -> list[tuple[int, int]]:
    """Rows (columns for axis 1) to cut off each branch's input at both ends where nothing is padded.

    Every branch then begins and ends at the pixels of the hull of their fields, aligned as in the padded network.
    """
    fields = [_field(branch, axis) for branch in branches]
    first, last = _hull(fields)
    return [(begin - first, last - end) for begin, end in fields]
