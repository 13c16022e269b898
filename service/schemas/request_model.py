"""What a caller sends, read into a model: every field at fault is told at once, with a JSON pointer and what would be right.

The sentences come from the field's own JSON Schema, so that a limit is written once. It must not know any request.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from service.errors import MAX_ERRORS, FieldError, Invalid
from service.schemas.values import WORDS

_NO_OBJECT: Final = "the body must be a JSON object"


class RequestModel(BaseModel):
    """A body. Null counts as left out, and unknown fields are faults.

    `NOT_HERE` has fixes for fields that callers send in hope, such as what an answer showed them. `NEEDED`: no body at all
    is a mistake, although no field of it is needed. `UNKNOWN_CODE`: of a refusal for unknown fields.
    """

    # Built when it is first needed, not at the start of the service; `api.description` reads what stands below the fields.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    NOT_HERE: ClassVar[Mapping[str, str]] = {}
    NEEDED: ClassVar[bool] = False
    UNKNOWN_CODE: ClassVar[str | None] = "unknown_field"

    @classmethod
    def read(cls, body: object) -> Self:
        """The request in a decoded body; no body at all is an empty object where nothing is required.

        Raises:
            Invalid: With a pointer for every field at fault.
        """
        if not isinstance(body, dict):
            raise Invalid(_NO_OBJECT, errors=(FieldError("", "send a JSON object"),))
        made, found = None, []
        over = [name for name, most in _most(cls).items() if name in body and _entries(body[name]) > most]
        try:
            made = cls.model_validate(_bounded(cls, body, over))
        except ValidationError as error:
            # It keeps what was sent, which may be a secret: only its places and words leave, outside of this block.
            found = error.errors(include_url=False, include_input=False)
        too_many = [FieldError(f"/{name}", f"must be {in_words(schema_at(cls, (name,)))}") for name in over]
        between = list(cls.faults_between(body))
        if made is not None and not too_many and not between:
            return made
        told: dict[str, FieldError] = {}  # one for each place
        for fault in chain(too_many, (_told(cls, body, each) for each in _first_causes(found)), between):
            told.setdefault(fault.pointer, fault)
            if len(told) == MAX_ERRORS:
                break
        unknown = not too_many and not between and any(each["type"] == "extra_forbidden" for each in found)
        raise Invalid.of(list(told.values()), code=cls.UNKNOWN_CODE if unknown else None)

    @classmethod
    def faults_between(cls, body: Mapping[str, Any]) -> Iterable[FieldError]:
        """What fields say together that cannot be; told beside the faults of each, so that `body` may hold anything."""
        return ()

    @classmethod
    @cache
    def is_optional(cls) -> bool:
        """Whether the body may be left out, since none of its fields is needed."""
        return not cls.NEEDED and not any(field.is_required() for field in cls.model_fields.values())


class NoFields(RequestModel):
    """Nothing."""

    @classmethod
    def read(cls, body: object) -> Self:
        """Whatever is empty is nothing: some languages have one word for `[]` and `{}`."""
        return super().read(body or {})


@cache
def _most(model: type[BaseModel]) -> dict[str, int]:
    """How many entries the lists and objects of a model may have."""
    schemas = {name: schema_at(model, (name,)) for name in names(model)}
    bounds = {name: schema.get("maxItems", schema.get("maxProperties")) for name, schema in schemas.items()}
    return {name: most for name, most in bounds.items() if most is not None}


def _entries(value: object) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _bounded(model: type[BaseModel], body: dict[str, Any], over: Sequence[str]) -> dict[str, Any]:
    """Without what is too much of: to look at each of fifty thousand faulty entries would take a second."""
    if not over and len(body) <= len(model.model_fields) + MAX_ERRORS:
        return body
    known = names(model)
    strange = islice((name for name in body if name not in known), MAX_ERRORS)
    kept = {name: body[name] for name in (*known, *strange) if name in body}
    return kept | {name: type(body[name])() for name in over}


def _first_causes(faults: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Without lists that are only too short since their entries are wrong."""
    for each in faults:
        place = each["loc"]
        if each["type"] != "too_short" or not any(other["loc"][:-1] == place for other in faults if other["loc"]):
            yield each


