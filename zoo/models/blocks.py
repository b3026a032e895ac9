"""The vocabulary that the architectures share: convolution-norm-activation, pooling, mlpconv, bottleneck, Inception.

All of them take and give feature maps (B, H, W, C). Padding is symmetric and explicit wherever a stride is above 1, so
that the function inside does not depend on the image's size being odd or even.
"""

from functools import partial

import keras
from keras import layers

from zoo.config.models import InceptionModule, Mlpconv, Padding, Pool

Tensor = keras.KerasTensor


def norm(x: Tensor, name: str) -> Tensor:
    """Batch normalisation over all but the channels: (B, H, W, C) -> (B, H, W, C)."""
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_norm")(x)


def norm_act(x: Tensor, name: str) -> Tensor:
    """Batch normalisation, then ReLU: (B, H, W, C) -> (B, H, W, C)."""
    return layers.ReLU(name=f"{name}_relu")(norm(x, name))


def convolution(
    x: Tensor,
    filters: int,
    kernel: int,
    name: str,
    *,
    stride: int = 1,
    padding: Padding = "same",
    use_bias: bool = False,
) -> Tensor:
    """A convolution alone: (B, H, W, C) -> (B, H', W', filters).

    H' = (H + 2p - kernel) // stride + 1, with p = kernel // 2 where padded and 0 where not.
    """
    if padding == "same" and stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv(
    x: Tensor,
    filters: int,
    kernel: int,
    name: str,
    *,
    stride: int = 1,
    padding: Padding = "same",
    normalization: str = "none",
    activation: bool = True,
) -> Tensor:
    """Convolution, then normalisation and ReLU where asked: (B, H, W, C) -> (B, H', W', filters).

    A convolution straight before a normalisation has no bias.
    """
    x = convolution(x, filters, kernel, name, stride=stride, padding=padding, use_bias=normalization == "none")
    if normalization == "batch":
        x = norm(x, name)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def pool(x: Tensor, row: Pool, padding: Padding, name: str) -> Tensor:
    """Pooling; where the net is padded, the output size is rounded up: (B, H, W, C) -> (B, H', W', C).

    Rounding up (Caffe's rule) adds stride - 1 rows and columns of zeros at the bottom and right. `x` comes from a
    ReLU, so that a zero never wins a maximum. A border average counts the added zeros, where Caffe does not.
    """
    if padding == "same" and row.stride > 1:
        x = layers.ZeroPadding2D(((0, row.stride - 1), (0, row.stride - 1)), name=f"{name}_pad")(x)
    layer = layers.MaxPooling2D if row.kind == "max" else layers.AveragePooling2D
    return layer(row.size, row.stride, padding="valid", name=name)(x)


def mlpconv(x: Tensor, row: Mlpconv, name: str, *, padding: Padding, normalization: str) -> Tensor:
    """A spatial convolution, then 1x1 convolutions, each with ReLU (Network in Network, section 3.1)."""
    first, *rest = row.filters
    same = partial(conv, normalization=normalization)
    x = same(x, first, row.kernel, f"{name}_conv1", stride=row.stride, padding=padding)
    for index, filters in enumerate(rest, start=2):
        x = same(x, filters, 1, f"{name}_conv{index}")
    if row.pool:
        x = pool(x, row.pool, padding, f"{name}_pool")
    return layers.Dropout(row.dropout, name=f"{name}_dropout")(x) if row.dropout else x


def bottleneck(
    x: Tensor, width: int, filters: int, name: str, *, stride: int, stride_in_3x3: bool, project: bool
) -> Tensor:
    """1x1 to `width`, 3x3, 1x1 to `filters`, added to the shortcut, then ReLU (He et al. 2015, figure 5 right).

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), filters). The stride is in the first 1x1 (v1) or in the
    3x3 (v1.5); the shortcut is a projection where `project` says so, else the identity.
    """
    same = partial(conv, normalization="batch")
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    y = same(x, width, 1, f"{name}_conv1", stride=first)
    y = same(y, width, 3, f"{name}_conv2", stride=second)
    y = same(y, filters, 1, f"{name}_conv3", activation=False)
    if project:
        x = same(x, filters, 1, f"{name}_shortcut", stride=stride, activation=False)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(x)


def bottleneck_v2(x: Tensor, width: int, filters: int, name: str, *, stride: int, project: bool) -> Tensor:
    """The pre-activated bottleneck: normalisation and ReLU before each convolution (He et al. 2016, figure 4e).

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), filters), stride in the 3x3. A projection takes the
    block's first activation, as in the authors' code.
    """
    same = partial(conv, normalization="batch")
    pre = norm_act(x, f"{name}_pre")
    y = same(pre, width, 1, f"{name}_conv1")
    y = same(y, width, 3, f"{name}_conv2", stride=stride)
    y = convolution(y, filters, 1, f"{name}_conv3")
    if project:
        x = convolution(pre, filters, 1, f"{name}_shortcut", stride=stride)
    return layers.Add(name=f"{name}_add")([x, y])


def inception_module(x: Tensor, row: InceptionModule, name: str, *, padding: Padding, normalization: str) -> Tensor:
    """Four branches side by side: 1x1; 1x1 to 3x3; 1x1 to 5x5; 3x3 max pooling to 1x1 (Szegedy et al. 2014, fig. 2b).

    (B, H, W, C) -> (B, H, W, conv1 + conv3 + conv5 + pool_proj); with valid padding H - 4 and W - 4, the smaller
    branches cropped so that all stay centred on the same pixels.
    """
    same = partial(conv, normalization=normalization, padding=padding)
    branch1 = same(x, row.conv1, 1, f"{name}_branch1_conv1")
    branch3 = same(x, row.reduce3, 1, f"{name}_branch3_reduce")
    branch3 = same(branch3, row.conv3, 3, f"{name}_branch3_conv")
    branch5 = same(x, row.reduce5, 1, f"{name}_branch5_reduce")
    branch5 = same(branch5, row.conv5, 5, f"{name}_branch5_conv")
    pooled = layers.MaxPooling2D(3, 1, padding=padding, name=f"{name}_pool")(x)
    pooled = same(pooled, row.pool_proj, 1, f"{name}_pool_proj")
    if padding == "valid":
        branch1 = layers.Cropping2D(2, name=f"{name}_branch1_crop")(branch1)
        branch3 = layers.Cropping2D(1, name=f"{name}_branch3_crop")(branch3)
        pooled = layers.Cropping2D(1, name=f"{name}_pool_crop")(pooled)
    return layers.Concatenate(name=f"{name}_concat")([branch1, branch3, branch5, pooled])
