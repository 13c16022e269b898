"""What stands behind the `?`, read into a model: strict, since what is unknown or doubled would quietly find something else.

Litestar's own parameters are not used: a huge integer there is a 500, and what is unknown or doubled passes silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import parse_qsl

from pydantic import ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from service.errors import Malformed
from service.schemas.request_model import RequestModel, fix, names, nearest, schema_at
from service.schemas.values import fault

LIMIT_DEFAULT: Final = 50  # entries of a page
LIMIT_MAX: Final = 200  # entries of a page
MAX_BYTES: Final = 8_192  # of a query string
MAX_PARAMETERS: Final = 50  # in a query
MAX_VALUE: Final = 1_024  # characters


@dataclass(frozen=True)
class WholeNumber:
    """Marks a whole number in a query, written in plain digits."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See Pydantic."""
        number = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_before_validator_function(self._check, number)

    def _check(self, value: object) -> object:
        if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= len(str(self.high))):
            raise fault(f"must be a whole number from {self.low} to {self.high}")
        return value


class QueryModel(RequestModel):
    """The parameters of a query. `PREFIXED`: a field that has what is given as `<field>.<key>`, by key."""

    model_config = ConfigDict(strict=False)

    PREFIXED: ClassVar[str | None] = None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The parameters.

        Raises:
            Malformed: Not readable, or with a name that is unknown or doubled, or a value that is wrong.
        """
        if not raw:
            return _empty(cls)  # type: ignore[no-any-return]
        values = _values(cls, raw)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[0]
        name = str(found["loc"][0])
        raise wrong(f"{name}.<key>" if name == cls.PREFIXED else name, _sentence(cls, found))


class PageQuery(QueryModel):
    """Which page of a list."""

    limit: Annotated[int, WholeNumber(1, LIMIT_MAX)] = LIMIT_DEFAULT
    """How many entries a page has at most."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""


class NoQuery(QueryModel):
    """Nothing."""


@cache
def _empty(model: type[Any]) -> Any:
    return model()


def parameters(model: type[QueryModel]) -> list[str]:
    """The names that a query may have, but for prefixed ones."""
    return [name for name in names(model) if name != model.PREFIXED]


@cache
def _repeatable(model: type[QueryModel]) -> frozenset[str]:
    return frozenset(name for name in parameters(model) if schema_at(model, (name,)).get("type") == "array")


def _values(model: type[QueryModel], raw: bytes) -> dict[str, Any]:
    known, repeatable, prefixed = parameters(model), _repeatable(model), model.PREFIXED
    values: dict[str, Any] = {}
    by_key: dict[str, str] = {}
    for name, value in _pairs(raw):
        field, _, key = name.partition(".")
        is_prefixed = field == prefixed and key != ""
        if name not in known and not is_prefixed:
            shown = sorted(known) + ([f"{prefixed}.<key>"] if prefixed else [])
            raise wrong(name, f"is unknown here{nearest(name, known)} known: {', '.join(shown) or 'none'}")
        if "\x00" in value or "\x00" in name:
            raise wrong(name, "holds the character NUL")
        if len(value) > MAX_VALUE:
            raise wrong(name, f"must have at most {MAX_VALUE} characters")
        if (key in by_key if is_prefixed else name in values) and name not in repeatable:
            raise wrong(name, "occurs twice; give it once")
        if is_prefixed:
            by_key[key] = value
            continue
        parts = tuple(part for part in value.split(",") if part) if name in repeatable else value
        values[name] = (*values.get(name, ()), *parts) if name in repeatable else value
    for name, value in values.items():
        if not value:
            raise wrong(name, "is empty; give a value or leave it out")
    if prefixed is not None:
        values[prefixed] = by_key
    return values


def _sentence(model: type[QueryModel], found: Any) -> str:
    """Of one that may hold several values, without the place among them."""
    place = found["loc"]
    if found["type"] == "fault" and len(place) > 1:
        return str(found["ctx"]["what"]).replace("must be one of", "must be one or some of")
    return fix(model, found)


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    if len(raw) > MAX_BYTES:
        raise Malformed(f"the query string has more than {MAX_BYTES} bytes", code="query_invalid")
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise Malformed("the query string is not UTF-8, percent-encoded", code="query_invalid") from error
    except ValueError as error:
        raise Malformed(f"the query string has more than {MAX_PARAMETERS} parameters", code="query_invalid") from error


def wrong(name: str, reason: str) -> Malformed:
    """A parameter at fault."""
    shown = name[:64].encode("ascii", "backslashreplace").decode().replace("\x00", "?")
    return Malformed(f"the query parameter {shown!r} {reason}", code="query_invalid")
