"""ResNets: v1 and v1.5 (He et al. 2015, arXiv:1512.03385), v2 (He et al. 2016, arXiv:1603.05027), and ResNeXt."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypedDict

from pydantic import Field

from zoo.errors import quoted
from zoo.models import layers
from zoo.models.architecture import LayerSize, NamePatterns, Padding, PathConfig, Window, renamed
from zoo.models.blocks import conv, convolution, crop, norm_act
from zoo.models.layers import Tensor
from zoo.schema import Kernel, Positive, Rate, Schema, Shorthand, problem


class ResNetStem(Schema):
    """The convolution before the first stage; `pool` adds the 3x3 max pooling at stride 2 of the ImageNet nets."""

    kernel: Kernel
    stride: Positive = 1
    filters: Positive
    pool: bool = False


class ResNetStage(Schema):
    """A row of table 1 in He et al. 2015: `blocks` of `width` inner and `filters` output channels.

    A basic block has no width of its own.
    """

    blocks: Annotated[int, Field(ge=1, le=1000)]
    width: Positive | None = None
    filters: Positive
    stride: Positive = 1

    @property
    def inner(self) -> int:
        """Channels inside a block: those that it gives, where it has no width of its own."""
        return self.filters if self.width is None else self.width


# Blocks of each stage by depth. Four stages: table 1 of He et al. 2015. Three, for CIFAR: its section 4.2 (6n + 2
# layers, two a basic block), and table 2 of He et al. 2016 (9n + 2 layers, three a bottleneck).
_BASIC = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    20: (3, 3, 3),
    32: (5, 5, 5),
    44: (7, 7, 7),
    56: (9, 9, 9),
    110: (18, 18, 18),
}
_BOTTLENECKS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    164: (18, 18, 18),
    1001: (111, 111, 111),
}


def stage_table(depth: Any, section: Mapping[str, Any]) -> list[dict[str, int]]:
    """The rows of the papers' table for a number of layers, of basic blocks or bottlenecks as the section says.

    The first stage is 64 channels wide in the nets of four stages, and 16 in those of three for CIFAR; each next one is
    twice as wide at half the size. A bottleneck has four times its width as filters. v2_keras halves at a stage's end.
    """
    basic = section.get("block") == "basic"
    known = _BASIC if basic else _BOTTLENECKS
    if isinstance(depth, bool) or not isinstance(depth, int) or depth not in known:
        accepted = f"{', '.join(map(str, known))}, or stages in its place"
        of = "basic blocks" if basic else "bottlenecks"
        raise problem(f"received {quoted(depth)}; accepted for {of}: {accepted}", "depth")
    halved = [1] + [2] * (len(known[depth]) - 1)
    strides = halved[::-1] if section.get("variant") == "v2_keras" else halved
    rows, width = [], 64 if len(known[depth]) == 4 else 16
    for blocks, stride in zip(known[depth], strides, strict=True):
        channels = {"filters": width} if basic else {"width": width, "filters": 4 * width}
        rows.append({"blocks": blocks, **channels, "stride": stride})
        width *= 2
    return rows


class BlockPlan(NamedTuple):
    """What a block does beside its row: its stride, the dilations of its 3x3 convolutions, its drop.

    `dilation_before` and `dilation_after`: before and after the place where a stride is, which differ where a stage
    dilates instead of striding. `drop`: the chance that its residual branch is left out in training.
    """

    stride: int
    dilation_before: int
    dilation_after: int
    drop: float


class ResNetConfig(PathConfig):
    """ResNet (He et al. 2015, section 4.1; v2: He et al. 2016, figure 4e; grouped: Xie et al. 2017, figure 3c).

    `variant`: v1 has a stage's stride in the first 1x1 convolution, v1_5 in the 3x3; v2 is pre-activated, stride in
    the 3x3; v2_keras is v2 as keras.applications has it: stride in a stage's last block, and biases where no
    normalisation follows. `depth` in place of `stages` stands for a table of the papers (see `stage_table`): 50, 101 or
    152, and for CIFAR 164 or 1001; of basic blocks 18 or 34, and for CIFAR 20, 32, 44, 56 or 110. `groups` divides the
    3x3 convolution of a bottleneck. `output_stride`: later stages dilate instead of striding, so that cells are that
    many pixels apart. `padding`: valid pads no layer and crops the shortcuts instead.
    `stochastic_depth`: the chance that training leaves out the last block's residual branch of an image, rising to it
    linearly from the first (Huang et al. 2016, arXiv:1603.09382, section 3; inverted, so that nothing is scaled later).
    """

    shorthands: ClassVar[Mapping[str, Shorthand]] = {"depth": Shorthand("stages", stage_table)}

    family: Literal["resnet"]
    padding: Padding = "same"
    variant: Literal["v1", "v1_5", "v2", "v2_keras"]
    block: Literal["bottleneck", "basic"] = "bottleneck"
    groups: Positive = 1
    stem: ResNetStem
    stages: Annotated[tuple[ResNetStage, ...], Field(min_length=1, max_length=1000)]
    output_stride: Literal[8, 16, 32] | None = None
    stochastic_depth: Rate = 0.0

    def _check_extent(self) -> None:
        for index, row in enumerate(self.stages):
            if (row.width is None) != (self.block == "basic"):
                wanted = "none in a basic block" if self.block == "basic" else "a number, in a bottleneck"
                raise problem(f"received {row.width}; accepted: {wanted}", f"stages.{index}.width")
            if row.width and row.width % self.groups:
                raise problem(
                    f"received {row.width}; accepted: a multiple of groups = {self.groups}", f"stages.{index}.width"
                )
        if self.block == "basic" and self.variant != "v1":
            raise problem(f"received {self.variant!r}; accepted for basic blocks: 'v1'", "variant")
        if self.block == "basic" and self.groups != 1:
            raise problem(f"received {self.groups}; accepted for basic blocks: 1", "groups")
        if self.output_stride and self.variant == "v2_keras":
            raise problem(f"received {self.output_stride}; accepted for v2_keras: null", "output_stride")
        super()._check_extent()

    def plans(self) -> list[list[BlockPlan]]:
        """For each stage the plans of its blocks, under `output_stride`; one block strides, v2_keras's last."""
        reached = self.stem.stride * (2 if self.stem.pool else 1)
        each = self.stochastic_depth / sum(row.blocks for row in self.stages)
        drops = (each * block for block in count(1))
        dilation, stages = 1, []
        for row in self.stages:
            stride, before = row.stride, dilation
            if self.output_stride and reached * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            plans = [BlockPlan(1, dilation, dilation, next(drops)) for _ in range(row.blocks)]
            strided = -1 if self.variant == "v2_keras" else 0
            plans[strided] = plans[strided]._replace(stride=stride, dilation_before=before)
            stages.append(plans)
        return stages

    def layer_sizes(self) -> Iterator[LayerSize]:
        """How large every layer before the head is, in the order of the path; shortcuts lie beside it."""
        stem = self.stem
        channels = stem.filters
        yield LayerSize(
            "stem", stem.kernel**2 * self.channels * channels, channels, self._window(stem.kernel, stem.stride)
        )
        if stem.pool:
            yield LayerSize("stem.pool", 0, channels, self._window(3, 2))
        for index, (row, plans) in enumerate(zip(self.stages, self.plans(), strict=True)):
            for block, plan in enumerate(plans):
                strides = row.stride != 1 and self.variant != "v2_keras"
                if block == 0 and (channels != row.filters or strides):
                    yield LayerSize(f"stages.{index}", channels * row.filters, 0, None)
                for weights, filters, window in self._block(row, plan, channels):
                    yield LayerSize(f"stages.{index}", weights, filters, window)
                channels = row.filters

    def _block(self, row: ResNetStage, plan: BlockPlan, channels: int) -> Iterator[tuple[int, int, Window]]:
        """Numbers in the kernels, channels and windows of a block's convolutions."""
        if self.block == "basic":
            yield 9 * channels * row.filters, row.filters, self._window(3, plan.stride, plan.dilation_before)
            yield 9 * row.filters**2, row.filters, self._window(3, 1, plan.dilation_after)
            return
        # The stride is in the first 1x1 in v1, and in the 3x3 in all others.
        first = self.variant == "v1"
        yield channels * row.inner, row.inner, self._window(1, plan.stride if first else 1)
        stride, dilation = (1, plan.dilation_after) if first else (plan.stride, plan.dilation_before)
        window = self._window(3, stride, dilation)
        yield 9 * row.inner**2 // self.groups, row.inner, window
        yield row.inner * row.filters, row.filters, Window(1)

    def keras_names(self, kinds: Mapping[str, str]) -> dict[str, str]:
        """Our names for the layers of ResNet50 and its like in keras.applications."""
        names = {theirs: renamed(_KERAS_NAMES, theirs) for theirs in kinds}
        return {theirs: ours for theirs, ours in names.items() if ours is not None}

    def torch_name(self, module: str) -> str | None:
        """Our layer's name for a module of torchvision's resnet50, resnext50_32x4d and their like."""
        return renamed(_TORCH_NAMES, module)

    def _window(self, kernel: int, stride: int, dilation: int = 1) -> Window:
        extent = 1 + (kernel - 1) * dilation
        return Window(extent, stride, extent - 1 if self.padding == "same" else 0)


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
    y = same(y, filters, 1, f"{name}_conv3", activation=None)
    return _merged(x, y, name, stride, project, first * dilation if padding == "valid" else 0, drop)


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
    y = same(y, filters, 3, f"{name}_conv2", dilation=dilations[1], padding=padding, activation=None)
    lost = dilations[0] + stride * dilations[1] if padding == "valid" else 0
    return _merged(x, y, name, stride, project, lost, drop)


