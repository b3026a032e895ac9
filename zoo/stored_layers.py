"""What a stored model's configuration says of its layers, before any of them is made."""

import contextlib
import math
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from zoo.errors import quoted

# Layers of Keras that run what their settings hold or name: Python, or programs of other frameworks.
_RUN_CODE = ("Lambda", "__lambda__", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
# Calls of TensorFlow's functions as layers, which Keras 2 made.
_OPERATIONS_OF_KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "TensorFlowOpLayer")
_MODELS = ("Functional", "Model", "Sequential", "InputLayer")


@contextlib.contextmanager
def in_lower_case(file: Path) -> Iterator[Path]:
    """A model's file by a name in lower case: Keras knows formats by endings in lower case alone."""
    if file.suffix == file.suffix.lower():
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / file.name.lower()
        link.symlink_to(file.absolute())
        yield link


def parts_of(config: Any) -> Iterator[dict[str, Any]]:
    """Every part of a model's configuration that makes an object of a class, nested ones too."""
    parts = deque([config])
    while parts:
        part = parts.popleft()
        if isinstance(part, dict):
            if part.get("class_name") and isinstance(part.get("config"), dict):
                yield part
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def kernel_size(part: dict[str, Any]) -> int:
    """The least of numbers that a layer's kernel has by its settings; 0 where they do not say."""
    settings, built = part["config"], part.get("build_config")
    shape = built.get("input_shape") if isinstance(built, dict) else None
    convolves = str(part["class_name"]).startswith("Conv")
    filters = settings.get("filters" if convolves else "units")
    sides = settings.get("kernel_size") if convolves else []
    first = settings.get("data_format") == "channels_first"
    channels = shape[1 if first else -1] if isinstance(shape, list) and len(shape) > 1 else 1
    groups = settings.get("groups", 1) if convolves else 1
    numbers = [filters, channels, *(sides if isinstance(sides, list) else [])]
    if not all(isinstance(each, int) and each > 0 for each in (*numbers, groups)):
        return 0
    return math.prod(numbers) // groups


def own_code(parts: Iterable[dict[str, Any]]) -> str:
    """Which layer holds code that is not Keras's own, in words; empty where none does."""
    for part in parts:
        kind = str(part["class_name"])
        if _name(part) and (kind in _RUN_CODE or not str(part.get("module")).startswith("keras")):
            return _runs_code(part)
    return ""


def own_code_in_hdf5(parts: Iterable[dict[str, Any]]) -> str:
    """The same of an HDF5 file's configuration, whose layers have the names of their classes alone.

    Classes that were registered with Keras are known; so is what the file names by a module of Keras.
    """
    registered = keras.saving.get_custom_objects()
    for part in parts:
        kind, module = str(part["class_name"]), part.get("module")
        if kind in _OPERATIONS_OF_KERAS_2:
            return f"layer {quoted(_name(part) or kind)} ({kind}) is an operation of Keras 2, not of Keras 3"
        if kind in registered or part.get("registered_name") in registered:
            continue
        is_layer = _name(part) and module is None and not kind.endswith("Policy")
        is_foreign = module is not None and str(module).split(".")[0] not in ("keras", "builtins")
        if kind in _RUN_CODE or is_foreign or is_layer and kind not in _MODELS and not _is_layer_of_keras(kind):
            return _runs_code(part)
    return ""


def _is_layer_of_keras(name: str) -> bool:
    kind = getattr(keras.layers, name, None)
    return isinstance(kind, type) and issubclass(kind, keras.Layer)


def _name(part: dict[str, Any]) -> object:
    """The name of a layer, which the layers of a model have beside their settings too; None of another object."""
    return part["config"].get("name") or part.get("name")


def _runs_code(part: dict[str, Any]) -> str:
    kind, accepted = part["class_name"], "accepted: layers of Keras, without a Lambda"
    return f"layer {quoted(_name(part) or kind)} ({kind}) runs code of its own, which is never loaded; {accepted}"
