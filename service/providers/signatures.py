"""Whether a callback is what the provider sent: signatures and secrets, judged as the card says.

Pure and fast: nothing here waits, and nothing raises for anything that a callback holds. It must not know what the
callback says of a task, nor what becomes of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature

from service import signing
from service.clock import Clock
from service.providers.card.verify import Ed25519, Hmac, Piece, Scheme, StandardWebhooks, Static, Timestamp, pieces
from service.providers.documents.paths import compiled
from service.providers.documents.reading import Written, read_callback
from service.providers.jwks import KeySet

_MAX_SIGNATURES: Final = 4  # in one header; a sender that rotates has two, and each costs a check with every key
_MAX_DIGITS: Final = 15  # of a time in seconds or milliseconds


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a callback's sender.

    Args:
        valid: None: nothing could be checked; False: the check that the card asks for failed.
        evidence: The body may be believed as it is; else it is a hint, and the provider is asked.
        reason: For the timeline, without secrets.
    """

    valid: bool | None
    evidence: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A callback as it came: header names in lower case; `url` as the provider asked for it."""

    body: bytes
    headers: Mapping[str, str]
    url: str = ""


class _Refused(Exception):
    """The check failed; the message says why."""


class Check(Protocol):
    """One way of checking a callback."""

    def __call__(self, received: Received) -> bool:
        """Whether it fits; False: not to be told yet, since a key is not here.

        Raises:
            _Refused: It does not fit.
        """


class Verifier:
    """The callbacks of one operation.

    Args:
        check: What the card asks for; None: nothing, or there is no secret to check with.
        proves_body: Whether a passed check proves what the body says.
        believes: Whether a callback that nothing contradicts is believed without proof of its body.
    """

    def __init__(self, check: Check | None, *, proves_body: bool = False, believes: bool, why_not: str = "") -> None:
        self._check = check
        self._proves_body = proves_body
        self._believes = believes
        self._why_not = why_not or "the provider does not sign its callbacks"

    def verify(self, body: bytes, headers: Mapping[str, str], url: str) -> Judged:
        """What is known of the sender of this callback."""
        if self._check is None:
            return Judged(None, self._believes, self._why_not)
        try:
            known = self._check(Received(body, {name.lower(): value for name, value in headers.items()}, url))
        except _Refused as error:
            return Judged(False, False, str(error))
        if not known:
            return Judged(None, False, "the provider's keys are not here yet")
        if self._proves_body:
            return Judged(True, True, "the signature fits and covers the body")
        return Judged(True, self._believes, "the signature fits, but does not cover the body")


def check_for(scheme: Scheme, secrets: Sequence[str], clock: Clock, keys: KeySet | None) -> Check:
    """The check that a card's `verify` describes.

    Args:
        scheme: As the card has it.
        secrets: The operator's; one that fits is enough.
        clock: For tolerances.
        keys: Of a scheme with public keys.

    Raises:
        ValueError: A secret is not of the form that the scheme needs.
    """
    match scheme:
        case Hmac():
            return _HmacCheck(scheme, [_DECODE[scheme.key](secret) for secret in secrets], clock)
        case StandardWebhooks():
            return _StandardCheck(scheme, [signing.decode_secret(secret) for secret in secrets], clock)
        case Static():
            return _StaticCheck(scheme, [secret.encode() for secret in secrets])
        case Ed25519():
            if keys is None:
                raise ValueError("public keys need an address")
            return _Ed25519Check(scheme, keys, clock)


class _HmacCheck:
    def __init__(self, scheme: Hmac, keys: Sequence[bytes], clock: Clock) -> None:
        self._parts = _Parts(scheme, clock)
        self._algorithm = scheme.algorithm
        self._keys = keys
        self._encoded: Callable[[bytes], str] = bytes.hex if scheme.encoding == "hex" else _base64
        self._normal: Callable[[str], str] = str.lower if scheme.encoding == "hex" else _without_padding

    def __call__(self, received: Received) -> bool:
        given, content = self._parts.read(received)
        expected = [self._encoded(hmac.new(key, content, self._algorithm).digest()).encode() for key in self._keys]
        # Every pair is compared, in constant time each, so that nothing is learnt from how long it takes.
        matches = [
            hmac.compare_digest(wanted, self._normal(text).encode("utf-8", "surrogatepass"))
            for text in given
            for wanted in expected
        ]
        if not any(matches):
            raise _Refused(f"no signature in {self._parts.header} fits")
        return True


class _StandardCheck:
    def __init__(self, scheme: StandardWebhooks, keys: Sequence[bytes], clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._tolerance_s = scheme.tolerance.total_seconds()

    def __call__(self, received: Received) -> bool:
        try:
            signing.verify(
                self._keys,
                received.headers,
                received.body,
                now_s=self._clock.wall_ms() / 1000,
                tolerance_s=self._tolerance_s,
            )
        except signing.SignatureInvalid as error:
            raise _Refused(str(error)) from None
        return True


class _Ed25519Check:
    def __init__(self, scheme: Ed25519, keys: KeySet, clock: Clock) -> None:
        self._parts = _Parts(scheme, clock)
        self._keys = keys
        self._decode = _hex if scheme.encoding == "hex" else _bytes_of_base64

    def __call__(self, received: Received) -> bool:
        given, content = self._parts.read(received)
        signatures = [self._decode(text) for text in given]
        for key in self._keys.keys:
            for signature in signatures:
                try:
                    key.verify(signature, content)
                except InvalidSignature:
                    continue
                return True
        if self._keys.missed():
            return False
        raise _Refused(f"no signature in {self._parts.header} fits")


class _StaticCheck:
    def __init__(self, scheme: Static, secrets: Sequence[bytes]) -> None:
        self._header = scheme.header.lower() if scheme.header else None
        self._query = scheme.query
        self._body = compiled(scheme.body)
        self._prefix = scheme.prefix
        self._secrets = secrets

    def __call__(self, received: Received) -> bool:
        text = self._found(received)
        if not text or not text.startswith(self._prefix):
            raise _Refused("the secret is missing")
        given = text.removeprefix(self._prefix).encode("utf-8", "surrogatepass")
        matches = [hmac.compare_digest(secret, given) for secret in self._secrets]
        if not any(matches):
            raise _Refused("the secret is not the one that is set")
        return True

    def _found(self, received: Received) -> str | None:
        if self._header is not None:
            return received.headers.get(self._header)
        if self._query is not None:
            return _query(received.url).get(self._query, [""])[0]
        found = self._body.read(read_callback(received.body, received.headers).document) if self._body else None
        return found if isinstance(found, str) else None


class _Parts:
    """What a signature in a header consists of: the texts that may be it, and the bytes that it is over."""

    def __init__(self, scheme: Hmac | Ed25519, clock: Clock) -> None:
        self.header = scheme.header
        self._name = scheme.header.lower()
        self._field = scheme.field
        self._prefix = scheme.prefix
        self._pieces = [
            (piece, compiled(piece.value if piece.kind == "body" else None)) for piece in pieces(scheme.signed)
        ]
        self._timestamp = scheme.timestamp
        self._clock = clock

    def read(self, received: Received) -> tuple[list[str], bytes]:
        """The signatures that the header holds, and what they should sign.

        Raises:
            _Refused: Something that the signature needs is missing, or its time is too far off.
        """
        value = received.headers.get(self._name)
        if not value:
            raise _Refused(f"{self.header} is missing")
        fields = _fields(value) if self._field is not None else []
        given = [text for name, text in fields if name == self._field] if self._field is not None else value.split()
        signatures = [text.removeprefix(self._prefix) for text in given if text.startswith(self._prefix)]
        if not signatures:
            raise _Refused(f"{self.header} holds no signature of the form that the card describes")
        named = dict(fields)
        if self._timestamp is not None:
            self._in_time(self._timestamp, received, named)
        return signatures[:_MAX_SIGNATURES], self._content(received, named)

    def _in_time(self, timestamp: Timestamp, received: Received, named: Mapping[str, str]) -> None:
        name = timestamp.header or timestamp.field or ""
        text = received.headers.get(name.lower()) if timestamp.header else named.get(name)
        if not text or not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
            raise _Refused(f"{name} is missing or no time")
        ms = int(text) * (1000 if timestamp.unit == "s" else 1)
        offset_s = (self._clock.wall_ms() - ms) / 1000
        if abs(offset_s) > timestamp.tolerance.total_seconds():
            raise _Refused(f"{name} is too {'old' if offset_s > 0 else 'new'}")

    def _content(self, received: Received, named: Mapping[str, str]) -> bytes:
        document: object = None
        if any(piece.kind == "body" for piece, _ in self._pieces):
            document = read_callback(received.body, received.headers).document
        return b"".join(
            _bytes(piece, _text(path.read(document)) if path is not None else None, received, named)
            for piece, path in self._pieces
        )


def _bytes(piece: Piece, in_body: str | None, received: Received, named: Mapping[str, str]) -> bytes:
    match piece.kind:
        case "raw":
            return received.body
        case "sha256hex":
            return hashlib.sha256(received.body).hexdigest().encode()
        case "text":
            return piece.value.encode()
        case "header":
            found = received.headers.get(piece.value)
        case "field":
            found = named.get(piece.value)
        case "url":
            found = received.url
        case "body":
            found = in_body
    if not found:
        raise _Refused(f"{piece.value or piece.kind} is missing, which is signed")
    return found.encode("utf-8", "surrogatepass")


def _text(value: object) -> str | None:
    """A text as it is; a number as it was written."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _fields(value: str) -> list[tuple[str, str]]:
    """The entries of a header such as `t=1492774577,v1=5257a8…`."""
    entries = [entry.strip().partition("=") for entry in value.split(",")]
    return [(name, text) for name, _, text in entries]


def _query(url: str) -> dict[str, list[str]]:
    try:
        return parse_qs(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return {}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _without_padding(text: str) -> str:
    return text.rstrip("=")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _bytes_of_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _key_of_base64(text: str) -> bytes:
    raw = _bytes_of_base64(text)
    if not raw:
        raise ValueError("is no base64 (A-Z a-z 0-9 + /)")
    return raw


def _key_of_hex(text: str) -> bytes:
    raw = _hex(text)
    if not raw:
        raise ValueError("is no hexadecimal text (0-9 a-f)")
    return raw


_DECODE: Final[dict[str, Callable[[str], bytes]]] = {
    "text": str.encode,
    "base64": _key_of_base64,
    "hex": _key_of_hex,
    "whsec": signing.decode_secret,
}
