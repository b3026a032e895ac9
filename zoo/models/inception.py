"""Inception (Szegedy et al. 2014, arXiv:1409.4842, and 2015, arXiv:1512.00567): modules of branches side by side.

Branches are written as the papers' figures read, or as a row of GoogLeNet's table 1.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from zoo.errors import unknown
from zoo.models import layers
from zoo.models.architecture import ArchitectureConfig, LayerSize, NamePatterns, Padding, Window, after, renamed
from zoo.models.blocks import Activation, Normalization, Whitening, conv, pooling
from zoo.models.branches import Branch, Layer, Tier, crops, stride_of, window_of
from zoo.models.layers import Tensor
from zoo.schema import Added, Positive, Schema, problem

if TYPE_CHECKING:
    import keras


class InceptionModule(Schema):
    """Branches side by side on one input, concatenated; `pool` is the pooling between this module and the next.

    The branches stand either in `branches`, or as a row of GoogLeNet's table 1: the filters of the 1x1, the 3x3 and the
    5x5 convolution, of the 1x1 reductions before them (left out in a naive module), and of the pooling's projection.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    branches: Annotated[tuple[Branch, ...], Field(max_length=100)] = ()
    conv1: Positive | None = None
    reduce3: Positive | None = None
    conv3: Positive | None = None
    reduce5: Positive | None = None
    conv5: Positive | None = None
    pool_proj: Positive | None = None
    pool: Tier | None = None

    @model_validator(mode="after")
    def _check_row(self) -> "InceptionModule":
        columns = (self.conv1, self.conv3, self.conv5)
        beside = (self.reduce3, self.reduce5, self.pool_proj)
        if any((*columns, *beside)) if self.branches else not all(columns):
            row = "conv1, conv3, conv5, and what goes with them"
            raise problem(f"received neither or both of branches and a row of {row}; accepted: one of them")
        return self

    def as_branches(self, kernel5: int) -> tuple[Branch, ...]:
        """The module's branches; `kernel5` is the side of the convolution in the table's 5x5 column."""
        if self.branches:
            return self.branches
        texts = [
            f"1x1 {self.conv1}",
            (f"1x1 {self.reduce3}, " if self.reduce3 else "") + f"3x3 {self.conv3}",
            (f"1x1 {self.reduce5}, " if self.reduce5 else "") + f"{kernel5}x{kernel5} {self.conv5}",
            "max 3x3" + (f", 1x1 {self.pool_proj}" if self.pool_proj else ""),
        ]
        return InceptionModule(name=self.name, branches=tuple(texts)).branches


