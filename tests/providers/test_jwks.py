"""Public keys of a provider: fetched ahead of need, kept for a day, asked for once more when a signature fits none."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.clock import VirtualClock
from service.egress import Answer
from service.errors import EgressError, EgressNotSent
from service.providers.client import PollVerdict, Verdict
from service.providers.registry import Provider
from service.providers.signatures import Judged
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider_of

CARD = """\
card: 1
name: painter
base_url: https://painter.example
auth: {}
operations:
  generate:
    input: {type: object}
    submit: {path: /jobs}
    poll: {path: "/jobs/{id}", observe: {task_id: id, state: status, states: {done: completed}, urls: url}}
    callback:
      slot: {field: hook}
      verify:
        scheme: ed25519
        jwks: https://keys.painter.example/jwks.json
        header: X-Sig
        signed: "{header:X-Id}\\n{sha256hex:raw}"
"""
BODY = b'{"id":"t1","status":"done"}'
OLD, NEW = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TAKEN, RUNNING = answer(200, b'{"id":"t1"}'), answer(200, b'{"id":"t1","status":"busy"}')


def published(*keys: Ed25519PrivateKey) -> Answer:
    entries = [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("="),
        }
        for key in keys
    ]
    return answer(200, json.dumps({"keys": [{"kty": "RSA", "crv": None, "n": "AQAB"}, *entries]}).encode())


def heard(provider: Provider, key: Ed25519PrivateKey, body: bytes = BODY) -> Judged:
    content = b"id-1\n" + hashlib.sha256(body).hexdigest().encode()
    return provider.verify_callback("generate", body, {"X-Id": "id-1", "X-Sig": key.sign(content).hex()})


async def test_keys_are_there_before_the_callback_is() -> None:
    """They are fetched while the task is submitted, without our key, and the signature over the body is evidence."""
    egress = ScriptedEgress(TAKEN, published(OLD))
    provider = provider_of(CARD, egress)

    outcome = await provider.submit("generate", {}, CALLBACK_URL)

    assert outcome.verdict is Verdict.ACCEPTED
    assert egress.calls[1].url == "https://keys.painter.example/jwks.json"
    assert KEY not in str(egress.calls[1].headers)
    assert heard(provider, OLD) == Judged(True, True, "the signature fits and covers the body")
    assert heard(provider, NEW).valid is False


async def test_callback_without_keys_is_a_hint_and_its_poll_fetches_them() -> None:
    """Nothing waits for keys: the callback makes the provider be asked, and whoever asks brings the keys."""
    provider = provider_of(CARD, ScriptedEgress(published(OLD), RUNNING))

    assert heard(provider, OLD) == Judged(None, False, "the provider's keys are not here yet")
    await provider.poll("generate", "t1", None)

    assert heard(provider, OLD).evidence


async def test_unknown_key_is_asked_for_once() -> None:
    """A provider that changes its key is followed; forged callbacks cannot make us ask all the time."""
    clock = VirtualClock()
    egress = ScriptedEgress(published(OLD), RUNNING, published(OLD, NEW), RUNNING, RUNNING)
    provider = provider_of(CARD, egress, clock=clock)
    await provider.poll("generate", "t1", None)
    clock.advance(300)

    assert heard(provider, NEW).valid is None
    await provider.poll("generate", "t1", None)

    assert heard(provider, NEW).evidence
    assert heard(provider, Ed25519PrivateKey.generate()).valid is False
    await provider.poll("generate", "t1", None)
    assert egress.answers == []


async def test_keys_are_no_older_than_a_day() -> None:
    """Renewed after half a day; what could not be renewed for a day proves nothing any more."""
    clock = VirtualClock()
    down = EgressNotSent("connect", "down")
    provider = provider_of(
        CARD, ScriptedEgress(published(OLD), RUNNING, RUNNING, down, RUNNING, down, RUNNING), clock=clock
    )
    await provider.poll("generate", "t1", None)
    clock.advance(43_000)
    await provider.poll("generate", "t1", None)
    clock.advance(1_000)
    await provider.poll("generate", "t1", None)
    assert heard(provider, OLD).evidence

    clock.advance(86_400 - 44_000 + 1)
    assert heard(provider, OLD).valid is None
    outcome = await provider.poll("generate", "t1", None)

    assert outcome.verdict is PollVerdict.OBSERVED
    assert not heard(provider, OLD).evidence


@pytest.mark.parametrize(
    "found",
    [
        answer(200, b"<html>"),
        answer(200, b"[]"),
        answer(200, b'{"keys":7}'),
        answer(200, b'{"keys":[7,{"x":"AAAA"},{"x":"\xc3\xa9"},{"x":7},{"crv":"P-256","x":"AAAA"}]}'),
        answer(500, published(OLD).body),
        answer(200, published(OLD).body, truncated=True),
        EgressNotSent("connect", "down"),
    ],
)
async def test_useless_keys_break_nothing(found: Answer | EgressError) -> None:
    """Whatever the address answers, tasks are submitted and asked for, and callbacks stay hints."""
    provider = provider_of(CARD, ScriptedEgress(TAKEN, found))

    outcome = await provider.submit("generate", {}, CALLBACK_URL)

    assert outcome.verdict is Verdict.ACCEPTED
    assert not heard(provider, OLD).evidence
