"""Weights from elsewhere: run directories, keras.applications, and PyTorch state dicts by a map of names.

Every source is brought to our names first (`stage2_block1_conv3/kernel`), then assigned whole: an array that is
missing, has no place or another shape is an error that names it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo import model_files
from zoo.card import Preprocess
from zoo.errors import InputError, quoted, refuse
from zoo.models.architecture import ArchitectureConfig
from zoo.stored_layers import in_lower_case

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
    return weights == "keras" or isinstance(weights, str | Path) and str(weights).lower().endswith(".h5")


def of_keras(spec: object, weights: str | Path | keras.Model) -> tuple[keras.Model, Preprocess]:
    """The model of keras.applications that `weights` name for our `spec`, and the preprocessing that belongs to it.

    Raises:
        InputError: where keras.applications has no such net, or its weights cannot be read or downloaded.
    """
    if str(spec) not in _KERAS:
        refuse("weights of keras.applications", quoted(str(spec)), ", ".join(_KERAS))
    name, preprocess = _KERAS[str(spec)]
    if isinstance(weights, keras.Model):
        return weights, preprocess
    if weights != "keras" and not Path(weights).is_file():
        raise InputError(f"weights {str(weights)!r}: no such file")
    make = getattr(keras.applications, name)
    try:
        if weights == "keras":
            return make(weights="imagenet"), preprocess
        with in_lower_case(Path(weights)) as named:
            return make(weights=str(named)), preprocess
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
    weighted = [layer for layer in source.layers if layer.weights]
    names = config.keras_names({layer.name: type(layer).__name__ for layer in weighted})
    arrays: Arrays = {}
    for layer in weighted:
        if (ours := names.get(layer.name)) is None:
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


_TORCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def from_torch(state: Mapping[str, Any], config: ArchitectureConfig) -> Arrays:
    """The arrays of a torchvision-style state dict under our names; values are NumPy arrays or convert to them.

    ResNet v1.5, ResNeXt and GoogLeNet. Counters of batches are left out, and GoogLeNet's auxiliary heads where the
    model has none.

    Raises:
        InputError: for a name that has no place.
    """
    arrays: Arrays = {}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        ours = "" if part == "num_batches_tracked" else config.torch_name(module)
        if ours is None:
            raise InputError(f"weights: {key} has no place in this net")
        if not ours:
            continue
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
            refuse(f"weights: {path}", f"shape {arrays[path].shape}", f"{tuple(wanted[path].shape)}")
    for path, weight in wanted.items():
        weight.assign(arrays[path])
