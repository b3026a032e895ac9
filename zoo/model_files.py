"""Model files: what Keras saves, and beside it in the same archive a card of what else a user of the model needs.

The card is the member `zoo.json` of the .keras archive. Keras ignores it, so the file loads with Keras alone, and the
card stays with the file wherever it is moved. Older files of Keras, .h5 and .hdf5, are read too, and have no card.
"""

import json
import zipfile
from pathlib import Path

import keras
from pydantic import ValidationError

from zoo import archives, hdf5_models
from zoo.card import Card, attach, card
from zoo.classes import class_list
from zoo.errors import InputError, cause
from zoo.exported.reading import format_at
from zoo.files import check_output, replacing
from zoo.made_by import MadeBy
from zoo.network.graph import check_model
from zoo.schema import one_line
from zoo.settings import own_settings
from zoo.shipped import is_shipped, names, shipped_file
from zoo.stored_layers import in_lower_case, kernel_size, own_code, parts_of

_MEMBER = "zoo.json"
# The files of a run directory that commands read.
_RUN_FILES = ("model.keras", "config.yaml", "environment.json", "evaluation.json", "history.csv")
# Bytes of the members that are text: the net of a thousand layers has 4 MiB of them.
_LARGEST_CONFIG, _LARGEST_CARD = 2**23, 2**22


def save(model: keras.Model, path: str | Path, made_by: MadeBy | None = None) -> Path:
    """Write `model` and its card to a .keras file, whole or not at all; a file that is there is replaced.

    Args:
        model: the model.
        path: the file.
        made_by: the command that made the model, which goes with it.

    Raises:
        InputError: where `model` is none of Keras, or `path` does not end in .keras, or is no file that can be written.
        OSError: where it cannot be written; what is there is kept.
    """
    check_model(model)
    path = check_output(path, "model file", ".keras")
    with replacing(path, made_by) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_MEMBER, card(model).model_dump_json())
    return path


def file_of(path: str | Path) -> Path:
    """The model file at `path`, .keras or .h5; that of the run directory there; else that shipped under this name.

    Raises:
        InputError: where there is none, or an exported file.
    """
    path = Path(path)
    if format_at(path) is not None:
        raise InputError(
            f"model {str(path)!r}: an exported file, which this does not take; accepted: the Keras model that it was "
            "made of (`zoo scan` and `zoo predict` take .onnx and .xml)"
        )
    if _means_shipped(path):
        return shipped_file(str(path))
    try:
        file = path / "model.keras" if path.is_dir() else path
        exists = file.is_file()
    except OSError as error:
        raise InputError(f"model {str(path)!r}: {error.strerror}") from None
    if not exists:
        what = f"{str(path)!r}: no such file" if file == path else f"run directory {str(path)!r}: has no model.keras"
        accepted = f"a .keras or .h5 file, a run directory, or a name with shipped weights ({names()})"
        raise InputError(f"model {what}; accepted: {accepted}")
    return file


def _means_shipped(path: Path) -> bool:
    """Whether it is the name of shipped weights, and no model of the user's own lies there."""
    # The index is read only where it may be a name.
    named = str(path).isidentifier() and is_shipped(path)
    return named and not path.is_file() and not (path / "model.keras").is_file()


def files_of(model: Path) -> list[Path]:
    """The files that a model is read from: the file itself, or those of a run directory."""
    if _means_shipped(model):
        return [shipped_file(str(model))]
    return [model / name for name in _RUN_FILES if (model / name).exists()] if model.is_dir() else [model]


@own_settings()
def load(path: str | Path) -> keras.Model:
    """Read a model and its card from a .keras file, an .h5 file of Keras, a run directory, or by a shipped name.

    Code inside the file is never run. A file without a card, as every .h5 is, gives an empty one.

    Raises:
        InputError: where there is no such file, or it is no model that Keras can read.
    """
    file = file_of(path)
    what = f"model {str(file)!r}"
    if hdf5_models.is_hdf5(file):
        return attach(hdf5_models.load(file, what, _LARGEST_CONFIG), Card())
    with archives.opened(file, what, ".keras archive, or a damaged one") as archive:
        archives.check_packing(archive)
        config = json.loads(archives.read(archive, "config.json", _LARGEST_CONFIG))
        there = _MEMBER in archive.namelist()
        text = archives.read(archive, _MEMBER, _LARGEST_CARD) if there else b"{}"
        weights = [member.file_size for member in archive.infolist() if member.filename.startswith("model.weights.")]
        parts = list(parts_of(config))
        if (numbers := sum(map(kernel_size, parts))) > sum(weights):
            raise InputError(f"config.json names {numbers:,} weights, for which {sum(weights):,} bytes are too few")
    try:
        member = Card.model_validate_json(text)
    except ValidationError as error:
        why = one_line(error, None)
        raise InputError(f"{what}: its {_MEMBER} is of another version, or damaged ({why})") from None
    try:
        with in_lower_case(file) as named:
            model = keras.models.load_model(named, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers do with settings that are not theirs
        raise InputError(f"{what}: {own_code(parts) or f'Keras cannot read it: {cause(error)}'}") from None
    if member.class_names and len(model.outputs) == 1:
        class_list(member.class_names, f"{what}: {_MEMBER}", max(int(model.outputs[0].shape[-1] or 0), 1))
    return attach(model, member)
