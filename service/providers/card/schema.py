"""The JSON Schema of a card, for editors: docs/card.schema.json is made from it.

Owns what an editor needs beyond the model: durations as a card writes them, and no titles that only repeat names.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from pydantic import TypeAdapter

from service.providers.card.card import Card

_ISO_DURATION: Final = re.compile(r"P(?=[0-9T])[0-9DTHMS.]+")
_DURATION: Final = TypeAdapter(timedelta)


def card_schema() -> dict[str, Any]:
    """The JSON Schema of a card."""
    schema: dict[str, Any] = _tidied(Card.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A provider card of Remora", **schema}


def _tidied(part: Any, *, names: bool = False) -> Any:
    """A part of the schema in the words of cards; where its keys are names of fields, they all stay."""
    if isinstance(part, list):
        return [_tidied(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    kept = part if names else {word: rule for word, rule in part.items() if word != "title"}
    return {
        word: _written(rule)
        if word == "default" and not names
        else _tidied(rule, names=word in {"properties", "$defs"})
        for word, rule in kept.items()
    }


def _written(default: Any) -> Any:
    """A default as a card would write it: pydantic gives durations in ISO 8601."""
    if isinstance(default, dict):
        return {name: _written(value) for name, value in default.items()}
    if not isinstance(default, str) or _ISO_DURATION.fullmatch(default) is None:
        return default
    return f"{_DURATION.validate_python(default).total_seconds():g}s"
