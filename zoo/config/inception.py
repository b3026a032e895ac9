"""Inception's schema: branches written as the papers' figures read, and GoogLeNet's table 1."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from zoo.config.architecture import ArchitectureConfig, LayerSize, Padding, Window, after
from zoo.config.base import Positive, Schema, problem
from zoo.errors import quoted, unknown


class Layer(Schema):
    """One layer of an Inception branch, written `3x3 64`, `3x3/2 96 valid`, `1x7 128`, `max 3x3/2`, `average 3x3`.

    Rows x columns, the stride behind a slash, then the filters of a convolution; `valid` where it has no padding in a
    padded network. Layers joined by `+` stand side by side on the same input, and are concatenated.
    """

    kind: Literal["conv", "max", "average"]
    kernel: tuple[Positive, Positive]
    stride: Positive = 1
    filters: Positive | None = None
    padding: Padding = "same"

    @model_validator(mode="after")
    def _check_kernel(self) -> "Layer":
        if self.kind == "conv" and not all(side % 2 for side in self.kernel):
            raise problem(f"received {self.kernel}; accepted: odd sides, so that padding is symmetric")
        if (self.kind == "conv") != (self.filters is not None):
            raise problem(f"received {self.filters} filters; accepted: a number in a convolution, none in a pooling")
        return self

    @property
    def row_window(self) -> Window:
        """The window along the rows, as a padded network has it."""
        kernel = self.kernel[0]
        padded = self.stride - 1 if self._rounds_up else kernel - 1
        return Window(kernel, self.stride, 0 if self.padding == "valid" else padded)

    def taps(self, axis: int) -> tuple[int, int]:
        """First and past-the-last row (column for axis 1) under the first output of a padded net, padding below 0."""
        kernel = self.kernel[axis]
        before = 0 if self.padding == "valid" or self._rounds_up else (kernel - 1) // 2
        return -before, kernel - before

    @property
    def _rounds_up(self) -> bool:
        """Whether it is a pooling whose size a padded network rounds up, by padding at the end alone."""
        return self.kind != "conv" and self.stride > 1


_LAYER = re.compile(r"(?:(max|average) )?(\d{1,10})x(\d{1,10})(?:/(\d{1,10}))?(?: (\d{1,10}))?( valid)?")
Step = Annotated[tuple[Layer, ...], Field(min_length=1, max_length=8)]


def _as_step(value: Any) -> Any:
    """`1x3 384 + 3x1 384` to the layers that stand side by side."""
    if not isinstance(value, str):
        return value
    layers = []
    for text in value.split(" + "):
        found = _LAYER.fullmatch(text.strip())
        if found is None or (found[1] is None) == (found[5] is None):
            raise problem(f"received {quoted(text)}; accepted: 3x3 64, 3x3/2 96 valid, 1x7 128, max 3x3/2, average 3x3")
        kind, rows, columns, stride, filters, valid = found.groups()
        layers.append(
            {
                "kind": kind or "conv",
                "kernel": (int(rows), int(columns)),
                "stride": int(stride or 1),
                "filters": int(filters) if filters else None,
                "padding": "valid" if valid else "same",
            }
        )
    return layers


def _as_branch(value: Any) -> Any:
    return value.split(", ") if isinstance(value, str) else value


Branch = Annotated[
    tuple[Annotated[Step, BeforeValidator(_as_step)], ...],
    Field(min_length=1, max_length=100),
    BeforeValidator(_as_branch),
]


def _hull(intervals: Iterable[tuple[int, int]]) -> tuple[int, int]:
    firsts, lasts = zip(*intervals, strict=True)
    return min(firsts), max(lasts)


def _field(branch: Branch, axis: int) -> tuple[int, int]:
    """First and past-the-last row (column for axis 1) that a branch's first output looks at in a padded network."""
    first, last, stride = 0, 1, 1
    for step in branch:
        begin, end = _hull(layer.taps(axis) for layer in step)
        first, last = first + begin * stride, last + (end - 1) * stride
        stride *= step[0].stride
    return first, last


def _stride(branches: tuple[Branch, ...]) -> int:
    return math.prod(step[0].stride for step in branches[0])


def crops(branches: tuple[Branch, ...], axis: int) -> list[tuple[int, int]]:
    """Rows (columns for axis 1) to cut off each branch's input at both ends where nothing is padded.

    Every branch then begins and ends at the pixels of the hull of their fields, aligned as in the padded network.
    """
    fields = [_field(branch, axis) for branch in branches]
    first, last = _hull(fields)
    return [(begin - first, last - end) for begin, end in fields]


