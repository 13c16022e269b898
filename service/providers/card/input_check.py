"""Whether an input fits an operation: the card's JSON Schema, told as fields with a pointer and what would be right.

Pure. Messages never repeat a value: it may be a picture of ten megabytes or something private.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from service.errors import MAX_ERRORS, FieldError
from service.providers.card import pictures
from service.providers.card.card import Operation
from service.providers.card.forms import PLACEHOLDER
from service.providers.documents.longtexts import encoded

ROOT: Final = "/input"
MAX_NAME: Final = 100  # characters of a field's name that are told
MAX_ENTRIES: Final = 1_000  # of a list whose entries are looked at one by one, and of lists and objects in an input
MAX_NAMED: Final = 12  # words of an enumeration that are told of a field that is missing
_HOLDERS: Final = (dict, list)
_IN_A_PATH: Final = re.compile(r"[A-Za-z0-9._:~-]+(/[A-Za-z0-9._:~-]+)*")

_RANGES: Final = (
    ("minLength", "maxLength", "of", " characters"),
    ("minItems", "maxItems", "of", " entries"),
    ("minimum", "maximum", "from", ""),
)
_NOTHING: Final[dict[str, Any]] = {"not": {}}
_TYPES: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class InputCheck:
    """The input schema of one operation, compiled."""

    def __init__(self, operation: Operation) -> None:
        self._validator = _Validator(_spelt_out(operation.input))
        submit, callback = operation.submit, operation.callback
        self._in_path = PLACEHOLDER.findall(submit.path) if submit else []
        slot = callback.slot if callback else None
        self._ours = [slot.field] if slot and slot.place == "body" else []
        self._ours += [slot.secret_field] if slot and slot.secret_field else []

    def errors(self, given: Mapping[str, object]) -> list[FieldError]:
        """What is wrong with the input; empty when it can be sent."""
        faults = (field for error in self._validator.iter_errors(dict(given)) for field in _fields(error))
        found = [*islice(faults, MAX_ERRORS), *self._own(given)]
        return list(dict.fromkeys(found))[:MAX_ERRORS]

    def _own(self, given: Mapping[str, object]) -> Iterator[FieldError]:
        """What the way of a request asks for beyond the schema."""
        for name in self._ours:
            if name in given:
                yield FieldError(pointer(name), "is set by Remora itself; write the job's callback_url instead")
        for name in self._in_path:
            value = given.get(name)
            if not isinstance(value, str) or _IN_A_PATH.fullmatch(value) is None or ".." in value.split("/"):
                yield FieldError(f"{ROOT}/{name}", "is needed, as a name of letters, digits and . _ - : ~ / only")
        if not _can_be_sent(given):
            yield FieldError(ROOT, "holds text or numbers that cannot be written as JSON")


def unnamed(schema: Any, given: Mapping[str, object]) -> Iterator[str]:
    """Pointers to what a schema does not name, at any depth: it is sent as it is, and nobody knows what it does.

    Args:
        schema: What the input is checked against; only `properties`, `items` and `prefixItems` name anything.
        given: An input that the schema takes.
    """
    waiting: list[tuple[Any, Any, tuple[str, ...]]] = [(schema, given, ())]
    for _ in range(MAX_ENTRIES):
        if not waiting:
            return
        rules, value, way = waiting.pop()
        rules = rules if isinstance(rules, dict) else {}
        if isinstance(value, list):
            first = rules.get("prefixItems", [])
            for index, entry in enumerate(value):
                if isinstance(entry, _HOLDERS):
                    rule = first[index] if index < len(first) else rules.get("items")
                    waiting.append((rule, entry, (*way, str(index))))
            continue
        fields = rules.get("properties", {})
        for name, entry in value.items():
            if name not in fields:
                yield pointer(*way, name)
            elif isinstance(entry, _HOLDERS):
                waiting.append((fields[name], entry, (*way, name)))
    for _, _, way in waiting:  # too many to be looked at
        yield pointer(*way)


def pointer(*steps: str) -> str:
    """The JSON pointer to a part of the input."""
    return "/".join([ROOT, *map(_escaped, steps)])


def _spelt_out(schema: Any) -> Any:
    """The schema with `false` written as `not: {}`: jsonschema 4.26 reports a field that is false without its path."""
    if isinstance(schema, list):
        return [_spelt_out(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    spelt = {word: _spelt_out(rule) if word in _HOLD_SCHEMAS else rule for word, rule in schema.items()}
    for word in _NAME_SCHEMAS & spelt.keys():
        fields = spelt[word]
        spelt[word] = {name: _NOTHING if field is False else _spelt_out(field) for name, field in fields.items()}
    return spelt


def _image(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword `x-image`."""
    fault = pictures.fault(rule, instance) if isinstance(instance, str) else None
    if fault is not None:
        yield ValidationError(fault)


