"""Keeps a second process away from a database on PostgreSQL, by a lock that its session holds.

Much of what a process knows (keys, subscriptions, limits of providers and destinations) it keeps in memory, and no other process
is told of changes yet. It must not know what is stored.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import asyncpg

from service.db.postgres.pg_errors import DRIVER
from service.errors import StoreFailed, StoreUnavailable
from service.notation import without_password

LOCK: Final = 7_313_003  # in PostgreSQL's space of advisory locks
AGAIN_S: Final = 1.0  # seconds between tries to have it back after the connection was lost

#: A machine that died without a word is noticed by the server within a minute.
_TOLD: Final = {
    "application_name": "remora-lock",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class Sole:
    """The lock. It goes with its connection, and is taken again when the server is back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.taken_over = False  # another process has the database now

    @classmethod
    async def take(cls, url: str) -> Self:
        """Take it.

        Raises:
            StoreUnavailable: Another process has the database.
            OSError, asyncpg.PostgresError: The server cannot be had.
        """
        sole = cls(url)
        if not await sole._try():
            msg = (
                f"{without_password(url)} is in use by another Remora process; stop it first, or name another database"
            )
            raise StoreUnavailable(msg)
        sole._task = asyncio.create_task(sole._keep(), name="sole")
        return sole

    def check(self) -> None:
        """See whether this process still has the database.

        Raises:
            StoreFailed: Another one took it while the connection was lost.
        """
        if self.taken_over:
            raise StoreFailed("another process has taken the database over")

    async def release(self) -> None:
        """Let another process have it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()

    async def _try(self) -> bool:
        connection = await asyncpg.connect(self._url, server_settings=_TOLD)
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
            await connection.close()
            return False
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        self._connection = connection
        if connection.is_closed():  # in between
            self._lost.set()
        return True

    async def _keep(self) -> None:
        while not self.taken_over:
            await self._lost.wait()
            try:
                self.taken_over = not await self._try()
            except DRIVER:
                await asyncio.sleep(AGAIN_S)
