"""What every architecture's section has: classes, image size, preprocessing, head; and how windows change sizes."""

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from zoo.card import Preprocess
from zoo.errors import refuse
from zoo.models.heads import Head, PooledHead
from zoo.models.layers import Tensor
from zoo.schema import LARGEST, Positive, Schema, Size, in_bytes, problem

if TYPE_CHECKING:
    import keras

Padding = Literal["same", "valid"]
# What a model may be: numbers in its kernels (2 GiB), numbers in the largest map of one image (64 GiB), layers.
MOST_WEIGHTS = 2**29
LARGEST_MAP = 2**34
_MOST_LAYERS = 5_000


class Window(NamedTuple):
    """One window along a network's path: side, step, and rows of padding in all (pixels of its own input)."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Positions that the window takes on `size` rows; zero or less where it does not fit."""
        return (size + self.padding - self.kernel) // self.stride + 1


def after(windows: Iterable[Window], size: int) -> int:
    """Rows that are left of `size` after one window after another; zero or less where one does not fit."""
    for window in windows:
        size = window.output_size(size)
    return size


class LayerSize(NamedTuple):
    """How large one layer is: the numbers in its kernels, the channels of its output, the step of it along the path.

    `key`: of the section that it comes from. `window`: None for a branch beside the path.
    """

    key: str
    weights: int
    channels: int
    window: Window | None = Window(1)


# Patterns of names that layers have elsewhere, each with our name for what it matches.
NamePatterns = list[tuple[str, Callable[[re.Match], str]]]


def renamed(patterns: NamePatterns, name: str) -> str | None:
    """Our name by the first pattern that the whole of `name` matches; None where none does."""
    matches = ((re.fullmatch(pattern, name), ours) for pattern, ours in patterns)
    return next((ours(match) for match, ours in matches if match), None)


def _as_preprocess(value: Any) -> Any:
    return Preprocess(mean=(0.0,), std=(1.0,)) if value == "none" else value


class ArchitectureConfig(Schema, ABC):
    """The base of every architecture's schema; an architecture outside the package derives its own from it.

    The module of the schema has a function `feature_map(x, config)` too, which assembles the layers from preprocessed
    pixels (B, H, W, channels) to the last feature map; a schema derived from another one without a function of its own
    has that one's. What the schema does not know, such as `layer_sizes`, need not be there.
    """

    family: str
    num_classes: Annotated[int, Field(ge=1, le=LARGEST)]
    image_size: Size | None
    channels: Positive = 3
    preprocess: Annotated[Preprocess, BeforeValidator(_as_preprocess)] = Preprocess()
    head: Head = PooledHead(kind="pooled")

    @abstractmethod
    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map for an image of `size` rows; zero or less where a window does not fit."""

    @property
    @abstractmethod
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path; nothing where a schema does not say."""
        return iter(())

    def auxiliary_heads(self, model: "keras.Model") -> list[Tensor]:
        """Logits (B, num_classes) from inside the model, for training alone; none in most architectures."""
        return []

    def keras_names(self, kinds: Mapping[str, str]) -> dict[str, str]:
        """Our names for the layers of the net of keras.applications whose weights fit this one.

        `kinds`: the class of each of its layers with weights, by the layer's name. What has no place is left out.
        """
        return {}

    def torch_name(self, module: str) -> str | None:
        """Our layer's name for a module of torchvision's net of this kind, by its path.

        None where it has no place, empty where it is left out.
        """
        return None

    @property
    def training_size(self) -> tuple[int, int]:
        """`image_size`, for what needs one.

        Raises:
            InputError: where it is left open.
        """
        if self.image_size is None:
            refuse("model.image_size", "null", "[height, width]")
        return self.image_size

    @property
    def smallest_image(self) -> int:
        """The least height and width that leave a feature map, and not less than one total stride."""
        sizes = range(min(self.total_stride, LARGEST), LARGEST)
        return sizes.start + bisect_left(sizes, True, key=lambda size: self.feature_map_size(size) > 0)

    @property
    def largest_map(self) -> int:
        """Numbers in the largest map of one image, of those that the schema tells of; 0 where the size is open."""
        return max((numbers for _, numbers in self._maps()), default=0)

    def _maps(self) -> Iterator[tuple[str, int]]:
        """The section that each map comes from, and its numbers."""
        if self.image_size is None:
            return
        height, width = self.image_size
        yield "image_size", height * width * self.channels
        for layer in self.layer_sizes():
            if layer.window:
                height, width = (max(layer.window.output_size(side), 1) for side in (height, width))
            yield layer.key, height * width * layer.channels

    def _check_extent(self) -> None:
        """Check that the model can be built, by arithmetic alone."""
        layers = list(islice(self.layer_sizes(), _MOST_LAYERS + 1))
        if len(layers) > _MOST_LAYERS:
            raise problem(f"received more than {_MOST_LAYERS:,} layers; accepted: at most so many", layers[-1].key)
        total = 0
        channels = layers[-1].channels if layers else self.channels
        rows, columns = (max(self.feature_map_size(side), 1) for side in self.image_size or (1, 1))
        numbers = self.head.kernel_numbers(channels, (rows, columns), self.num_classes)
        last = LayerSize("head", numbers, self.num_classes)
        for layer in (*layers, *([last] if layers else [])):
            total += layer.weights
            if total > MOST_WEIGHTS:
                text = f"received kernels of {total:,} numbers ({in_bytes(total)}) up to here"
                raise problem(f"{text}; accepted: at most {MOST_WEIGHTS:,} ({in_bytes(MOST_WEIGHTS)})", layer.key)
        for key, numbers in self._maps():
            if numbers > LARGEST_MAP:
                text = f"received maps of {numbers:,} numbers ({in_bytes(numbers)}) an image of {self.image_size}"
                raise problem(f"{text}; accepted: at most {LARGEST_MAP:,} ({in_bytes(LARGEST_MAP)})", key)

    @model_validator(mode="after")
    def _check(self) -> "ArchitectureConfig":
        for name, values in (("mean", self.preprocess.mean), ("std", self.preprocess.std)):
            if len(values) not in (1, self.channels):
                text = f"received {len(values)} numbers; accepted: 1, or channels = {self.channels}"
                raise problem(text, f"preprocess.{name}")
        self._check_extent()
        if self.image_size is None:
            if self.head.fixed_size:
                text = f"received null; a {self.head.kind} head needs the training size as [height, width]"
                raise problem(text, "image_size")
        elif min(self.image_size) < self.smallest_image:
            text = (
                f"received {list(self.image_size)}, but these layers and their total stride of "
                f"{self.total_stride} need at least {self.smallest_image} pixels a side"
            )
            raise problem(text, "image_size")
        return self


class PathConfig(ArchitectureConfig):
    """An architecture whose sizes follow from one row of windows."""

    @abstractmethod
    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path."""

    def path(self) -> list[Window]:
        """The windows from image to last feature map."""
        return [layer.window for layer in self.layer_sizes() if layer.window not in (None, Window(1))]

    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map for an image of `size` rows; zero or less where a window does not fit."""
        return after(self.path(), size)

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(window.stride for window in self.path())