def _items(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword `items`, within bounds: to look at fifty thousand entries takes seconds, in which nothing else happens."""
    if isinstance(instance, list) and len(instance) > MAX_ENTRIES:
        yield ValidationError(f"must have at most {MAX_ENTRIES} entries")
        return
    yield from Draft202012Validator.VALIDATORS["items"](validator, rule, instance, schema)


_HOLD_SCHEMAS: Final = {"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "items", "contains"}
_NAME_SCHEMAS: Final = {"properties", "patternProperties", "dependentSchemas", "$defs"}
# To JSON Schema 1.0 is an integer, too. What we count and price is what the provider reads: it may make of 1.0 what it likes.
_CHECKER: Final = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
_Validator: Final = extend(Draft202012Validator, {"x-image": _image, "items": _items}, type_checker=_CHECKER)  # type: ignore[no-untyped-call] # jsonschema's stubs leave it out


def _can_be_sent(given: Mapping[str, object]) -> bool:
    try:
        encoded(given)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return False
    return True


def _fields(error: ValidationError) -> Iterator[FieldError]:
    """The fields at fault: the one that is wrong, or each one that is missing or too many."""
    names = _NAMING.get(str(error.validator))
    where = pointer(*map(str, error.absolute_path))
    if names is None:
        yield FieldError(where, _detail(error))
        return
    for name in names(error):
        yield FieldError(f"{where}/{_escaped(name)}", _detail(error) + _wanted(error, name))


def _escaped(step: str) -> str:
    """A name as one step of a pointer; a very long one is cut."""
    return step[:MAX_NAME].replace("~", "~0").replace("/", "~1")


def _detail(error: ValidationError) -> str:
    say = _SAYINGS.get(str(error.validator))
    return say(error) if say else _described(error)


def _wanted(error: ValidationError, name: str) -> str:
    """What a field that is missing should be, in brackets, as far as the same schema says it."""
    schema: Any = error.schema
    field = schema.get("properties", {}).get(name)
    if error.validator not in {"required", "dependentRequired"} or not isinstance(field, dict):
        return ""
    if len(field.get("enum", [])) in range(1, MAX_NAMED):
        return f" (one of {', '.join(map(_shown, field['enum']))})"
    kind = _TYPES.get(str(field.get("type")))
    return f" ({kind}{_bounds(field)})" if kind else ""


def _bounds(field: Mapping[str, Any]) -> str:
    """How long a text or a list, or how large a number may be, to stand behind its kind."""
    for low_key, high_key, word, unit in _RANGES:
        low, high = field.get(low_key), field.get(high_key)
        if low is not None and high is not None:
            return f" {word} {low} to {high}{unit}"
        if high is not None:
            return f" of at most {high}{unit}"
        if low is not None and low > 1:  # of what is required, that it is not empty needs no words
            return f" of at least {low}{unit}"
    return ""


def _described(error: ValidationError) -> str:
    """For rules that are no range: the schema's own words, which is what its description is for."""
    schema: Any = error.schema
    words = schema.get("description")
    if schema.get("not") == {}:
        return words or "is not accepted here"
    return f"does not fit: {words}" if words else f"does not fit the schema's rule {error.validator!r}"


def _type(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    names: list[str] = wanted if isinstance(wanted, list) else [wanted]
    whole: Any = error.instance
    pointed = "integer" in names and isinstance(whole, float) and whole.is_integer()
    return "must be " + " or ".join(_TYPES.get(name, name) for name in names) + ", without a point" * pointed


def _one_of(error: ValidationError) -> str:
    allowed: Any = error.validator_value
    return "must be one of " + ", ".join(map(_shown, allowed))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _range(error: ValidationError) -> str:
    schema: Any = error.schema
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"must be from {low} to {high}"
    return f"must be at least {low}" if low is not None else f"must be at most {high}"


def _length(unit: str, low_key: str, high_key: str) -> Callable[[ValidationError], str]:
    def say(error: ValidationError) -> str:
        schema: Any = error.schema
        low, high = schema.get(low_key), schema.get(high_key)
        if low == 1 and high is None:
            return "must not be empty"
        if low is not None and high is not None:
            return f"must have from {low} to {high} {unit}"
        return f"must have at least {low} {unit}" if low is not None else f"must have at most {high} {unit}"

    return say


def _lacking(error: ValidationError) -> list[str]:
    rules: Any = error.validator_value
    instance: Any = error.instance
    return [name for field, names in rules.items() if field in instance for name in names if name not in instance]


def _unexpected(error: ValidationError) -> list[str]:
    schema: Any = error.schema
    instance: Any = error.instance
    named = schema.get("properties", {})
    return list(islice((name for name in instance if name not in named), MAX_ERRORS))


def _missing(error: ValidationError) -> list[str]:
    wanted: Any = error.validator_value
    instance: Any = error.instance
    return [name for name in wanted if name not in instance]


def _no_such_field(error: ValidationError) -> str:
    schema: Any = error.schema
    return "there is no such field; known are " + ", ".join(sorted(schema.get("properties", {})))


_CHARACTERS: Final = _length("characters", "minLength", "maxLength")
_ENTRIES: Final = _length("entries", "minItems", "maxItems")
_FIELDS: Final = _length("fields", "minProperties", "maxProperties")

_SAYINGS: Final[dict[str, Callable[[ValidationError], str]]] = {
    "type": _type,
    "enum": _one_of,
    "const": lambda error: f"must be {_shown(error.validator_value)}",
    "minimum": _range,
    "maximum": _range,
    "exclusiveMinimum": lambda error: f"must be greater than {error.validator_value}",
    "exclusiveMaximum": lambda error: f"must be less than {error.validator_value}",
    "multipleOf": lambda error: f"must be a multiple of {error.validator_value}",
    "minLength": _CHARACTERS,
    "maxLength": _CHARACTERS,
    "minItems": _ENTRIES,
    "maxItems": _ENTRIES,
    "minProperties": _FIELDS,
    "maxProperties": _FIELDS,
    "x-image": lambda error: error.message,
    "items": lambda error: error.message,
    "required": lambda _: "is required",
    "dependentRequired": lambda _: "is required, since another field that is given needs it",
    "additionalProperties": _no_such_field,
    "unevaluatedProperties": _no_such_field,
}

_NAMING: Final[dict[str, Callable[[ValidationError], list[str]]]] = {
    "required": _missing,
    "dependentRequired": _lacking,
    "additionalProperties": _unexpected,
    "unevaluatedProperties": _unexpected,
}
