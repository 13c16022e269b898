"""The cards of examples/cards: their examples come out as they say, and callbacks signed as the documents say are verified.

Signatures are made here with the standard library, `cryptography` and the reference library of Standard Webhooks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from service.clock import VirtualClock
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Seen
from service.providers.registry import Provider, read_card
from service.providers.rehearsal import rehearse
from service.settings import ProviderSettings
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider_of

ROOT = Path(__file__).resolve().parent.parent.parent
CARDS = ROOT / "examples" / "cards"
DOCS = ROOT / "docs" / "providers.md"
NOW_S = 1_795_000_000  # what VirtualClock starts at


def example(name: str, egress: ScriptedEgress, *secrets: str) -> Provider:
    settings = ProviderSettings(webhook_secrets=tuple(map(SecretStr, secrets)))
    return provider_of((CARDS / f"{name}.yaml").read_text("utf-8"), egress, settings)


@pytest.mark.parametrize("name", ["bfl", "fal", "kie", "replicate"])
async def test_examples_come_out_as_they_say(name: str) -> None:
    """Every card shows a submission, a poll and a callback, and `remora providers check` finds nothing."""
    card = read_card((CARDS / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")

    assert await rehearse(card, VirtualClock()) == []
    for step in ("submit", "poll", "callback"):
        assert any(getattr(example, step) is not None for example in card.examples)
    assert {example.operation for example in card.examples} == set(card.operations)


def test_every_card_is_tried() -> None:
    """None is forgotten in the list above."""
    assert sorted(path.stem for path in CARDS.iterdir()) == ["bfl", "fal", "kie", "replicate"]


def test_kie_signs_the_task_and_the_time_only() -> None:
    """A good signature is noted, and the task is fetched all the same: the body could be anybody's."""
    provider = example("kie", ScriptedEgress(), "kie-hmac-key")
    body = b'{"code":200,"msg":"success","data":{"task_id":"t1","info":{"result_urls":["https://a.example/1"]}}}'
    digest = hmac.new(b"kie-hmac-key", b"t1.1795000000", hashlib.sha256).digest()
    headers = {"X-Webhook-Timestamp": "1795000000", "X-Webhook-Signature": base64.b64encode(digest).decode()}

    good = provider.verify_callback("generate", body, headers)
    changed = provider.verify_callback("generate", body.replace(b"a.example", b"evil.example"), headers)

    assert (good.valid, good.evidence) == (True, False)
    assert (changed.valid, changed.evidence) == (True, False)
    assert provider.verify_callback("generate", body.replace(b"t1", b"t2"), headers).valid is False
    assert provider.verify_callback("generate", body, {}).valid is False


def test_replicate_signs_standard_webhooks() -> None:
    """Signed by the reference library, with the kind of secret that Replicate gives: evidence."""
    secret = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()
    provider = example("replicate", ScriptedEgress(), secret)
    body = b'{"id":"p1","status":"succeeded","output":"https://replicate.delivery/1.png"}'
    when = datetime.fromtimestamp(NOW_S, UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": standardwebhooks.Webhook(secret).sign("msg_1", when, body.decode()),
    }

    assert provider.verify_callback("generate", body, headers).evidence
    assert provider.verify_callback("run-version", body, headers).evidence
    assert provider.verify_callback("generate", body.replace(b"p1", b"p2"), headers).valid is False


async def test_fal_signs_with_a_key_that_it_publishes() -> None:
    """The keys come while the request is handed in; the signature is over three headers and the body's digest."""
    private = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(private.public_key().public_bytes_raw()).decode().rstrip("=")
    published = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": x}]}).encode()
    egress = ScriptedEgress(answer(200, b'{"request_id":"r1"}'), answer(200, published))
    provider = example("fal", egress)

    await provider.submit("generate", {"model": "fal-ai/flux/dev"}, CALLBACK_URL)
    body = b'{"request_id":"r1","status":"OK","payload":{"images":[{"url":"https://url.to/image.png"}]}}'
    signed = f"r1\nuser-7\n{NOW_S}\n{hashlib.sha256(body).hexdigest()}".encode()
    headers = {
        "X-Fal-Webhook-Request-Id": "r1",
        "X-Fal-Webhook-User-Id": "user-7",
        "X-Fal-Webhook-Timestamp": str(NOW_S),
        "X-Fal-Webhook-Signature": private.sign(signed).hex(),
    }

    assert egress.calls[1].url == "https://rest.fal.ai/.well-known/jwks.json"
    assert provider.verify_callback("generate", body, headers).evidence
    assert provider.verify_callback("generate", body + b" ", headers).valid is False
    late = {**headers, "X-Fal-Webhook-Timestamp": str(NOW_S - 301)}
    assert provider.verify_callback("generate", body, late).reason == "X-Fal-Webhook-Timestamp is too old"


