"""The port through which everything but the writer reads."""

from __future__ import annotations

from typing import Protocol

from service.db.transaction import Params, Row


class Reader(Protocol):
    """Reads what is committed; never writes."""

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set."""

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""

    async def close(self) -> None:
        """Let go of the connections."""
