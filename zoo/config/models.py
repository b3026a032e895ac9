"""The architectures' schemas: tables that mirror the papers', and the sizes that follow from them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from zoo.config.base import Kernel, Positive, Rate, Schema, Size, problem
from zoo.config.messages import one_line
from zoo.errors import InputError

Padding = Literal["same", "valid"]


class Window(NamedTuple):
    """One window along a network's path: side, step, and rows of padding in all (pixels of its own input)."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Positions that the window takes on `size` rows; zero or less where it does not fit."""
        return (size + self.padding - self.kernel) // self.stride + 1


class Preprocess(Schema):
    """Raw pixels to network inputs: (x - mean) / std, in the units of the raw image, one number or one a channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (255.0,)


class Pool(Schema):
    """A pooling window; where the network is padded, its output size is rounded up, as Caffe rounds it."""

    kind: Literal["max", "average"]
    size: Positive
    stride: Positive

    def window(self, padding: Padding) -> Window:
        """The window with the rows that rounding up adds at the bottom."""
        return Window(self.size, self.stride, self.stride - 1 if padding == "same" else 0)


class ClassMapsHead(Schema):
    """A 1x1 convolution to one map a class, then their global average (Network in Network, section 3.2)."""

    kind: Literal["class_maps"] = "class_maps"


class PooledHead(Schema):
    """Global pooling, Dropout, Dense."""

    kind: Literal["pooled"]
    pool: Literal["average", "max"] = "average"
    dropout: Rate = 0.0


class FlattenHead(Schema):
    """Flatten, then hidden Dense layers with ReLU and Dropout, then Dense."""

    kind: Literal["flatten"]
    hidden: tuple[Positive, ...] = ()
    dropout: Rate = 0.0


Head = Annotated[ClassMapsHead | PooledHead | FlattenHead, Field(discriminator="kind")]


class _Model(Schema):
    """What every architecture's section has."""

    num_classes: Annotated[int, Field(ge=2)]
    image_size: Size | None
    channels: Positive = 3
    preprocess: Preprocess = Preprocess()
    head: Head

    def path(self) -> list[Window]:
        """The windows from image to last feature map, along the branch that shrinks the map most."""
        raise NotImplementedError(type(self).__name__)

    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map for an image of `size` rows; zero or less where a window does not fit."""
        for window in self.path():
            size = window.output_size(size)
        return size

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(window.stride for window in self.path())

    @property
    def smallest_image(self) -> int:
        """The least height and width that leave a feature map, and not less than one total stride."""
        size = self.total_stride
        while self.feature_map_size(size) < 1:
            size += 1
        return size

    @model_validator(mode="after")
    def _check(self) -> "_Model":
        for name, values in (("mean", self.preprocess.mean), ("std", self.preprocess.std)):
            if len(values) not in (1, self.channels):
                text = f"received {len(values)} numbers; accepted: 1, or channels = {self.channels}"
                raise problem(text, f"preprocess.{name}")
        if self.image_size is None:
            if self.head.kind == "flatten":
                text = "received null; a flatten head needs the training size as [height, width]"
                raise problem(text, "image_size")
        elif min(self.image_size) < self.smallest_image:
            text = (
                f"received {list(self.image_size)}, but these layers and their total stride of "
                f"{self.total_stride} need at least {self.smallest_image} pixels a side"
            )
            raise problem(text, "image_size")
        return self


class Mlpconv(Schema):
    """One mlpconv layer: a spatial convolution, then 1x1 convolutions (Network in Network, section 3.1).

    `filters` lists the convolution's output channels and then each 1x1 layer's.
    """

    kernel: Kernel
    stride: Positive = 1
    filters: Annotated[tuple[Positive, ...], Field(min_length=1)]
    pool: Pool | None = None
    dropout: Rate = 0.0


class NINConfig(_Model):
    """Network in Network: mlpconv layers, then class maps (Lin, Chen, Yan 2013, figure 2)."""

    family: Literal["nin"]
    padding: Padding = "same"
    normalization: Literal["none", "batch"] = "none"
    mlpconvs: Annotated[tuple[Mlpconv, ...], Field(min_length=1)]
    head: Head = ClassMapsHead()

    def path(self) -> list[Window]:
        """The windows from image to last feature map."""
        windows = []
        for row in self.mlpconvs:
            windows.append(Window(row.kernel, row.stride, 2 * (row.kernel // 2) if self.padding == "same" else 0))
            if row.pool:
                windows.append(row.pool.window(self.padding))
        return windows


class StemConv(Schema):
    """A convolution of an Inception network's stem, with an optional pooling after it."""

    kernel: Kernel
    stride: Positive = 1
    filters: Positive
    pool: Pool | None = None


