"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360, table 1): a convolution, then fire modules."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo.models import layers
from zoo.models.architecture import LayerSize, Padding, PathConfig, Window
from zoo.models.blocks import PoolingWindow, conv, crop
from zoo.models.heads import ClassMapsHead, Head
from zoo.models.layers import Tensor
from zoo.schema import Kernel, Positive, Schema


class Fire(Schema):
    """A fire module (Iandola et al. 2016, figure 2): 1x1 to `squeeze`, then 1x1 and 3x3, each to `expand` filters."""

    squeeze: Positive
    expand: Positive
    pool: PoolingWindow | None = None


class SqueezeNetStem(Schema):
    """The first convolution, which is never padded, and the pooling after it."""

    kernel: Kernel
    stride: Positive
    filters: Positive
    pool: PoolingWindow


class SqueezeNetConfig(PathConfig):
    """SqueezeNet: a convolution, then fire modules (Iandola et al. 2016, arXiv:1602.07360, table 1)."""

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


def fire(x: Tensor, squeeze: int, expand: int, name: str, *, padding: Padding = "same") -> Tensor:
    """1x1 to `squeeze`, then 1x1 and 3x3 side by side (Iandola et al. 2016, figure 2).

    (B, H, W, C) -> (B, H, W, 2 expand) where padded, else (B, H - 2, W - 2, 2 expand).
    """
    x = conv(x, squeeze, 1, f"{name}_squeeze")
    narrow = crop(x, 1, f"{name}_expand1") if padding == "valid" else x
    sides = [conv(narrow, expand, 1, f"{name}_expand1"), conv(x, expand, 3, f"{name}_expand3", padding=padding)]
    return layers.Concatenate(name=f"{name}_concat")(sides)


def feature_map(x: Tensor, config: SqueezeNetConfig) -> Tensor:
    """Stem and fire modules, numbered from 2 as in the paper: (B, H, W, C) -> (B, H', W', 2 expand of the last)."""
    stem = config.stem
    x = conv(x, stem.filters, stem.kernel, "stem_conv", stride=stem.stride, padding="valid")
    x = stem.pool.layer(x, config.padding, "stem_pool")
    for index, row in enumerate(config.fires, start=2):
        x = fire(x, row.squeeze, row.expand, f"fire{index}", padding=config.padding)
        if row.pool:
            x = row.pool.layer(x, config.padding, f"fire{index}_pool")
    return x
