"""Inception (Szegedy et al. 2014, arXiv:1409.4842, and 2015, arXiv:1512.00567): modules of branches side by side."""

import keras
from keras import layers

from zoo.config.inception import Branch, InceptionConfig, Layer, crops
from zoo.models.blocks import Tensor, conv, pooling


def layer(x: Tensor, row: Layer, config: InceptionConfig, name: str) -> Tensor:
    """One layer of a branch: (B, H, W, C) -> (B, H', W', filters), or C channels after a pooling."""
    padding = "valid" if config.padding == "valid" else row.padding
    if row.kind != "conv":
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
    )


def aligned(x: Tensor, branches: tuple[Branch, ...], config: InceptionConfig, names: list[str]) -> list[Tensor]:
    """The inputs of branches side by side: without padding cropped, so that all stay on the same pixels."""
    if config.padding == "same":
        return [x] * len(branches)
    cuts = zip(crops(branches, 0), crops(branches, 1), strict=True)
    return [
        layers.Cropping2D(cut, name=f"{name}_crop")(x) if cut != ((0, 0), (0, 0)) else x
        for cut, name in zip(cuts, names, strict=True)
    ]


def branch(x: Tensor, rows: Branch, config: InceptionConfig, name: str) -> Tensor:
    """Layers one behind the other; those that stand side by side are concatenated."""
    for index, step in enumerate(rows, start=1):
        names = [f"{name}_{'conv' if row.kind == 'conv' else 'pool'}{index}" for row in step]
        if len(step) > 1:
            names = [f"{each}{letter}" for each, letter in zip(names, "abcdefgh", strict=False)]
        inputs = aligned(x, tuple(((row,),) for row in step), config, names)
        sides = [layer(inner, row, config, side) for inner, row, side in zip(inputs, step, names, strict=True)]
        x = sides[0] if len(sides) == 1 else layers.Concatenate(name=f"{name}_concat{index}")(sides)
    return x


def module(x: Tensor, branches: tuple[Branch, ...], config: InceptionConfig, name: str) -> Tensor:
    """Branches on one input, concatenated (Szegedy et al. 2014, figure 2b): (B, H, W, C) -> (B, H', W', sum).

    Without padding each branch's input is cropped to what it looks at, as it is aligned in the padded network.
    """
    names = [f"{name}_branch{index}" for index in range(1, len(branches) + 1)]
    inputs = aligned(x, branches, config, names)
    results = [branch(inner, rows, config, side) for inner, rows, side in zip(inputs, branches, names, strict=True)]
    return layers.Concatenate(name=f"{name}_concat")(results)


def auxiliary_heads(model: keras.Model, config: InceptionConfig) -> list[Tensor]:
    """Logits (B, classes) from inside the net, for training (Szegedy et al. 2014, section 5).

    5x5 average pooling at stride 3, a 1x1 convolution to 128 channels, Dense 1024, Dropout 70 %, Dense.
    """
    outputs = []
    for index, name in enumerate(config.auxiliary, start=1):
        x = model.get_layer(f"inception{name}_concat").output
        x = layers.AveragePooling2D(
            5, 3, padding="same" if min(x.shape[1:3]) < 5 else "valid", name=f"aux{index}_pool"
        )(x)
        epsilon = config.norm_epsilon
        x = conv(x, 128, 1, f"aux{index}_conv", normalization=config.normalization, epsilon=epsilon)
        x = layers.Flatten(name=f"aux{index}_flatten")(x)
        x = layers.Dense(1024, activation="relu", kernel_initializer="he_normal", name=f"aux{index}_dense")(x)
        x = layers.Dropout(0.7, name=f"aux{index}_dropout")(x)
        outputs.append(layers.Dense(config.num_classes, dtype="float32", name=f"aux{index}_logits")(x))
    return outputs


def feature_map(x: Tensor, config: InceptionConfig) -> Tensor:
    """Stem and modules in the table's order: (B, H, W, C) -> (B, H', W', sum of the last module's branches)."""
    x = branch(x, config.stem, config, "stem")
    for row in config.modules:
        name = f"inception{row.name}"
        x = module(x, row.as_branches(config.kernel5), config, name)
        if row.pool:
            x = layer(x, row.pool[0], config, f"{name}_out_pool")
    return x
