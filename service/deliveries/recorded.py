"""What went along with an attempt, as the log keeps it and as it is shown: pure.

The log keeps names only. Values of headers are the destination's secrets, and signatures are as good as the request for as
long as a receiver takes them; so neither can be shown, because neither is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from service.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

MASK: Final = "…"  # what answers show in place of a value
CONTENT_TYPE: Final = "application/json"
REMEMBERED: Final = 4096  # texts; destinations with the same headers and signatures share one


class _Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The text of the log: one for each set of headers and signatures."""

    agent: str
    signatures: tuple[str, ...]  # their versions, in order
    headers: tuple[str, ...] = ()  # names of the subscription's own
    url: str | None = None  # where it went: a subscription's may be another one by now


def described(agent: str, signature: str, headers: Iterable[str], url: str | None = None) -> str:
    """The text for a request.

    Args:
        agent: Its `User-Agent`.
        signature: Its `webhook-signature`, of which the versions are kept.
        headers: Names of the subscription's own headers.
        url: Where it goes.
    """
    return _text(agent, tuple(each.partition(",")[0] for each in signature.split(" ")), tuple(headers), url)


@lru_cache(maxsize=REMEMBERED)
def _text(agent: str, signatures: tuple[str, ...], headers: tuple[str, ...], url: str | None) -> str:
    return msgspec.json.encode(_Sent(agent, signatures, headers, url)).decode()


def request_headers(sent: str | None, event_id: str, at_ms: int) -> dict[str, str] | None:
    """The headers of an attempt as they are shown; None where the log has nothing of them."""
    if sent is None:
        return None
    kept = msgspec.json.decode(sent, type=_Sent)
    return dict.fromkeys(kept.headers, MASK) | {
        "content-type": CONTENT_TYPE,
        "user-agent": kept.agent,
        ID_HEADER: event_id,
        TIMESTAMP_HEADER: str(at_ms // 1000),
        SIGNATURE_HEADER: " ".join(f"{version},{MASK}" for version in kept.signatures),
    }


def url_of(sent: str | None) -> str | None:
    """Where an attempt went; None where the log has nothing of it."""
    return None if sent is None else msgspec.json.decode(sent, type=_Sent).url
