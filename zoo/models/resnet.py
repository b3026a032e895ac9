"""ResNets: v1 and v1.5 (He et al. 2015, arXiv:1512.03385), v2 (He et al. 2016, arXiv:1603.05027), and ResNeXt."""

from keras import layers

from zoo.config.models import ResNetConfig, ResNetStage
from zoo.models.blocks import Tensor, basic, bottleneck, bottleneck_v2, conv, convolution, norm_act


def stem(x: Tensor, config: ResNetConfig) -> Tensor:
    """The first convolution, and the ImageNet nets' 3x3 max pooling at stride 2.

    v2 has no normalisation here: its first block begins with one. The pooling's zero border comes after a ReLU in v1;
    in v2 it does not, as in the authors' and in Keras's nets a zero may then win a maximum at the border.
    """
    row = config.stem
    if config.variant in ("v2", "v2_keras"):
        use_bias = config.variant == "v2_keras"
        x = convolution(x, row.filters, row.kernel, "stem_conv", stride=row.stride, use_bias=use_bias)
    else:
        x = conv(x, row.filters, row.kernel, "stem_conv", stride=row.stride, normalization="batch")
    if row.pool:
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


def stage(
    x: Tensor, row: ResNetStage, name: str, config: ResNetConfig, stride: int, dilations: tuple[int, int]
) -> Tensor:
    """A row of the table; one block strides (the first, in v2_keras the last), and a projection changes the channels.

    `dilations` are those of the 3x3 convolutions before and after the place where the stride is or would have been.
    """
    strided = row.blocks if config.variant == "v2_keras" else 1
    for index in range(1, row.blocks + 1):
        step = stride if index == strided else 1
        project = index == 1 and (x.shape[-1] != row.filters or (strided == 1 and row.stride != 1))
        block = f"{name}_block{index}"
        before, behind = dilations if index == 1 else (dilations[1],) * 2
        if config.block == "basic":
            x = basic(x, row.filters, block, stride=step, project=project, dilations=(before, behind))
            continue
        common = {"stride": step, "project": project, "groups": config.groups}
        if config.variant in ("v2", "v2_keras"):
            use_bias = config.variant == "v2_keras"
            x = bottleneck_v2(x, row.width, row.filters, block, dilation=before, use_bias=use_bias, **common)
        else:
            in_3x3 = config.variant == "v1_5"
            dilation = before if in_3x3 else behind
            x = bottleneck(x, row.width, row.filters, block, dilation=dilation, stride_in_3x3=in_3x3, **common)
    return x


def feature_map(x: Tensor, config: ResNetConfig) -> Tensor:
    """Stem and stages: (B, H, W, C) -> (B, H', W', filters of the last stage); v2 ends in normalisation and ReLU."""
    x = stem(x, config)
    before = 1
    for index, (row, (stride, dilation)) in enumerate(zip(config.stages, config.strides(), strict=True), start=1):
        x = stage(x, row, f"stage{index}", config, stride, (before, dilation))
        before = dilation
    return norm_act(x, "post") if config.variant in ("v2", "v2_keras") else x
