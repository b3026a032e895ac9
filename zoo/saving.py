"""Model files: what Keras saves, and beside it in the same archive a card of what else a user of the model needs.

The card is the member `zoo.json` of the .keras archive. Keras ignores it, so the file loads with Keras alone, and the
card stays with the file wherever it is moved.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
from pydantic import ValidationError

from zoo.config.base import Schema, Size
from zoo.config.architecture import Preprocess
from zoo.errors import InputError

_MEMBER = "zoo.json"


class Card(Schema):
    """What travels with a model.

    `image_size`: [height, width] in pixels that the model was trained at. `preprocess`: what the model itself does to
    raw pixels, for the reader; nobody has to do it again. `window`: the side of the crop that one cell of a converted
    model answers for; null where the model is not converted.
    """

    version: int = 1
    class_names: tuple[str, ...] = ()
    image_size: Size | None = None
    preprocess: Preprocess | None = None
    window: Size | None = None


def card(model: keras.Model) -> Card:
    """What travels with `model`; an empty card where it has none."""
    return getattr(model, "_zoo_card", Card())


def attach(model: keras.Model, card: Card) -> keras.Model:
    """Give `model` its card, and return it."""
    model._zoo_card = card
    return model


def class_names(model: keras.Model) -> tuple[str, ...]:
    """The names of the classes, or their numbers where the model's file has no names."""
    return card(model).class_names or tuple(str(index) for index in range(model.output_shape[-1]))


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it at the end; after an error neither is touched nor left over."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(model: keras.Model, path: str | Path) -> Path:
    """Write `model` and its card to a .keras file, whole or not at all.

    Raises:
        InputError: where `path` does not end in .keras.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"model file {str(path)!r}: accepted: a name that ends in .keras")
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_MEMBER, card(model).model_dump_json())
    return path


def load(path: str | Path) -> keras.Model:
    """Read a model and its card from a .keras file, or from a run directory.

    Code inside the file is never run (`safe_mode`). A file without a card gives an empty one.

    Raises:
        InputError: where there is no such file, or it is no model that Keras can read.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        what = f"run directory {str(path)!r}: has no model.keras" if path.is_dir() else f"{str(path)!r}: no such file"
        raise InputError(f"model {what}; accepted: a .keras file or a run directory")
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
        raise InputError(f"model {str(file)!r}: Keras cannot read it: {str(error).strip().splitlines()[0]}") from None
