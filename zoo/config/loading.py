"""Experiments from YAML files, with `key.path=value` overrides and the configs that are shipped."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from zoo.config.experiment import Config
from zoo.config.parsing import parse_yaml, read_text
from zoo.errors import InputError, quoted, refuse, unknown
from zoo.models.families import changed, written_out
from zoo.schema import Schema, one_line

_MOST_PARTS = 20


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read an experiment from a YAML file, or from the shipped config of that name.

    A file of an earlier version is brought to today's keys.

    Args:
        path: a YAML file, or a shipped name such as `nin_digits`.
        overrides: `key.path=value` strings, applied in order; values are read as YAML, list items by index
            (`model.mlpconvs.0.kernel=3`).

    Raises:
        InputError: naming the file, the key, the value received and what is accepted.
    """
    path = find_config(path)
    try:
        data = Config.todays(read_yaml(path))
    except PydanticCustomError as error:
        raise InputError(f"{path}: {error.message()}") from None
    data.setdefault("name", path.stem)
    if isinstance(data.get("model"), dict):
        # An override may name a row of the table that a shorthand stands for.
        data["model"] = written_out(data["model"])
    for override in overrides:
        _override(data, override)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {one_line(error, data, Config)}") from None


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    here = Path(__file__).resolve().parents[1]
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(spec: str | Path) -> Path:
    """The file that `spec` names: a path, or the name of a shipped config.

    Letters may be composed or decomposed in `spec` and in the file's name (é, or e with an accent).
    """
    path = Path(spec)
    if (file := _file(path)) is not None:
        return file
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"config {quoted(str(spec))}: no such file; shipped configs: {', '.join(shipped_configs())}")
    if (shipped := shipped_configs().get(str(spec))) is None:
        raise InputError(unknown("config", spec, shipped_configs()) + ", or a path to a .yaml file")
    return shipped


def _file(path: Path) -> Path | None:
    """`path`, or the file beside it whose name has the same letters; None where there is none."""
    try:
        if path.is_file():
            return path
        if str(path).isascii() or not path.parent.is_dir():
            return None
        name = unicodedata.normalize("NFC", path.name)
        beside = (each for each in path.parent.iterdir() if unicodedata.normalize("NFC", each.name) == name)
        return next((each for each in beside if each.is_file()), None)
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL
        return None


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; a key given twice is an error.

    Raises:
        InputError: naming the file, where it cannot be read or is no mapping.
    """
    try:
        data = parse_yaml(read_text(path))
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None
    if not isinstance(data, dict):
        refuse(f"config {path}", type(data).__name__, "keys and values")
    return data


def _override(data: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    shown = f"override {quoted(override)}"
    *parents, last = parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"{shown}: accepted form: key.path=value, such as train.epochs=1")
    if len(parts) > _MOST_PARTS:
        refuse(shown, f"{len(parts)} keys", f"at most {_MOST_PARTS}")
    try:
        value = parse_yaml(text)
    except InputError as error:
        raise InputError(f"{shown}: the value {quoted(text)}: {error}") from None
    node: Any = data
    schema: Any = Config
    for done, part in enumerate(parts):
        where = ".".join(parts[:done])
        place: int | str
        if isinstance(node, list):
            if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(node)):
                there = f"has the items 0 to {len(node) - 1}" if node else "is an empty list"
                raise InputError(f"{shown}: {where} {there}")
            place = int(part)
        elif not isinstance(node, dict):
            raise InputError(f"{shown}: {where} has no keys")
        else:
            part, schema = _todays(part, schema)
            place = part
        if done == len(parents):
            if parents == ["model"] and isinstance(node, dict):
                data["model"] = changed(node, {part: value})
            else:
                node[place] = value
        else:
            node = node.setdefault(place, {}) if isinstance(node, dict) else node[place]


def _todays(key: str, schema: type[Schema] | None) -> tuple[str, type[Schema] | None]:
    """Today's name of a key of a section, and the schema of what is below it, None where that is no single one."""
    if schema is None:
        return key, None
    key = next(iter(schema.todays({key: None})))
    field: FieldInfo | None = schema.model_fields.get(key)
    below = field.annotation if field else None
    return key, below if isinstance(below, type) and issubclass(below, Schema) else None
