"""Inception (Szegedy et al. 2014, arXiv:1409.4842, table 1): a stem, then four-branch modules."""

from zoo.config.models import InceptionConfig
from zoo.models.blocks import Tensor, conv, inception_module, pool


def stem(x: Tensor, config: InceptionConfig) -> Tensor:
    """The plain convolutions and poolings before the first module."""
    for index, row in enumerate(config.stem, start=1):
        name = f"stem_conv{index}"
        x = conv(
            x,
            row.filters,
            row.kernel,
            name,
            stride=row.stride,
            padding=config.padding,
            normalization=config.normalization,
        )
        if row.pool:
            x = pool(x, row.pool, config.padding, f"stem_pool{index}")
    return x


def feature_map(x: Tensor, config: InceptionConfig) -> Tensor:
    """Stem and modules in the table's order: (B, H, W, C) -> (B, H', W', sum of the last module's branches)."""
    x = stem(x, config)
    for row in config.modules:
        name = f"inception{row.name}"
        x = inception_module(x, row, name, padding=config.padding, normalization=config.normalization)
        if row.pool:
            x = pool(x, row.pool, config.padding, f"{name}_out_pool")
    return x
