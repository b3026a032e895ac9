"""Config to `keras.Model`."""

import importlib
from pathlib import Path
from typing import Any

import keras
from keras import layers

from zoo import saving
from zoo.catalogue import resolve
from zoo.config import ArchitectureConfig
from zoo.config.architecture import Preprocess
from zoo.errors import InputError
from zoo.models.heads import head


def build(
    spec: str | Path | ArchitectureConfig, weights: str | Path | keras.Model | None = None, **overrides: Any
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
    x = importlib.import_module(config.builder or type(config).__module__).feature_map(x, config)
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
