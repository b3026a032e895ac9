"""Network in Network (Lin, Chen, Yan 2013, arXiv:1312.4400): mlpconv layers, down to the last feature map."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.models import layers
from zoo.models.architecture import LayerSize, Padding, PathConfig, Window
from zoo.models.blocks import Normalization, PoolingWindow, Whitening, conv, convolution, normalized
from zoo.models.heads import ClassMapsHead, Head
from zoo.models.layers import Tensor
from zoo.schema import Added, Kernel, Positive, Rate, Schema, problem


class Mlpconv(Schema):
    """One mlpconv layer: a spatial convolution, then 1x1 convolutions (Network in Network, section 3.1).

    `filters` lists the convolution's output channels and then each 1x1 layer's. `padding` is the network's where null.
    `pool_first`: the pooling, without padding, lies straight after the spatial convolution, so that normalisation,
    ReLU and what follows work on the smaller map (Jordan 2024, arXiv:2404.00498, section 3.1).
    """

    kernel: Kernel
    stride: Positive = 1
    padding: Padding | None = None
    filters: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)]
    pool: PoolingWindow | None = None
    pool_first: Annotated[bool, Added()] = False
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _check_pool(self) -> "Mlpconv":
        if self.pool_first and not self.pool:
            raise problem("received true without a pool; accepted: false, or a pool beside it", "pool_first")
        return self


class NINConfig(PathConfig):
    """Network in Network: mlpconv layers, then class maps (Lin, Chen, Yan 2013, figure 2).

    `normalization`: "shift" is batch normalisation without a trained scale.
    """

    family: Literal["nin"]
    padding: Padding = "same"
    normalization: Normalization = "none"
    whitening: Annotated[Whitening | None, Added()] = None
    mlpconvs: Annotated[tuple[Mlpconv, ...], Field(min_length=1, max_length=1000)]
    head: Head = ClassMapsHead()

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path."""
        channels = self.channels
        if first := self.whitening:
            filters, window = first.filters(channels), Window(first.kernel, first.stride)
            yield LayerSize("whitening", channels * filters * first.kernel**2, filters, window)
            channels = filters
        for index, row in enumerate(self.mlpconvs):
            key, same = f"mlpconvs.{index}", (row.padding or self.padding) == "same"
            window = Window(row.kernel, row.stride, row.kernel - 1 if same else 0)
            for place, filters in enumerate(row.filters):
                window, area = (Window(1), 1) if place else (window, row.kernel**2)
                yield LayerSize(key, area * channels * filters, filters, window)
                channels = filters
                if row.pool and row.pool_first and not place:
                    yield LayerSize(f"{key}.pool", 0, channels, row.pool.window("valid"))
            if row.pool and not row.pool_first:
                yield LayerSize(f"{key}.pool", 0, channels, row.pool.window(self.padding))


def mlpconv(x: Tensor, row: Mlpconv, name: str, *, padding: Padding, normalization: str) -> Tensor:
    """A spatial convolution, then 1x1 convolutions, each with ReLU (Network in Network, section 3.1)."""
    first, *rest = row.filters
    same = partial(conv, normalization=normalization)
    padded = row.padding or padding
    if row.pool and row.pool_first:
        x = convolution(
            x, first, row.kernel, f"{name}_conv1", stride=row.stride, padding=padded, use_bias=normalization == "none"
        )
        x = row.pool.layer(x, "valid", f"{name}_pool")
        x = layers.ReLU(name=f"{name}_conv1_relu")(normalized(x, f"{name}_conv1", normalization))
    else:
        x = same(x, first, row.kernel, f"{name}_conv1", stride=row.stride, padding=padded)
    for index, filters in enumerate(rest, start=2):
        x = same(x, filters, 1, f"{name}_conv{index}")
    if row.pool and not row.pool_first:
        x = row.pool.layer(x, padding, f"{name}_pool")
    return layers.Dropout(row.dropout, name=f"{name}_dropout")(x) if row.dropout else x


def feature_map(x: Tensor, config: NINConfig) -> Tensor:
    """The mlpconv layers in order: (B, H, W, C) -> (B, H', W', filters of the last).

    Deviations from the released Caffe definition: the last 1x1 layer, to the classes, is the head's and has no ReLU,
    so that the outputs are logits; a padded average pooling counts the added zeros.
    """
    if config.whitening:
        x = config.whitening.layer(x)
    for index, row in enumerate(config.mlpconvs, start=1):
        x = mlpconv(x, row, f"mlpconv{index}", padding=config.padding, normalization=config.normalization)
    return x
