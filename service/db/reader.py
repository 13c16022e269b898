"""The port through which everything but the writer reads."""

from __future__ import annotations

from typing import Final, Protocol

from service.db.transaction import Params, Row
from service.errors import Unavailable

RETRY_AFTER_S: Final = 5  # told to those whose read took too long


class Reader(Protocol):
    """Reads what is committed; never writes."""

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set."""

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""

    async def close(self) -> None:
        """Let go of the connections."""


def too_slow(timeout_s: float) -> Unavailable:
    """What a caller is told whose read took longer than it may."""
    return Unavailable(
        f"this could not be read within {timeout_s:g} s; narrow it down, ask for less at a time, or try again later",
        code="read_timeout",
        retry_after_s=RETRY_AFTER_S,
    )
