"""The families' schemas: tables that mirror the papers'."""

import importlib
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from zoo.config.architecture import ArchitectureConfig, ClassMapsHead, Head, Padding, PathConfig, Window, after
from zoo.config.base import Kernel, Positive, Rate, Schema, problem
from zoo.config.messages import key_and_text
from zoo.errors import InputError, unknown


class Pool(Schema):
    """A pooling window; where the network is padded, its output size is rounded up, as Caffe rounds it."""

    kind: Literal["max", "average"]
    size: Positive
    stride: Positive

    def window(self, padding: Padding) -> Window:
        """The window with the rows that rounding up adds at the bottom."""
        return Window(self.size, self.stride, self.stride - 1 if padding == "same" else 0)


class Mlpconv(Schema):
    """One mlpconv layer: a spatial convolution, then 1x1 convolutions (Network in Network, section 3.1).

    `filters` lists the convolution's output channels and then each 1x1 layer's. `padding` is the network's where null.
    """

    kernel: Kernel
    stride: Positive = 1
    padding: Padding | None = None
    filters: Annotated[tuple[Positive, ...], Field(min_length=1)]
    pool: Pool | None = None
    dropout: Rate = 0.0


class NINConfig(PathConfig):
    """Network in Network: mlpconv layers, then class maps (Lin, Chen, Yan 2013, figure 2)."""

    builder: ClassVar[str] = "zoo.models.nin"

    family: Literal["nin"]
    padding: Padding = "same"
    normalization: Literal["none", "batch"] = "none"
    mlpconvs: Annotated[tuple[Mlpconv, ...], Field(min_length=1)]
    head: Head = ClassMapsHead()

    def path(self) -> list[Window]:
        """The windows from image to last feature map."""
        windows = []
        for row in self.mlpconvs:
            same = (row.padding or self.padding) == "same"
            windows.append(Window(row.kernel, row.stride, row.kernel - 1 if same else 0))
            windows += [row.pool.window(self.padding)] if row.pool else []
        return windows


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
        return self

    @property
    def row_window(self) -> Window:
        """The window along the rows, as a padded network has it."""
        kernel = self.kernel[0]
        padded = 0 if self.padding == "valid" else kernel - 1
        if self.kind != "conv" and self.stride > 1 and padded:
            padded = self.stride - 1  # a pooling's size is rounded up
        return Window(kernel, self.stride, padded)


_LAYER = re.compile(r"(?:(max|average) )?(\d+)x(\d+)(?:/(\d+))?(?: (\d+))?( valid)?")
Step = tuple[Layer, ...]


def _as_step(value: Any) -> Any:
    """`1x3 384 + 3x1 384` to the layers that stand side by side."""
    if not isinstance(value, str):
        return value
    layers = []
    for text in value.split(" + "):
        found = _LAYER.fullmatch(text.strip())
        if found is None or (found[1] is None) == (found[5] is None):
            raise problem(f"received {text!r}; accepted: 3x3 64, 3x3/2 96 valid, 1x7 128, max 3x3/2, average 3x3")
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
    tuple[Annotated[Step, BeforeValidator(_as_step)], ...], Field(min_length=1), BeforeValidator(_as_branch)
]


def extent(branch: Branch) -> tuple[int, int]:
    """Rows and columns of input that one output of a branch looks at."""
    reach = []
    for axis in (0, 1):
        steps = accumulate((step[0].stride for step in branch[:-1]), initial=1, func=lambda a, b: a * b)
        widest = (max(layer.kernel[axis] for layer in step) for step in branch)
        reach.append(1 + sum((kernel - 1) * step for kernel, step in zip(widest, steps, strict=True)))
    return reach[0], reach[1]


