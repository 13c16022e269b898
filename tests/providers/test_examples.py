"""The built-in cards do with their documents' own examples what the documents say."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from service.clock import VirtualClock
from service.providers.card.card import Card
from service.providers.registry import read_card
from service.providers.rehearsal import rehearse

CARDS = {
    file.name.removesuffix(".yaml"): file.read_text("utf-8")
    for file in (resources.files("service.providers") / "cards").iterdir()
    if file.name.endswith(".yaml")
}
SPOKEN = sorted(set(CARDS) - {"sandbox"})


def card(name: str) -> Card:
    return read_card(CARDS[name], name)


def test_built_in_cards_are_the_documented_ones() -> None:
    """The five systems of the documents, and the one that needs no network."""
    operations = {name: tuple(card(name).operations) for name in CARDS}

    assert operations == {
        "apimodels": ("generate", "sparkpix", "sparkpix-edit"),
        "sharkai": ("generate", "generate-sync"),
        "sharkapi": ("generate",),
        "sharkapi-v1": ("generate",),
        "sandbox": ("generate",),
    }
    assert {card(name).default_operation for name in CARDS} == {"generate"}


@pytest.mark.parametrize("name", SPOKEN)
async def test_examples_of_a_built_in_card_come_out_as_they_say(name: str) -> None:
    """Exact requests, and what is made of every answer."""
    assert await rehearse(card(name), VirtualClock()) == []


@pytest.mark.parametrize("name", SPOKEN)
def test_every_documented_way_has_an_example(name: str) -> None:
    """Each operation is handed in and understood; each way of hearing of a task is tried."""
    found = card(name)
    for operation, spoken in found.operations.items():
        examples = [example for example in found.examples if example.operation == operation]
        submits = [example.submit for example in examples if example.submit is not None]
        assert any("body" in step.request.model_fields_set for step in submits), operation
        assert any(step.expect.verdict == "accepted" for step in submits), operation
        assert spoken.poll is None or any(example.poll for example in examples), operation
        assert spoken.cancel is None or any(example.cancel for example in examples), operation


@pytest.mark.parametrize("name", SPOKEN)
def test_built_in_cards_name_their_document(name: str) -> None:
    """Every card says which page it was read from, and so do most of its examples."""
    assert re.search(r"[a-z0-9-]+\.txt", CARDS[name].split("card: 1", maxsplit=1)[0])
    assert sum(bool(example.source) for example in card(name).examples) * 3 > len(card(name).examples)
