"""PostgreSQL as the writer's engine: its connections, the database's time, and what became of a COMMIT without an answer.

It must not know commands or handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import asyncpg

from service.clock import Clock
from service.db.postgres.pg_errors import DRIVER, fault, is_lost
from service.db.postgres.pg_numbering import Numbering
from service.db.postgres.pg_pool import close_pool, open_pool
from service.db.postgres.pg_sole import Sole
from service.db.postgres.pg_tx import PgTx
from service.errors import StoreFailed

WRITERS: Final = 4  # connections that write
SETTLE_S: Final = 60.0  # for which it is asked what became of a COMMIT
SETTLE_EVERY_S: Final = 0.05  # seconds between two times of asking
CLOCK_EVERY_S: Final = 30.0  # seconds between looks at the database's clock


class PgEngine:
    """See `Engine`.

    The service's clock follows the database's, so that machines whose clocks differ agree on what is due and whose lease
    ran out. It is looked at now and then; between two looks this machine's steady clock goes on from there.
    """

    def __init__(self, pool: asyncpg.Pool, clock: Clock, numbering: Numbering, sole: Sole | None = None) -> None:
        self._pool = pool
        self._sole = sole
        self._clock = clock
        self._numbering = numbering
        self._looked_at = 0.0  # monotonic

    @classmethod
    async def open(cls, url: str, clock: Clock, most: int = WRITERS, sole: Sole | None = None) -> Self:
        """Open the pool, look at the clock, and begin to number events; `sole` is released with it.

        Raises:
            OSError, asyncpg.PostgresError: The server cannot be had.
        """
        pool = await open_pool(url, most, name="remora-writer")
        engine = cls(pool, clock, Numbering(pool), sole)
        async with pool.acquire() as connection:
            await engine._look_at_clock(connection)
        engine._numbering.start()
        return engine

    @property
    def alone(self) -> bool:
        """See `Engine`: the lock keeps every other process away."""
        return self._sole is not None

    def begin(self, now_ms: int) -> PgTx:
        """See `Engine`."""
        self.check()
        return PgTx(self, now_ms)

    def translate(self, error: BaseException) -> BaseException:
        """See `Engine`."""
        return fault(error)

    async def empty_log(self) -> bool:
        """See `Engine`: PostgreSQL looks after its log itself."""
        return True

    def check(self) -> None:
        """See `Engine`: whether the database is still this process's; a server has no file that could be moved away."""
        if self._sole is not None:
            self._sole.check()

    async def close(self) -> None:
        """See `Engine`."""
        await self._numbering.stop()
        await close_pool(self._pool)
        if self._sole is not None:
            await self._sole.release()

    # -- what a transaction asks -------------------------------------------------------------------------------------

    async def acquire(self) -> Any:
        """See `Connections`."""
        try:
            return await self._begun()
        except DRIVER as error:
            if not is_lost(error):
                raise
        await self._pool.expire_connections()  # after a restart all of them are gone: each would fail once
        return await self._begun()

    async def release(self, connection: Any) -> None:
        """See `Connections`."""
        try:
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")
        except DRIVER:  # it was lost, and the pool has let go of it
            pass
        await self._pool.release(connection)

    async def was_committed(self, xid: str) -> bool:
        """See `Connections`: asked until the server is back and the transaction has come to its end."""
        end = self._clock.monotonic() + SETTLE_S
        while self._clock.monotonic() < end:
            try:
                status = await self._pool.fetchval("SELECT pg_xact_status(CAST(CAST($1 AS text) AS xid8))", xid)
            except DRIVER:
                status = "unknown"
            if status in {"committed", "aborted"}:
                return bool(status == "committed")
            await self._clock.sleep(SETTLE_EVERY_S)
        raise StoreFailed(f"nobody can tell what became of transaction {xid}")

    def wrote_events(self, actions: Sequence[Callable[[], None]]) -> None:
        """See `Connections`."""
        self._numbering.wake(actions)

    async def _begun(self) -> Any:
        connection = await self._pool.acquire()
        try:
            if self._clock.monotonic() - self._looked_at >= CLOCK_EVERY_S:
                await self._look_at_clock(connection)
            await connection.execute("BEGIN")
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def _look_at_clock(self, connection: Any) -> None:
        asked = self._clock.monotonic()
        now_ms = await connection.fetchval(
            "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS double precision)"
        )
        self._looked_at = self._clock.monotonic()
        self._clock.follow(round(now_ms + (self._looked_at - asked) * 500))  # it was read somewhere in between
