"""Experiments from YAML files, with `key.path=value` overrides and the configs that are shipped."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zoo.config.experiment import Config
from zoo.config.messages import one_line
from zoo.errors import InputError, unknown


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read an experiment from a YAML file, or from the shipped config of that name.

    Args:
        path: a YAML file, or a shipped name such as `nin_digits`.
        overrides: `key.path=value` strings, applied in order; values are read as YAML, list items by index
            (`model.mlpconvs.0.kernel=3`).

    Raises:
        InputError: naming the file, the key, the value received and what is accepted.
    """
    path = find_config(path)
    data = read_yaml(path)
    data.setdefault("name", path.stem)
    for override in overrides:
        _override(data, override)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {one_line(error, data)}") from None


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    here = Path(__file__).resolve().parents[1]
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(spec: str | Path) -> Path:
    """The file that `spec` names: a path, or the name of a shipped config."""
    path = Path(spec)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise InputError(f"config {str(spec)!r}: no such file; shipped configs: {', '.join(shipped_configs())}")
        return path
    if (shipped := shipped_configs().get(str(spec))) is None:
        raise InputError(unknown("config", spec, shipped_configs()) + ", or a path to a .yaml file")
    return shipped


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; a key given twice is an error.

    Raises:
        InputError: naming the file, where it cannot be read or is no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"config {path}: expected keys and values, received {type(data).__name__}")
    return data


def _override(data: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: accepted form: key.path=value, such as train.epochs=1")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"override {override!r}: the value {text!r} is not valid YAML") from None
    *parents, last = key.split(".")
    node: Any = data
    for done, part in enumerate([*parents, last]):
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                where = ".".join(key.split(".")[:done])
                raise InputError(f"override {override!r}: {where} has the items 0 to {len(node) - 1}")
            part = int(part)
        elif not isinstance(node, dict):
            raise InputError(f"override {override!r}: {'.'.join(key.split('.')[:done])} has no keys")
        if done == len(parents):
            node[part] = value
        else:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
