"""Which schema a model section is checked by: one of the four families here, or a user's own class."""

import importlib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from zoo.errors import InputError, quoted
from zoo.models.architecture import ArchitectureConfig
from zoo.models.inception import InceptionConfig
from zoo.models.nin import NINConfig
from zoo.models.resnet import ResNetConfig
from zoo.models.squeezenet import SqueezeNetConfig
from zoo.schema import Schema, first_problem, key_and_text, problem

FAMILIES: dict[str, type[ArchitectureConfig]] = {
    "nin": NINConfig,
    "inception": InceptionConfig,
    "resnet": ResNetConfig,
    "squeezenet": SqueezeNetConfig,
}


def _schema(family: Any) -> type[ArchitectureConfig]:
    """The schema of a family: one of ours, or `package.module:Class` of a user's own."""
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    named = re.fullmatch(r"(\w+(?:\.\w+)*):(\w+)", family) if isinstance(family, str) else None
    if named is None:
        accepted = ", ".join(repr(known) for known in FAMILIES)
        raise problem(f"received {quoted(family)}; accepted: {accepted}, or package.module:Class", "family")
    try:
        schema = getattr(importlib.import_module(named[1]), named[2])
    except Exception as error:  # the user's module may fail in any way
        why = f"{type(error).__name__}: {error}"
        raise problem(f"received {quoted(family)}, which cannot be imported ({why})", "family") from None
    if not (isinstance(schema, type) and issubclass(schema, ArchitectureConfig)):
        accepted = "a class derived from zoo.config.ArchitectureConfig"
        raise problem(f"received {quoted(family)}; accepted: {accepted}", "family")
    return schema


def _as_model(value: Any) -> Any:
    """A model section, checked by the schema of its family."""
    if isinstance(value, ArchitectureConfig):
        return value
    if not isinstance(value, Mapping):
        raise problem(f"received {quoted(value)}; accepted: the keys of a model, beginning with family")
    schema = _schema(value.get("family"))
    try:
        return schema.model_validate(dict(value))
    except ValidationError as error:
        raise first_problem(error, value) from None


ModelConfig = Annotated[ArchitectureConfig, PlainValidator(_as_model)]


class _Section(Schema):
    model: ModelConfig


def model_config(data: Mapping[str, Any], source: str) -> ArchitectureConfig:
    """Check the `model` section of a config; errors begin with `source`."""
    section = {"model": data}
    try:
        return _Section.model_validate(section).model
    except ValidationError as error:
        key, text = key_and_text(error, section)
        raise InputError(f"{source}: {key}: {text}") from None


def written_out(section: Mapping[str, Any]) -> dict[str, Any]:
    """A model section with what its shorthands stand for in their place.

    A section that is wrong stays as it is: what is wrong is named where it is checked.
    """
    try:
        return _schema(section.get("family")).written_out(section)
    except PydanticCustomError:
        return dict(section)


def changed(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A model section with other values for some keys; a shorthand takes the place of what it stands for."""
    try:
        shorthands = _schema(section.get("family")).shorthands
    except PydanticCustomError:
        shorthands = {}
    ousted = {key for short, (key, _) in shorthands.items() if short in changes}
    return {**{key: value for key, value in written_out(section).items() if key not in ousted}, **changes}
