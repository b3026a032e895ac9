"""What every section of a config has in common: unknown keys are refused, values are frozen."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from zoo.errors import unknown


def problem(text: str, key: str = "") -> PydanticCustomError:
    """An error whose text already says what was received and what is accepted; `key` is below the section checked."""
    return PydanticCustomError("problem", "{text}", {"text": text, "key": key})


class Schema(BaseModel):
    """A frozen section of a config; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise problem(unknown("key", key, cls.model_fields))
                # Pydantic would take them for 1 and 0.
                if isinstance(data[key], bool) and cls.model_fields[key].annotation is not bool:
                    raise problem(f"received {data[key]}; accepted: no yes or no, but a value", key)
        return data


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise problem(f"received {value}; accepted: odd sides, so that padding is symmetric")
    return value


Positive = Annotated[int, Field(ge=1)]
Kernel = Annotated[Positive, AfterValidator(_odd)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[tuple[Positive, Positive], BeforeValidator(_as_pair)]
