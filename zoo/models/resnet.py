"""ResNets: v1 and v1.5 (He et al. 2015, arXiv:1512.03385), v2 (He et al. 2016, arXiv:1603.05027), and ResNeXt."""

from keras import layers

from zoo.config.models import BlockStep, ResNetConfig, ResNetStage
from zoo.models.blocks import Tensor, basic, bottleneck, bottleneck_v2, conv, convolution, norm_act


def stem(x: Tensor, config: ResNetConfig) -> Tensor:
    """The first convolution, and the ImageNet nets' 3x3 max pooling at stride 2.

    v2 has no normalisation here: its first block begins with one. The pooling's zero border comes after a ReLU in v1;
    in v2 it does not, as in the authors' and in Keras's nets a zero may then win a maximum at the border.
    """
    row = config.stem
    window = {"stride": row.stride, "padding": config.padding}
    if config.variant in ("v2", "v2_keras"):
        use_bias = config.variant == "v2_keras"
        x = convolution(x, row.filters, row.kernel, "stem_conv", use_bias=use_bias, **window)
    else:
        x = conv(x, row.filters, row.kernel, "stem_conv", normalization="batch", **window)
    if row.pool:
        if config.padding == "same":
            x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


def stage(x: Tensor, row: ResNetStage, name: str, config: ResNetConfig, steps: list[BlockStep]) -> Tensor:
    """A row of the table; a projection changes the channels or takes a stride (v2_keras strides an identity)."""
    strided = row.blocks if config.variant == "v2_keras" else 1
    for index, step in enumerate(steps, start=1):
        project = index == 1 and (x.shape[-1] != row.filters or (strided == 1 and row.stride != 1))
        block = f"{name}_block{index}"
        common = {"stride": step.stride, "project": project, "padding": config.padding, "drop": step.drop}
        if config.block == "basic":
            x = basic(x, row.filters, block, dilations=(step.before, step.behind), **common)
            continue
        common["groups"] = config.groups
        if config.variant in ("v2", "v2_keras"):
            use_bias = config.variant == "v2_keras"
            x = bottleneck_v2(x, row.width, row.filters, block, dilation=step.before, use_bias=use_bias, **common)
        else:
            in_3x3 = config.variant == "v1_5"
            dilation = step.before if in_3x3 else step.behind
            x = bottleneck(x, row.width, row.filters, block, dilation=dilation, stride_in_3x3=in_3x3, **common)
    return x


def feature_map(x: Tensor, config: ResNetConfig) -> Tensor:
    """Stem and stages: (B, H, W, C) -> (B, H', W', filters of the last stage); v2 ends in normalisation and ReLU."""
    x = stem(x, config)
    for index, (row, steps) in enumerate(zip(config.stages, config.steps(), strict=True), start=1):
        x = stage(x, row, f"stage{index}", config, steps)
    return norm_act(x, "post") if config.variant in ("v2", "v2_keras") else x
