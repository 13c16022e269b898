"""Whether a callback is what the provider sent. Every signature here is made with the standard library, as a sender would."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from service.clock import VirtualClock
from service.errors import SettingsInvalid
from service.providers.card.verify import Verify
from service.providers.registry import Provider
from service.providers.signatures import Judged, Verifier, check_for
from service.settings import ProviderSettings
from tests.providers.scripted import ScriptedEgress, provider_of

BODY = b'{"id":"t1","status":"done","nested":{"n":7}}'
SECRET = "s3cret-of-ours"
NOW_S = 1_795_000_000  # what VirtualClock starts at


def judged(
    verify: Mapping[str, Any], headers: Mapping[str, str], *, body: bytes = BODY, secret: str = SECRET, url: str = ""
) -> Judged:
    scheme: Any = TypeAdapter(Verify).validate_python(dict(verify))
    check = check_for(scheme, secret.split(","), VirtualClock(), None)
    return Verifier(check, proves_body=scheme.proves_body, believes=False).verify(body, headers, url)


def hexed(content: bytes, key: bytes = SECRET.encode(), algorithm: str = "sha256") -> str:
    return hmac.new(key, content, algorithm).hexdigest()


def based(content: bytes, key: bytes = SECRET.encode()) -> str:
    return base64.b64encode(hmac.new(key, content, "sha256").digest()).decode()


def test_hmac_over_the_body_is_evidence() -> None:
    """BFL's form: `sha256=` and hex over the raw body; header names in any case, hex in any case."""
    verify = {"scheme": "hmac", "header": "X-BFL-Signature", "prefix": "sha256="}

    assert judged(verify, {"X-BFL-Signature": f"sha256={hexed(BODY)}"}).evidence
    assert judged(verify, {"x-bfl-signature": f"sha256={hexed(BODY).upper()}"}).valid is True


@pytest.mark.parametrize(
    "given",
    [
        "",
        "sha256=",
        "sha256=00",
        f"sha256={hexed(BODY + b' ')}",
        hexed(BODY),
        f"sha1={hexed(BODY)}",
        "sha256=é",
        "sha256=\udcff",
    ],
)
def test_wrong_signature_is_neither_evidence_nor_an_error(given: str) -> None:
    """Whatever the header holds, the callback is refused with a reason that repeats nothing of it."""
    found = judged({"scheme": "hmac", "header": "X-Sig", "prefix": "sha256="}, {"x-sig": given})

    assert (found.valid, found.evidence) == (False, False)
    assert "X-Sig" in found.reason
    assert SECRET not in found.reason


def test_missing_signature_is_refused() -> None:
    """A secret is set, so a callback without a signature is not the provider's."""
    found = judged({"scheme": "hmac", "header": "X-Sig"}, {})

    assert (found.valid, found.reason) == (False, "X-Sig is missing")


def test_signature_without_the_body_is_no_evidence() -> None:
    """kie.ai signs the task's id and the time only: whoever saw one callback could change the rest."""
    verify = {
        "scheme": "hmac",
        "header": "X-Webhook-Signature",
        "encoding": "base64",
        "signed": "{body:data.task_id || data.taskId}.{header:X-Webhook-Timestamp}",
    }
    body = b'{"code":200,"data":{"taskId":"task_1"}}'
    headers = {"x-webhook-timestamp": "1795000000", "x-webhook-signature": based(b"task_1.1795000000")}

    found = judged(verify, headers, body=body)

    assert (found.valid, found.evidence) == (True, False)
    assert judged(verify, {**headers, "x-webhook-timestamp": "1795000001"}, body=body).valid is False
    assert judged(verify, headers, body=b"<html>").valid is False
    assert judged(verify, headers, body=b'{"data":{"taskId":["task_1"]}}').valid is False


def test_any_of_several_keys_and_signatures_is_enough() -> None:
    """Both sides may be replacing a key: several secrets here, several signatures there, `v1,a v1,b` among them."""
    verify = {"scheme": "hmac", "header": "X-Sig", "prefix": "v1,", "encoding": "base64"}
    good, bad = f"v1,{based(BODY)}", f"v1,{based(BODY, b'other')}"

    assert judged(verify, {"x-sig": good}, secret=f"other2,{SECRET}").valid
    assert judged(verify, {"x-sig": f"v2,zzz {bad} {good}"}).valid
    assert judged(verify, {"x-sig": good.rstrip("=")}).valid
    assert judged(verify, {"x-sig": f"{bad} v1a,{based(BODY)}"}).valid is False
    assert judged(verify, {"x-sig": " ".join([bad] * 40 + [good])}).valid is False  # nobody sends forty


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_algorithm_is_the_cards(algorithm: str) -> None:
    """SHA-256 unless the card says otherwise."""
    verify = {"scheme": "hmac", "header": "X-Sig", "algorithm": algorithm}

    assert judged(verify, {"x-sig": hexed(BODY, algorithm=algorithm)}).evidence
    assert judged({"scheme": "hmac", "header": "X-Sig"}, {"x-sig": hexed(BODY, algorithm=algorithm)}).evidence is (
        algorithm == "sha256"
    )


