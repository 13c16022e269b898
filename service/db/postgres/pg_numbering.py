"""Numbering events after their commit, one process at a time: transactions commit in another order than they began.

Readers of the feed remember the number up to which they have read, and no smaller one may appear later. So an event is stored
without a number. One process at a time, under a lock, gives numbers to what is stored, a job's events in their order. It must
not know what events say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
import structlog

from service.db.collecting import run_all
from service.db.postgres.pg_errors import DRIVER, fault
from service.errors import StoreUnavailable

LOCK: Final = 7_313_001  # of all who number, in PostgreSQL's space of advisory locks
AGAIN_S: Final = 1.0  # also where nobody said that there is something: another process may have died before it numbered

#: In the order of their times, but never a later row of a job's timeline before an earlier one: replicas' clocks are a little apart.
_NUMBER: Final = """
UPDATE events SET pos = placed.pos
FROM (
    SELECT id, nextval('feed_pos') AS pos FROM (
        SELECT id FROM (
            SELECT id, job_id, seq, max(at) OVER (PARTITION BY coalesce(job_id, id) ORDER BY seq) AS at
            FROM events WHERE body IS NOT NULL AND pos IS NULL
        ) AS waiting ORDER BY at, coalesce(job_id, id), seq
    ) AS ordered
) AS placed
WHERE events.id = placed.id
"""

_log = structlog.get_logger(__name__)


class Numbering:
    """The task that numbers; runs after each commit that wrote events, and now and then."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._woken = asyncio.Event()
        self._waiting: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="numbering")

    async def stop(self) -> None:
        """Number what is left, and end; what cannot be numbered now is left to another process or the next one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.gather(self._number(), return_exceptions=True)

    def wake(self, actions: Sequence[Callable[[], None]]) -> None:
        """Events were committed; `actions` run once they have their numbers."""
        self._waiting += actions
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(AGAIN_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            actions, self._waiting = self._waiting, []
            try:
                await self._number()
            except DRIVER as error:
                if not isinstance(fault(error), StoreUnavailable):
                    _log.exception("numbering_failed")
                self._waiting = actions + self._waiting
                continue
            run_all(actions)

    async def _number(self) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
            await connection.execute(_NUMBER)
