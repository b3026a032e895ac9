"""What every section of a config has in common: unknown keys are refused, values are frozen, old keys are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
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


def _mark(field: FieldInfo, kind: type) -> Any:
    return next((mark for mark in field.metadata if isinstance(mark, kind)), None)


def problem(text: str, key: str = "") -> PydanticCustomError:
    """An error whose text already says what was received and what is accepted; `key` is below the section checked."""
    return PydanticCustomError("problem", "{text}", {"text": text, "key": key})


class Schema(BaseModel):
    """A frozen section of a config; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def todays(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """A section as it was written by any version, with today's keys."""
        old = {mark.old: key for key, field in cls.model_fields.items() if (mark := _mark(field, Renamed))}
        for before, key in old.items():
            if before in data and key in data:
                raise problem(f"received {before} and {key}; accepted: {key} alone, which is the new name of {before}")
        return {old.get(key, key): value for key, value in data.items()}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = cls.todays(data)
        for key in data:
            if key not in cls.model_fields:
                raise problem(unknown("key", key, cls.model_fields))
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


def in_bytes(numbers: int) -> str:
    """The memory of so many numbers of four bytes, in words."""
    size = 4 * numbers
    power = min(int(math.log(size, 1024)), 8) if size else 0
    return f"{size / 1024**power:,.0f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB')[power]}"


Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Kernel = Annotated[Positive, AfterValidator(_odd)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[tuple[Positive, Positive], BeforeValidator(_whole), BeforeValidator(_as_pair)]
