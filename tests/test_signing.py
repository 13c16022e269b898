"""Signatures: the published examples, a second library's opinion, and everything that must be refused."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from service.clock import SeededRandomness
from service.signing import (
    MAX_SIGNATURES,
    SignatureInvalid,
    Signer,
    decode_public_key,
    decode_secret,
    encode_public_key,
    encode_secret,
    new_secret,
    new_seed,
    sign_v1,
    sign_v1a,
    signature_headers,
    signing_key,
    verify,
)

#: The example of the Standard Webhooks libraries: https://docs.svix.com/receiving/verifying-payloads/how-manual
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": MESSAGE_ID, "webhook-timestamp": str(SENT_AT_S), "webhook-signature": SIGNATURE}

OTHER = bytes(range(32))

#: Made with node:crypto from the seed 00 01 … 1f, over the same message.
KEY = signing_key(bytes(range(32)))
PUBLIC_KEY = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
SIGNATURE_V1A = "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ=="


def checked(headers: dict[str, str], body: bytes = BODY, *, now_s: float = SENT_AT_S) -> str:
    """Verify with the example's secret."""
    return verify([decode_secret(SECRET)], headers, body, now_s=now_s)


def test_signature_is_the_published_one() -> None:
    """The example of the specification's authors comes out to the letter."""
    raw = decode_secret(SECRET)

    assert sign_v1(raw, MESSAGE_ID, SENT_AT_S, BODY) == SIGNATURE
    assert signature_headers([raw], MESSAGE_ID, SENT_AT_S, BODY) == HEADERS
    assert checked(HEADERS) == MESSAGE_ID


@given(body=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()), seed=st.integers(0))
def test_signature_satisfies_a_second_library(body: dict[str, int], seed: int) -> None:
    """`standardwebhooks` accepts every body that we sign, non-ASCII ones too."""
    secret = new_secret(SeededRandomness(seed))
    raw_body = repr(body).encode()
    headers = signature_headers([decode_secret(secret)], "evt_1", int(time.time()), raw_body)

    Webhook(secret).verify(raw_body, headers, json_parse=False)


def test_rotation_signs_with_both_secrets() -> None:
    """While a rotation lasts, receivers with the old and with the new secret both accept, the new one's standing first."""
    body, now_s = '{"größe": "12 €"}'.encode(), int(time.time())
    headers = signature_headers([OTHER, decode_secret(SECRET)], "evt_1", now_s, body)

    assert headers["webhook-signature"].split(" ")[0] == sign_v1(OTHER, "evt_1", now_s, body)
    for secret in (SECRET, encode_secret(OTHER)):
        Webhook(secret).verify(body, headers)
        assert verify([decode_secret(secret)], headers, body, now_s=now_s) == "evt_1"


def test_message_without_a_secret_is_never_made() -> None:
    """An unsigned message would be accepted by careless receivers, and one with `v1a` alone refused by most others."""
    refused: list[list[Signer]] = [[], [KEY], [KEY, OTHER]]
    for signers in refused:
        with pytest.raises(ValueError, match="at least one secret"):
            signature_headers(signers, MESSAGE_ID, SENT_AT_S, BODY)


def test_ed25519_signature_is_what_another_library_makes() -> None:
    """Public key and signature come out to the letter; verified with the public key alone, `v1` standing beside it."""
    headers = signature_headers([decode_secret(SECRET), KEY], MESSAGE_ID, SENT_AT_S, BODY)
    keys = [decode_public_key(PUBLIC_KEY)]

    assert encode_public_key(KEY) == PUBLIC_KEY
    assert sign_v1a(KEY, MESSAGE_ID, SENT_AT_S, BODY) == SIGNATURE_V1A
    assert headers == HEADERS | {"webhook-signature": f"{SIGNATURE} {SIGNATURE_V1A}"}
    assert verify(keys, headers, BODY, now_s=SENT_AT_S) == MESSAGE_ID
    assert checked(headers) == MESSAGE_ID


def test_rotation_signs_with_both_keys() -> None:
    """Whoever has the old or the new public key accepts; whoever has a third one does not."""
    keys = [signing_key(new_seed(SeededRandomness(seed))) for seed in range(3)]
    headers = signature_headers([OTHER, *keys[:2]], MESSAGE_ID, SENT_AT_S, BODY)
    public = [decode_public_key(encode_public_key(key)) for key in keys]

    for each in public[:2]:
        assert verify([each], headers, BODY, now_s=SENT_AT_S) == MESSAGE_ID
    assert verify([public[2], public[1]], headers, BODY, now_s=SENT_AT_S) == MESSAGE_ID
    with pytest.raises(SignatureInvalid, match="no signature"):
        verify(public[2:], headers, BODY, now_s=SENT_AT_S)


@pytest.mark.parametrize(
    "signature",
    [
        *("v1a,", "v1a,AAAA", "v1a,ü", "v1a, ", "v1a,====", SIGNATURE, SIGNATURE_V1A.removeprefix("v1a,")),
        *(SIGNATURE_V1A.replace("v1a,", "v1,"), SIGNATURE_V1A.replace("yoUr", "yoUs"), SIGNATURE_V1A[:-4]),
        " ".join(["v1a,AAAA"] * MAX_SIGNATURES + [SIGNATURE_V1A]),  # a header that is made to be costly
    ],
)
def test_verify_refuses_what_the_key_did_not_sign(signature: str) -> None:
    """Whatever stands there, the answer is a refusal and never another error; also for another body or time."""
    keys = [decode_public_key(PUBLIC_KEY)]
    for changed, body in (
        ({"webhook-signature": signature}, BODY),
        ({"webhook-signature": SIGNATURE_V1A}, BODY + b" "),
        ({"webhook-signature": SIGNATURE_V1A, "webhook-timestamp": str(SENT_AT_S + 1)}, BODY),
    ):
        with pytest.raises(SignatureInvalid, match="no signature"):
            verify(keys, HEADERS | changed, body, now_s=SENT_AT_S)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "starts with whpk_"),
        ("whsk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "starts with whpk_"),
        ("whpk_A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "must be base64"),
        ("whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg", "must be base64"),
        ("whpk_ü", "must be base64"),
        ("whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMQ==", "32 bytes behind its base64, this one has 31"),
    ],
)
def test_public_key_that_cannot_be_one_is_refused(text: str, says: str) -> None:
    """The message names the fault."""
    with pytest.raises(ValueError, match=says):
        decode_public_key(text)


