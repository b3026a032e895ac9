"""The families' schemas: tables that mirror the papers'."""

import importlib
from collections.abc import Mapping
from itertools import chain, count
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from zoo.config.architecture import ArchitectureConfig, ClassMapsHead, Head, Padding, PathConfig, Window
from zoo.config.base import Kernel, Positive, Rate, Schema, problem
from zoo.config.inception import InceptionConfig
from zoo.config.messages import key_and_text
from zoo.errors import InputError


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


class BlockStep(NamedTuple):
    """A block's stride, the dilations of its 3x3 convolutions before and behind the place where a stride is, its drop.

    `drop` is the chance that its residual branch is left out in training.
    """

    stride: int
    before: int
    behind: int
    drop: float


class ResNetConfig(PathConfig):
    """ResNet (He et al. 2015, section 4.1; v2: He et al. 2016, figure 4e; grouped: Xie et al. 2017, figure 3c).

    `variant`: v1 has a stage's stride in the first 1x1 convolution, v1_5 in the 3x3; v2 is pre-activated, stride in
    the 3x3; v2_keras is v2 as keras.applications has it: stride in a stage's last block, and biases where no
    normalisation follows. `groups` divides the 3x3 convolution. `output_stride`: later stages dilate instead of
    striding, so that cells are that many pixels apart. `padding`: valid pads no layer and crops the shortcuts instead.
    `stochastic_depth`: the chance that training leaves out the last block's residual branch of an image, rising to it
    linearly from the first (Huang et al. 2016, arXiv:1603.09382, section 3; inverted, so that nothing is scaled later).
    """

    builder: ClassVar[str] = "zoo.models.resnet"

    family: Literal["resnet"]
    padding: Padding = "same"
    variant: Literal["v1", "v1_5", "v2", "v2_keras"]
    block: Literal["bottleneck", "basic"] = "bottleneck"
    groups: Positive = 1
    stem: ResNetStem
    stages: Annotated[tuple[ResNetStage, ...], Field(min_length=1)]
    output_stride: Literal[8, 16, 32] | None = None
    stochastic_depth: Rate = 0.0

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

    def steps(self) -> list[list[BlockStep]]:
        """For each stage the steps of its blocks, under `output_stride`; one block strides, v2_keras's last."""
        reached = self.stem.stride * (2 if self.stem.pool else 1)
        each = self.stochastic_depth / sum(row.blocks for row in self.stages)
        drops = (each * block for block in count(1))
        dilation, stages = 1, []
        for row in self.stages:
            stride, before = row.stride, dilation
            if self.output_stride and reached * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            steps = [BlockStep(1, dilation, dilation, next(drops)) for _ in range(row.blocks)]
            strided = -1 if self.variant == "v2_keras" else 0
            steps[strided] = steps[strided]._replace(stride=stride, before=before)
            stages.append(steps)
        return stages

    def path(self) -> list[Window]:
        """The windows from image to last feature map, through the blocks' convolutions."""
        windows = [self._window(self.stem.kernel, self.stem.stride)]
        windows += [self._window(3, 2)] if self.stem.pool else []
        strided = 1 if self.variant == "v1" and self.block == "bottleneck" else 3
        for step in chain.from_iterable(self.steps()):
            windows.append(self._window(strided, step.stride, step.before))
            windows += [self._window(3, 1, step.behind)] if self.variant == "v1" else []
        return windows

    def _window(self, kernel: int, stride: int, dilation: int = 1) -> Window:
        extent = 1 + (kernel - 1) * dilation
        return Window(extent, stride, extent - 1 if self.padding == "same" else 0)


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
    padding: Padding = "same"
    stem: SqueezeNetStem
    fires: Annotated[tuple[Fire, ...], Field(min_length=1)]
    head: Head = ClassMapsHead(dropout=0.5, relu=True)

    def path(self) -> list[Window]:
        """The windows from image to last feature map, through the 3x3 branches."""
        windows = [Window(self.stem.kernel, self.stem.stride), self.stem.pool.window(self.padding)]
        for row in self.fires:
            windows.append(Window(3, 1, 2 if self.padding == "same" else 0))
            windows += [row.pool.window(self.padding)] if row.pool else []
        return windows


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
