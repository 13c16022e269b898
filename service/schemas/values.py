"""The values that requests and answers are made of: times, money, ids, words of a list.

Owns how each is written in JSON Schema, and how one that came is read. It must not know the shapes that use them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final

import msgspec
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.clock import parse_iso
from service.ids import Prefix, is_id
from service.states import EVENT_TYPES

#: The extension of JSON Schema under which a field says in words what would be right; it does not leave the process.
WORDS: Final = "x-words"
#: Stands for the reference to a schema that is described once, by name.
REF: Final = "x-ref"
_TIMES: Final = range(253_402_300_800_000)  # milliseconds from 1970 to the end of the year 9999
_EPOCH: Final = date(1970, 1, 1)
_A_TIME: Final = "a time with a zone, such as 2026-11-21T10:00:00Z"
_A_DAY: Final = "a day (UTC), such as 2026-11-21"


@dataclass(frozen=True)
class Encoded:
    """Marks a value that is JSON already, or is not looked into: its schema is what it is said to be."""

    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See Pydantic."""
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """See Pydantic."""
        return dict(self.schema)


def fault(what: str, at: str = "") -> PydanticCustomError:
    """A value at fault, for a validator to raise.

    Args:
        what: Would be right; a sentence that follows the field's name.
        at: The field, where the validator is the whole model's.
    """
    return PydanticCustomError("fault", "{what}", {"what": what, "at": at})


def said(words: str, **more: Any) -> Any:
    """A field whose faults are told in these words: "must be {words}"."""
    return Field(json_schema_extra={WORDS: words}, **more)


def unique(words: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order in which they came."""
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class OneOf:
    """Marks a string that is one of these words; `why` is told with them."""

    words: tuple[str, ...]
    why: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See Pydantic."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """See Pydantic."""
        return {"type": "string", "enum": list(self.words)}

    def _check(self, value: str) -> str:
        if value not in self.words:
            raise fault(f"must be one of {', '.join(self.words)}{self.why}")
        return value


@dataclass(frozen=True)
class IdOf:
    """Marks an id of that kind, which a caller gives."""

    prefix: Prefix

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See Pydantic."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """See Pydantic."""
        return {"type": "string", "pattern": f"^{self.prefix}_", WORDS: f"an id that begins with {self.prefix}_"}

    def _check(self, value: str) -> str:
        if not is_id(value, self.prefix):
            raise fault(f"must be an id that begins with {self.prefix}_")
        return value


def _moment(value: object) -> int:
    if not isinstance(value, str):
        raise fault(f"must be {_A_TIME}")
    try:
        moment = parse_iso(value)
    except (ValueError, OverflowError) as error:
        # The blank of "…T10:00:00 01:00" was a + in a query.
        was_plus = re.search(r"T\S+ \d\d:\d\d$", value)
        blank = "; a + reads as a blank here: write it as %2B, or use Z" if was_plus else ""
        raise fault(f"must be {_A_TIME}{blank}") from error
    if moment not in _TIMES:
        raise fault("must be a time from 1970 to 9999")
    return moment


def _day(value: object) -> int:
    try:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise fault(f"must be {_A_DAY}")
        day = (date.fromisoformat(value) - _EPOCH).days
    except ValueError as error:
        raise fault(f"must be {_A_DAY}") from error
    if day < 0:
        raise fault("must be a day from 1970-01-01 to 9999-12-31")
    return day


#: A time that came, in ms UTC.
Moment = Annotated[
    int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time", WORDS: _A_TIME})
]
#: A day (UTC) that came, counted from 1970-01-01.
Day = Annotated[int, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date", WORDS: _A_DAY})]
#: Event types that a caller names; empty: the final ones.
EventTypes = Annotated[
    tuple[Annotated[str, OneOf(EVENT_TYPES)], ...], Field(max_length=50, strict=False), AfterValidator(unique)
]
#: Short words that a caller names: providers, operations, tags.
Words = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
    Field(max_length=50, strict=False),
    AfterValidator(unique),
]

#: A time as it leaves.
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
#: Money as it leaves, in US dollars: a decimal string with six places.
Money = Annotated[str, Field(pattern=r"^-?\d+\.\d{6}$")]
#: The text of a `whsec_` secret as it leaves.
Secret = Annotated[str, Field(pattern="^whsec_")]
#: JSON that is stored and leaves as it is: an object that is described elsewhere, or by nobody.
AnyObject = Annotated[msgspec.Raw | dict[str, Any], Encoded({"type": "object", "additionalProperties": True})]
#: An object of strings, encoded already.
StringMap = Annotated[
    msgspec.Raw | dict[str, str], Encoded({"type": "object", "additionalProperties": {"type": "string"}})
]
#: A list of strings, encoded already.
StringList = Annotated[
    msgspec.Raw | list[str] | tuple[str, ...], Encoded({"type": "array", "items": {"type": "string"}})
]
