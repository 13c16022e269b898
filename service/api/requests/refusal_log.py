"""What the log says of requests that were refused: enough to find the caller and the fix, and never a flood.

Owns the fields of those lines and how repeats are folded. It must not know why anything was refused: `problems` says so.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

from litestar.types import HTTPScope

from service.accounts.keys import KEY_PREFIX, KeyText
from service.api.requests.body import header
from service.clock import Clock
from service.errors import Problem
from service.telemetry import SparingLog

LINES_A_KIND: Final = 5  # within a window: the first are told, and the others counted
WINDOW_S: Final = 60.0  # seconds in which equal refusals are one line
MAX_KINDS: Final = 1_000  # that are remembered; a stranger can invent any number
_MAX_FIELDS: Final = 3  # pointers that are told
_MAX_POINTER: Final = 80  # characters of one: its names are the caller's
#: Where the reason is ours and says nothing of what was sent.
_REASON_TOLD: Final = frozenset({401, 403, 429, 503})
_REFUSED: Final = "refused"  # where the scope's state keeps what `problems` says


@dataclass(slots=True)
class _Kind:
    """Refusals of one caller for one reason."""

    since: float  # monotonic seconds
    told: int = 0
    folded: int = 0


class RefusalLog:
    """The lines of refused requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines = SparingLog("service.api.exchange", clock)
        self._kinds: dict[Hashable, _Kind] = {}

    def tell(self, scope: HTTPScope, fields: dict[str, Any]) -> None:
        """A line about a refused request, unless its kind had its lines in this minute.

        Args:
            scope: The request's.
            fields: What every line of an exchange has.
        """
        fields |= _caller(scope) | scope["state"].get(_REFUSED, {"code": "unanswered"})
        kind = self._kind(
            (fields["status"], fields["code"], fields["route"], fields.get("account") or fields.get("peer"))
        )
        if kind.told >= LINES_A_KIND:
            kind.folded += 1
            return
        kind.told += 1
        if kind.folded:
            fields["repeated"], kind.folded = kind.folded, 0
        self._lines.say("info", "exchange", **fields)

    def _kind(self, key: Hashable) -> _Kind:
        now = self._clock.monotonic()
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(now)
        elif now - kind.since >= WINDOW_S:
            kind.since, kind.told = now, 0
        return kind


def remember(scope: Any, status: int, code: str, error: Exception) -> None:
    """Keep for the log why a request is refused; nothing that the caller sent but the names of fields."""
    told: dict[str, Any] = {"code": code}
    if status in _REASON_TOLD:
        told["reason"] = str(error)
    if isinstance(error, Problem) and error.errors:
        told["fields"] = [each.pointer[:_MAX_POINTER] for each in error.errors[:_MAX_FIELDS]]
    scope.setdefault("state", {})[_REFUSED] = told


def _caller(scope: HTTPScope) -> dict[str, str]:
    """Who asked: the account of a valid key, the beginning of a key as lists show it, and the address."""
    told: dict[str, str] = {}
    client = scope.get("client")
    if client:
        told["peer"] = client[0]
    principal = scope.get("auth")
    if principal is not None:
        told["account"] = principal.account_id
    key = (header(scope, b"authorization") or "").strip().rpartition(" ")[2]
    if key.startswith(KEY_PREFIX) or principal is not None:  # what is no key of ours may be another's secret
        told["key_prefix"] = KeyText(key).shown
    return told
