"""A pool of connections that only read; see `Reader`."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from service.db.macros import numbered
from service.db.postgres.pg_errors import DRIVER, fault, is_lost
from service.db.postgres.pg_pool import close_pool, open_pool
from service.db.postgres.pg_tx import bound
from service.db.reader import too_slow
from service.db.transaction import Params, Row

WORK: Final = 4  # connections for the service's own reads
PAGES: Final = 4  # for callers' pages


class PgReader:
    """One pool; `timeout_s` is the deadline of a read, in which it also waits for a connection."""

    def __init__(self, pool: asyncpg.Pool, timeout_s: float | None) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    @classmethod
    async def open(cls, url: str, count: int = WORK, timeout_s: float | None = None) -> PgReader:
        """Open a pool.

        Args:
            url: `postgresql://…`.
            count: Connections at once.
            timeout_s: None: a read may take its time.
        """
        name = "remora-reader" if timeout_s is None else "remora-pages"
        return cls(await open_pool(url, count, name=name, timeout_s=timeout_s), timeout_s)

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set; every call sees what was committed before it.

        Raises:
            Unavailable: It took longer than it may.
            StoreUnavailable: The server cannot be asked now.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(sql, params or {})
        except (TimeoutError, asyncpg.QueryCanceledError) as error:
            if self._timeout_s is None:
                raise fault(error) from error
            raise too_slow(self._timeout_s) from error
        except DRIVER as error:
            raise fault(error) from error

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def close(self) -> None:
        """Close every connection."""
        await close_pool(self._pool)

    async def _read(self, sql: str, params: Params) -> list[Row]:
        text, names = numbered(sql)
        values = bound(names, params)
        try:
            return list(await self._pool.fetch(text, *values))
        except DRIVER as error:
            if not is_lost(error):
                raise
        await self._pool.expire_connections()  # after a restart all of them are gone: each would fail once
        return list(await self._pool.fetch(text, *values))
