"""At a start: what was due under a clock that was ahead is due as soon as it would have been under a right one.

An earlier process may have worked under a wall clock that was set right since. Its newest rows lie in the future then,
and everything that waits would wait for that much longer. Must not know why anything is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from service.db.transaction import Tx
from service.db.writer import Command, Writer

LEAST_MS: Final = 60_000  # that the newest row is ahead: less is a clock that was slewed

# The newest ones, not the latest: once the clock is right, events and attempts say so again.
_NEWEST = """
SELECT max(coalesce((SELECT at FROM events WHERE pos IS NOT NULL ORDER BY pos DESC LIMIT 1), 0),
    coalesce((SELECT at FROM attempts ORDER BY id DESC LIMIT 1), 0)) AS ms
"""
# Every later moment keeps its place behind the earlier ones, so that a lane still wakes for the first of its deliveries.
_PULL = "UPDATE {table} SET {column} = max(:now, {column} - :ahead) WHERE {column} > :now"
_DUE: Final = (
    ("jobs", "due_at"),
    ("deliveries", "due_at"),
    ("lanes", "next_due_at"),
    ("lanes", "rests_until"),
    ("replays", "due_at"),
    ("results", "due_at"),
    ("inputs", "sweep_at"),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PullBack(Command[int]):
    """Pull due times back by as much as the newest row is ahead of now; answers that row's time. Deadlines stay."""


async def handle(tx: Tx, commands: Sequence[PullBack]) -> list[int | Exception]:
    """The writer's handler; looks at whole tables, but only where the clock was ahead."""
    [row] = await tx.rows(_NEWEST, {})
    newest_ms = int(row["ms"])
    ahead_ms = newest_ms - tx.now_ms
    if ahead_ms > LEAST_MS:
        _log.warning("clock_behind_store", by_s=round(ahead_ms / 1000), hint="one of the two was wrong; see the clock")
        for table, column in _DUE:
            tx.write(_PULL.format(table=table, column=column), [{"now": tx.now_ms, "ahead": ahead_ms}])
    return [newest_ms for _ in commands]


def register(writer: Writer) -> None:
    """Name the handler of this module's command."""
    writer.handle(PullBack, handle)
