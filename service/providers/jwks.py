"""The public keys with which a provider signs its callbacks, fetched from where it publishes them.

A callback is verified without waiting for anybody: it uses what is here, and says when that was not enough. The
next request to the provider, a submit or a poll, also fetches the missing keys. It must not know what is signed.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.clock import Clock
from service.egress import Answer, Call
from service.errors import EgressError
from service.providers.client import Outbound
from service.providers.documents.reading import read

VALID_S: Final = 86_400.0  # fal's page: "cache the keys, but not longer than 24 hours"
RENEW_S: Final = 43_200.0  # early enough that keys rarely run out while nobody talks to the provider
AGAIN_S: Final = 300.0  # between two requests, so that forged callbacks cannot make us ask all the time
TIMEOUT_S: Final = 5.0  # of the request, which a submission may have to wait for
MAX_BYTES: Final = 65_536  # of the answer
MAX_KEYS: Final = 16  # a forged signature is tried against each


class KeySet:
    """The keys of one address."""

    def __init__(self, url: str, egress: Outbound, clock: Clock) -> None:
        self._url = url
        self._egress = egress
        self._clock = clock
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._fetched_at: float | None = None  # monotonic seconds
        self._asked_at: float | None = None
        self._wanted = False
        self._fetching = False

    @property
    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """What may be used now; nothing once it is older than a day."""
        return self._keys if self._age_s() <= VALID_S else ()

    def missed(self) -> bool:
        """A signature fits none of the keys; tells whether newer keys may bring another answer."""
        self._wanted = self._may_ask()
        return self._wanted

    async def refresh(self) -> None:
        """Fetch the keys if they are due or wanted; a failure leaves what is here, and is tried again later."""
        if self._fetching or not self._may_ask() or not (self._wanted or self._age_s() > RENEW_S):
            return
        self._fetching = True
        self._wanted = False
        self._asked_at = self._clock.monotonic()
        try:
            call = Call("GET", self._url, {"accept": "application/json"})
            answer = await self._egress.call(call, timeout_s=TIMEOUT_S, read_bytes=MAX_BYTES)
        except EgressError:
            return
        finally:
            self._fetching = False
        keys = _keys(answer)
        if keys:
            self._keys = keys
            self._fetched_at = self._clock.monotonic()

    def _age_s(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock.monotonic() - self._fetched_at

    def _may_ask(self) -> bool:
        return self._asked_at is None or self._clock.monotonic() - self._asked_at >= AGAIN_S


def _keys(answer: Answer) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys of a JWKS; what is no such key is passed over."""
    document = read(answer.body, answer.headers).document if answer.status == 200 and not answer.truncated else None
    entries = document.get("keys") if isinstance(document, dict) else None
    found = [_key(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(key for key in found if key is not None)[:MAX_KEYS]


def _key(entry: dict[str, object]) -> Ed25519PublicKey | None:
    encoded = entry.get("x")
    if entry.get("crv", "Ed25519") != "Ed25519" or not isinstance(encoded, str):
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError):  # ValueError: not 32 bytes, or characters beyond ASCII
        return None
