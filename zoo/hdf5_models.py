"""Models in the older format of Keras, HDF5 files that end in .h5 or .hdf5: checked before Keras makes their layers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from zoo.archives import MODEST, SHRINKS
from zoo.errors import InputError, cause, quoted
from zoo.stored_layers import in_lower_case, kernel_size, own_code_in_hdf5, parts_of

ENDINGS = (".h5", ".hdf5")
_MOST_OBJECTS = 100_000
# How to keep the weights of a file whose layers cannot be made again from it.
_ANEW = "build the same layers with Keras 3, `model.load_weights` this file, and `model.save('net.keras')`"


def is_hdf5(path: Path) -> bool:
    """Whether a file's name is that of a model in HDF5."""
    return path.name.lower().endswith(ENDINGS)


def holds_model(path: Path) -> bool:
    """Whether a file is such a model, and not weights alone."""
    import h5py

    if not is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as content:
            return "model_config" in content.attrs
    except OSError:
        return False


def load(file: Path, what: str, largest_config: int) -> keras.Model:
    """Read a model; code inside the file is never run.

    Args:
        file: the file.
        what: begins every error.
        largest_config: bytes that the description of its layers may have.

    Raises:
        InputError: for a file that is none or damaged, holds weights alone, or layers with code of their own; that
            says it holds far more numbers than it can; or that this Keras cannot read, with how to save it anew.
    """
    import h5py

    try:
        with h5py.File(file, "r") as content:
            config, version = _config(content, largest_config), str(_text(content.attrs.get("keras_version", "")))
            parts, size = list(parts_of(config)), _size_of_weights(content, file.stat().st_size)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{what}: no HDF5 file of a Keras model, or a damaged one ({why})") from None
    by = f", which Keras {version} wrote," if version[:1].isdigit() else ""
    anew = f"accepted: a .keras file; {_ANEW}"
    if code := own_code_in_hdf5(parts):
        raise InputError(f"{what}: {code}" + ("" if "accepted" in code else f"; {anew}"))
    if (numbers := sum(map(kernel_size, parts))) > size:
        raise InputError(f"{what}: tells of {numbers:,} weights, for which {size:,} bytes are too few")
    try:
        with in_lower_case(file) as named:
            return keras.models.load_model(named, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers do with settings that are not theirs
        why = cause(error)[:150]
        raise InputError(f"{what}{by} cannot be read by Keras {keras.__version__}: {why}; {anew}") from None


def _config(content: Any, largest: int) -> Any:
    """What the file says of the model's layers."""
    if "model_config" not in content.attrs:
        # Of Keras 2 and of Keras 3, which ends such a name in .weights.h5.
        if "layer_names" in content.attrs or {"layers", "vars", "_layer_checkpoint_dependencies"} & set(content):
            raise InputError(f"holds weights alone, without the layers that they are of; {_ANEW}")
        raise InputError("is an HDF5 file without a Keras model; accepted: one that `model.save` wrote")
    text = _text(content.attrs["model_config"])
    if len(text) > largest:
        raise InputError(f"its model_config has {len(text):,} characters; accepted: at most {largest:,}")
    config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise InputError("its model_config describes no model, or is damaged")
    return config


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _size_of_weights(content: Any, there: int) -> int:
    """The bytes of the weights, all of which are in the file itself, and no more than it can hold.

    Raises:
        InputError: naming the dataset.
    """
    total = 0
    for name, dataset in _datasets(content.get("model_weights"), "model_weights"):
        if dataset.external or dataset.is_virtual:
            raise InputError(f"its dataset {quoted(name)} lies in another file; accepted: weights in the file itself")
        total += dataset.nbytes
        if total > max(MODEST, SHRINKS * there):
            packed = f"its weights say they have {total:,} bytes, packed in {there:,}"
            raise InputError(f"{packed}; accepted: at most {SHRINKS} times as many")
    return total


def _datasets(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The datasets below a group, each of which is linked there directly."""
    import h5py

    if not isinstance(group, h5py.Group):
        raise InputError("has no group 'model_weights', which a Keras model has")
    waiting, seen = [(path, group)], 0
    while waiting:
        path, group = waiting.pop()
        for name in group:
            seen += 1
            if seen > _MOST_OBJECTS:
                raise InputError(f"has more than {_MOST_OBJECTS:,} datasets; accepted: at most as many")
            inside = f"{path}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"its {quoted(inside)} is a link to another place; accepted: weights in the file")
            each = group[name]
            if isinstance(each, h5py.Dataset):
                yield inside, each
            else:
                waiting.append((inside, each))
