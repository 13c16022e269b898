"""A way out that records what it is asked and answers as it was told, and the provider behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from service.clock import VirtualClock
from service.egress import Answer, Call
from service.errors import EgressError
from service.providers.registry import Provider, Registry, read_card
from service.providers.verifiers import KeyRing
from service.settings import ProviderSettings

KEY = "amk-5f2c9d+/=secret"
QUOTED = Path(__file__).parent / "fixtures" / "apimodels-sparkpix"
CALLBACK_URL = "https://remora.example/callbacks/tok3n"


class ScriptedEgress:
    """Answers with what it was given, in order, and keeps what it was asked."""

    def __init__(self, *answers: Answer | EgressError) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.fresh: list[bool] = []

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        self.calls.append(call)
        self.fresh.append(fresh)
        answer = self.answers.pop(0)
        if isinstance(answer, EgressError):
            raise answer
        return answer


def quoted(name: str) -> bytes:
    """An example of apimodels-sparkpix.txt, by the name of its file."""
    return (QUOTED / f"{name}.json").read_bytes()


def answer(status: int, body: bytes = b"", *, truncated: bool = False, **headers: str) -> Answer:
    """An answer of a provider; a header's `-` is written `_`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=body, truncated=truncated, duration_ms=12)


def found(registry: Registry, name: str) -> Provider:
    """A provider that is there."""
    provider = registry.get(name)
    assert provider is not None
    return provider


def provider(
    egress: ScriptedEgress,
    settings: ProviderSettings | None = None,
    *,
    name: str = "apimodels",
    cards_dir: Path | None = None,
    clock: VirtualClock | None = None,
) -> Provider:
    """A built-in provider, or one of the cards in a directory, with a key."""
    given = replace(settings or ProviderSettings(), api_key=SecretStr(KEY))
    return found(Registry.load({name: given}, cards_dir, egress, clock or VirtualClock()), name)


def provider_of(
    card: str, egress: ScriptedEgress, settings: ProviderSettings | None = None, *, clock: VirtualClock | None = None
) -> Provider:
    """The provider of a card's text, with a key."""
    given, time = replace(settings or ProviderSettings(), api_key=SecretStr(KEY)), clock or VirtualClock()
    return Provider(read_card(card, "card.yaml"), given, egress, time, ring=KeyRing(egress, time))
