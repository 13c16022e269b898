"""The JSON Schema of the card format, by which editors help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from service.providers.card.card import Card
from service.providers.card.schema import card_schema

ROOT = Path(__file__).parents[2]
CARDS = sorted((ROOT / "service" / "providers" / "cards").glob("*.yaml"))
SCHEMA = card_schema()


def test_schema_names_every_field() -> None:
    """No other fields than the model has, the same names, and what must be there."""
    Draft202012Validator.check_schema(SCHEMA)

    assert set(SCHEMA["properties"]) == set(Card.model_fields)
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["required"]) == {"card", "name", "operations"}
    assert "in" in SCHEMA["$defs"]["CallbackSlot"]["properties"]
    assert "title" in SCHEMA["$defs"]["Operation"]["properties"]


def test_schema_writes_durations_as_cards_do() -> None:
    """What an editor offers as a default can be written."""
    text = json.dumps(SCHEMA)

    assert SCHEMA["$defs"]["Poll"]["properties"]["every"]["default"] == "3s"
    assert '"PT' not in text


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_built_in_cards_fit_the_schema(path: Path) -> None:
    """What the program takes, an editor does not underline."""
    document = yaml.safe_load(path.read_text("utf-8"))

    assert list(Draft202012Validator(SCHEMA).iter_errors(document)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("every: 2s", "every: 2"), ("path: /api/v1/image\n", "pth: /api\n"), ("error: provider_funds", "error: funds")],
)
def test_slips_do_not_fit_the_schema(old: str, new: str) -> None:
    """A slip of the pen is seen while writing."""
    text = (ROOT / "service" / "providers" / "cards" / "sharkapi.yaml").read_text("utf-8")
    assert old in text

    assert list(Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(text.replace(old, new, 1))))