def test_new_secret_has_32_bytes_and_comes_back() -> None:
    """The text form is `whsec_` and base64, and reads back as the same bytes."""
    secret = new_secret(SeededRandomness(1))

    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert encode_secret(decode_secret(secret)) == secret
    assert new_secret(SeededRandomness(2)) != secret


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "starts with whsec_"),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "starts with whsec_"),
        ("whsec_", "24 to 64 bytes behind its base64, this one has 0"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "24 to 64 bytes behind its base64, this one has 23"),
        ("whsec_" + "A" * 88, "24 to 64 bytes behind its base64, this one has 66"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa_-", "must be base64"),
        ("whsec_MfKQ9r8G KYqrTwjUPD8ILPZIo2LaLaSw", "must be base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSü", "must be base64"),
        ("whsec_" + "A" * 31 + "=", "24 to 64 bytes behind its base64, this one has 23"),
        ("whsec_" + "A" * 87 + "=", "24 to 64 bytes behind its base64, this one has 65"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMR==", "belong to no byte"),  # MQ== is the same byte
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMR", "belong to no byte"),
        ("whsec_====MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must be base64"),
    ],
)
def test_secret_that_cannot_be_one_is_refused(text: str, says: str) -> None:
    """The message names the fault and shows nothing of the secret."""
    with pytest.raises(ValueError, match=says) as refused:
        decode_secret(text)

    assert "MfKQ9r8" not in str(refused.value)


@pytest.mark.parametrize("size", [24, 64])
def test_secret_has_24_to_64_bytes(size: int) -> None:
    """Both bounds belong to it."""
    assert decode_secret(encode_secret(b"s" * size)) == b"s" * size


def test_secret_may_come_without_padding() -> None:
    """The reference libraries take unpadded secrets, so they must mean the same here."""
    padded = encode_secret(OTHER)

    assert padded.endswith("=")
    assert decode_secret(padded.rstrip("=")) == OTHER


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_verify_accepts_a_time_within_the_tolerance(offset_s: int) -> None:
    """Clocks may differ by five minutes either way."""
    assert checked(HEADERS, now_s=SENT_AT_S + offset_s) == MESSAGE_ID


@pytest.mark.parametrize(("offset_s", "says"), [(301, "too old"), (-301, "too new")])
def test_verify_refuses_a_replayed_or_predated_message(offset_s: int, says: str) -> None:
    """A recorded message cannot be played again later."""
    with pytest.raises(SignatureInvalid, match=says):
        checked(HEADERS, now_s=SENT_AT_S + offset_s)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"webhook-id": "msg_other"}, "no signature"),
        ({"webhook-id": "msg_\ud800"}, "no signature"),
        ({"webhook-id": ""}, "webhook-id is missing"),
        ({"webhook-timestamp": str(SENT_AT_S + 1)}, "no signature"),
        ({"webhook-timestamp": f"0{SENT_AT_S}"}, "no signature"),
        ({"webhook-timestamp": f"{SENT_AT_S}.0"}, "not a number"),
        ({"webhook-timestamp": "nan"}, "not a number"),
        ({"webhook-timestamp": "٤٢"}, "not a number"),
        ({"webhook-timestamp": "9" * 5000}, "not a number"),
        ({"webhook-signature": ""}, "webhook-signature is missing"),
        ({"webhook-signature": "v1,"}, "no signature"),
        ({"webhook-signature": "ü"}, "no signature"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, "no signature"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "")}, "no signature"),
        ({"webhook-signature": SIGNATURE[:-1]}, "no signature"),
        ({"webhook-signature": SIGNATURE.lower()}, "no signature"),
    ],
)
def test_verify_refuses_what_was_tampered_with(changed: dict[str, str], says: str) -> None:
    """Whatever a header holds, the answer is a refusal and never another error."""
    with pytest.raises(SignatureInvalid, match=says):
        checked(HEADERS | changed)


def test_verify_refuses_another_body_and_another_secret() -> None:
    """One byte is enough; and no secret at all accepts nothing."""
    with pytest.raises(SignatureInvalid, match="no signature"):
        checked(HEADERS, BODY + b" ")
    for secrets in ([OTHER], []):
        with pytest.raises(SignatureInvalid, match="no signature"):
            verify(secrets, HEADERS, BODY, now_s=SENT_AT_S)


def test_verify_takes_header_names_in_any_case_and_the_one_signature_that_fits() -> None:
    """Servers spell names as they like, and a rotating sender sends several signatures."""
    headers = {name.title(): value for name, value in HEADERS.items()}
    headers["Webhook-Signature"] = f"v1a,AAAA {sign_v1(OTHER, MESSAGE_ID, SENT_AT_S, BODY)} {SIGNATURE}"

    assert checked(headers) == MESSAGE_ID
