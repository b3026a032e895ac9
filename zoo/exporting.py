"""Trained models for other runtimes: SavedModel, ONNX, OpenVINO, LiteRT."""

import contextlib
import dataclasses
import errno
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from zoo.card import card
from zoo.errors import InputError, unknown
from zoo.files import Output, check_output, replacing_all
from zoo.made_by import MadeBy, key_of, sign
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
def export(model: keras.Model, path: str | Path, format: str = "saved_model", made_by: MadeBy | None = None) -> Path:
    """Write `model` in another runtime's format; inputs are uint8 images (B, H, W, C), B free, H and W where open.

    A SavedModel is a directory, whose signature `serving_default` takes `image`; `zoo.json` in its `assets.extra`
    holds class names, training size and window. The others are files: .onnx, .xml (with .bin), .tflite.

    Args:
        model: the model.
        path: the directory or file.
        format: one of `FORMATS`.
        made_by: the command that makes it, which has checked what is there already (`zoo.files.writing`); without, only
            a new path is accepted.

    Raises:
        InputError: for an unknown format, a missing extra, a path that exists, or another ending than the format's.
        OSError: where the path cannot be written.
    """
    path, ending = Path(path), _FORMATS.get(format, ("",) * 4)[3]
    if made_by is None:
        outputs = outputs_of(path, format)
        for each in outputs:
            if os.path.lexists(each.path):
                raise InputError(f"{each.what} {str(each.path)!r}: exists already; accepted: a new path")
            check_output(each.path, each.what, each.ending, each.folder)
    # Keras looks at the ending, so the temporary name is a folder beside the path, not another name.
    with replacing_all(path) as working:
        made = working / path.name
        signature = [keras.InputSpec(dtype="uint8", shape=(None, *model.inputs[0].shape[1:]), name="image")]
        with warnings.catch_warnings(), _tensorflow_errors_as_os_errors(path):
            # tf2onnx asks NumPy 2 for names that are gone, and goes on without them.
            warnings.simplefilter("ignore", FutureWarning)
            model.export(str(made), format=_FORMATS[format][0], verbose=False, input_signature=signature)
        if not ending:
            (made / "assets.extra").mkdir(exist_ok=True)
            (made / "assets.extra" / "zoo.json").write_text(card(model).model_dump_json(), encoding="utf-8")
        if made_by is not None:
            beside = {each.name: key_of(each) for each in working.iterdir() if each != made}
            sign(made, dataclasses.replace(made_by, beside=beside))
    return path


def outputs_of(path: Path, format: str) -> list[Output]:
    """What an export writes, the file or directory that is asked for first.

    Raises:
        InputError: for an unknown format, or one whose packages are not installed; for a folder of other files.
    """
    if format not in _FORMATS:
        raise InputError(unknown("export format", format, FORMATS))
    _, extra, module, ending = _FORMATS[format]
    if importlib.util.find_spec(module) is None:
        how = f"pip install 'bottleneck-zoo[{extra}]'" if extra else f"pip install {module}"
        raise InputError(f"export format {format!r}: needs {module}; {how}")
    is_folder = format == "saved_model"
    if is_folder and path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").exists():
        raise InputError(f"export path {str(path)!r}: exists already, with other files in it; accepted: a new path")
    outputs = [Output(path, "export path", ending, is_folder)]
    return [*outputs, Output(path.with_suffix(".bin"), "export path", owner=path)] if format == "openvino" else outputs


@contextlib.contextmanager
def _tensorflow_errors_as_os_errors(path: Path) -> Iterator[None]:
    """TensorFlow reports a full disk in errors of its own, which are no OSError."""
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        raise OSError(errno.EIO, f"TensorFlow cannot write it ({error.message})", str(path)) from error
