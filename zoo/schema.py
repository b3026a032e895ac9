"""What every section of a config has in common: unknown keys are refused, values are frozen, old keys are known.

And a failed validation as one line: the key, what is wrong, the value received.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from zoo.errors import quoted, unknown

# The context of `model_dump` that gives a section as version 1 would have written it.
FIRST_FORM = "first form"
# The largest whole number that a size, a stride or a count may be; what they make together is bounded in bytes.
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Added:
    """Marks a key that version 1 did not have, as in `Annotated[int, Added()] = 3`: no part of a digest at its default.

    So the run directories that were made before it keep their names.
    """


@dataclass(frozen=True)
class Renamed:
    """Marks a key by the name that it had before, which is still read, and is its name in digests."""

    old: str


class Shorthand(NamedTuple):
    """What a short key stands for: the key `of`, with the value that `expand` gives.

    `expand` takes the short key's value and the section's other keys.
    """

    of: str
    expand: Callable[[Any, Mapping[str, Any]], Any]


def _mark(field: FieldInfo, kind: type) -> Any:
    return next((mark for mark in field.metadata if isinstance(mark, kind)), None)


def problem(text: str, key: str = "") -> PydanticCustomError:
    """An error whose text already says what was received and what is accepted; `key` is below the section checked."""
    return PydanticCustomError("problem", "{text}", {"text": text, "key": key})


def _unknown_key(text: str, unknown: str, key: str = "") -> PydanticCustomError:
    return PydanticCustomError("unknown_key", "{text}", {"text": text, "key": key, "unknown": unknown})


class Schema(BaseModel):
    """A frozen section of a config; a key that it does not know is refused.

    `shorthands`: keys that may stand in place of others. They are written out when a section is read, so that they are
    no part of its values, nor of its digest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    shorthands: ClassVar[Mapping[str, Shorthand]] = {}

    @classmethod
    def todays(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """A section as it was written by any version, with today's keys."""
        old = {mark.old: key for key, field in cls.model_fields.items() if (mark := _mark(field, Renamed))}
        for before, key in old.items():
            if before in data and key in data:
                raise problem(f"received {before} and {key}; accepted: {key} alone, which is the new name of {before}")
        return {old.get(key, key): value for key, value in data.items()}

    @classmethod
    def written_out(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """A section with what its shorthands stand for in their place."""
        data = dict(data)
        for short, (key, expand) in cls.shorthands.items():
            if short in data:
                if key in data:
                    raise problem(f"received {short} and {key}; accepted: one of them, as {short} stands for {key}")
                data[key] = expand(data.pop(short), data)
        return data

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = cls.written_out(cls.todays(data))
        for key in data:
            if key not in cls.model_fields:
                raise _unknown_key(unknown("key", key, [*cls.model_fields, *cls.shorthands]), str(key))
            # Pydantic would take them for 1 and 0.
            if isinstance(data[key], bool) and cls.model_fields[key].annotation is not bool:
                raise problem(f"received {data[key]}; accepted: no yes or no, but a value", key)
        return data

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        data = handler(self)
        if info.context != FIRST_FORM:
            return data
        for key, field in type(self).model_fields.items():
            if _mark(field, Added) and getattr(self, key) == field.get_default(call_default_factory=True):
                del data[key]
        names = {key: mark.old for key, field in type(self).model_fields.items() if (mark := _mark(field, Renamed))}
        return {names.get(key, key): value for key, value in data.items()}


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _whole(value: Any) -> Any:
    # Pydantic's own message for a list of another length blames an item that is not there.
    if isinstance(value, list | tuple) and len(value) != 2:
        raise problem(f"received {quoted(value)}; accepted: [height, width]")
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise problem(f"received {value}; accepted: odd sides, so that padding is symmetric")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    # Of a pattern nested too deep or repeated too often, Python tells in other ways.
    except (re.error, OverflowError, RecursionError) as error:
        raise problem(f"received {value!r}; accepted: a regular expression ({error})") from None
    return value


def in_bytes(numbers: int) -> str:
    """The memory of so many numbers of four bytes, in words."""
    size = 4 * numbers
    power = min(int(math.log(size, 1024)), 8) if size else 0
    return f"{size / 1024**power:,.0f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB')[power]}"


# What is accepted, in our words, by the types of pydantic's errors.
_ACCEPTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a number that is finite",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "keys and values"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "path_type": "a path",
    "greater_than_equal": "a number of at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
    "literal_error": "{expected}",
}

Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Kernel = Annotated[Positive, AfterValidator(_odd)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[tuple[Positive, Positive], BeforeValidator(_whole), BeforeValidator(_as_pair)]


def one_line(error: ValidationError, data: Any, whole: type[Schema] | None = None) -> str:
    """The first problem of a failed validation: key, what is wrong, value received.

    `whole`: the schema of `data`, in whose other sections a key may belong that is not known where it stands.
    """
    key, text = key_and_text(error, data)
    context = error.errors(include_url=False)[0].get("ctx", {})
    if whole is not None and (places := places_of(str(context.get("unknown", "")), whole)):
        text = f"unknown key {quoted(context['unknown'])} here; accepted: {' or '.join(places)}"
    return f"{key}: {text}" if key else text


def places_of(key: str, schema: Any, above: tuple[type[Schema], ...] = ()) -> list[str]:
    """Where a key of this name is known, in dots from `schema` down, without those inside of lists."""
    if get_origin(schema) in (list, tuple, dict):
        return []
    if not (isinstance(schema, type) and issubclass(schema, Schema)):
        return [*dict.fromkeys(place for each in get_args(schema) for place in places_of(key, each, above))]
    if schema in above:
        return []
    places = [key] if key in schema.model_fields or key in schema.shorthands else []
    for name, field in schema.model_fields.items():
        places += [f"{name}.{place}" for place in places_of(key, field.annotation, (*above, schema))]
    return places


def first_problem(error: ValidationError, data: Any) -> PydanticCustomError:
    """The first problem of a section that is checked inside the check of another."""
    key, text = key_and_text(error, data)
    context = error.errors(include_url=False)[0].get("ctx", {})
    return _unknown_key(text, context["unknown"], key) if "unknown" in context else problem(text, key)


def key_and_text(error: ValidationError, data: Any) -> tuple[str, str]:
    """The first problem's key, in dots from `data` down, and what is wrong there."""
    first, *others = error.errors(include_url=False)
    # Pydantic puts a union's tag into the location; only what the user wrote is a key.
    keys: list[str] = []
    node = data
    for part in first["loc"]:
        in_list = isinstance(node, list | tuple) and isinstance(part, int)
        if in_list or isinstance(node, Mapping) and part in node:
            keys.append(str(part))
            node = node[part]
        elif part == first["loc"][-1] and first["type"] == "missing":
            keys.append(str(part))
    text = first["msg"]
    received = quoted(first["input"])
    if first["type"] in _ACCEPTED:
        text = f"received {received}; accepted: {_ACCEPTED[first['type']].format(**first.get('ctx', {}))}"
    elif first["type"] == "missing":
        text = "this key is required"
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = first["ctx"]["discriminator"].strip("'")
        keys.append(tag)
        received = quoted(node.get(tag) if isinstance(node, Mapping) else node)
        accepted = first["ctx"].get("expected_tags", "see the shipped configs")
        text = f"received {received}; accepted: {accepted}"
    elif first["type"] in ("problem", "unknown_key"):
        keys += [first["ctx"]["key"]] if first["ctx"]["key"] else []
    else:
        text = f"{text[0].lower()}{text[1:]}, received {received}"
    more = f" (and {len(others)} more)" if others else ""
    return ".".join(keys), text + more
