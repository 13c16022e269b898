"""Standard Webhooks: secrets, signatures and their verification. Pure.

Owns the text forms of `whsec_` secrets and of the three `webhook-*` headers. It must not know what a message says, nor
where secrets are kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from service.clock import Randomness
from service.errors import RemoraError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix is no secret
SECRET_BYTES: Final = 32  # of a new secret
SECRET_BYTES_RANGE: Final = (24, 64)  # what the specification allows
TOLERANCE_S: Final = 300  # seconds by which a message's time may differ from ours

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

_V1: Final = "v1,"
_TIMESTAMP_DIGITS: Final = 12  # far beyond any sense, and far below what would make a huge number


class SignatureInvalid(RemoraError):
    """A message is not what the holder of the secret sent, or not at that time; the message says which check failed."""


def new_secret(randomness: Randomness) -> str:
    """A new signing secret, as it is shown once."""
    return encode_secret(randomness.bytes(SECRET_BYTES))


def encode_secret(raw: bytes) -> str:
    """The text form of a secret."""
    return SECRET_PREFIX + base64.b64encode(raw).decode()


def decode_secret(text: str) -> bytes:
    """The bytes that sign, of a secret's text form; padding may be left out, as the reference libraries allow.

    Raises:
        ValueError: It is no such secret; the message says what is wrong and repeats nothing of it.
    """
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a signing secret starts with {SECRET_PREFIX}")
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        raise ValueError(f"what follows {SECRET_PREFIX} must be base64 (A-Z a-z 0-9 + /)") from None
    low, high = SECRET_BYTES_RANGE
    if not low <= len(raw) <= high:
        raise ValueError(f"a signing secret has {low} to {high} bytes behind its base64, this one has {len(raw)}")
    return raw


def sign_v1(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """One `v1` signature: HMAC-SHA256 over id, time and body."""
    return _v1(secret, _signed_content(message_id, timestamp_s, body))


def signature_headers(secrets: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        secrets: Every secret that signs, the newest first; several during a rotation, never none.
        message_id: The event's id, the same for every attempt.
        timestamp_s: When this attempt is made, seconds since 1970.
        body: The bytes that are sent.

    Raises:
        ValueError: There is no secret: an unsigned message must never leave.
    """
    if not secrets:
        raise ValueError("a message needs at least one secret to be signed with")
    content = _signed_content(message_id, timestamp_s, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(_v1(secret, content) for secret in secrets),
    }


def verify(
    secrets: Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """Check a message as a receiver does.

    Args:
        secrets: One is enough; more while the sender rotates.
        headers: Of the request; names in any case.
        body: The raw bytes as they arrived.
        now_s: The time, seconds since 1970.
        tolerance_s: How far the message's own time may be off, either way.

    Returns:
        The message's id, which is the same for every repeat.

    Raises:
        SignatureInvalid: A header is missing or malformed, the time is too far off, or no signature fits.
    """
    found = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (_present(found, name) for name in _HEADERS)
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIMESTAMP_DIGITS):
        raise SignatureInvalid(f"{TIMESTAMP_HEADER} is not a number of seconds")
    offset_s = now_s - int(timestamp)
    if abs(offset_s) > tolerance_s:
        raise SignatureInvalid(f"{TIMESTAMP_HEADER} is too {'old' if offset_s > 0 else 'new'}")
    content = _signed_content(message_id, timestamp, body)
    expected = [_v1(secret, content).encode() for secret in secrets]
    # Every pair is compared, in constant time each, so that nothing is learnt from how long it takes.
    matches = [
        hmac.compare_digest(wanted, given.encode("utf-8", "surrogatepass"))
        for given in signatures.split(" ")
        for wanted in expected
    ]
    if not any(matches):
        raise SignatureInvalid(f"no signature in {SIGNATURE_HEADER} fits")
    return message_id


_HEADERS: Final = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)


def _present(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureInvalid(f"{name} is missing")
    return value


def _signed_content(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode("utf-8", "surrogatepass"), str(timestamp).encode(), body)


def _v1(secret: bytes, content: bytes) -> str:
    return _V1 + base64.b64encode(hmac.digest(secret, content, "sha256")).decode()