class InceptionConfig(ArchitectureConfig):
    """Inception: a stem, then modules of branches with 1x1 reductions (Szegedy et al. 2014, table 1; 2015).

    `normalization`: "shift" is batch normalisation without a trained scale. `whitening`: a layer before the stem.
    `activation`: what follows every convolution; a leaky ReLU has the slope 0.01 below zero. `kernel5`: the side of the
    convolution in the column 5x5 of table 1, 3 in torchvision's GoogLeNet. `auxiliary`: the modules whose outputs have
    a classifier of their own in training (4a and 4d in the paper, section 5).
    """

    family: Literal["inception"]
    padding: Padding = "same"
    normalization: Normalization = "batch"
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    activation: Annotated[Activation, Added()] = "relu"
    kernel5: Literal[3, 5] = 5
    whitening: Annotated[Whitening | None, Added()] = None
    stem: Branch
    modules: Annotated[tuple[InceptionModule, ...], Field(min_length=1, max_length=1000)]
    auxiliary: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_auxiliary(self) -> "InceptionConfig":
        names = [row.name for row in self.modules]
        for name in self.auxiliary:
            if name not in names:
                raise problem(unknown("module", name, names), "auxiliary")
        if self.auxiliary and self.image_size is None:
            raise problem("received null; auxiliary heads need the training size as [height, width]", "image_size")
        return self

    @model_validator(mode="after")
    def _check_activation(self) -> "InceptionConfig":
        rows = (layer for _, branches in self._stages() for branch in branches for tier in branch for layer in tier)
        adds_zeros = any(row.kind == "max" and row.rounds_up and row.padding == "same" for row in rows)
        if self.activation != "relu" and self.padding == "same" and adds_zeros:
            text = f"received {self.activation} before a padded max pooling, whose zeros would win over negative values"
            raise problem(f"{text}; accepted: relu, or poolings that are valid", "activation")
        return self

    def feature_map_size(self, size: int) -> int:
        """Rows of the last feature map; with valid padding what the branches look at together decides."""
        for _, branches in self._stages():
            if self.padding == "valid":
                size = window_of(branches).output_size(size)
            else:
                size = min(after((tier[0].row_window for tier in branch), size) for branch in branches)
        return size

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is; of branches side by side each begins at the module's map."""
        channels = self.channels
        for key, branches in self._stages():
            widths = []
            for branch in branches:
                width = channels
                for tier in branch:
                    areas = sum(math.prod(layer.kernel) * (layer.filters or 0) for layer in tier)
                    weights = areas * width
                    width = sum(layer.filters or width for layer in tier)
                    yield LayerSize(key, weights, width, None)
                widths.append(width)
            channels = sum(widths)
            # The row's own window is that of its first branch, as all give maps of one size.
            window = Window(1, stride_of(branches), stride_of(branches) - 1)
            yield LayerSize(key, 0, channels, window)

    def auxiliary_heads(self, model: "keras.Model") -> list[Tensor]:
        """Logits (B, classes) from inside the net, for training (Szegedy et al. 2014, section 5).

        5x5 average pooling at stride 3, a 1x1 convolution to 128 channels, Dense 1024, Dropout 70 %, Dense.
        """
        return [
            _auxiliary_head(model.get_layer(f"{_module_name(name)}_concat").output, self, f"aux{index}")
            for index, name in enumerate(self.auxiliary, start=1)
        ]

    def keras_names(self, kinds: Mapping[str, str]) -> dict[str, str]:
        """Our names for the layers of InceptionV3, which Keras numbers as they are made: in the order of the table."""
        ours = self._convolution_names()
        names = {"predictions": "head_logits"}
        for kind, ending in (("Conv2D", ""), ("BatchNormalization", "_norm")):
            theirs = sorted((name for name, each in kinds.items() if each == kind), key=_number)
            if len(theirs) == len(ours):
                names |= {name: f"{own}{ending}" for name, own in zip(theirs, ours, strict=True)}
        return names

    def torch_name(self, module: str) -> str | None:
        """Our layer's name for a module of torchvision's googlenet; its auxiliary heads are left out without ours."""
        return "" if module.startswith("aux") and not self.auxiliary else renamed(_TORCH_NAMES, module)

    def _convolution_names(self) -> list[str]:
        """The names of all convolutions, in the order of the table."""
        branches = [("stem", self.stem)]
        for row in self.modules:
            rows = row.as_branches(self.kernel5)
            branches += zip(_branch_names(_module_name(row.name), rows), rows, strict=True)
        return [
            name
            for prefix, branch in branches
            for index, tier in enumerate(branch, start=1)
            for name, layer in zip(_layer_names(prefix, index, tier), tier, strict=True)
            if layer.kind == "conv"
        ]

    def _stages(self) -> list[tuple[str, tuple[Branch, ...]]]:
        """The branches side by side of each stage of the path, with the key that they come from."""
        stages: list[tuple[str, tuple[Branch, ...]]] = []
        if first := self.whitening:
            kernel, filters = (first.kernel, first.kernel), first.filters(self.channels)
            row = Layer(kind="conv", kernel=kernel, stride=first.stride, filters=filters, padding="valid")
            stages.append(("whitening", (((row,),),)))
        stages.append(("stem", (self.stem,)))
        for index, module in enumerate(self.modules):
            stages.append((f"modules.{index}", module.as_branches(self.kernel5)))
            stages += [(f"modules.{index}.pool", ((module.pool,),))] if module.pool else []
        return stages

    @property
    def total_stride(self) -> int:
        """Pixels between neighbouring cells of the last feature map."""
        return math.prod(stride_of(branches) for _, branches in self._stages())


def _module_name(name: str) -> str:
    return f"inception{name}"


def _branch_names(module: str, branches: tuple[Branch, ...]) -> list[str]:
    return [f"{module}_branch{index}" for index in range(1, len(branches) + 1)]


def _layer_names(branch: str, index: int, tier: Tier) -> list[str]:
    """Names of the layers of a branch's tier: `_conv2`, `_pool1`; `_conv2a`, `_conv2b` where there are two."""
    letters = "abcdefgh" if len(tier) > 1 else [""]
    kinds = ("conv" if layer.kind == "conv" else "pool" for layer in tier)
    return [f"{branch}_{kind}{index}{letter}" for kind, letter in zip(kinds, letters, strict=False)]


def layer(x: Tensor, row: Layer, config: InceptionConfig, name: str) -> Tensor:
    """One layer of a branch: (B, H, W, C) -> (B, H', W', filters), or C channels after a pooling."""
    padding = "valid" if config.padding == "valid" else row.padding
    if row.filters is None:
        return pooling(x, row.kind, row.kernel, row.stride, padding, name)
    return conv(
        x,
        row.filters,
        row.kernel if row.kernel != (1, 1) else 1,
        name,
        stride=row.stride,
        padding=padding,
        normalization=config.normalization,
        epsilon=config.norm_epsilon,
        activation=config.activation,
    )


