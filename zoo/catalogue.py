"""The catalogue of ready-made models, and what a name stands for. No backend is loaded here."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from zoo.config.loading import load_config, read_yaml, shipped_configs
from zoo.errors import InputError, listing, quoted, refuse, unknown
from zoo.models.architecture import ArchitectureConfig
from zoo.models.families import changed, model_config
from zoo.schema import Schema


class Entry(Schema):
    """A row of the catalogue: a paper, the model, and its numbers.

    `model`: the section, with `like` only the keys that differ from that row's; where both are missing it is the
    section of the shipped config of the same name. `params`: trainable. `gmacs`: billions of multiply-adds of
    convolutions and Dense layers. `receptive_field`: of the last feature map, in pixels. `twin`: the bottleneck net
    that a control is set beside.
    """

    paper: str
    like: str | None = None
    model: dict[str, Any] | None = None
    params: int
    gmacs: float
    receptive_field: int
    twin: str | None = None


@cache
def entries() -> dict[str, Entry]:
    """The rows of the catalogue by name, in its own order."""
    rows = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    return {name: Entry.model_validate(row) for name, row in rows.items()}


def list_models() -> list[str]:
    """The names that `zoo.build` takes, in the catalogue's order."""
    return list(entries())


def matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of `names` that any of the shell patterns matches, in their order; all of them without a pattern.

    Raises:
        InputError: for a pattern that matches none, with the names that are nearest to it.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern[:100].strip("*?"), names, n=5, cutoff=0.4)
            refuse("pattern", quoted(pattern), f"names or patterns of names, such as {listing(near or names)}")
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def resolve(spec: str | Path | ArchitectureConfig, **overrides: Any) -> ArchitectureConfig:
    """The model section that `spec` names, with `overrides` in place of its keys.

    A section that was checked before is taken as it is where nothing is overridden.

    Raises:
        InputError: for an unknown name, key or impossible value.
    """
    source, checked = str(spec), None
    if isinstance(spec, ArchitectureConfig):
        source, checked = type(spec).__name__, spec
    elif source in entries():
        section = _section(source)
    elif not isinstance(spec, str | Path):
        accepted = "a name of the catalogue, the path of a config, or a model section, as `load_config(PATH).model` is"
        refuse("model", quoted(spec), accepted)
    elif Path(spec).suffix in (".yaml", ".yml"):
        checked = load_config(spec).model
    else:
        raise InputError(unknown("model", spec, list_models()) + ", or a path to a .yaml file")
    if checked is not None:
        if not overrides:
            return checked
        section = checked.model_dump()
    return model_config(changed(section, overrides), source)


def _section(name: str) -> dict[str, Any]:
    row = entries()[name]
    if row.like is not None:
        return changed(_section(row.like), row.model or {})
    if row.model is not None:
        return row.model
    return read_yaml(shipped_configs()[name])["model"]
