"""The vocabulary that the architectures share: convolution-norm-activation, pooling, mlpconv, bottleneck, fire.

All of them take and give feature maps (B, H, W, C). Padding is symmetric and explicit wherever a stride is above 1, so
that the function inside does not depend on the image's size being odd or even. Without padding the side that looks at
less is cropped first, so that what is added or concatenated looks at the same pixels about the same centre.
"""

from functools import partial
from typing import Any

import keras
from keras import layers

from zoo.config.architecture import Padding
from zoo.config.models import Mlpconv, Pool

Tensor = keras.KerasTensor


def norm(x: Tensor, name: str, epsilon: float = 1e-5) -> Tensor:
    """Batch normalisation over all but the channels: (B, H, W, C) -> (B, H, W, C)."""
    return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=f"{name}_norm")(x)


def norm_act(x: Tensor, name: str) -> Tensor:
    """Batch normalisation, then ReLU: (B, H, W, C) -> (B, H, W, C)."""
    return layers.ReLU(name=f"{name}_relu")(norm(x, name))


def convolution(
    x: Tensor,
    filters: int,
    kernel: int | tuple[int, int],
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding = "same",
    use_bias: bool = False,
) -> Tensor:
    """A convolution alone: (B, H, W, C) -> (B, H', W', filters).

    H' = (H + 2p - kernel) // stride + 1, with p = kernel // 2 where padded and 0 where not.
    """
    if padding == "same" and stride > 1 and kernel != 1:
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        x = layers.ZeroPadding2D((rows // 2, columns // 2), name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv(
    x: Tensor,
    filters: int,
    kernel: int | tuple[int, int],
    name: str,
    *,
    normalization: str = "none",
    epsilon: float = 1e-5,
    activation: bool = True,
    **window: Any,
) -> Tensor:
    """Convolution, then normalisation and ReLU where asked: (B, H, W, C) -> (B, H', W', filters).

    `window` is the convolution's stride, dilation, groups and padding. A convolution straight before a normalisation
    has no bias.
    """
    x = convolution(x, filters, kernel, name, use_bias=normalization == "none", **window)
    if normalization == "batch":
        x = norm(x, name, epsilon)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def pool(x: Tensor, row: Pool, padding: Padding, name: str) -> Tensor:
    """Pooling; where the net is padded, the output size is rounded up: (B, H, W, C) -> (B, H', W', C)."""
    return pooling(x, row.kind, row.size, row.stride, padding, name)


def pooling(x: Tensor, kind: str, size: int | tuple[int, int], stride: int, padding: Padding, name: str) -> Tensor:
    """Maximum or average over windows: (B, H, W, C) -> (B, H', W', C).

    Where padded, a stride rounds the output size up (Caffe's rule) by stride - 1 rows and columns of zeros at the
    bottom and right. `x` comes from a ReLU, so that a zero never wins a maximum. A border average counts the added
    zeros, where Caffe does not.
    """
    if padding == "same" and stride > 1:
        x = layers.ZeroPadding2D(((0, stride - 1), (0, stride - 1)), name=f"{name}_pad")(x)
        padding = "valid"
    layer = layers.MaxPooling2D if kind == "max" else layers.AveragePooling2D
    return layer(size, stride, padding=padding, name=name)(x)


def crop(x: Tensor, rows: int, name: str) -> Tensor:
    """`rows` rows and columns cut off at each side: (B, H, W, C) -> (B, H - 2 rows, W - 2 rows, C)."""
    return layers.Cropping2D(rows, name=f"{name}_crop")(x)


def mlpconv(x: Tensor, row: Mlpconv, name: str, *, padding: Padding, normalization: str) -> Tensor:
    """A spatial convolution, then 1x1 convolutions, each with ReLU (Network in Network, section 3.1)."""
    first, *rest = row.filters
    same = partial(conv, normalization=normalization)
    x = same(x, first, row.kernel, f"{name}_conv1", stride=row.stride, padding=row.padding or padding)
    for index, filters in enumerate(rest, start=2):
        x = same(x, filters, 1, f"{name}_conv{index}")
    if row.pool:
        x = pool(x, row.pool, padding, f"{name}_pool")
    return layers.Dropout(row.dropout, name=f"{name}_dropout")(x) if row.dropout else x


def add(shortcut: Tensor, residual: Tensor, name: str, drop: float) -> Tensor:
    """Shortcut plus residual, (B, H, W, C); in training an image goes without its residual with chance `drop`."""
    if drop:
        residual = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(residual)
    return layers.Add(name=f"{name}_add")([shortcut, residual])


def bottleneck(
    x: Tensor,
    width: int,
    filters: int,
    name: str,
    *,
    stride: int,
    stride_in_3x3: bool,
    project: bool,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding = "same",
    drop: float = 0.0,
) -> Tensor:
    """1x1 to `width`, 3x3, 1x1 to `filters`, added to the shortcut, then ReLU (He et al. 2015, figure 5 right).

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), filters) where padded. The stride is in the first 1x1 (v1)
    or in the 3x3 (v1.5), which `groups` divides (Xie et al. 2017, figure 3c); the shortcut is a projection where
    `project` says so, else the identity.
    """
    same = partial(conv, normalization="batch")
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    y = same(x, width, 1, f"{name}_conv1", stride=first)
    y = same(y, width, 3, f"{name}_conv2", stride=second, dilation=dilation, groups=groups, padding=padding)
    y = same(y, filters, 1, f"{name}_conv3", activation=False)
    if padding == "valid":
        x = crop(x, first * dilation, f"{name}_shortcut")
    if project:
        x = same(x, filters, 1, f"{name}_shortcut", stride=stride, activation=False)
    x = add(x, y, name, drop)
    return layers.ReLU(name=f"{name}_relu")(x)


def basic(
    x: Tensor,
    filters: int,
    name: str,
    *,
    stride: int,
    project: bool,
    dilations: tuple[int, int],
    padding: Padding = "same",
    drop: float = 0.0,
) -> Tensor:
    """Two 3x3 convolutions, added to the shortcut, then ReLU (He et al. 2015, figure 5 left): the bottleneck's control.

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), filters) where padded, the stride in the first.
    """
    same = partial(conv, normalization="batch")
    y = same(x, filters, 3, f"{name}_conv1", stride=stride, dilation=dilations[0], padding=padding)
    y = same(y, filters, 3, f"{name}_conv2", dilation=dilations[1], padding=padding, activation=False)
    if padding == "valid":
        x = crop(x, dilations[0] + stride * dilations[1], f"{name}_shortcut")
    if project:
        x = same(x, filters, 1, f"{name}_shortcut", stride=stride, activation=False)
    x = add(x, y, name, drop)
    return layers.ReLU(name=f"{name}_relu")(x)


def bottleneck_v2(
    x: Tensor,
    width: int,
    filters: int,
    name: str,
    *,
    stride: int,
    project: bool,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding = "same",
    use_bias: bool = False,
    drop: float = 0.0,
) -> Tensor:
    """The pre-activated bottleneck: normalisation and ReLU before each convolution (He et al. 2016, figure 4e).

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), filters) where padded, stride in the 3x3. A projection takes
    the block's first activation, as in the authors' code; a strided identity takes every stride-th pixel. `use_bias`
    gives biases to the last convolution and the projection, which no normalisation follows.
    """
    same = partial(conv, normalization="batch")
    pre = norm_act(x, f"{name}_pre")
    y = same(pre, width, 1, f"{name}_conv1")
    y = same(y, width, 3, f"{name}_conv2", stride=stride, dilation=dilation, groups=groups, padding=padding)
    y = convolution(y, filters, 1, f"{name}_conv3", use_bias=use_bias)
    x = pre if project else x
    if padding == "valid":
        x = crop(x, dilation, f"{name}_shortcut")
    if project:
        x = convolution(x, filters, 1, f"{name}_shortcut", stride=stride, use_bias=use_bias)
    elif stride > 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_shortcut")(x)
    return add(x, y, name, drop)


def fire(x: Tensor, squeeze: int, expand: int, name: str, *, padding: Padding = "same") -> Tensor:
    """1x1 to `squeeze`, then 1x1 and 3x3 side by side (Iandola et al. 2016, figure 2).

    (B, H, W, C) -> (B, H, W, 2 expand) where padded, else (B, H - 2, W - 2, 2 expand).
    """
    x = conv(x, squeeze, 1, f"{name}_squeeze")
    narrow = crop(x, 1, f"{name}_expand1") if padding == "valid" else x
    sides = [conv(narrow, expand, 1, f"{name}_expand1"), conv(x, expand, 3, f"{name}_expand3", padding=padding)]
    return layers.Concatenate(name=f"{name}_concat")(sides)