class InceptionModule(Schema):
    """Branches side by side on one input, concatenated; `pool` is the pooling between this module and the next.

    The branches stand either in `branches`, or as a row of GoogLeNet's table 1: the filters of the 1x1, the 3x3 and the
    5x5 convolution, of the 1x1 reductions before them (left out in a naive module), and of the pooling's projection.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    branches: Annotated[tuple[Branch, ...], Field(max_length=100)] = ()
    conv1: Positive | None = None
    reduce3: Positive | None = None
    conv3: Positive | None = None
    reduce5: Positive | None = None
    conv5: Positive | None = None
    pool_proj: Positive | None = None
    pool: Annotated[Step, BeforeValidator(_as_step)] | None = None

    @model_validator(mode="after")
    def _check_row(self) -> "InceptionModule":
        row = (self.conv1, self.conv3, self.conv5)
        if bool(self.branches) == any(row) or (any(row) and not all(row)):
            raise problem(
                "received neither or both of branches and a row of conv1, conv3, conv5; accepted: one of them"
            )
        return self

    def as_branches(self, kernel5: int) -> tuple[Branch, ...]:
        """The module's branches; `kernel5` is the side of the convolution in the table's 5x5 column."""
        if self.branches:
            return self.branches
        texts = [
            f"1x1 {self.conv1}",
            (f"1x1 {self.reduce3}, " if self.reduce3 else "") + f"3x3 {self.conv3}",
            (f"1x1 {self.reduce5}, " if self.reduce5 else "") + f"{kernel5}x{kernel5} {self.conv5}",
            "max 3x3" + (f", 1x1 {self.pool_proj}" if self.pool_proj else ""),
        ]
        return InceptionModule(name=self.name, branches=tuple(texts)).branches


class InceptionConfig(ArchitectureConfig):
    """Inception: a stem, then modules of branches with 1x1 reductions (Szegedy et al. 2014, table 1; 2015).

    `kernel5`: the side of the convolution in the column 5x5 of table 1, 3 in torchvision's GoogLeNet. `auxiliary`: the
    modules whose outputs have a classifier of their own in training (4a and 4d in the paper, section 5).
    """

    builder: ClassVar[str] = "zoo.models.inception"

    family: Literal["inception"]
    padding: Padding = "same"
    normalization: Literal["none", "batch"] = "batch"
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    kernel5: Literal[3, 5] = 5
    stem: Branch
    modules: Annotated[tuple[InceptionModule, ...], Field(min_length=1, max_length=1000)]
    auxiliary: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_auxiliary(self) -> "InceptionConfig":
        names = [row.name for row in self.modules]
        for name in self.auxiliary:
            if name not in names:
                raise problem(unknown("module", name, names), "auxiliary")
        if self.auxiliary and self.image_size is None:
            raise problem("received null; auxiliary heads need the training size as [height, width]", "image_size")
        return self

    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map; with valid padding what the branches look at together decides."""
        for _, branches in self._stages():
            if self.padding == "valid":
                first, last = _hull(_field(branch, 0) for branch in branches)
                size = Window(last - first, _stride(branches)).output_size(size)
            else:
                size = min(after((step[0].row_window for step in branch), size) for branch in branches)
        return size

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is; of branches side by side each begins at the module's map."""
        channels = self.channels
        for key, branches in self._stages():
            widths = []
            for branch in branches:
                width = channels
                for step in branch:
                    areas = sum(math.prod(layer.kernel) * layer.filters for layer in step if layer.kind == "conv")
                    weights = areas * width
                    width = sum(layer.filters or width for layer in step)
                    yield LayerSize(key, weights, width, None)
                widths.append(width)
            channels = sum(widths)
            # The row's own window is that of its first branch, as all give maps of one size.
            window = Window(1, _stride(branches), _stride(branches) - 1)
            yield LayerSize(key, 0, channels, window)

    def _stages(self) -> list[tuple[str, tuple[Branch, ...]]]:
        """The branches side by side of each step of the path, with the key that they come from."""
        stages: list[tuple[str, tuple[Branch, ...]]] = [("stem", (self.stem,))]
        for index, module in enumerate(self.modules):
            stages.append((f"modules.{index}", module.as_branches(self.kernel5)))
            stages += [(f"modules.{index}.pool", ((module.pool,),))] if module.pool else []
        return stages

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(_stride(branches) for _, branches in self._stages())
