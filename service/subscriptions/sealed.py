"""What is kept sealed of a subscription: its secrets, its keys and its own headers; for which place, and how it is opened.

Knows nothing of rows and of when something is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.signing import Signer, decode_secret, signing_key

Open = Callable[[bytes, str], bytes]  #: `SecretBox.open`, or one that remembers what it opened


def secret_place(subscription_id: str) -> str:
    """The place that a subscription's secret is sealed for; the previous one keeps it when it moves."""
    return f"subscriptions/{subscription_id}/secret"


def key_place(subscription_id: str) -> str:
    """The place that the seed of a subscription's `v1a` key is sealed for; the previous one keeps it when it moves."""
    return f"subscriptions/{subscription_id}/signing_key"


def headers_place(subscription_id: str) -> str:
    """The place that a subscription's own headers are sealed for."""
    return f"subscriptions/{subscription_id}/headers"


def open_headers(opens: Open, subscription_id: str, sealed: bytes | None) -> dict[str, str]:
    """A subscription's own headers in the clear."""
    if sealed is None:
        return {}
    return msgspec.json.decode(opens(sealed, headers_place(subscription_id)), type=dict[str, str])


def open_keys(opens: Open, subscription_id: str, sealed: Iterable[bytes]) -> list[Ed25519PrivateKey]:
    """The keys of these seeds, in their order."""
    place = key_place(subscription_id)
    return [signing_key(opens(each, place)) for each in sealed]


@dataclass(frozen=True, slots=True)
class Pair:
    """A sealed value and the one that it replaced, which counts until its grace is over."""

    newest: bytes | None = None
    previous: bytes | None = None
    until: int | None = None  # ms UTC

    def at(self, now_ms: int) -> list[bytes]:
        """Those that count now, newest first."""
        kept = (self.newest, self.previous if self.until is not None and self.until > now_ms else None)
        return [each for each in kept if each is not None]


@dataclass(frozen=True, slots=True)
class Sealed:
    """All of one subscription, opened when something is sent to it: to read an account's thousands costs nothing more."""

    subscription_id: str
    opens: Open
    secrets: Pair
    keys: Pair
    own_headers: bytes | None

    def headers(self) -> dict[str, str]:
        """The subscription's own, in the clear."""
        return open_headers(self.opens, self.subscription_id, self.own_headers)

    def signers(self, now_ms: int) -> list[Signer]:
        """What signs now: the secrets for `v1`, newest first, and behind them the keys for `v1a`."""
        place = secret_place(self.subscription_id)
        secrets = [decode_secret(self.opens(each, place).decode()) for each in self.secrets.at(now_ms)]
        return [*secrets, *open_keys(self.opens, self.subscription_id, self.keys.at(now_ms))]
