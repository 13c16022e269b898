"""Standard Webhooks: secrets, signatures and their verification. Pure.

Owns the text forms of `whsec_` secrets, of `whpk_` public keys and of the three `webhook-*` headers. It must not know what
a message says, nor where secrets are kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.clock import Randomness
from service.errors import RemoraError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix is no secret
SECRET_BYTES: Final = 32  # of a new secret
SECRET_BYTES_RANGE: Final = (24, 64)  # what the specification allows
PUBLIC_KEY_PREFIX: Final = "whpk_"
KEY_BYTES: Final = 32  # of an Ed25519 seed, and of a public key
MAX_SIGNATURES: Final = 20  # of one message that are looked at: judging a v1a one takes about 0.1 ms
MAX_KEYS: Final = 32_768  # that are kept ready
TOLERANCE_S: Final = 300  # seconds by which a message's time may differ from ours

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

_V1: Final = "v1,"
_HELD_BYTES: Final = 2_047  # for more, hashlib lets go of the interpreter, and waits longer for it than the hash takes
_V1A: Final = "v1a,"
_TIMESTAMP_DIGITS: Final = 12  # far beyond any sense, and far below what would make a huge number

Signer = bytes | Ed25519PrivateKey  #: a secret makes a `v1` signature, a key a `v1a` one
Verifier = bytes | Ed25519PublicKey  #: what checks the one or the other


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

    Two texts never mean the same bytes, padding aside: libraries differ in what they make of bits that belong to no byte.

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
    if base64.b64encode(raw).decode().rstrip("=") != encoded.rstrip("="):
        raise ValueError(
            f"what follows {SECRET_PREFIX} ends in bits that belong to no byte; its last letter is mistyped"
        )
    return raw


def sign_v1(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """One `v1` signature: HMAC-SHA256 over id, time and body."""
    return _v1(secret, _signed_content(message_id, timestamp_s, body))


def sign_v1a(key: Ed25519PrivateKey, message_id: str, timestamp_s: int, body: bytes) -> str:
    """One `v1a` signature: Ed25519 over id, time and body."""
    return _v1a(key, _signed_content(message_id, timestamp_s, body))


def new_seed(randomness: Randomness) -> bytes:
    """What a new Ed25519 key is made of."""
    return randomness.bytes(KEY_BYTES)


# All subscriptions of an account are read anew when one of them changes, and making a key takes 60 µs.
@lru_cache(MAX_KEYS)
def signing_key(seed: bytes) -> Ed25519PrivateKey:
    """The key that is made of a seed, always the same one."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def encode_public_key(key: Ed25519PrivateKey) -> str:
    """What receivers verify this key's signatures with, in its text form."""
    return PUBLIC_KEY_PREFIX + base64.b64encode(key.public_key().public_bytes_raw()).decode()


def decode_public_key(text: str) -> Ed25519PublicKey:
    """The public key of a text form.

    Raises:
        ValueError: It is none; the message says what is wrong.
    """
    if not text.startswith(PUBLIC_KEY_PREFIX):
        raise ValueError(f"a public key starts with {PUBLIC_KEY_PREFIX}")
    try:
        raw = base64.b64decode(text.removeprefix(PUBLIC_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        raise ValueError(f"what follows {PUBLIC_KEY_PREFIX} must be base64 (A-Z a-z 0-9 + /)") from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a public key has {KEY_BYTES} bytes behind its base64, this one has {len(raw)}")
    return Ed25519PublicKey.from_public_bytes(raw)


def signature_headers(signers: Sequence[Signer], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        signers: Every secret that signs, the newest first, several during a rotation, never none; then the keys.
        message_id: The event's id, the same for every attempt.
        timestamp_s: When this attempt is made, seconds since 1970.
        body: The bytes that are sent.

    Raises:
        ValueError: No secret stands first: an unsigned message must never leave, and most receivers know only `v1`.
    """
    if not signers or not isinstance(signers[0], bytes):
        raise ValueError("a message needs at least one secret to be signed with, and it stands first")
    content = _signed_content(message_id, timestamp_s, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(
            [_v1(each, content) if isinstance(each, bytes) else _v1a(each, content) for each in signers]
        ),
    }


def verify(
    verifiers: Sequence[Verifier],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """Check a message as a receiver does.

    Args:
        verifiers: Secrets for `v1`, public keys for `v1a`. One is enough; more while the sender rotates.
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
    given = [each.encode("utf-8", "surrogatepass") for each in signatures.split(" ")[:MAX_SIGNATURES]]
    # Every pair is compared, in constant time each, so that nothing is learnt from how long it takes.
    matches = [_fits(verifier, each, content) for verifier in _ready(verifiers, content) for each in given]
    if not any(matches):
        raise SignatureInvalid(f"no signature in {SIGNATURE_HEADER} fits")
    return message_id


_HEADERS: Final = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)


def _present(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureInvalid(f"{name} is missing")
    return value


def _ready(verifiers: Sequence[Verifier], content: bytes) -> list[Verifier]:
    """Each secret as the signature that it makes, once for all comparisons; each key as it is."""
    return [_v1(each, content).encode() if isinstance(each, bytes) else each for each in verifiers]


def _fits(ready: Verifier, given: bytes, content: bytes) -> bool:
    return hmac.compare_digest(ready, given) if isinstance(ready, bytes) else _fits_v1a(ready, given, content)


def _fits_v1a(key: Ed25519PublicKey, given: bytes, content: bytes) -> bool:
    prefix = _V1A.encode()
    if not given.startswith(prefix):
        return False
    try:
        key.verify(base64.b64decode(given.removeprefix(prefix), validate=True), content)
    except (binascii.Error, InvalidSignature):
        return False
    return True


def _signed_content(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode("utf-8", "surrogatepass"), str(timestamp).encode(), body)


def _v1(secret: bytes, content: bytes) -> str:
    mac = hmac.new(secret, digestmod="sha256")
    for at in range(0, len(content), _HELD_BYTES):
        mac.update(content[at : at + _HELD_BYTES])
    return _V1 + base64.b64encode(mac.digest()).decode()


def _v1a(key: Ed25519PrivateKey, content: bytes) -> str:
    return _V1A + base64.b64encode(key.sign(content)).decode()
