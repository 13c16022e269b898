"""Time and randomness as things that are passed in; nothing else in Remora asks the machine for either.

Times are integer milliseconds since 1970 in UTC. Intervals are measured on the monotonic clock.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

_PAGE_BYTES = 4_096


class Clock(Protocol):
    """What the service knows of time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC; may be stepped by the machine's owner."""

    def monotonic(self) -> float:
        """Seconds that never step, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that moves only when told to, for tests and simulations."""

    def __init__(self, now_ms: int = 1_795_000_000_000) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """See `Clock`."""
        return self._now_ms

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved the clock far enough."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.monotonic() + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Move the clock and wake whoever slept until then."""
        self._now_ms += round(seconds * 1000)
        now = self.monotonic()
        due = [entry for entry in self._sleepers if entry[0] <= now]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > now and not entry[1].done()]
        for _, future in due:
            if not future.done():
                future.set_result(None)


class Randomness(Protocol):
    """Where ids, tokens and jitter come from."""

    def bytes(self, count: int) -> bytes:
        """Unpredictable bytes, for tokens, secrets and ids."""

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high], for jitter."""


class SystemRandomness:
    """The machine's randomness, fetched by the page: every id needs some, and every fetch is a call of the kernel."""

    def __init__(self) -> None:
        self._page = b""
        self._used = 0

    def bytes(self, count: int) -> bytes:
        """See `Randomness`."""
        if self._used + count > len(self._page):
            self._page = secrets.token_bytes(max(_PAGE_BYTES, count))
            self._used = 0
        taken = self._page[self._used : self._used + count]
        self._used += count
        return taken

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness`."""
        return random.uniform(low, high)  # noqa: S311 - jitter is no secret


class SeededRandomness:
    """Repeatable randomness, for tests and simulations only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def bytes(self, count: int) -> bytes:
        """See `Randomness`."""
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness`."""
        return self._random.uniform(low, high)


def iso(ms: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and `Z`, the only form in which times leave Remora."""
    if ms is None:
        return None
    seconds, millis = divmod(ms, 1000)
    return f"{_iso_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=4_096)
def _iso_second(seconds: int) -> str:
    # Kept, since an event names the same few seconds again and again, and formatting one costs more than all the rest.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_iso(text: str) -> int:
    """Milliseconds of an RFC 3339 time with a zone.

    Raises:
        ValueError: The text is no such time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = "a time needs a zone: write it as 2026-11-21T10:00:00Z"
        raise ValueError(msg)
    return round(moment.timestamp() * 1000)
