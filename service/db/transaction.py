"""What a handler sees while its commands are applied: one transaction, read by sets and written by sets.

Reads happen at once; writes are collected and sent to the engine together with the next read or the commit, since every
trip to the engine's thread costs more than most statements (measured: 60 µs idle, milliseconds when the loop is busy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

#: One row as the engine gives it; columns by name. SQLite gives a truth value as 0 or 1. Whoever makes an object of a row makes
#: a `bool` of it: a converter in the driver would be asked for every column of every statement (8 µs for one job).
Row = Mapping[str, Any]
Params = Mapping[str, Any]


class Tx(Protocol):
    """One transaction of the writer; handlers never begin, commit or roll back."""

    now_ms: int  # the time of the whole batch

    async def rows(self, sql: str, params: Params) -> list[Row]:
        """Send what was written so far, then read."""

    async def rows_each(self, sql: str, params: Sequence[Params]) -> list[Row]:
        """The same read for several parameters, in one trip; the rows in the order of the parameters."""

    def write(self, sql: str, rows: Sequence[Params], *, expect: int | None = None) -> None:
        """Write a set; `expect` is the number of rows it must change, else GuardFailed when it is sent."""

    def number(self) -> int | None:
        """The next number in the feed, given back if the transaction is rolled back; None where it is given after the commit."""

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run this once everything is durable, before the callers are answered."""

    def after_numbered(self, action: Callable[[], None]) -> None:
        """Run this once the events that were written are in the feed: after the commit, or soon after where numbers come later."""

    def on_rollback(self, action: Callable[[], None]) -> None:
        """Run this if the transaction is rolled back."""


def json_set(values: Iterable[object]) -> str:
    """A set of values as one parameter, for the macros `@set`, `@numbers` and `@tuples`."""
    return msgspec.json.encode(list(values)).decode()
