"""Model files: what Keras saves, and beside it in the same archive a card of what else a user of the model needs.

The card is the member `zoo.json` of the .keras archive. Keras ignores it, so the file loads with Keras alone, and the
card stays with the file wherever it is moved.
"""

import json
import zipfile
from pathlib import Path
from typing import Annotated, Literal

import keras
from pydantic import Field, ValidationError

from zoo.config.architecture import Preprocess
from zoo.config.base import Positive, Schema
from zoo.errors import InputError
from zoo.files import check_output, replacing
from zoo.graph import check_one_output
from zoo.made_by import MadeBy

_MEMBER = "zoo.json"
# The files of a run directory that commands read.
_RUN_FILES = ("model.keras", "config.yaml", "environment.json", "evaluation.json", "history.csv")
Sides = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2)]
PIXEL_TYPES = ("uint8", "uint16", "float32")


class Card(Schema):
    """What travels with a model.

    `image_size`: [height, width] in pixels that the model was trained at; [length] of a sequence. `dtype`: the type of
    the samples of the images that it was trained on; null where not known. `preprocess`: what the model itself does
    to raw pixels, for the reader; nobody has to do it again. `pooling`: how the head was converted, to a map of scores
    ("window") or to one answer for an image of any size ("global"); null where the model is not converted. `window`:
    the sides of the crop that one cell of such a map answers for. `padding`: "valid" in a padding-free twin.
    """

    version: int = 1
    class_names: tuple[str, ...] = ()
    image_size: Sides | None = None
    dtype: Literal[PIXEL_TYPES] | None = None
    preprocess: Preprocess | None = None
    pooling: Literal["window", "global"] | None = None
    window: Sides | None = None
    padding: Literal["keep", "valid"] = "keep"


def card(model: keras.Model) -> Card:
    """What travels with `model`; an empty card where it has none."""
    return getattr(model, "_zoo_card", Card())


def attach(model: keras.Model, card: Card) -> keras.Model:
    """Give `model` its card, and return it."""
    model._zoo_card = card
    return model


def class_names(model: keras.Model) -> tuple[str, ...]:
    """The names of the classes, or their numbers where the model's file has no names; a single output is class 1's.

    Raises:
        InputError: for a model with several outputs.
    """
    check_one_output(model)
    units = model.output_shape[-1]
    return card(model).class_names or (tuple(str(index) for index in range(units)) if units > 1 else ("1",))


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
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        what = f"run directory {str(path)!r}: has no model.keras" if path.is_dir() else f"{str(path)!r}: no such file"
        raise InputError(f"model {what}; accepted: a .keras file or a run directory")
    return file


def files_of(model: Path) -> list[Path]:
    """The files that a model is read from: the .keras file itself, or those of a run directory."""
    return [model / name for name in _RUN_FILES if (model / name).exists()] if model.is_dir() else [model]


def load(path: str | Path) -> keras.Model:
    """Read a model and its card from a .keras file, or from a run directory.

    Code inside the file is never run (`safe_mode`). A file without a card gives an empty one.

    Raises:
        InputError: where there is no such file, or it is no model that Keras can read.
    """
    file = file_of(path)
    try:
        with zipfile.ZipFile(file) as archive:
            text = archive.read(_MEMBER) if _MEMBER in archive.namelist() else b"{}"
        model = keras.models.load_model(file, compile=False, safe_mode=True)
        return attach(model, Card.model_validate_json(text))
    except zipfile.BadZipFile:
        raise InputError(f"model {str(file)!r}: not a .keras archive, or a damaged one") from None
    except ValidationError:
        raise InputError(f"model {str(file)!r}: its {_MEMBER} is of another version") from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = _own_code(file) or f"Keras cannot read it: {str(error).strip().splitlines()[0]}"
        raise InputError(f"model {str(file)!r}: {reason}") from None


def _own_code(file: Path) -> str:
    """Which layer of a file holds code that is not Keras's own, in words; empty where none does."""
    with zipfile.ZipFile(file) as archive:
        parts = [json.loads(archive.read("config.json"))] if "config.json" in archive.namelist() else []
    while parts:
        part = parts.pop(0)
        if isinstance(part, dict):
            kind, settings = part.get("class_name"), part.get("config")
            if kind and isinstance(settings, dict) and "name" in settings:
                if kind == "Lambda" or not str(part.get("module")).startswith("keras"):
                    accepted = "accepted: layers of Keras, without a Lambda"
                    return (
                        f"layer {settings['name']!r} ({kind}) runs code of its own, which is never loaded; {accepted}"
                    )
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return ""
