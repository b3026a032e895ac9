"""Heads, each with its keys, its size and its layers: the last feature map (B, H, W, C) -> logits (B, num_classes).

The logits are float32 under any precision, and their layer is named `head_logits`. A new head is a class here, and a
member of `Head`; `tests/small_nets.py` has a row for each kind.
"""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from zoo.models import layers
from zoo.models.layers import Tensor
from zoo.schema import Positive, Rate, Schema, problem


class _Head(Schema, ABC):
    """What every head has; `fixed_size` where its weights fit maps of one size, which the config then has to give."""

    fixed_size: ClassVar[bool] = False

    @abstractmethod
    def kernel_numbers(self, channels: int, size: tuple[int, int], classes: int) -> int:
        """How many numbers the kernels have, on a map (*size, channels)."""

    @abstractmethod
    def logits(self, x: Tensor, num_classes: int) -> Tensor:
        """(B, H, W, C) -> (B, num_classes)."""


class ClassMapsHead(_Head):
    """Dropout, a 1x1 convolution to one map a class, and their global average (Network in Network, section 3.2).

    `relu` puts a ReLU between the two, as SqueezeNet has it.
    """

    kind: Literal["class_maps"] = "class_maps"
    dropout: Rate = 0.0
    relu: bool = False

    def kernel_numbers(self, channels: int, size: tuple[int, int], classes: int) -> int:
        """How many numbers the kernels have, on a map (*size, channels)."""
        return channels * classes

    def logits(self, x: Tensor, num_classes: int) -> Tensor:
        """(B, H, W, C) -> (B, num_classes)."""
        if self.dropout:
            x = layers.Dropout(self.dropout, name="head_dropout")(x)
        x = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name="head_class_maps")(x)
        if self.relu:
            x = layers.ReLU(name="head_relu")(x)
        return layers.GlobalAveragePooling2D(dtype="float32", name="head_logits")(x)


class PooledHead(_Head):
    """Global pooling, Dropout, Dense."""

    kind: Literal["pooled"]
    pool: Literal["average", "max"] = "average"
    dropout: Rate = 0.0

    def kernel_numbers(self, channels: int, size: tuple[int, int], classes: int) -> int:
        """How many numbers the kernel has, on a map (*size, channels)."""
        return channels * classes

    def logits(self, x: Tensor, num_classes: int) -> Tensor:
        """(B, H, W, C) -> (B, num_classes)."""
        pool = layers.GlobalAveragePooling2D if self.pool == "average" else layers.GlobalMaxPooling2D
        x = pool(name="head_pool")(x)
        if self.dropout:
            x = layers.Dropout(self.dropout, name="head_dropout")(x)
        return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


class FlattenHead(_Head):
    """Flatten, then hidden Dense layers, each with ReLU and Dropout, then Dense."""

    fixed_size: ClassVar[bool] = True

    kind: Literal["flatten"]
    hidden: Annotated[tuple[Positive, ...], Field(max_length=100)] = ()
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _check_dropout(self) -> "FlattenHead":
        if self.dropout and not self.hidden:
            text = f"received {self.dropout:g} without hidden layers; accepted: 0, or hidden layers before it"
            raise problem(text, "dropout")
        return self

    def kernel_numbers(self, channels: int, size: tuple[int, int], classes: int) -> int:
        """How many numbers the kernels have, on a map (*size, channels)."""
        return sum(math.prod(pair) for pair in pairwise((channels * math.prod(size), *self.hidden, classes)))

    def logits(self, x: Tensor, num_classes: int) -> Tensor:
        """(B, H, W, C) -> (B, num_classes)."""
        x = layers.Flatten(name="head_flatten")(x)
        for index, units in enumerate(self.hidden, start=1):
            x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"head_dense{index}")(x)
            if self.dropout:
                x = layers.Dropout(self.dropout, name=f"head_dropout{index}")(x)
        return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


class PyramidHead(_Head):
    """Spatial pyramid pooling (He et al. 2014, arXiv:1406.4729, section 2.2), Dropout, Dense.

    The map is pooled to level x level bins for each level: 1, 2, 4 give 21 numbers a channel at any image size.
    """

    kind: Literal["pyramid"]
    levels: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)] = (1, 2, 4)
    pool: Literal["average", "max"] = "max"
    dropout: Rate = 0.0

    def kernel_numbers(self, channels: int, size: tuple[int, int], classes: int) -> int:
        """How many numbers the kernel has, on a map (*size, channels)."""
        return channels * classes * sum(level**2 for level in self.levels)

    def logits(self, x: Tensor, num_classes: int) -> Tensor:
        """(B, H, W, C) -> (B, num_classes)."""
        adaptive = layers.AdaptiveMaxPooling2D if self.pool == "max" else layers.AdaptiveAveragePooling2D
        whole = layers.GlobalMaxPooling2D if self.pool == "max" else layers.GlobalAveragePooling2D
        bins = []
        for side in self.levels:
            if side == 1:  # TensorFlow's kernel ends the process where one adaptive bin is the whole map
                bins.append(whole(name="head_bins1")(x))
            else:
                bins.append(layers.Flatten(name=f"head_bins{side}")(adaptive(side, name=f"head_pool{side}")(x)))
        x = layers.Concatenate(name="head_pyramid")(bins) if len(bins) > 1 else bins[0]
        if self.dropout:
            x = layers.Dropout(self.dropout, name="head_dropout")(x)
        return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


Head = Annotated[ClassMapsHead | PooledHead | FlattenHead | PyramidHead, Field(discriminator="kind")]
