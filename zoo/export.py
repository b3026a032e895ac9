"""Trained models for other runtimes: SavedModel, ONNX, OpenVINO, LiteRT."""

import contextlib
import errno
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from zoo.errors import InputError, unknown
from zoo.files import check_output
from zoo.saving import card
from zoo.settings import own_settings

# format: (Keras's name of it, the extra that brings its packages, the module that must be there, file ending)
_FORMATS = {
    "saved_model": ("tf_saved_model", None, "tensorflow", ""),
    "onnx": ("onnx", "onnx", "tf2onnx", ".onnx"),
    "openvino": ("openvino", "openvino", "openvino", ".xml"),
    "litert": ("litert", None, "tensorflow", ".tflite"),
}
FORMATS = tuple(_FORMATS)


@own_settings()
def export(model: keras.Model, path: str | Path, format: str = "saved_model") -> Path:
    """Write `model` in another runtime's format; inputs are uint8 images (B, H, W, C), B free, H and W where open.

    A SavedModel is a directory, whose signature `serving_default` takes `image`; `zoo.json` in its `assets.extra`
    holds class names, training size and window. The others are files: .onnx, .xml (with .bin), .tflite.

    Raises:
        InputError: for an unknown format, a missing extra, a path that exists, or another ending than the format's.
        OSError: where the path cannot be written.
    """
    path = check_export(path, format)
    name, _, _, ending = _FORMATS[format]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras looks at the ending, so the temporary name is a folder beside the path, not another name.
    working = path.with_name(f".{os.getpid()}-{path.name}-export")
    try:
        working.mkdir()
        made = working / path.name
        signature = [keras.InputSpec(dtype="uint8", shape=(None, *model.inputs[0].shape[1:]), name="image")]
        with warnings.catch_warnings(), _tensorflow_errors_as_os_errors(path):
            # tf2onnx asks NumPy 2 for names that are gone, and goes on without them.
            warnings.simplefilter("ignore", FutureWarning)
            model.export(str(made), format=name, verbose=False, input_signature=signature)
        if format == "saved_model":
            (made / "assets.extra").mkdir(exist_ok=True)
            (made / "assets.extra" / "zoo.json").write_text(card(model).model_dump_json(), encoding="utf-8")
        for part in sorted(working.iterdir(), key=lambda part: part.suffix == ending):
            os.replace(part, path.with_name(part.name))
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return path


def check_export(path: str | Path, format: str) -> Path:
    """See, before any work, that `format` can be written at `path`, and return the path.

    Raises:
        InputError: see `export`.
    """
    if format not in _FORMATS:
        raise InputError(unknown("export format", format, FORMATS))
    _, extra, module, ending = _FORMATS[format]
    if importlib.util.find_spec(module) is None:
        how = f"pip install 'bottleneck-zoo[{extra}]'" if extra else f"pip install {module}"
        raise InputError(f"export format {format!r}: needs {module}; {how}")
    path = Path(path)
    if path.exists():
        raise InputError(f"export path {str(path)!r}: exists already; accepted: a new path")
    return check_output(path, "export path", ending, folder=format == "saved_model")


@contextlib.contextmanager
def _tensorflow_errors_as_os_errors(path: Path) -> Iterator[None]:
    """TensorFlow tells of a full disk in errors of its own, which are no OSError."""
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        raise OSError(errno.EIO, f"TensorFlow cannot write it ({error.message})", str(path)) from error
