"""The kernels of a layer, and how often it applies them: parameters and multiply-adds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import keras
from keras import layers

from zoo.network.graph import Shape
from zoo.network.layer_kinds import DEPTHWISE
from zoo.network.rules import is_pointwise

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Layers and operations without a kernel of their own that multiply tensors with each other: not counted.
_PRODUCTS = {
    "AdditiveAttention", "Attention", "Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum",
    "Lambda", "Matmul", "SeparableConv", "Tensordot", "Vdot",
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel of a layer, and at how many positions it is applied to one image; None where that is open."""

    shape: tuple[int, ...]
    positions: int | None
    pointwise: bool

    @property
    def weights(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image."""
        return None if self.positions is None else self.weights * self.positions


def kernels_of(layer: keras.Operation, given: Shape, made: Shape) -> list[Kernel] | None:
    """The kernels of a layer that takes `given` and gives `made`; None where it multiplies in a way not known here."""
    if isinstance(layer, _CONVOLUTIONS):
        kernel = tuple(layer.kernel.shape)
        return [Kernel(kernel, _positions(made, kernel[-1]), set(kernel[:-2]) == {1})]
    if isinstance(layer, _TRANSPOSED):
        kernel = tuple(layer.kernel.shape)  # (rows, columns, filters, channels): laid down once for each position given
        return [Kernel(kernel, _positions(given, kernel[-1]), set(kernel[:-2]) == {1})]
    if isinstance(layer, DEPTHWISE):
        kernel = tuple(layer.kernel.shape)
        return [Kernel(kernel, _positions(made, kernel[-2] * kernel[-1]), False)]
    if isinstance(layer, _SEPARABLE):
        positions = _positions(made, layer.filters)
        kernels = (tuple(layer.depthwise_kernel.shape), False), (tuple(layer.pointwise_kernel.shape), True)
        return [Kernel(kernel, positions, pointwise) for kernel, pointwise in kernels]
    if isinstance(layer, layers.Dense):
        kernel = tuple(layer.kernel.shape)
        return [Kernel(kernel, _positions(made, kernel[-1]), len(made) > 1)]
    if isinstance(layer, layers.Embedding) or is_pointwise(layer):
        return []
    has_matrix = any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))
    return None if has_matrix or type(layer).__name__ in _PRODUCTS else []


def _positions(shape: Shape, channels: int) -> int | None:
    known = [side for side in shape if side is not None]
    return math.prod(known) // channels if len(known) == len(shape) else None


def sides_of(kernel: Kernel, layer: keras.Operation) -> tuple[int, ...]:
    """A kernel's shape as a table shows it; a depthwise one without its multiplier of one."""
    is_single = isinstance(layer, (*DEPTHWISE, *_SEPARABLE)) and not kernel.pointwise and kernel.shape[-1] == 1
    return kernel.shape[:-1] if is_single else kernel.shape


def total(numbers: Iterable[int | None]) -> int | None:
    """The sum, None where any number is."""
    numbers = list(numbers)
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
