"""The store without threads, for simulations: the same writer, transactions and SQL, run where they are called.

With a virtual clock and seeded randomness the production code then takes the same course every time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.db.macros import sqlite_text
from service.db.sqlite.sqlite_engine import LAST_POS, SQLiteEngine
from service.db.transaction import Params, Row

T = TypeVar("T")


class InlineConnection(SQLiteEngine):
    """A writing connection whose work runs at once."""

    def __init__(self, path: Path | str) -> None:
        self.raw = sqlite3.connect(path, isolation_level=None, cached_statements=512)
        self.raw.row_factory = sqlite3.Row
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.raw.execute("PRAGMA synchronous = OFF")  # a simulation's power never fails
        self.last_pos = int(self.raw.execute(LAST_POS).fetchone()[0])

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work here and now."""
        return work(self.raw)

    def check(self) -> None:
        """Nothing: a simulation's files stay where they are."""

    async def close(self) -> None:
        """Close the file."""
        self.raw.close()


class InlineReader:
    """Reads on the same connection; between two transactions, since nothing runs beside it."""

    def __init__(self, connection: InlineConnection) -> None:
        self._raw = connection.raw

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set."""
        return self._raw.execute(sqlite_text(sql), params or {}).fetchall()

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""
        return self._raw.execute(sqlite_text(sql), params or {}).fetchone()  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Nothing: the connection belongs to the writer."""
