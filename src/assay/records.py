"""What every record is made of: frozen, strict about its keys, and concluding anew what follows from its numbers."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _moment(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("must name its time zone")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
Timestamp = Annotated[str, AfterValidator(_moment)]
"""ISO 8601 with its offset from UTC, so that reports of different machines can be put in order."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """A frozen record."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Concluding(Record):
    """A record with computed fields, which are written but never read.

    What it concludes of its numbers is kept beside its fields, by `cached_property` under a name with an underscore:
    pydantic compares, lists and writes fields alone.
    """

    model_config = ConfigDict(ignored_types=(cached_property,))
    _derived: ClassVar[tuple[str, ...]]

    def __copy__(self) -> Self:
        """Without what was concluded: a copy may be given other numbers."""
        copied = super().__copy__()
        for name in copied.__dict__.keys() - type(self).model_fields:
            del copied.__dict__[name]
        return copied

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls._derived = tuple(cls.model_computed_fields)

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = data.copy()
            for name in cls._derived:
                data.pop(name, None)
        return data
