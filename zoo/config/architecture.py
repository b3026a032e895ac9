"""What every architecture's section has: classes, image size, preprocessing, head; and how windows change sizes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from zoo.config.base import Positive, Rate, Schema, Size, problem

Padding = Literal["same", "valid"]


class Window(NamedTuple):
    """One window along a network's path: side, step, and rows of padding in all (pixels of its own input)."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Positions that the window takes on `size` rows; zero or less where it does not fit."""
        return (size + self.padding - self.kernel) // self.stride + 1


def after(windows: Iterable[Window], size: int) -> int:
    """Rows that are left of `size` after windows one behind the other; zero or less where one does not fit."""
    for window in windows:
        size = window.output_size(size)
    return size


class Preprocess(Schema):
    """Raw pixels to network inputs: (x - mean) / std, in the units of the raw image, one number or one a channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (255.0,)


def _as_preprocess(value: Any) -> Any:
    return Preprocess(mean=(0.0,), std=(1.0,)) if value == "none" else value


class ClassMapsHead(Schema):
    """Dropout, a 1x1 convolution to one map a class, and their global average (Network in Network, section 3.2).

    `relu` puts a ReLU between the two, as SqueezeNet has it.
    """

    kind: Literal["class_maps"] = "class_maps"
    dropout: Rate = 0.0
    relu: bool = False


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


class PyramidHead(Schema):
    """Spatial pyramid pooling (He et al. 2014, arXiv:1406.4729, section 2.2), Dropout, Dense.

    The map is pooled to level x level bins for each level: 1, 2, 4 give 21 numbers a channel at any image size.
    """

    kind: Literal["pyramid"]
    levels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 4)
    pool: Literal["average", "max"] = "max"
    dropout: Rate = 0.0


Head = Annotated[ClassMapsHead | PooledHead | FlattenHead | PyramidHead, Field(discriminator="kind")]


class ArchitectureConfig(Schema, ABC):
    """The base of every architecture's schema; an architecture outside the package derives its own from it.

    `builder` names the module whose `feature_map(x, config)` assembles the layers from (B, H, W, C) raw pixels after
    preprocessing to the last feature map; the module of the schema itself where it is not set.
    """

    builder: ClassVar[str] = ""

    family: str
    num_classes: Annotated[int, Field(ge=2)]
    image_size: Size | None
    channels: Positive = 3
    preprocess: Annotated[Preprocess, BeforeValidator(_as_preprocess)] = Preprocess()
    head: Head = PooledHead(kind="pooled")

    @abstractmethod
    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map for an image of `size` rows; zero or less where a window does not fit."""

    @property
    @abstractmethod
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""

    @property
    def smallest_image(self) -> int:
        """The least height and width that leave a feature map, and not less than one total stride."""
        size = self.total_stride
        while self.feature_map_size(size) < 1:
            size += 1
        return size

    @model_validator(mode="after")
    def _check(self) -> "ArchitectureConfig":
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


class PathConfig(ArchitectureConfig):
    """An architecture whose sizes follow from one row of windows."""

    @abstractmethod
    def path(self) -> list[Window]:
        """The windows from image to last feature map."""

    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map for an image of `size` rows; zero or less where a window does not fit."""
        return after(self.path(), size)

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(window.stride for window in self.path())
