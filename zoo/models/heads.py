"""Heads: the last feature map (B, H, W, C) -> logits (B, num_classes), in float32 under any precision."""

from keras import layers

from zoo.config.architecture import ClassMapsHead, FlattenHead, PooledHead, PyramidHead
from zoo.models.blocks import Tensor


def head(x: Tensor, config: ClassMapsHead | PooledHead | FlattenHead | PyramidHead, num_classes: int) -> Tensor:
    """The head that `config` describes; its last layer is named `head_logits`."""
    return _HEADS[type(config)](x, config, num_classes)


def _class_maps(x: Tensor, config: ClassMapsHead, num_classes: int) -> Tensor:
    """Network in Network, section 3.2: a map for each class, averaged over the image."""
    if config.dropout:
        x = layers.Dropout(config.dropout, name="head_dropout")(x)
    x = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name="head_class_maps")(x)
    if config.relu:
        x = layers.ReLU(name="head_relu")(x)
    return layers.GlobalAveragePooling2D(dtype="float32", name="head_logits")(x)


def _pooled(x: Tensor, config: PooledHead, num_classes: int) -> Tensor:
    pool = layers.GlobalAveragePooling2D if config.pool == "average" else layers.GlobalMaxPooling2D
    x = pool(name="head_pool")(x)
    if config.dropout:
        x = layers.Dropout(config.dropout, name="head_dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


def _flatten(x: Tensor, config: FlattenHead, num_classes: int) -> Tensor:
    x = layers.Flatten(name="head_flatten")(x)
    for index, units in enumerate(config.hidden, start=1):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"head_dense{index}")(x)
        if config.dropout:
            x = layers.Dropout(config.dropout, name=f"head_dropout{index}")(x)
    return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


def _pyramid(x: Tensor, config: PyramidHead, num_classes: int) -> Tensor:
    adaptive = layers.AdaptiveMaxPooling2D if config.pool == "max" else layers.AdaptiveAveragePooling2D
    whole = layers.GlobalMaxPooling2D if config.pool == "max" else layers.GlobalAveragePooling2D
    bins = []
    for side in config.levels:
        if side == 1:  # TensorFlow's kernel ends the process where one adaptive bin is the whole map
            bins.append(whole(name="head_bins1")(x))
        else:
            bins.append(layers.Flatten(name=f"head_bins{side}")(adaptive(side, name=f"head_pool{side}")(x)))
    x = layers.Concatenate(name="head_pyramid")(bins) if len(bins) > 1 else bins[0]
    if config.dropout:
        x = layers.Dropout(config.dropout, name="head_dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


_HEADS = {ClassMapsHead: _class_maps, PooledHead: _pooled, FlattenHead: _flatten, PyramidHead: _pyramid}
