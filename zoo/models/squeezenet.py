"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360, table 1): a convolution, then fire modules."""

from zoo.config.models import SqueezeNetConfig
from zoo.models.blocks import Tensor, conv, fire, pool


def feature_map(x: Tensor, config: SqueezeNetConfig) -> Tensor:
    """Stem and fire modules, numbered from 2 as in the paper: (B, H, W, C) -> (B, H', W', 2 expand of the last)."""
    row = config.stem
    x = conv(x, row.filters, row.kernel, "stem_conv", stride=row.stride, padding="valid")
    x = pool(x, row.pool, config.padding, "stem_pool")
    for index, row in enumerate(config.fires, start=2):
        x = fire(x, row.squeeze, row.expand, f"fire{index}", padding=config.padding)
        if row.pool:
            x = pool(x, row.pool, config.padding, f"fire{index}_pool")
    return x