@pytest.mark.parametrize(
    ("form", "secret"),
    [
        ("text", "0123456789abcdef0123456789abcdef"),
        ("hex", b"0123456789abcdef0123456789abcdef".hex()),
        ("base64", base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()),
        ("whsec", "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()),
    ],
)
def test_key_is_decoded_as_the_card_says(form: str, secret: str) -> None:
    """The same key in four forms of writing."""
    header = {"x-sig": hexed(BODY, key=b"0123456789abcdef0123456789abcdef")}

    assert judged({"scheme": "hmac", "header": "X-Sig", "key": form}, header, secret=secret).evidence


def test_times_and_signatures_in_one_header() -> None:
    """Stripe's form `t=…,v1=…`: the time is signed, and too old or too new is refused."""
    verify = {
        "scheme": "hmac",
        "header": "X-Sig",
        "field": "v1",
        "signed": "{field:t}.{raw}",
        "timestamp": {"field": "t", "tolerance": "5m"},
    }

    def at(seconds: int) -> Judged:
        return judged(verify, {"x-sig": f"t={seconds},v0=zz, v1={hexed(b'%d.' % seconds + BODY)}"})

    assert [at(NOW_S + offset).valid for offset in (0, -300, 300, -301, 301)] == [True, True, True, False, False]
    assert judged(verify, {"x-sig": f"v1={hexed(BODY)}"}).reason == "t is missing or no time"
    assert judged(verify, {"x-sig": f"t={'9' * 400},v1=aa"}).valid is False


def test_time_in_a_header_of_its_own() -> None:
    """Milliseconds where the card says so."""
    verify = {
        "scheme": "hmac",
        "header": "X-Sig",
        "signed": "{header:X-Time}.{sha256hex:raw}",
        "timestamp": {"header": "X-Time", "unit": "ms"},
    }

    def at(ms: int) -> Judged:
        content = f"{ms}.{hashlib.sha256(BODY).hexdigest()}".encode()
        return judged(verify, {"X-Time": str(ms), "X-Sig": hexed(content)})

    assert at(NOW_S * 1000).evidence  # a digest of the body covers it
    assert at(NOW_S * 1000 - 300_001).reason == "X-Time is too old"
    assert at(NOW_S).reason == "X-Time is too old"


def test_standard_webhooks_are_evidence() -> None:
    """Replicate's form, signed here by hand: `v1,` and base64 over id, time and body."""
    raw = b"0123456789abcdef01234567"
    secret = "whsec_" + base64.b64encode(raw).decode()

    def sent(seconds: int, body: bytes = BODY) -> dict[str, str]:
        signature = based(b"msg_1.%d." % seconds + BODY, raw)
        return {"webhook-id": "msg_1", "webhook-timestamp": str(seconds), "webhook-signature": f"v1,x v1,{signature}"}

    verify = {"scheme": "standard_webhooks"}

    assert judged(verify, sent(NOW_S), secret=secret).evidence
    assert judged(verify, sent(NOW_S), secret=secret, body=BODY + b" ").valid is False
    assert judged(verify, sent(NOW_S - 301), secret=secret).reason == "webhook-timestamp is too old"
    assert judged(verify, {}, secret=secret).reason == "webhook-id is missing"


@pytest.mark.parametrize(
    ("place", "headers", "url", "body"),
    [
        ({"header": "X-Token"}, {"x-token": SECRET}, "", b""),
        ({"header": "Authorization", "prefix": "Bearer "}, {"authorization": f"Bearer {SECRET}"}, "", b""),
        ({"query": "token"}, {}, f"/callbacks/tok?a=b&token={SECRET}", b""),
        ({"body": "meta.secret"}, {}, "", b'{"meta":{"secret":"s3cret-of-ours"}}'),
    ],
)
def test_static_secret_is_a_check_but_no_evidence(
    place: dict[str, str], headers: dict[str, str], url: str, body: bytes
) -> None:
    """A secret that is sent along shows who called, and nothing of what the body says."""
    found = judged({"scheme": "static", **place}, headers, body=body, url=url)

    assert (found.valid, found.evidence) == (True, False)
    assert judged({"scheme": "static", **place}, headers, body=body, url=url, secret="other").valid is False
    assert judged({"scheme": "static", **place}, {}, body=b"[]", url="http://[").reason == "the secret is missing"


@pytest.mark.parametrize(
    ("verify", "reason"),
    [
        ("maybe", "fetch"),
        ({"scheme": "magic"}, "write fetch, trust, or a mapping with scheme"),
        ({"scheme": "hmac"}, "Field required"),
        ({"scheme": "hmac", "header": "X", "signed": "{body}"}, "placeholders are"),
        ({"scheme": "hmac", "header": "X", "signed": "{body:a[}"}, "is no JMESPath expression"),
        ({"scheme": "hmac", "header": "X", "signed": "{header:a b}"}, "is no name of a header"),
        ({"scheme": "hmac", "header": "X", "signed": ""}, "say what is signed"),
        ({"scheme": "hmac", "header": "X", "signed": "{field:t}.{raw}"}, "field is missing"),
        ({"scheme": "hmac", "header": "X", "timestamp": {}}, "either header or field"),
        ({"scheme": "hmac", "header": "X", "signed": "{header:Y}", "covers_body": True}, "needs {raw}"),
        ({"scheme": "ed25519", "header": "X", "jwks": "http://a.example/keys"}, "https://"),
        ({"scheme": "static"}, "one of header, query and body"),
        ({"scheme": "static", "header": "X", "query": "y"}, "one of header, query and body"),
    ],
)
def test_scheme_that_cannot_work_is_refused(verify: Any, reason: str) -> None:
    """A card that would never verify anything is wrong when it is read."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Verify).validate_python(verify)

    assert reason in str(caught.value)


def test_card_may_take_less_than_it_signs() -> None:
    """`covers_body: false` keeps a good signature a hint, where the document leaves doubt."""
    verify = {"scheme": "hmac", "header": "X-Sig", "covers_body": False}

    found = judged(verify, {"x-sig": hexed(BODY)})

    assert (found.valid, found.evidence) == (True, False)


CARD = """\
card: 1
name: painter
base_url: https://painter.example
operations:
  polled: &polled
    input: {type: object}
    submit: {path: /jobs}
    poll: {path: "/jobs/{id}", observe: &observe {task_id: id, state: status, states: {done: completed}}}
    callback: {slot: {field: hook}, verify: {scheme: hmac, header: X-Sig}}
  unpolled:
    input: {type: object}
    submit: {path: /jobs, observe: *observe}
    callback: {slot: {field: hook}, verify: {scheme: hmac, header: X-Sig, signed: "{header:X-Time}"}}
  unsigned:
    <<: *polled
    callback: {slot: {field: hook}}
"""
GOOD = {"x-sig": hexed(BODY)}


def painter(**settings: Any) -> Provider:
    secrets = tuple(map(SecretStr, settings.pop("secrets", ())))
    return provider_of(CARD, ScriptedEgress(), ProviderSettings(webhook_secrets=secrets, **settings))


def test_signed_callback_is_evidence_even_where_unsigned_ones_are_fetched() -> None:
    """`VERIFY=fetch` is about callbacks that nothing proves."""
    assert painter(secrets=[SECRET], verify="fetch").verify_callback("polled", BODY, GOOD).evidence
    assert not painter(secrets=[SECRET]).verify_callback("polled", BODY, {}).evidence


def test_wrong_signature_is_never_believed() -> None:
    """Neither `VERIFY=trust` nor the lack of a poll makes evidence of what failed its check."""
    for operation in ("polled", "unpolled"):
        found = painter(secrets=[SECRET], verify="trust").verify_callback(
            operation, BODY, {"x-sig": "00", "x-time": "1"}
        )
        assert (found.valid, found.evidence) == (False, False)


def test_good_signature_without_the_body_is_believed_where_nobody_can_be_asked() -> None:
    """The token in the path was the proof there already."""
    headers = {"x-time": "1", "x-sig": hexed(b"1")}

    assert painter(secrets=[SECRET]).verify_callback("unpolled", BODY, headers).evidence


def test_no_secret_is_as_no_signature() -> None:
    """Without a secret nothing can be checked: a hint, told with the setting that is missing."""
    found = painter().verify_callback("polled", BODY, GOOD)

    assert (found.valid, found.evidence) == (None, False)
    assert "REMORA_PROVIDERS__PAINTER__WEBHOOK_SECRET" in found.reason
    assert painter(verify="trust").verify_callback("polled", BODY, GOOD).evidence
    assert painter().verify_callback("unpolled", BODY, GOOD).evidence
    assert not painter().verify_callback("unsigned", BODY, GOOD).evidence


def test_secret_of_the_wrong_form_is_reported_at_start() -> None:
    """The message names the setting and repeats nothing of the secret."""
    card = CARD.replace("{scheme: hmac, header: X-Sig}", "{scheme: standard_webhooks}")

    with pytest.raises(SettingsInvalid) as caught:
        provider_of(card, ScriptedEgress(), ProviderSettings(webhook_secrets=(SecretStr("not-a-whsec"),)))

    assert caught.value.problems == ["REMORA_PROVIDERS__PAINTER__WEBHOOK_SECRET: a signing secret starts with whsec_"]
