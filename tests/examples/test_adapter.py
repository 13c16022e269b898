"""The example of an adapter does what the documentation says of adapters, without being installed."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr

from examples.adapter import studio_adapter
from service.clock import VirtualClock
from service.errors import CardInvalid
from service.providers.adapters import FUNCTIONS, Adapters
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Seen
from service.providers.registry import Provider, read_card
from service.settings import ProviderSettings
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer

CARD = Path(__file__).resolve().parent.parent.parent / "examples" / "adapter" / "studio.yaml"
INSTALLED = Adapters({"studio": lambda: studio_adapter})


def studio(egress: ScriptedEgress, *secrets: str) -> Provider:
    settings = ProviderSettings(api_key=SecretStr(KEY), webhook_secrets=tuple(map(SecretStr, secrets)))
    card = read_card(CARD.read_text("utf-8"), "studio.yaml", INSTALLED)
    return Provider(card, settings, egress, VirtualClock(), adapters=INSTALLED)


async def test_requests_are_signed_and_plain_answers_are_read() -> None:
    """The card's request with the adapter's signature; the key itself stays here."""
    egress = ScriptedEgress(
        answer(200, b"OK p-7\n"), answer(200, b"WORK"), answer(200, b"DONE https://a.example/1.png")
    )
    provider = studio(egress)

    taken = await provider.submit("generate", {"prompt": "a cat"}, CALLBACK_URL)
    working, done = [await provider.poll("generate", "p-7", None) for _ in range(2)]

    call = egress.calls[0]
    assert call.url == "https://api.studio.example/pictures"
    assert json.loads(call.body or b"") == {"prompt": "a cat", "notify": CALLBACK_URL}
    content = b"POST\nhttps://api.studio.example/pictures\n" + (call.body or b"")
    assert call.headers["x-studio-signature"] == hmac.digest(KEY.encode(), content, "sha256").hex()
    assert KEY not in str(call.headers)
    assert taken.verdict is Verdict.ACCEPTED
    assert taken.observation is not None
    assert (taken.observation.task_id, working.observation and working.observation.seen) == ("p-7", Seen.RUNNING)
    assert done.observation is not None
    assert (done.observation.seen, done.observation.urls) == (Seen.COMPLETED, ("https://a.example/1.png",))


async def test_what_the_adapter_does_not_know_the_card_reads() -> None:
    """Refused, asked again, not there: what HTTP says stands."""
    egress = ScriptedEgress(answer(402, b"PAY"), answer(503, b"<html>"), answer(404, b""))
    provider = studio(egress)

    refused = await provider.submit("generate", {"prompt": "a cat"}, None)
    asked = [await provider.poll("generate", "p-7", None) for _ in range(2)]

    assert refused.verdict is Verdict.REJECTED
    assert [outcome.verdict for outcome in asked] == [PollVerdict.RETRY, PollVerdict.NOT_FOUND]


def test_signed_form_is_evidence() -> None:
    """The fields in order of their names, with the secret at the end."""
    fields = {"task": "p-7", "status": "DONE https://a.example/1.png"}
    sign = hashlib.sha256(b"status=DONE https://a.example/1.png&task=p-7&hook-secret").hexdigest()
    body = urlencode({**fields, "sign": sign}).encode()
    provider = studio(ScriptedEgress(), "other", "hook-secret")

    said = provider.read_callback("generate", body, {})

    assert (said.seen, said.task_id, said.urls) == (Seen.COMPLETED, "p-7", ("https://a.example/1.png",))
    assert provider.verify_callback("generate", body, {}).evidence
    assert provider.verify_callback("generate", body.replace(b"1.png", b"2.png"), {}).valid is False
    assert studio(ScriptedEgress()).verify_callback("generate", body, {}).valid is None


def test_adapter_has_the_documented_functions() -> None:
    """Five, and the example has them all."""
    assert set(FUNCTIONS) == {"build", "parse_submit", "parse_poll", "parse_callback", "verify"}
    assert all(callable(getattr(studio_adapter, name)) for name in FUNCTIONS)


def test_card_without_its_adapter_is_refused_with_its_line() -> None:
    """Nothing else is imported, and the message says what is missing."""
    with pytest.raises(CardInvalid) as caught:
        read_card(CARD.read_text("utf-8"), "studio.yaml", Adapters({"other": dict}))

    line = next(n for n, text in enumerate(CARD.read_text("utf-8").splitlines(), 1) if text.startswith("adapter:"))
    assert f"studio.yaml:{line}: adapter: there is no adapter 'studio'; known: drawing, other" in str(caught.value)
