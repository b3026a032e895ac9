"""The vocabulary that the architectures share: convolution, normalisation, activation, pooling, cropping.

All of them take and give feature maps (B, H, W, C). Padding is symmetric and explicit wherever a stride is above 1, so
that the function inside does not depend on the image's size being odd or even. Without padding the side that looks at
less is cropped first, so that what is added or concatenated looks at the same pixels about the same centre.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.models import layers
from zoo.models.architecture import Padding, Window
from zoo.models.layers import Tensor
from zoo.schema import Positive, Schema

Activation = Literal["relu", "leaky_relu"]
# Batch normalisation with a trained scale, or without one.
Normalization = Literal["none", "batch", "shift"]
# The name of the first layer, if it whitens: what training looks for.
WHITENING = "whitening"
# The slope of a leaky ReLU below zero (Maas et al. 2013), as PyTorch and Lasagne have it.
LEAK = 0.01


class Whitening(Schema):
    """A first layer that is not trained: a convolution without padding whose filters whiten patches, and ReLU.

    Before training its filters are made from the training images (Jordan 2024, arXiv:2404.00498, section 3.2): twice as
    many as a patch of `kernel` pixels a side has numbers. Until then they are drawn at random.
    """

    kernel: Annotated[int, Field(ge=1, le=32)]
    stride: Positive = 1

    def filters(self, channels: int) -> int:
        """How many filters there are on images of so many channels."""
        return 2 * channels * self.kernel**2

    def layer(self, x: Tensor) -> Tensor:
        """The layer on images: (B, H, W, C) -> (B, H', W', 2 C kernel²)."""
        filters = self.filters(x.shape[-1])
        layer = layers.Conv2D(filters, self.kernel, self.stride, use_bias=False, trainable=False, name=WHITENING)
        return layers.ReLU(name=f"{WHITENING}_relu")(layer(x))


class PoolingWindow(Schema):
    """A pooling window; where the network is padded, its output size is rounded up, as Caffe rounds it."""

    kind: Literal["max", "average"]
    size: Positive
    stride: Positive

    def window(self, padding: Padding) -> Window:
        """The window with the rows that rounding up adds at the bottom."""
        return Window(self.size, self.stride, self.stride - 1 if padding == "same" else 0)

    def layer(self, x: Tensor, padding: Padding, name: str) -> Tensor:
        """The pooling of a map: (B, H, W, C) -> (B, H', W', C)."""
        return pooling(x, self.kind, self.size, self.stride, padding, name)


def norm(x: Tensor, name: str, epsilon: float = 1e-5, scale: bool = True) -> Tensor:
    """Batch normalisation over all but the channels, with a trained scale or without: (B, H, W, C) -> (B, H, W, C)."""
    return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, scale=scale, name=f"{name}_norm")(x)


def normalized(x: Tensor, name: str, normalization: str, epsilon: float = 1e-5) -> Tensor:
    """Normalised as asked: "batch", "shift" (the same without a trained scale), or "none"."""
    return x if normalization == "none" else norm(x, name, epsilon, scale=normalization == "batch")


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
    activation: Activation | None = "relu",
    **window: Any,
) -> Tensor:
    """Convolution, then normalisation and activation where asked: (B, H, W, C) -> (B, H', W', filters).

    `window` is the convolution's stride, dilation, groups and padding. A convolution straight before a normalisation
    has no bias.
    """
    x = convolution(x, filters, kernel, name, use_bias=normalization == "none", **window)
    x = normalized(x, name, normalization, epsilon)
    if activation is None:
        return x
    name = f"{name}_{activation}"
    return layers.ReLU(name=name)(x) if activation == "relu" else layers.LeakyReLU(LEAK, name=name)(x)


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
