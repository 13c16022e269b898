"""Which API keys the sandbox takes: every Bearer key whose text does not say otherwise.

Owns the words in a key that make it a bad one. It must not know how a dialect refuses.
"""

from __future__ import annotations

import re
from typing import Final

from service.sandbox.http import Request

HELP: Final = "any Bearer key is taken; one with 'bad' in it is answered 401, one with 'revoked' 403, one with 'poor' 402 on submits"
_BEARER: Final = re.compile(r"Bearer +(?P<key>[^\s]+)", re.IGNORECASE)


def refusal(request: Request, *, costs: bool) -> tuple[int, str] | None:
    """Status and message for a key that will not do; None for one that will.

    Args:
        request: What carries the key.
        costs: Whether what is asked for costs money.
    """
    match = _BEARER.fullmatch(request.headers.get("authorization", "").strip())
    if match is None or "bad" in match["key"]:
        return 401, "invalid API key"
    if "revoked" in match["key"]:
        return 403, "API key is revoked or account is suspended"
    if costs and "poor" in match["key"]:
        return 402, "insufficient credits"
    return None