class InceptionModule(Schema):
    """One row of GoogLeNet's table 1: filters of the four branches and of their 1x1 reductions."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    conv1: Positive
    reduce3: Positive
    conv3: Positive
    reduce5: Positive
    conv5: Positive
    pool_proj: Positive
    pool: Pool | None = None


class InceptionConfig(_Model):
    """Inception: a stem, then four-branch modules with 1x1 reductions (Szegedy et al. 2014, table 1)."""

    family: Literal["inception"]
    padding: Padding = "same"
    normalization: Literal["none", "batch"] = "batch"
    stem: Annotated[tuple[StemConv, ...], Field(min_length=1)]
    modules: Annotated[tuple[InceptionModule, ...], Field(min_length=1)]
    head: Head = PooledHead(kind="pooled")

    def path(self) -> list[Window]:
        """The windows from image to last feature map, through the 5x5 branches."""
        same = self.padding == "same"
        windows = []
        for row in self.stem:
            windows.append(Window(row.kernel, row.stride, 2 * (row.kernel // 2) if same else 0))
            windows += [row.pool.window(self.padding)] if row.pool else []
        for module in self.modules:
            windows.append(Window(5, 1, 4 if same else 0))
            windows += [module.pool.window(self.padding)] if module.pool else []
        return windows


class ResNetStem(Schema):
    """The convolution before the first stage; `pool` adds the 3x3 max pooling at stride 2 of the ImageNet nets."""

    kernel: Kernel
    stride: Positive = 1
    filters: Positive
    pool: bool = False


class ResNetStage(Schema):
    """A row of table 1 in He et al. 2015: `blocks` bottlenecks of `width` inner and `filters` output channels."""

    blocks: Positive
    width: Positive
    filters: Positive
    stride: Positive = 1


class ResNetConfig(_Model):
    """Bottleneck ResNet (He et al. 2015, section 4.1; v2: He et al. 2016, figure 4e).

    `variant`: v1 has a stage's stride in the first 1x1 convolution, v1_5 in the 3x3; v2 is pre-activated, stride in
    the 3x3.
    """

    family: Literal["resnet"]
    variant: Literal["v1", "v1_5", "v2"]
    stem: ResNetStem
    stages: Annotated[tuple[ResNetStage, ...], Field(min_length=1)]
    head: Head = PooledHead(kind="pooled")

    def path(self) -> list[Window]:
        """The windows from image to last feature map, along the strides."""
        windows = [Window(self.stem.kernel, self.stem.stride, 2 * (self.stem.kernel // 2))]
        windows += [Window(3, 2, 2)] if self.stem.pool else []
        return windows + [Window(1, stage.stride) for stage in self.stages]


ModelConfig = NINConfig | InceptionConfig | ResNetConfig
_MODEL = TypeAdapter(Annotated[ModelConfig, Field(discriminator="family")])


def model_config(data: Mapping[str, Any], source: str) -> ModelConfig:
    """Check the `model` section of a config; errors begin with `source`."""
    try:
        return _MODEL.validate_python(dict(data))
    except ValidationError as error:
        raise InputError(f"{source}: {one_line(error, data)}") from None
