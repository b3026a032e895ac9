"""The families' schemas: tables that mirror the papers'."""

import importlib
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError

from zoo.config.architecture import ArchitectureConfig, ClassMapsHead, Head, LayerSize, Padding, PathConfig, Window
from zoo.config.base import Kernel, Positive, Rate, Schema, problem
from zoo.config.inception import InceptionConfig
from zoo.config.messages import key_and_text
from zoo.errors import InputError, quoted


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
    filters: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)]
    pool: Pool | None = None
    dropout: Rate = 0.0


class NINConfig(PathConfig):
    """Network in Network: mlpconv layers, then class maps (Lin, Chen, Yan 2013, figure 2)."""

    builder: ClassVar[str] = "zoo.models.nin"

    family: Literal["nin"]
    padding: Padding = "same"
    normalization: Literal["none", "batch"] = "none"
    mlpconvs: Annotated[tuple[Mlpconv, ...], Field(min_length=1, max_length=1000)]
    head: Head = ClassMapsHead()

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path."""
        channels = self.channels
        for index, row in enumerate(self.mlpconvs):
            key, same = f"mlpconvs.{index}", (row.padding or self.padding) == "same"
            window = Window(row.kernel, row.stride, row.kernel - 1 if same else 0)
            for place, filters in enumerate(row.filters):
                window, area = (Window(1), 1) if place else (window, row.kernel**2)
                yield LayerSize(key, area * channels * filters, filters, window)
                channels = filters
            if row.pool:
                yield LayerSize(f"{key}.pool", 0, channels, row.pool.window(self.padding))


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

    blocks: Annotated[int, Field(ge=1, le=1000)]
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
    stages: Annotated[tuple[ResNetStage, ...], Field(min_length=1, max_length=1000)]
    output_stride: Literal[8, 16, 32] | None = None
    stochastic_depth: Rate = 0.0

    def _check_extent(self) -> None:
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
        super()._check_extent()

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

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path; shortcuts lie beside it."""
        stem = self.stem
        channels = stem.filters
        yield LayerSize(
            "stem", stem.kernel**2 * self.channels * channels, channels, self._window(stem.kernel, stem.stride)
        )
        if stem.pool:
            yield LayerSize("stem.pool", 0, channels, self._window(3, 2))
        for index, (row, steps) in enumerate(zip(self.stages, self.steps(), strict=True)):
            for block, step in enumerate(steps):
                strides = row.stride != 1 and self.variant != "v2_keras"
                if block == 0 and (channels != row.filters or strides):
                    yield LayerSize(f"stages.{index}", channels * row.filters, 0, None)
                for weights, filters, window in self._block(row, step, channels):
                    yield LayerSize(f"stages.{index}", weights, filters, window)
                channels = row.filters

    def _block(self, row: ResNetStage, step: BlockStep, channels: int) -> Iterator[tuple[int, int, Window]]:
        """Numbers in the kernels, channels and windows of a block's convolutions."""
        if self.block == "basic":
            yield 9 * channels * row.filters, row.filters, self._window(3, step.stride, step.before)
            yield 9 * row.filters**2, row.filters, self._window(3, 1, step.behind)
            return
        # The stride is in the first 1x1 in v1, and in the 3x3 in all others.
        first = self.variant == "v1"
        yield channels * row.width, row.width, self._window(1, step.stride if first else 1)
        window = self._window(3, 1, step.behind) if first else self._window(3, step.stride, step.before)
        yield 9 * row.width**2 // self.groups, row.width, window
        yield row.width * row.filters, row.filters, Window(1)

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
    fires: Annotated[tuple[Fire, ...], Field(min_length=1, max_length=1000)]
    head: Head = ClassMapsHead(dropout=0.5, relu=True)

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path, which leads through the 3x3 branches."""
        stem = self.stem
        channels = stem.filters
        yield LayerSize("stem", stem.kernel**2 * self.channels * channels, channels, Window(stem.kernel, stem.stride))
        yield LayerSize("stem.pool", 0, channels, stem.pool.window(self.padding))
        for index, row in enumerate(self.fires):
            yield LayerSize(f"fires.{index}", channels * row.squeeze, row.squeeze)
            channels = 2 * row.expand
            window = Window(3, 1, 2 if self.padding == "same" else 0)
            yield LayerSize(f"fires.{index}", 10 * row.squeeze * row.expand, channels, window)
            if row.pool:
                yield LayerSize(f"fires.{index}.pool", 0, channels, row.pool.window(self.padding))


FAMILIES: dict[str, type[ArchitectureConfig]] = {
    "nin": NINConfig,
    "inception": InceptionConfig,
    "resnet": ResNetConfig,
    "squeezenet": SqueezeNetConfig,
}


def _schema(family: Any) -> type[ArchitectureConfig]:
    """The schema of a family: one of ours, or `package.module:Class` of a user's own."""
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    named = re.fullmatch(r"(\w+(?:\.\w+)*):(\w+)", family) if isinstance(family, str) else None
    if named is None:
        accepted = ", ".join(repr(known) for known in FAMILIES)
        raise problem(f"received {quoted(family)}; accepted: {accepted}, or package.module:Class", "family")
    try:
        schema = getattr(importlib.import_module(named[1]), named[2])
    except Exception as error:  # the user's module may fail in any way
        why = f"{type(error).__name__}: {error}"
        raise problem(f"received {quoted(family)}, which cannot be imported ({why})", "family") from None
    if not (isinstance(schema, type) and issubclass(schema, ArchitectureConfig)):
        accepted = "a class derived from zoo.config.ArchitectureConfig"
        raise problem(f"received {quoted(family)}; accepted: {accepted}", "family")
    return schema


def _as_model(value: Any) -> Any:
    """A model section, checked by the schema of its family."""
    if isinstance(value, ArchitectureConfig):
        return value
    if not isinstance(value, Mapping):
        raise problem(f"received {quoted(value)}; accepted: the keys of a model, beginning with family")
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
