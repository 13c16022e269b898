"""How single values of a card are written: durations, rates, amounts, states, paths, expressions, schemas.

Each form is a type that the card's model uses; what does not fit is a ValueError that says what would be right. It must
not know which field it stands in.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from service import notation
from service.clock import parse_iso
from service.providers.card import pictures
from service.providers.documents.paths import check_expression
from service.states import ErrorCode

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
FETCH_RESULT: Final = "fetch_result"
_STATE_WORDS: Final = ("queued", "running", "completed", "failed", "cancelled", FETCH_RESULT)
RETRY: Final = "retry"
_ORIGIN: Final = re.compile(r"https://([a-z0-9*-]+(?:\.[a-z0-9*-]+)+)(?::[0-9]{1,5})?")
_STATUS: Final = re.compile(r"[1-5](xx|[0-9]{2})")


class Part(BaseModel):
    """What every mapping of a card is: frozen, and without fields that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _duration(value: object) -> timedelta:
    return notation.duration(value if isinstance(value, str) else "")


def _rate(value: object) -> notation.SubmitRate:
    return notation.rate(value if isinstance(value, str) else "")


def _usd(value: object) -> Decimal:
    try:
        amount = Decimal(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise ValueError('write an amount of US dollars such as "0.0100"')
    return amount


def _state(value: object) -> str:
    word, _, code = value.partition("/") if isinstance(value, str) else ("", "", "")
    known = word in _STATE_WORDS and (not code or (word == "failed" and code in set(ErrorCode)))
    if not isinstance(value, str) or not known or value.endswith("/"):
        raise ValueError(f"write one of {', '.join(_STATE_WORDS)}, or failed/content_moderated and the like")
    return value


def _http_states(value: object) -> object:
    """What statuses mean, with numbers as texts, since YAML reads `200` as a number."""
    if not isinstance(value, dict):
        return value
    meanings = {str(status): meaning for status, meaning in value.items()}
    wrong = [status for status in meanings if _STATUS.fullmatch(status) is None]
    if wrong:
        raise ValueError(f"{wrong[0]} is no status: write one such as 202 or 4xx")
    return meanings


def _http_state(value: object) -> str:
    if value == RETRY:
        return RETRY
    return _state(value)


def _trusted(value: str) -> str:
    """An origin; a `*` stands for one label of the host, left of the last two."""
    match = _ORIGIN.fullmatch(value)
    if match is None:
        raise ValueError("write an origin such as https://api.eu.example.com or https://api.*.example.com")
    labels = match[1].split(".")
    if any("*" in label for label in labels[-2:]) or any("*" in label and label != "*" for label in labels):
        raise ValueError("a * stands for one whole label of the host, left of the last two")
    return value


def _statuses(value: object) -> list[str]:
    """One status or several, `404` or `5xx`, as a list of texts."""
    texts = [str(entry) for entry in (value if isinstance(value, list) else [value])]
    if not texts or any(_STATUS.fullmatch(text) is None for text in texts):
        raise ValueError("write a status such as 429 or 5xx, or a list of them")
    return texts


def _words(value: object) -> list[str]:
    """One word or number or several, as a list of texts."""
    entries = value if isinstance(value, list) else [value]
    if not entries or any(isinstance(entry, bool) or not isinstance(entry, str | int) for entry in entries):
        raise ValueError("write a word or a number, or a list of them")
    return [str(entry) for entry in entries]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value


def _base_url(value: str) -> str:
    return notation.http_url(value, path=True)


def _schema(value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if (info.context or {}).get("shipped"):  # tests have checked it, and that takes as long as reading all the cards
        return value
    if value.get("type") != "object":
        raise ValueError("an input is an object: write type: object")
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError as error:
        where = ".".join(str(step) for step in error.absolute_path)
        raise ValueError(f"is no JSON Schema: {where + ': ' if where else ''}{error.message}") from error
    _check_images(value)
    return value


def _check_images(schema: Any) -> None:
    """Judge every `x-image` in a schema."""
    entries = schema if isinstance(schema, list) else schema.values() if isinstance(schema, dict) else ()
    for entry in entries:
        _check_images(entry)
    if isinstance(schema, dict) and isinstance(schema.get("x-image"), dict):
        pictures.check_keyword(schema["x-image"])


def _template(value: str) -> str:
    if "{" in PLACEHOLDER.sub("", value) or "}" in PLACEHOLDER.sub("", value):
        raise ValueError("a brace is not closed; placeholders look like {id}")
    if any(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None for name in PLACEHOLDER.findall(value)):
        raise ValueError("a placeholder holds the name of a field, such as {id} or {model}")
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or value.startswith("//") or set(value) & set("?# \\"):
        raise ValueError("write a path that begins with one slash; what follows a ? goes into query")
    return _template(value)


def _instant(value: object) -> int:
    """A moment as milliseconds since 1970, or as text such as 2026-11-21T10:00:00Z."""
    if isinstance(value, str):
        return parse_iso(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError('write milliseconds since 1970, or a text such as "2026-11-21T10:00:00Z" in quotes')


_TEXT_SCHEMA: Final = {"type": "string"}
_LIST_SCHEMA: Final = {"type": ["string", "integer", "array"], "items": {"type": ["string", "integer"]}}

Duration = Annotated[
    timedelta, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": "^[0-9.]+(ms|s|m|h|d)$"})
]
Rate = Annotated[
    notation.SubmitRate,
    BeforeValidator(_rate),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,9}/[0-9]{0,9}(s|m|h)$"}),
]
Instant = Annotated[int, BeforeValidator(_instant), WithJsonSchema({"type": ["integer", "string"]})]
Usd = Annotated[Decimal, BeforeValidator(_usd), WithJsonSchema({"type": ["string", "number"]})]
Statuses = Annotated[list[str], BeforeValidator(_statuses), WithJsonSchema(_LIST_SCHEMA)]
Words = Annotated[list[str], BeforeValidator(_words), WithJsonSchema(_LIST_SCHEMA)]
StateWord = Annotated[str, BeforeValidator(_state), WithJsonSchema(_TEXT_SCHEMA)]
HttpState = Annotated[str, BeforeValidator(_http_state), WithJsonSchema(_TEXT_SCHEMA)]
HttpStates = Annotated[dict[str, HttpState], BeforeValidator(_http_states)]
TrustedOrigin = Annotated[str, AfterValidator(_trusted)]
Expression = Annotated[str, AfterValidator(check_expression)]
Pattern = Annotated[str, AfterValidator(_pattern)]
BaseURL = Annotated[str, AfterValidator(_base_url)]
Template = Annotated[str, AfterValidator(_template)]
PathTemplate = Annotated[str, AfterValidator(_path)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
InputSchema = Annotated[dict[str, Any], AfterValidator(_schema)]
Code = Annotated[ErrorCode, Field(strict=False)]
