"""Config to `keras.Model`, and the catalogue of ready-made names."""

from pathlib import Path
from typing import Any

import keras
from keras import layers

from zoo import saving
from zoo.config import ModelConfig, load_config, model_config, shipped_configs
from zoo.config.models import InceptionConfig, NINConfig, Preprocess, ResNetConfig
from zoo.errors import InputError, unknown
from zoo.models import inception, nin, resnet
from zoo.models.heads import head

_FEATURE_MAPS = {NINConfig: nin.feature_map, InceptionConfig: inception.feature_map, ResNetConfig: resnet.feature_map}

# He et al. 2015, table 1: blocks a stage; width and filters double from stage to stage.
_RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def _imagenet_resnet(blocks: tuple[int, ...], variant: str) -> dict[str, Any]:
    return {
        "family": "resnet",
        "variant": variant,
        "num_classes": 1000,
        "image_size": (224, 224),
        "preprocess": _IMAGENET,
        "stem": {"kernel": 7, "stride": 2, "filters": 64, "pool": True},
        "stages": [
            {"blocks": count, "width": 64 * 2**index, "filters": 256 * 2**index, "stride": 1 if index == 0 else 2}
            for index, count in enumerate(blocks)
        ],
    }


def _cifar_resnet(blocks: int, variant: str) -> dict[str, Any]:
    return {
        "family": "resnet",
        "variant": variant,
        "num_classes": 10,
        "image_size": (32, 32),
        "preprocess": {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)},
        "stem": {"kernel": 3, "filters": 16},
        "stages": [
            {"blocks": blocks, "width": 16 * 2**index, "filters": 64 * 2**index, "stride": 1 if index == 0 else 2}
            for index in range(3)
        ],
    }


# Models without a training config of their own: name -> model section.
_ROWS = {
    **{name: _imagenet_resnet(blocks, "v1") for name, blocks in _RESNET_BLOCKS.items()},
    **{f"{name}_v1_5": _imagenet_resnet(blocks, "v1_5") for name, blocks in _RESNET_BLOCKS.items()},
    "resnet164_v1_cifar10": _cifar_resnet(18, "v1_5"),
}


def list_models() -> list[str]:
    """The catalogue: the shipped configs' names and those of models without a training config."""
    return sorted({*shipped_configs(), *_ROWS})


def resolve(spec: str | Path | ModelConfig, **overrides: Any) -> ModelConfig:
    """The model section that `spec` names, with `overrides` in place of its keys.

    Raises:
        InputError: for an unknown name, key or impossible value.
    """
    if isinstance(spec, ModelConfig):
        section, source = spec.model_dump(), f"{type(spec).__name__}"
    elif str(spec) in _ROWS:
        section, source = _ROWS[str(spec)], str(spec)
    elif str(spec) in shipped_configs() or Path(spec).suffix in (".yaml", ".yml"):
        section, source = load_config(spec).model.model_dump(), str(spec)
    else:
        raise InputError(unknown("model", spec, list_models()) + ", or a path to a .yaml file")
    return model_config({**section, **overrides}, source)


def build(
    spec: str | Path | ModelConfig, weights: str | Path | keras.Model | None = None, **overrides: Any
) -> keras.Model:
    """Assemble a model: raw images (B, H, W, channels), uint8 or float, to logits (B, num_classes).

    Preprocessing is inside the model. H and W are the config's `image_size`; with `image_size=None` they stay open.

    Args:
        spec: a catalogue name, the path of a config, or a model section.
        weights: a .keras file, a run directory, or a model of the same architecture, to take the weights from.
        **overrides: keys of the model section, such as `num_classes=5`.

    Raises:
        InputError: for an unknown name or key, an impossible value, or weights that do not fit.
    """
    config = resolve(spec, **overrides)
    inputs = keras.Input((*(config.image_size or (None, None)), config.channels), name="image")
    x = preprocess(inputs, config.preprocess)
    x = _FEATURE_MAPS[type(config)](x, config)
    outputs = head(x, config.head, config.num_classes)
    name = Path(spec).stem if isinstance(spec, str | Path) else config.family
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        _take_weights(model, weights if isinstance(weights, keras.Model) else saving.load(weights))
    return saving.attach(model, saving.Card(image_size=config.image_size, preprocess=config.preprocess))


def preprocess(x: keras.KerasTensor, config: Preprocess) -> keras.KerasTensor:
    """(x - mean) / std, computed in float32 whatever the precision of the rest."""
    scale = [1 / std for std in config.std]
    channels = max(len(config.mean), len(scale))
    means, scales = (values * (channels // len(values)) for values in (list(config.mean), scale))
    offset = [-mean * scale for mean, scale in zip(means, scales, strict=True)]
    return layers.Rescaling(scales, offset, dtype="float32", name="preprocess")(x)


def _take_weights(model: keras.Model, source: keras.Model) -> None:
    """Copy every weight by its path; a missing, extra or misshapen one is an error that names it."""
    wanted = {weight.path: weight for weight in model.weights}
    given = {weight.path: weight for weight in source.weights}
    for path in [*wanted, *given]:
        if path not in given:
            raise InputError(f"weights of {source.name!r}: {path} is missing")
        if path not in wanted:
            raise InputError(f"weights of {source.name!r}: {path} has no place in {model.name!r}")
        if wanted[path].shape != given[path].shape:
            shapes = f"received shape {tuple(given[path].shape)}; accepted: {tuple(wanted[path].shape)}"
            raise InputError(f"weights of {source.name!r}: {path}: {shapes}")
    for path, weight in wanted.items():
        weight.assign(given[path])
