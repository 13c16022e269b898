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

# Once for the same rows: a process that writes none after it must not pull again at the next start.
_MARK: Final = "pulled_back"
_MARKED: Final = f"SELECT value FROM meta WHERE key = '{_MARK}'"
_LAST: Final = """
SELECT coalesce((SELECT max(pos) FROM events WHERE pos IS NOT NULL), 0) AS pos, coalesce((SELECT max(id) FROM attempts), 0) AS attempt
"""
_PULLED: Final = f"""
INSERT INTO meta (key, value) @rows('{_MARK}', :mark) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
# The newest ones, not the latest: once the clock is right, events and attempts say so again.
_NEWEST = """
SELECT @greatest(coalesce((SELECT at FROM events WHERE pos > :pos ORDER BY pos DESC LIMIT 1), 0),
    coalesce((SELECT at FROM attempts WHERE id > :attempt ORDER BY id DESC LIMIT 1), 0)) AS ms
"""
# Every later moment keeps its place behind the earlier ones, so that a lane still wakes for the first of its deliveries.
_PULL = "UPDATE {table} SET {column} = @greatest(:now, {column} - :ahead) WHERE {column} > :now"
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
    [row] = await tx.rows(_NEWEST, {"pos": 0, "attempt": 0})
    newest_ms = int(row["ms"])
    if newest_ms - tx.now_ms > LEAST_MS and (ahead_ms := await _not_pulled_ms(tx)) > LEAST_MS:
        _log.warning("clock_behind_store", by_s=round(ahead_ms / 1000), hint="one of the two was wrong; see the clock")
        for table, column in _DUE:
            tx.write(_PULL.format(table=table, column=column), [{"now": tx.now_ms, "ahead": ahead_ms}])
        [last] = await tx.rows(_LAST, {})
        tx.write(_PULLED, [{"mark": f"{last['pos']} {last['attempt']}".encode()}])
    return [newest_ms for _ in commands]


async def _not_pulled_ms(tx: Tx) -> int:
    """By how much what was written since due times were pulled back last is ahead of now."""
    marked = await tx.rows(_MARKED, {})
    pos, attempt = map(int, marked[0]["value"].split()) if marked else (0, 0)
    [row] = await tx.rows(_NEWEST, {"pos": pos, "attempt": attempt})
    return int(row["ms"]) - tx.now_ms


def register(writer: Writer) -> None:
    """Name the handler of this module's command."""
    writer.handle(PullBack, handle)