def cropped(x: Tensor, branches: tuple[Branch, ...], config: InceptionConfig, names: list[str]) -> list[Tensor]:
    """The inputs of branches side by side: without padding cropped, so that all stay on the same pixels."""
    if config.padding == "same":
        return [x] * len(branches)
    cuts = zip(crops(branches, 0), crops(branches, 1), strict=True)
    return [
        layers.Cropping2D(cut, name=f"{name}_crop")(x) if cut != ((0, 0), (0, 0)) else x
        for cut, name in zip(cuts, names, strict=True)
    ]


def branch(x: Tensor, rows: Branch, config: InceptionConfig, name: str) -> Tensor:
    """One tier after another; layers that stand side by side are concatenated."""
    for index, tier in enumerate(rows, start=1):
        names = _layer_names(name, index, tier)
        inputs = cropped(x, tuple(((row,),) for row in tier), config, names)
        sides = [layer(inner, row, config, side) for inner, row, side in zip(inputs, tier, names, strict=True)]
        x = sides[0] if len(sides) == 1 else layers.Concatenate(name=f"{name}_concat{index}")(sides)
    return x


def module(x: Tensor, branches: tuple[Branch, ...], config: InceptionConfig, name: str) -> Tensor:
    """Branches on one input, concatenated (Szegedy et al. 2014, figure 2b): (B, H, W, C) -> (B, H', W', sum).

    Without padding each branch's input is cropped to what it looks at, as it is aligned in the padded network.
    """
    names = _branch_names(name, branches)
    inputs = cropped(x, branches, config, names)
    results = [branch(inner, rows, config, side) for inner, rows, side in zip(inputs, branches, names, strict=True)]
    return layers.Concatenate(name=f"{name}_concat")(results)


def feature_map(x: Tensor, config: InceptionConfig) -> Tensor:
    """Stem and modules in the table's order: (B, H, W, C) -> (B, H', W', sum of the last module's branches).

    Deviations of `countception` from its authors' code (Cohen et al. 2017): the modules have no padding, the head's
    layer is linear, without normalisation and leaky ReLU, and kernels begin as He's, not Glorot's.
    """
    if config.whitening:
        x = config.whitening.layer(x)
    x = branch(x, config.stem, config, "stem")
    for row in config.modules:
        name = _module_name(row.name)
        x = module(x, row.as_branches(config.kernel5), config, name)
        if row.pool:
            x = layer(x, row.pool[0], config, f"{name}_out_pool")
    return x


def _auxiliary_head(x: Tensor, config: InceptionConfig, name: str) -> Tensor:
    x = layers.AveragePooling2D(5, 3, padding="same" if min(x.shape[1:3]) < 5 else "valid", name=f"{name}_pool")(x)
    x = conv(x, 128, 1, f"{name}_conv", normalization=config.normalization, epsilon=config.norm_epsilon)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", kernel_initializer="he_normal", name=f"{name}_dense")(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(config.num_classes, dtype="float32", name=f"{name}_logits")(x)


# What torchvision calls the layers, as patterns, and we; it counts the stem's convolutions, our stem its layers.
_STEM = {"1": 1, "2": 3, "3": 4}
_TORCH_NAMES: NamePatterns = [
    (r"conv(\d)\.(conv|bn)", lambda m: f"stem_conv{_STEM[m[1]]}{_ending(m[2])}"),
    (r"inception(\w\w)\.branch1\.(conv|bn)", lambda m: f"{_module_name(m[1])}_branch1_conv1{_ending(m[2])}"),
    (
        r"inception(\w\w)\.branch([234])\.([01])\.(conv|bn)",
        lambda m: f"{_module_name(m[1])}_branch{m[2]}_conv{int(m[3]) + 1}{_ending(m[4])}",
    ),
    (r"aux(\d)\.conv\.(conv|bn)", lambda m: f"aux{m[1]}_conv{_ending(m[2])}"),
    (r"aux(\d)\.fc1", lambda m: f"aux{m[1]}_dense"),
    (r"aux(\d)\.fc2", lambda m: f"aux{m[1]}_logits"),
    (r"fc", lambda m: "head_logits"),
]


def _ending(kind: str) -> str:
    return "_norm" if kind == "bn" else ""


def _number(name: str) -> int:
    """The number that Keras has given a layer: 3 of `conv2d_3`, none for the first one."""
    match = re.search(r"_(\d+)$", name)
    return int(match[1]) if match else 0
