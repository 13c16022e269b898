"""An input that does not fit is told as fields, each with what would be right."""

from __future__ import annotations

import pytest

from service.errors import FieldError
from service.providers.card.card import Operation
from service.providers.card.input_check import InputCheck
from tests.providers.scripted import ScriptedEgress, provider

SCHEMA = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1, "maxLength": 5},
        "ratio": {"type": "string", "enum": ["1:1", "16:9"]},
        "width": {"type": "integer", "minimum": 256, "maximum": 1440, "multipleOf": 16},
        "scale": {"type": "number", "minimum": -1},
        "images": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
        "image": {"type": ["string", "null"]},
        "many": {"type": "array", "items": {"type": "string"}},
        "url": {"type": "string"},
        "odd/~name": {"type": "boolean"},
        "hidden": False,
    },
    "dependentRequired": {"width": ["ratio"]},
    "not": {"required": ["image", "url"], "description": "image and url exclude each other"},
    "additionalProperties": False,
}
CHECK = InputCheck(Operation.model_validate({"input": SCHEMA}))


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({}, "/input/prompt", "is required (a text of 1 to 5 characters)"),
        ({"prompt": ""}, "/input/prompt", "must have from 1 to 5 characters"),
        ({"prompt": "too long"}, "/input/prompt", "must have from 1 to 5 characters"),
        ({"prompt": 7}, "/input/prompt", "must be a text"),
        ({"prompt": "x", "ratio": "5:4"}, "/input/ratio", "must be one of 1:1, 16:9"),
        ({"prompt": "x", "ratio": "1:1", "width": 240}, "/input/width", "must be from 256 to 1440"),
        ({"prompt": "x", "ratio": "1:1", "width": 257}, "/input/width", "must be a multiple of 16"),
        ({"prompt": "x", "ratio": "1:1", "width": 272.5}, "/input/width", "must be a whole number"),
        ({"prompt": "x", "scale": -2}, "/input/scale", "must be at least -1"),
        ({"prompt": "x", "images": ["a", "b", "c"]}, "/input/images", "must have at most 2 entries"),
        ({"prompt": "x", "ratio": "1:1", "width": 272.0}, "/input/width", "must be a whole number, without a point"),
        ({"prompt": "x", "many": ["a"] * 50_000}, "/input/many", "must have at most 1000 entries"),
        ({"prompt": "x", "images": ["a", 7]}, "/input/images/1", "must be a text"),
        ({"prompt": "x", "image": 7}, "/input/image", "must be a text or null"),
        ({"prompt": "x", "odd/~name": 1}, "/input/odd~1~0name", "must be true or false"),
        ({"prompt": "x", "hidden": 1}, "/input/hidden", "is not accepted here"),
        (
            {"prompt": "x", "width": 256},
            "/input/ratio",
            "is required, since another field that is given needs it (one of 1:1, 16:9)",
        ),
        ({"prompt": "x", "image": "a", "url": "b"}, "/input", "does not fit the schema's rule 'not'"),
    ],
)
def test_fault_names_field_and_fix(given: dict[str, object], pointer: str, detail: str) -> None:
    """A pointer to the field and the allowed range or values; never the value that was sent."""
    found = CHECK.errors(given)

    assert FieldError(pointer, detail) in found


def test_unknown_field_is_named_with_the_known_ones() -> None:
    """A slip of the pen is seen at once."""
    (error,) = CHECK.errors({"prompt": "x", "with": 3})

    assert error.pointer == "/input/with"
    assert error.detail == (
        "there is no such field; known are hidden, image, images, many, odd/~name, prompt, ratio, scale, url, width"
    )


def test_every_missing_field_is_named_once() -> None:
    """Apimodels needs a model and a prompt."""
    errors = provider(ScriptedEgress()).validate("generate", {})

    assert errors == [
        FieldError("/input/model", "is required (a text of 1 to 200 characters)"),
        FieldError("/input/prompt", "is required (a text)"),
    ]


def test_fields_of_the_providers_own_pass() -> None:
    """The document names no fields for generate, so what we do not know is the provider's to judge."""
    given = {"model": "sparkpix", "prompt": "a cat", "aspect_ratio": "16:9", "seed": 42, "anything": [{"else": None}]}

    assert provider(ScriptedEgress()).validate("generate", given) == []


@pytest.mark.parametrize("field", ["callBackUrl", "callback_url"])
def test_callback_field_is_ours(field: str) -> None:
    """A caller's callback URL inside the input would take the callback away from us."""
    errors = provider(ScriptedEgress()).validate("generate", {"model": "m", "prompt": "p", field: "https://a.example"})

    assert {error.pointer for error in errors} == {f"/input/{field}"}


@pytest.mark.parametrize("value", [1e308, 10**300, -(10**300), 0.1 + 0.2])
def test_numbers_beyond_all_bounds_are_faults_and_no_errors(value: float) -> None:
    """Arithmetic on what a caller sends never fails the request."""
    assert CHECK.errors({"prompt": "x", "ratio": "1:1", "width": value})


def test_text_that_cannot_be_sent_is_a_fault() -> None:
    """A lone surrogate is no text that JSON can carry."""
    errors = provider(ScriptedEgress()).validate("generate", {"model": "m", "prompt": "\ud800"})

    assert errors == [FieldError("/input", "holds text or numbers that cannot be written as JSON")]