def _merged(x: Tensor, y: Tensor, name: str, stride: int, project: bool, lost: int, drop: float) -> Tensor:
    """A v1 block's residual branch y on the shortcut from x, then ReLU; `lost`: rows that y lost at each border."""
    if lost:
        x = crop(x, lost, f"{name}_shortcut")
    if project:
        filters = y.shape[-1]
        x = conv(x, filters, 1, f"{name}_shortcut", stride=stride, activation=None, normalization="batch")
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


def stem(x: Tensor, config: ResNetConfig) -> Tensor:
    """The first convolution, and the ImageNet nets' 3x3 max pooling at stride 2.

    v2 has no normalisation here: its first block begins with one. The pooling's zero border comes after a ReLU in v1;
    in v2 it does not, as in the authors' and in Keras's nets a zero may then win a maximum at the border.
    """
    row = config.stem
    if config.variant in ("v2", "v2_keras"):
        make = partial(convolution, use_bias=config.variant == "v2_keras")
    else:
        make = partial(conv, normalization="batch")
    x = make(x, row.filters, row.kernel, "stem_conv", stride=row.stride, padding=config.padding)
    if row.pool:
        if config.padding == "same":
            x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


class _Common(TypedDict):
    """What blocks of all kinds take."""

    stride: int
    project: bool
    padding: Padding
    drop: float


