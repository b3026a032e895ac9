"""Bottleneck ResNets: v1 and v1.5 (He et al. 2015, arXiv:1512.03385), v2 (He et al. 2016, arXiv:1603.05027)."""

from keras import layers

from zoo.config.models import ResNetConfig, ResNetStage
from zoo.models.blocks import Tensor, bottleneck, bottleneck_v2, conv, convolution, norm_act


def stem(x: Tensor, config: ResNetConfig) -> Tensor:
    """The first convolution, and the ImageNet nets' 3x3 max pooling at stride 2.

    v2 has no normalisation here: its first block begins with one. The pooling's zero border comes after a ReLU in v1;
    in v2 it does not, as in the authors' and in Keras's nets a zero may then win a maximum at the border.
    """
    row = config.stem
    if config.variant == "v2":
        x = convolution(x, row.filters, row.kernel, "stem_conv", stride=row.stride)
    else:
        x = conv(x, row.filters, row.kernel, "stem_conv", stride=row.stride, normalization="batch")
    if row.pool:
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


def stage(x: Tensor, row: ResNetStage, name: str, variant: str) -> Tensor:
    """A row of the table: its first block strides, and projects the shortcut where shape or stride change."""
    for index in range(1, row.blocks + 1):
        stride = row.stride if index == 1 else 1
        project = stride != 1 or x.shape[-1] != row.filters
        block = f"{name}_block{index}"
        if variant == "v2":
            x = bottleneck_v2(x, row.width, row.filters, block, stride=stride, project=project)
        else:
            x = bottleneck(
                x, row.width, row.filters, block, stride=stride, stride_in_3x3=variant == "v1_5", project=project
            )
    return x


def feature_map(x: Tensor, config: ResNetConfig) -> Tensor:
    """Stem and stages: (B, H, W, C) -> (B, H', W', filters of the last stage); v2 ends in normalisation and ReLU."""
    x = stem(x, config)
    for index, row in enumerate(config.stages, start=1):
        x = stage(x, row, f"stage{index}", config.variant)
    return norm_act(x, "post") if config.variant == "v2" else x