def _told(model: type[RequestModel], body: Mapping[str, Any], found: ErrorDetails) -> FieldError:
    name = str(found["loc"][0]) if len(found["loc"]) == 1 else ""
    if name in model.model_fields and model.model_fields[name].is_required() and body.get(name) is None:
        found = {**found, "type": "missing"}  # null counts as left out
    place = found["loc"][:-1] if _is_name(model, found["loc"]) else found["loc"]
    if found["type"] == "fault" and (at := found["ctx"]["at"]):
        place = (*place, at)
    return FieldError("".join(f"/{escaped(str(step))}" for step in place), fix(model, found))


def fix(model: type[RequestModel], found: ErrorDetails) -> str:
    """What is wrong with a field and what would be right."""
    place = found["loc"]
    if found["type"] == "fault":
        return str(found["ctx"]["what"])
    if found["type"] == "extra_forbidden":
        return model.NOT_HERE.get(str(place[-1])) or _unknown(str(place[-1]), sorted(names(model)))
    if _is_name(model, place):
        return f"its name must be {in_words(schema_at(model, place[:-2]).get('propertyNames', {}))}"
    wanted = in_words(schema_at(model, place))
    return f"is required: {wanted}" if found["type"] == "missing" else f"must be {wanted}"


def _is_name(model: type[BaseModel], place: tuple[int | str, ...]) -> bool:
    """Whether a name is at fault, and not what stands under it; a caller may call something `[key]`, too."""
    return len(place) > 2 and place[-1] == "[key]" and bool(schema_at(model, place[:-2]).get("additionalProperties"))


def _unknown(name: str, known: list[str]) -> str:
    return (
        f"unknown field{nearest(name, known)} known are {', '.join(known)}" if known else "unknown field; known: none"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as a part of a sentence."""
    close = difflib.get_close_matches(name[:100], known, 1)
    return f"; did you mean {close[0]}?" if close else ";"


def names(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields, as callers write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def escaped(name: str) -> str:
    """A name as one step of a JSON pointer; a very long one is cut."""
    return name[:100].replace("~", "~0").replace("/", "~1")


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def schema_at(model: type[BaseModel], place: tuple[int | str, ...]) -> dict[str, Any]:
    """The JSON Schema of what stands at a place in a model."""
    whole = schema = _schema_of(model)
    for step in place:
        if isinstance(step, int):
            schema = schema.get("items", {})
        elif step in schema.get("properties", {}):
            schema = schema["properties"][step]
        else:
            schema = schema.get("additionalProperties") or {}
        schema = _plain(whole, schema)
    return schema


def _plain(whole: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without a reference, and without "or null"."""
    some = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(some) == 1:
        schema = {**some[0], **{name: value for name, value in schema.items() if name != "anyOf"}}
    if "$ref" in schema:
        schema = {**whole["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    return dict(schema)


def in_words(schema: Mapping[str, Any]) -> str:
    """What fits a schema, for a person."""
    if WORDS in schema:
        return str(schema[WORDS])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    match schema.get("type", "string"):
        case "string":
            return f"a string{_span(schema, 'minLength', 'maxLength', ' characters')}"
        case "integer":
            return f"a whole number{_span(schema, 'minimum', 'maximum', '', 'from')}"
        case "number":
            return f"a number{_span(schema, 'minimum', 'maximum', '', 'from')}"
        case "boolean":
            return "true or false"
        case "array":
            entries = "strings" if schema.get("items", {}).get("type") == "string" else "entries"
            return f"a list{_span(schema, 'minItems', 'maxItems', f' {entries}')}"
        case "object":
            most = schema.get("maxProperties")
            return "a JSON object" if most is None else f"an object of at most {most} names and their values"
    return "something else"


def _span(schema: Mapping[str, Any], low: str, high: str, unit: str, word: str = "of") -> str:
    if high in schema:
        return f" {word} {_number(schema.get(low, 0))} to {_number(schema[high])}{unit}"
    return f" of at least {_number(schema[low])}{unit}" if low in schema else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