def stage(x: Tensor, row: ResNetStage, number: int, config: ResNetConfig, plans: list[BlockPlan]) -> Tensor:
    """A row of the table; a projection changes the channels or takes a stride (v2_keras strides an identity)."""
    strided = row.blocks if config.variant == "v2_keras" else 1
    for index, plan in enumerate(plans, start=1):
        project = index == 1 and (x.shape[-1] != row.filters or (strided == 1 and row.stride != 1))
        block = _block_name(number, index)
        common: _Common = {"stride": plan.stride, "project": project, "padding": config.padding, "drop": plan.drop}
        if config.block == "basic":
            x = basic(x, row.filters, block, dilations=(plan.dilation_before, plan.dilation_after), **common)
        elif config.variant in ("v2", "v2_keras"):
            make = partial(bottleneck_v2, dilation=plan.dilation_before, use_bias=config.variant == "v2_keras")
            x = make(x, row.inner, row.filters, block, groups=config.groups, **common)
        else:
            in_3x3 = config.variant == "v1_5"
            dilation = plan.dilation_before if in_3x3 else plan.dilation_after
            make = partial(bottleneck, dilation=dilation, stride_in_3x3=in_3x3)
            x = make(x, row.inner, row.filters, block, groups=config.groups, **common)
    return x


def feature_map(x: Tensor, config: ResNetConfig) -> Tensor:
    """Stem and stages: (B, H, W, C) -> (B, H', W', filters of the last stage); v2 ends in normalisation and ReLU."""
    x = stem(x, config)
    for index, (row, plans) in enumerate(zip(config.stages, config.plans(), strict=True), start=1):
        x = stage(x, row, index, config, plans)
    return norm_act(x, "post") if config.variant in ("v2", "v2_keras") else x


# What the layers are called elsewhere, as patterns, and by us.
_KERAS_NAMES: NamePatterns = [
    (r"conv1_conv", lambda m: "stem_conv"),
    (r"conv1_bn", lambda m: "stem_conv_norm"),
    (r"conv(\d)_block(\d+)_(\d)_(conv|bn)", lambda m: f"{_block_name(int(m[1]) - 1, m[2])}_{_unit_name(m[3], m[4])}"),
    (r"conv(\d)_block(\d+)_preact_bn", lambda m: f"{_block_name(int(m[1]) - 1, m[2])}_pre_norm"),
    (r"post_bn", lambda m: "post_norm"),
    (r"predictions", lambda m: "head_logits"),
]
_TORCH_NAMES: NamePatterns = [
    (r"conv1", lambda m: "stem_conv"),
    (r"bn1", lambda m: "stem_conv_norm"),
    (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", lambda m: f"{_block_name(m[1], int(m[2]) + 1)}_{_unit_name(m[4], m[3])}"),
    (r"layer(\d)\.(\d+)\.downsample\.0", lambda m: f"{_block_name(m[1], int(m[2]) + 1)}_shortcut"),
    (r"layer(\d)\.(\d+)\.downsample\.1", lambda m: f"{_block_name(m[1], int(m[2]) + 1)}_shortcut_norm"),
    (r"fc", lambda m: "head_logits"),
]


def _block_name(stage: int | str, block: int | str) -> str:
    return f"stage{stage}_block{block}"


def _unit_name(number: str, kind: str) -> str:
    """A convolution or its normalisation; Keras numbers the shortcut 0."""
    return ("shortcut" if number == "0" else f"conv{number}") + ("_norm" if kind == "bn" else "")