class InceptionModule(Schema):
    """Branches side by side on one input, concatenated; `pool` is the pooling between this module and the next.

    The branches stand either in `branches`, or as a row of GoogLeNet's table 1: the filters of the 1x1, the 3x3 and the
    5x5 convolution, of the 1x1 reductions before them (left out in a naive module), and of the pooling's projection.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    branches: tuple[Branch, ...] = ()
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
    modules: Annotated[tuple[InceptionModule, ...], Field(min_length=1)]
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
        """Rows of the last feature map; with valid padding the branch that looks furthest decides."""
        for branches in self._stages():
            size = min(self._after(branch, size, extent(branch)[0], branches) for branch in branches)
        return size

    def _after(self, branch: Branch, size: int, reach: int, branches: tuple[Branch, ...]) -> int:
        if self.padding == "same":
            return after((step[0].row_window for step in branch), size)
        size -= max(extent(other)[0] for other in branches) - reach
        return after((Window(max(layer.kernel[0] for layer in step), step[0].stride) for step in branch), size)

    def _stages(self) -> list[tuple[Branch, ...]]:
        stages: list[tuple[Branch, ...]] = [(self.stem,)]
        for module in self.modules:
            stages.append(module.as_branches(self.kernel5))
            stages += [((module.pool,),)] if module.pool else []
        return stages

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(math.prod(step[0].stride for step in branches[0]) for branches in self._stages())


class ResNetStem(Schema):
    """The convolution before the first stage; `pool` adds the 3x3 max pooling at stride 2 of the ImageNet nets."""

    kernel: Kernel
    stride: Positive = 1
    filters: Positive
    pool: bool = False


class ResNetStage(Schema):
    """A row of table 1 in He et al. 2015: `blocks` of `width` inner and `filters` output channels.

    A basic block has no width of its own.
    """

    blocks: Positive
    width: Positive | None = None
    filters: Positive
    stride: Positive = 1


class ResNetConfig(PathConfig):
    """ResNet (He et al. 2015, section 4.1; v2: He et al. 2016, figure 4e; grouped: Xie et al. 2017, figure 3c).

    `variant`: v1 has a stage's stride in the first 1x1 convolution, v1_5 in the 3x3; v2 is pre-activated, stride in
    the 3x3; v2_keras is v2 as keras.applications has it: stride in a stage's last block, and biases where no
    normalisation follows. `groups` divides the 3x3 convolution. `output_stride`: later stages dilate instead of
    striding, so that cells are that many pixels apart.
    """

    builder: ClassVar[str] = "zoo.models.resnet"

    family: Literal["resnet"]
    variant: Literal["v1", "v1_5", "v2", "v2_keras"]
    block: Literal["bottleneck", "basic"] = "bottleneck"
    groups: Positive = 1
    stem: ResNetStem
    stages: Annotated[tuple[ResNetStage, ...], Field(min_length=1)]
    output_stride: Literal[8, 16, 32] | None = None

    @model_validator(mode="after")
    def _check_blocks(self) -> "ResNetConfig":
        for index, row in enumerate(self.stages):
            if (row.width is None) != (self.block == "basic"):
                wanted = "none in a basic block" if self.block == "basic" else "a number, in a bottleneck"
                raise problem(f"received {row.width}; accepted: {wanted}", f"stages.{index}.width")
            if row.width and row.width % self.groups:
                raise problem(
                    f"received {row.width}; accepted: a multiple of groups = {self.groups}", f"stages.{index}.width"
                )
        if self.block == "basic" and self.variant != "v1":
            raise problem(f"received {self.variant!r}; accepted for basic blocks: 'v1'", "variant")
        if self.output_stride and self.variant == "v2_keras":
            raise problem(f"received {self.output_stride}; accepted for v2_keras: null", "output_stride")
        return self

    def strides(self) -> list[tuple[int, int]]:
        """For each stage the stride that is taken and the dilation that it ends in, under `output_stride`."""
        reached = self.stem.stride * (2 if self.stem.pool else 1)
        dilation, rows = 1, []
        for row in self.stages:
            if self.output_stride and reached * row.stride > self.output_stride:
                dilation *= row.stride
                rows.append((1, dilation))
            else:
                reached *= row.stride
                rows.append((row.stride, dilation))
        return rows

    def path(self) -> list[Window]:
        """The windows from image to last feature map, along the strides."""
        windows = [Window(self.stem.kernel, self.stem.stride, self.stem.kernel - 1)]
        windows += [Window(3, 2, 2)] if self.stem.pool else []
        return windows + [Window(1, stride) for stride, _ in self.strides()]


class Fire(Schema):
    """A fire module (Iandola et al. 2016, figure 2): 1x1 to `squeeze`, then 1x1 and 3x3, each to `expand` filters."""

    squeeze: Positive
    expand: Positive
    pool: Pool | None = None


class SqueezeNetStem(Schema):
    """The first convolution, which is never padded, and the pooling after it."""

    kernel: Kernel
    stride: Positive
    filters: Positive
    pool: Pool


class SqueezeNetConfig(PathConfig):
    """SqueezeNet: a convolution, then fire modules (Iandola et al. 2016, arXiv:1602.07360, table 1)."""

    builder: ClassVar[str] = "zoo.models.squeezenet"

    family: Literal["squeezenet"]
    stem: SqueezeNetStem
    fires: Annotated[tuple[Fire, ...], Field(min_length=1)]
    head: Head = ClassMapsHead(dropout=0.5, relu=True)

    def path(self) -> list[Window]:
        """The windows from image to last feature map, through the 3x3 branches."""
        pools = [row.pool.window("same") for row in (self.stem, *self.fires) if row.pool]
        return [Window(self.stem.kernel, self.stem.stride), *pools]


FAMILIES: dict[str, type[ArchitectureConfig]] = {
    "nin": NINConfig,
    "inception": InceptionConfig,
    "resnet": ResNetConfig,
    "squeezenet": SqueezeNetConfig,
}


def _schema(family: Any) -> type[ArchitectureConfig]:
    """The schema of a family: one of ours, or `package.module:Class` of a user's own."""
    if family in FAMILIES:
        return FAMILIES[family]
    module, _, name = str(family).partition(":")
    if not name:
        accepted = ", ".join(repr(known) for known in FAMILIES)
        raise problem(f"received {family!r}; accepted: {accepted}, or package.module:Class", "family")
    try:
        schema = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise problem(f"received {family!r}, which cannot be imported ({error})", "family") from None
    if not (isinstance(schema, type) and issubclass(schema, ArchitectureConfig)):
        raise problem(f"received {family!r}; accepted: a class derived from zoo.config.ArchitectureConfig", "family")
    return schema


def _as_model(value: Any) -> Any:
    """A model section, checked by the schema of its family."""
    if isinstance(value, ArchitectureConfig):
        return value
    if not isinstance(value, Mapping):
        raise problem(f"received {value!r}; accepted: the keys of a model, beginning with family")
    schema = _schema(value.get("family"))
    try:
        return schema.model_validate(dict(value))
    except ValidationError as error:
        key, text = key_and_text(error, value)
        raise problem(text, key) from None


ModelConfig = Annotated[ArchitectureConfig, BeforeValidator(_as_model)]


class _Section(Schema):
    model: ModelConfig


def model_config(data: Mapping[str, Any], source: str) -> ArchitectureConfig:
    """Check the `model` section of a config; errors begin with `source`."""
    section = {"model": data}
    try:
        return _Section.model_validate(section).model
    except ValidationError as error:
        key, text = key_and_text(error, section)
        raise InputError(f"{source}: {key}: {text}") from None
