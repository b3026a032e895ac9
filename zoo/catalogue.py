"""The catalogue of ready-made models: names to model sections. No backend is loaded here."""

from pathlib import Path
from typing import Any

from zoo.config import ModelConfig, load_config, model_config, shipped_configs
from zoo.errors import InputError, unknown

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
