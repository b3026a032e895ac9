"""Weights from elsewhere: run directories, keras.applications, and PyTorch state dicts by a map of names.

Every source is brought to our names first (`stage2_block1_conv3/kernel`), then assigned whole: an array that is
missing, has no place or another shape is an error that names it.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo import model_files
from zoo.config.architecture import ArchitectureConfig, Preprocess
from zoo.config.inception import Branch, InceptionConfig
from zoo.errors import InputError

Arrays = dict[str, np.ndarray]

# What keras.applications calls a net that we have, and the preprocessing that belongs to its weights.
_CAFFE = Preprocess(mean=(123.68, 116.779, 103.939), std=(1.0,))
_TF = Preprocess(mean=(127.5,), std=(127.5,))
_KERAS = {
    "resnet50": ("ResNet50", _CAFFE),
    "resnet101": ("ResNet101", _CAFFE),
    "resnet152": ("ResNet152", _CAFFE),
    "resnet50_v2": ("ResNet50V2", _TF),
    "resnet101_v2": ("ResNet101V2", _TF),
    "resnet152_v2": ("ResNet152V2", _TF),
    "inception_v3": ("InceptionV3", _TF),
}


def is_of_keras(weights: object) -> bool:
    """Whether `weights` are those of keras.applications: "keras", an .h5 file, or one of its models."""
    if isinstance(weights, keras.Model):
        return any(layer.name in ("conv1_conv", "mixed0") for layer in weights.layers)
    return weights == "keras" or isinstance(weights, str | Path) and str(weights).endswith(".h5")


def of_keras(spec: object, weights: str | Path | keras.Model) -> tuple[keras.Model, Preprocess]:
    """The model of keras.applications that `weights` name for our `spec`, and the preprocessing that belongs to it.

    Raises:
        InputError: where keras.applications has no such net, or its weights cannot be read or downloaded.
    """
    if str(spec) not in _KERAS:
        raise InputError(f"weights of keras.applications: received {str(spec)!r}; accepted: {', '.join(_KERAS)}")
    name, preprocess = _KERAS[str(spec)]
    if isinstance(weights, keras.Model):
        return weights, preprocess
    if weights != "keras" and not Path(weights).is_file():
        raise InputError(f"weights {str(weights)!r}: no such file")
    make = getattr(keras.applications, name)
    try:
        return make(weights="imagenet" if weights == "keras" else str(weights)), preprocess
    # Keras raises a bare Exception where a download fails, and ValueError where a file does not fit.
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"weights {str(weights)!r}: keras.applications.{name} cannot take them ({cause}); a weights file "
            "that is at hand is accepted by its path"
        ) from None


def from_keras(source: keras.Model, config: ArchitectureConfig, flip_colours: bool) -> Arrays:
    """The arrays of a keras.applications model under our names.

    A bias before a normalisation goes into its moving mean, and an absent gamma is one. `flip_colours` turns a first
    kernel that was trained on BGR into the same function of RGB.
    """
    rename = _inception_names(source, config).get if isinstance(config, InceptionConfig) else _resnet_name
    arrays: Arrays = {}
    for layer in source.layers:
        if not layer.weights:
            continue
        if (ours := rename(layer.name)) is None:
            raise InputError(f"weights of {source.name!r}: layer {layer.name!r} has no place in this net")
        arrays |= {f"{ours}/{weight.name}": keras.ops.convert_to_numpy(weight) for weight in layer.weights}
    for path in [path for path in arrays if path.endswith("_norm/moving_mean")]:
        norm = path.removesuffix("/moving_mean")
        if (bias := arrays.pop(f"{norm.removesuffix('_norm')}/bias", None)) is not None:
            arrays[path] = arrays[path] - bias
        arrays.setdefault(f"{norm}/gamma", np.ones_like(arrays[path]))
    if flip_colours:
        arrays["stem_conv/kernel"] = arrays["stem_conv/kernel"][:, :, ::-1]
    return arrays


def _resnet_name(name: str) -> str | None:
    """`conv3_block1_2_conv` to `stage2_block1_conv2`."""
    fixed = {
        "conv1_conv": "stem_conv",
        "conv1_bn": "stem_conv_norm",
        "post_bn": "post_norm",
        "predictions": "head_logits",
    }
    if name in fixed:
        return fixed[name]
    found = re.fullmatch(r"conv(\d)_block(\d+)_(?:(\d)|preact)_(conv|bn)", name)
    if found is None:
        return None
    stage, block, index, kind = found.groups()
    inner = "pre" if index is None else "shortcut" if index == "0" else f"conv{index}"
    return f"stage{int(stage) - 1}_block{block}_{inner}" + ("_norm" if kind == "bn" else "")


def _inception_names(source: keras.Model, config: InceptionConfig) -> dict[str, str]:
    """Keras numbers the layers of Inception v3 as they are made: that is the order of the table."""
    ours = convolution_names(config)
    names = {"predictions": "head_logits"}
    for kind, ending in ((keras.layers.Conv2D, ""), (keras.layers.BatchNormalization, "_norm")):
        theirs = sorted((layer.name for layer in source.layers if isinstance(layer, kind)), key=_number)
        if len(theirs) != len(ours):
            raise InputError(f"weights of {source.name!r}: has {len(theirs)} {kind.__name__} layers, not {len(ours)}")
        names |= {name: f"{own}{ending}" for name, own in zip(theirs, ours, strict=True)}
    return names


def _number(name: str) -> int:
    found = re.search(r"_(\d+)$", name)
    return int(found[1]) if found else 0


def convolution_names(config: InceptionConfig) -> list[str]:
    """The names of all convolutions of an Inception net, in the order of its table."""
    names = list(_branch_names("stem", config.stem))
    for row in config.modules:
        for index, branch in enumerate(row.as_branches(config.kernel5), start=1):
            names += _branch_names(f"inception{row.name}_branch{index}", branch)
    return names


def _branch_names(prefix: str, branch: Branch) -> list[str]:
    names = []
    for index, step in enumerate(branch, start=1):
        letters = "abcdefgh" if len(step) > 1 else [""]
        layers = zip(step, letters, strict=False)
        names += [f"{prefix}_conv{index}{letter}" for layer, letter in layers if layer.kind == "conv"]
    return names


# PyTorch: patterns of a module's path in torchvision's nets, and our name for it.
_TORCH_RESNET: list[tuple[str, Callable[[re.Match], str]]] = [
    (r"conv1", lambda m: "stem_conv"),
    (r"bn1", lambda m: "stem_conv_norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}_conv{m[3]}"),
    (r"layer(\d)\.(\d+)\.bn(\d)", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}_conv{m[3]}_norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}_shortcut"),
    (r"layer(\d)\.(\d+)\.downsample\.1", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}_shortcut_norm"),
    (r"fc", lambda m: "head_logits"),
]
_STEM = {"1": 1, "2": 3, "3": 4}  # torchvision counts convolutions, our stem its layers


def _unit(kind: str) -> str:
    return "_norm" if kind == "bn" else ""


_TORCH_GOOGLENET: list[tuple[str, Callable[[re.Match], str]]] = [
    (r"conv(\d)\.(conv|bn)", lambda m: f"stem_conv{_STEM[m[1]]}{_unit(m[2])}"),
    (r"inception(\w\w)\.branch1\.(conv|bn)", lambda m: f"inception{m[1]}_branch1_conv1{_unit(m[2])}"),
    (
        r"inception(\w\w)\.branch([234])\.([01])\.(conv|bn)",
        lambda m: f"inception{m[1]}_branch{m[2]}_conv{int(m[3]) + 1}{_unit(m[4])}",
    ),
    (r"aux(\d)\.conv\.(conv|bn)", lambda m: f"aux{m[1]}_conv{_unit(m[2])}"),
    (r"aux(\d)\.fc1", lambda m: f"aux{m[1]}_dense"),
    (r"aux(\d)\.fc2", lambda m: f"aux{m[1]}_logits"),
    (r"fc", lambda m: "head_logits"),
]
_TORCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def from_torch(state: Mapping[str, Any], config: ArchitectureConfig) -> Arrays:
    """The arrays of a torchvision-style state dict under our names; values are NumPy arrays or convert to them.

    ResNet v1.5, ResNeXt and GoogLeNet. Counters of batches are left out, and GoogLeNet's auxiliary heads where the
    model has none.

    Raises:
        InputError: for a name that has no place.
    """
    patterns = _TORCH_GOOGLENET if isinstance(config, InceptionConfig) else _TORCH_RESNET
    arrays: Arrays = {}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        if part == "num_batches_tracked" or (key.startswith("aux") and not getattr(config, "auxiliary", True)):
            continue
        matches = ((re.fullmatch(pattern, module), name) for pattern, name in patterns)
        ours = next((name(match) for match, name in matches if match), None)
        if ours is None:
            raise InputError(f"weights: {key} has no place in this net")
        array = np.asarray(value)
        if ours.endswith("_norm"):
            if part not in _TORCH_NORM:
                raise InputError(f"weights: {key} has no place in a normalisation")
            arrays[f"{ours}/{_TORCH_NORM[part]}"] = array
        elif re.fullmatch(r"aux\d_dense", ours) and array.ndim == 2:
            # PyTorch flattens channels first, to 128 x 4 x 4.
            kernel = array.T.reshape(128, 4, 4, -1).transpose(1, 2, 0, 3)
            arrays[f"{ours}/kernel"] = kernel.reshape(array.T.shape)
        elif array.ndim == 4:
            arrays[f"{ours}/kernel"] = array.transpose(2, 3, 1, 0)
        else:
            arrays[f"{ours}/{'kernel' if part == 'weight' else part}"] = array.T
    return arrays


def of_model(weights: str | Path | keras.Model) -> Arrays:
    """The arrays of a model of ours, of a .keras file or of a run directory."""
    source = weights if isinstance(weights, keras.Model) else model_files.load(weights)
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in source.weights}


def assign(model: keras.Model, arrays: Arrays) -> None:
    """Put every array in its place; of another head than the model's, the model keeps its own, newly initialised.

    Raises:
        InputError: naming the first array outside the head that is missing, has no place, or is of another shape.
    """
    wanted = {weight.path: weight for weight in model.weights}
    heads = [
        {path: tuple(value.shape) for path, value in side.items() if path.startswith(("head_", "aux"))}
        for side in (wanted, arrays)
    ]
    if heads[0] != heads[1]:
        wanted = {path: weight for path, weight in wanted.items() if path not in heads[0]}
        arrays = {path: array for path, array in arrays.items() if path not in heads[1]}
    for path in [*wanted, *arrays]:
        if path not in arrays:
            raise InputError(f"weights: {path} is missing")
        if path not in wanted:
            raise InputError(f"weights: {path} has no place in {model.name!r}")
        if tuple(wanted[path].shape) != arrays[path].shape:
            shapes = f"received shape {arrays[path].shape}; accepted: {tuple(wanted[path].shape)}"
            raise InputError(f"weights: {path}: {shapes}")
    for path, weight in wanted.items():
        weight.assign(arrays[path])
