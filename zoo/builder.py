"""Config to `keras.Model`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
from keras import layers

from zoo import hdf5_models, model_files
from zoo.card import Card, Preprocess, attach, card
from zoo.catalogue import list_models, resolve
from zoo.errors import InputError, refuse, unknown
from zoo.exported.reading import format_at
from zoo.models.architecture import ArchitectureConfig
from zoo.settings import keras_defaults
from zoo.shipped import PRETRAINED, shipped_file
from zoo.weights import assign, from_keras, from_torch, is_of_keras, of_keras, of_model

Weights: TypeAlias = str | Path | keras.Model | Mapping[str, Any]


@keras_defaults()
def build(spec: str | Path | ArchitectureConfig, weights: Weights | None = None, **overrides: Any) -> keras.Model:
    """Assemble a model: raw images (B, H, W, channels), uint8 or float, to logits (B, num_classes).

    Preprocessing is inside the model. H and W are the config's `image_size`; with `image_size=None` they stay open.
    With auxiliary heads the outputs are a list, the logits first, which alone are kept at the end of a training.

    Args:
        spec: a catalogue name, the path of a config, or a model section.
        weights: a .keras or .h5 file, a run directory, or a model of the same architecture; "pretrained" for
            those that are shipped under the name `spec`; "keras" for the pretrained ones of keras.applications, one of
            its weights files (.h5) or models; or a torchvision-style state dict of arrays. A head of another shape is
            left newly initialised, for fine-tuning; everything else has to fit.
        **overrides: keys of the model section, such as `num_classes=5`. Weights of keras.applications bring their
            preprocessing with them; `preprocess="none"` leaves any preprocessing out.

    Raises:
        InputError: for an unknown name or key, an impossible value, or weights that do not fit.
    """
    source, known = None, Card()
    if weights == PRETRAINED:
        weights = model_files.load(shipped_file(str(spec) if isinstance(spec, str | Path) else type(spec).__name__))
        if not {"num_classes", "head"} & set(overrides):
            # What an output means goes with the head.
            known = card(weights)
    elif isinstance(weights, str | Path) and hdf5_models.holds_model(Path(weights)):
        weights = model_files.load(weights)
    if weights is not None and is_of_keras(weights):
        source, belonging = of_keras(spec, weights)
        flip_colours = "preprocess" not in overrides and belonging.mean[0] != belonging.mean[-1]
        overrides = {"preprocess": belonging, **overrides}
    config = resolve(spec, **overrides)
    inputs = keras.Input((*(config.image_size or (None, None)), config.channels), name="image")
    x = preprocess(inputs, config.preprocess)
    x = _feature_map(config)(x, config)
    outputs = config.head.logits(x, config.num_classes)
    name = Path(spec).stem if isinstance(spec, str | Path) else config.family.replace(":", ".")
    model = keras.Model(inputs, outputs, name=name)
    if auxiliary := config.auxiliary_heads(model):
        model = keras.Model(inputs, [outputs, *auxiliary], name=name)
    if source is not None:
        assign(model, from_keras(source, config, flip_colours))
    elif isinstance(weights, Mapping):
        assign(model, from_torch(weights, config))
    elif weights is not None:
        assign(model, of_model(weights))
    return attach(model, known.model_copy(update={"image_size": config.image_size, "preprocess": config.preprocess}))


def find_model(spec: str | Path) -> keras.Model:
    """The model that `spec` names, for reading about it.

    Args:
        spec: a catalogue name, the path of a config, a .keras or .h5 file or a run directory, or "keras:" and the name
            of a constructor in keras.applications, which is called with weights=None.

    Raises:
        InputError: where there is no such model; with the nearest name.
    """
    name, prefix = str(spec), "keras:"
    if name.startswith(prefix):
        constructors = [each for each in dir(keras.applications) if each[0].isupper()]
        if name.removeprefix(prefix) not in constructors:
            raise InputError(unknown("keras.applications model", name.removeprefix(prefix), constructors))
        return getattr(keras.applications, name.removeprefix(prefix))(weights=None)
    if name in list_models() or Path(name).suffix in (".yaml", ".yml"):
        return build(spec)
    is_file = Path(name).suffix.lower() == ".keras" or hdf5_models.is_hdf5(Path(name)) or format_at(Path(name))
    if is_file or Path(name).is_dir():
        return model_files.load(name)
    forms = "a path to a .yaml, .keras or .h5 file, a run directory, or keras:NAME of keras.applications"
    raise InputError(f"{unknown('model', name, list_models())}; or {forms}")


def _feature_map(config: ArchitectureConfig) -> Callable[[keras.KerasTensor, Any], keras.KerasTensor]:
    """The function that makes an architecture's layers: beside its schema, or beside the one that this derives from."""
    for schema in type(config).__mro__:
        if (function := getattr(sys.modules[schema.__module__], "feature_map", None)) is not None:
            return function
    refuse(
        "model.family",
        f"{config.family!r}, in whose module is no function feature_map",
        "a module with a function feature_map(x, config) beside the schema",
    )


def preprocess(x: keras.KerasTensor, config: Preprocess) -> keras.KerasTensor:
    """(x - mean) / std, computed in float32 whatever the precision of the rest."""
    scale = [1 / std for std in config.std]
    channels = max(len(config.mean), len(scale))
    means, scales = (values * (channels // len(values)) for values in (list(config.mean), scale))
    offset = [-mean * scale for mean, scale in zip(means, scales, strict=True)]
    return layers.Rescaling(scales, offset, dtype="float32", name="preprocess")(x)