async def test_fal_failure_is_found_though_no_state_says_so() -> None:
    """COMPLETED is no result: the second request tells, and a refused key or a busy provider is neither."""
    status = answer(200, b'{"status":"COMPLETED","response_url":"https://queue.fal.run/fal-ai/flux/requests/r1"}')
    address = "https://queue.fal.run/fal-ai/flux/requests/r1/status"
    outcomes = {}
    for code in (200, 400, 422, 401, 404, 429, 500):
        body = b'{"images":[{"url":"https://url.to/1.png"}]}' if code == 200 else b'{"detail":"no"}'
        egress = ScriptedEgress(answer(503), status, answer(code, body))  # the first is for the keys
        outcomes[code] = await example("fal", egress).poll("generate", "r1", address)

    seen = {code: outcome.observation and outcome.observation.seen for code, outcome in outcomes.items()}
    assert seen == {200: Seen.COMPLETED, 400: Seen.FAILED, 422: Seen.FAILED, 401: None, 404: None, 429: None, 500: None}
    assert outcomes[401].verdict is PollVerdict.DENIED
    assert outcomes[404].verdict is PollVerdict.NOT_FOUND
    assert {outcomes[429].verdict, outcomes[500].verdict} == {PollVerdict.RETRY}


async def test_bfl_is_told_the_secret_and_signs_the_body() -> None:
    """Our secret goes out with the request and into no message; without one the field is absent."""
    egress = ScriptedEgress(answer(500, b'{"detail":"hook-secret-1 is odd"}'), answer(200, b'{"id":"t-1"}'))

    refused = await example("bfl", egress, "hook-secret-1").submit(
        "generate", {"model": "m", "prompt": "x"}, CALLBACK_URL
    )
    await example("bfl", egress).submit("generate", {"model": "m", "prompt": "x"}, CALLBACK_URL)

    assert json.loads(egress.calls[0].body or b"")["webhook_secret"] == "hook-secret-1"
    assert "webhook_secret" not in json.loads(egress.calls[1].body or b"")
    assert refused.verdict is Verdict.UNKNOWN
    assert "hook-secret-1" not in (refused.message or "")
    body = b'{"id":"t-1","status":"Ready"}'
    headers = {"X-BFL-Signature": "sha256=" + hmac.new(b"hook-secret-1", body, hashlib.sha256).hexdigest()}
    provider = example("bfl", egress, "hook-secret-1")
    assert provider.verify_callback("generate", body, headers).evidence
    assert provider.verify_callback("generate", body + b"\n", headers).valid is False


async def test_bfl_regions_get_the_key_and_nobody_else() -> None:
    """The addresses that a region answers with are trusted by the card; what only looks like one is not."""
    egress = ScriptedEgress(*[answer(200, b'{"id":"t-1","status":"Pending"}')] * 5)
    provider = example("bfl", egress)

    for host in ("api.eu1.bfl.ai", "api.us.bfl.ai", "api.bfl.ai.example.com", "api.a.b.bfl.ai", "api.eu1.bfl.ai:8443"):
        await provider.poll("generate", "t-1", f"https://{host}/v1/get_result?id=t-1")

    assert [call.url.split("/")[2] for call in egress.calls] == [
        "api.eu1.bfl.ai",
        "api.us.bfl.ai",
        *["api.bfl.ai"] * 3,
    ]
    assert all(call.headers["x-key"] == KEY for call in egress.calls)


def test_bfl_callers_cannot_set_what_remora_sets() -> None:
    """Neither the address nor the secret is the caller's to choose."""
    provider = example("bfl", ScriptedEgress())

    errors = provider.validate("generate", {"model": "m", "prompt": "x", "webhook_url": "u", "webhook_secret": "s"})

    assert [error.pointer for error in errors] == ["/input/webhook_url", "/input/webhook_secret"]


async def test_first_card_of_the_documentation_is_right() -> None:
    """The card that docs/providers.md begins with and the examples that it shows later fit together."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    card = read_card(blocks[0] + next(block for block in blocks if block.startswith("examples:")), "docs/providers.md")

    assert await rehearse(card, VirtualClock()) == []
    assert len(card.examples) == 3


@pytest.mark.parametrize("line", re.findall(r"^(verify: .*?})(?: .*)?$", DOCS.read_text("utf-8"), re.MULTILINE))
def test_documented_schemes_are_right(line: str) -> None:
    """Each line that shows `verify` can be copied."""
    card = f"""\
card: 1
name: painter
base_url: https://painter.example
operations:
  generate:
    input: {{type: object}}
    submit: {{path: /jobs, observe: {{task_id: id}}}}
    callback:
      slot: {{field: hook}}
      {line}
"""

    assert read_card(card, "one.yaml").operations["generate"].callback is not None
