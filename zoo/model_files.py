"""Model files: what Keras saves, and beside it in the same archive a card of what else a user of the model needs.

The card is the member `zoo.json` of the .keras archive. Keras ignores it, so the file loads with Keras alone, and the
card stays with the file wherever it is moved.
"""

import json
import math
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
from pydantic import ValidationError

from zoo import archives
from zoo.card import Card, attach, card
from zoo.classes import class_list
from zoo.errors import InputError, quoted
from zoo.files import check_output, replacing
from zoo.made_by import MadeBy
from zoo.schema import one_line
from zoo.settings import own_settings

_MEMBER = "zoo.json"
# The files of a run directory that commands read.
_RUN_FILES = ("model.keras", "config.yaml", "environment.json", "evaluation.json", "history.csv")
# Bytes of the members that are text: the net of a thousand layers has 4 MiB of them.
_LARGEST_CONFIG, _LARGEST_CARD = 2**23, 2**22


def save(model: keras.Model, path: str | Path, made_by: MadeBy | None = None) -> Path:
    """Write `model` and its card to a .keras file, whole or not at all; `made_by` goes with it.

    Raises:
        InputError: where `path` does not end in .keras, or something else is in its way.
    """
    path = check_output(path, "model file", ".keras")
    with replacing(path, made_by) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_MEMBER, card(model).model_dump_json())
    return path


def file_of(path: str | Path) -> Path:
    """The .keras file at `path`, or that of the run directory there.

    Raises:
        InputError: where there is none.
    """
    path = Path(path)
    try:
        file = path / "model.keras" if path.is_dir() else path
        exists = file.is_file()
    except OSError as error:
        raise InputError(f"model {str(path)!r}: {error.strerror}") from None
    if not exists:
        what = f"{str(path)!r}: no such file" if file == path else f"run directory {str(path)!r}: has no model.keras"
        raise InputError(f"model {what}; accepted: a .keras file or a run directory")
    return file


def files_of(model: Path) -> list[Path]:
    """The files that a model is read from: the .keras file itself, or those of a run directory."""
    return [model / name for name in _RUN_FILES if (model / name).exists()] if model.is_dir() else [model]


@own_settings()
def load(path: str | Path) -> keras.Model:
    """Read a model and its card from a .keras file, or from a run directory.

    Code inside the file is never run (`safe_mode`). A file without a card gives an empty one.

    Raises:
        InputError: where there is no such file, or it is no model that Keras can read.
    """
    file = file_of(path)
    what = f"model {str(file)!r}"
    with archives.opened(file, what, ".keras archive, or a damaged one") as archive:
        archives.check_packing(archive)
        config = json.loads(archives.read(archive, "config.json", _LARGEST_CONFIG))
        there = _MEMBER in archive.namelist()
        text = archives.read(archive, _MEMBER, _LARGEST_CARD) if there else b"{}"
        weights = [member.file_size for member in archive.infolist() if member.filename.startswith("model.weights.")]
        parts = list(_layers(config))
        if (numbers := sum(map(_kernel_size, parts))) > sum(weights):
            raise InputError(f"config.json names {numbers:,} weights, for which {sum(weights):,} bytes are too few")
    try:
        member = Card.model_validate_json(text)
    except ValidationError as error:
        why = one_line(error, None)
        raise InputError(f"{what}: its {_MEMBER} is of another version, or damaged ({why})") from None
    try:
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers do with settings that are not theirs
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what}: {_own_code(parts) or f'Keras cannot read it: {cause}'}") from None
    if member.class_names and len(model.outputs) == 1:
        class_list(member.class_names, f"{what}: {_MEMBER}", max(int(model.output_shape[-1] or 0), 1))
    return attach(model, member)


def _layers(config: Any) -> Iterator[dict[str, Any]]:
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


def _kernel_size(part: dict[str, Any]) -> int:
    """The least of numbers that a layer's kernel has by its settings; 0 where they are silent."""
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


def _own_code(parts: Iterable[dict[str, Any]]) -> str:
    """Which layer holds code that is not Keras's own, in words; empty where none does."""
    for part in parts:
        kind, settings = part["class_name"], part["config"]
        if "name" in settings and (kind == "Lambda" or not str(part.get("module")).startswith("keras")):
            accepted = "accepted: layers of Keras, without a Lambda"
            return f"layer {quoted(settings['name'])} ({kind}) runs code of its own, which is never loaded; {accepted}"
    return ""
