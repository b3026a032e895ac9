"""The catalogue of ready-made models, and what a name stands for. No backend is loaded here."""

from functools import cache
from pathlib import Path
from typing import Any

from zoo.config import ArchitectureConfig, load_config, model_config, shipped_configs
from zoo.config.base import Schema
from zoo.config.loading import read_yaml
from zoo.errors import InputError, unknown


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


def resolve(spec: str | Path | ArchitectureConfig, **overrides: Any) -> ArchitectureConfig:
    """The model section that `spec` names, with `overrides` in place of its keys.

    Raises:
        InputError: for an unknown name, key or impossible value.
    """
    if isinstance(spec, ArchitectureConfig):
        section, source = spec.model_dump(), type(spec).__name__
    elif str(spec) in entries():
        section, source = _section(str(spec)), str(spec)
    elif Path(spec).suffix in (".yaml", ".yml"):
        section, source = load_config(spec).model.model_dump(), str(spec)
    else:
        raise InputError(unknown("model", spec, list_models()) + ", or a path to a .yaml file")
    return model_config({**section, **overrides}, source)


def _section(name: str) -> dict[str, Any]:
    row = entries()[name]
    if row.like is not None:
        return {**_section(row.like), **(row.model or {})}
    if row.model is not None:
        return row.model
    return read_yaml(shipped_configs()[name])["model"]
