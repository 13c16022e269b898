"""What the sandbox has seen and sent: the log that tests and curious people read.

Owns the bounded log and the signal that something changed. Keys never enter it. It must not know why things happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

_KEPT: Final = 10_000  # of each kind; the oldest are dropped
_BODY_CHARS: Final = 16_384  # of a request's body
_SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request that came, whatever it was answered."""

    at_ms: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str
    card: str = ""  # whose path it was; empty where nobody's


@dataclass(frozen=True, slots=True)
class SentCallback:
    """One try to send one callback; `kind` says whether it was the true one."""

    at_ms: int
    task_id: str
    url: str
    kind: str
    attempt: int
    status: int | None
    error: str | None


class Record:
    """The log of one server."""

    def __init__(self) -> None:
        self.requests: deque[SeenRequest] = deque(maxlen=_KEPT)
        self.callbacks: deque[SentCallback] = deque(maxlen=_KEPT)
        self._waiting: set[asyncio.Future[None]] = set()

    def seen(self, request: SeenRequest) -> None:
        """Note a request; without its secrets, and no more of its body than anybody reads."""
        headers = {name: "***" if name in _SECRET_HEADERS else value for name, value in request.headers.items()}
        self.requests.append(replace(request, headers=headers, body=request.body[:_BODY_CHARS]))
        self.notify()

    def sent(self, callback: SentCallback) -> None:
        """Note a try to send a callback."""
        self.callbacks.append(callback)
        self.notify()

    def notify(self) -> None:
        """Wake all that wait for a change."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def until(self, holds: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait for a change after which `holds` is true.

        Raises:
            TimeoutError: It did not come true in that time.
        """
        async with asyncio.timeout(timeout_s):
            while not holds():
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(future)
                try:
                    await future
                finally:
                    self._waiting.discard(future)
