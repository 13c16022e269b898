"""Connections to PostgreSQL: how they are opened, and what each of them is told.

It must not know what is asked over them.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, Final

import asyncpg

CONNECT_S: Final = 10.0  # in which a connection must come about
STATEMENTS: Final = 512  # that a connection keeps prepared
CLOSE_S: Final = 5.0  # for which the server may take to end connections
LOCK_WAIT_S: Final = 10.0  # for a row that somebody else's transaction holds, such as an operator's shell
FROZEN_S: Final = 60.0  # after which the server ends the transaction of a process that does not go on
IDLE_S: Final = 300.0  # after which a connection that nobody uses is closed


async def open_pool(url: str, most: int, *, name: str, timeout_s: float | None = None) -> asyncpg.Pool:
    """Open a pool; one connection is made at once, so that what is wrong is found now.

    Args:
        url: `postgresql://…`.
        most: Connections at once.
        name: What the server shows these connections as.
        timeout_s: After which the server ends a statement; None: it may take its time.

    Raises:
        OSError, asyncpg.PostgresError: The server cannot be had.
    """
    told = {
        "application_name": name,
        "timezone": "UTC",
        "lock_timeout": str(round(LOCK_WAIT_S * 1000)),
        "idle_in_transaction_session_timeout": str(round(FROZEN_S * 1000)),
    }
    if timeout_s is not None:
        told["statement_timeout"] = str(round(timeout_s * 1000))
    pool = await asyncpg.create_pool(
        dsn=url,
        min_size=0,  # more would be made again by a task of the pool's own, which logs in its own way while it cannot
        max_size=most,
        timeout=CONNECT_S,
        statement_cache_size=STATEMENTS,
        max_cached_statement_lifetime=0,
        max_inactive_connection_lifetime=IDLE_S,
        server_settings=told,
        init=_init,
        reset=_reset,
    )
    async with pool.acquire():
        return pool


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool; where the server does not answer, its connections are cut after `CLOSE_S`."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _init(connection: Any) -> None:
    # What `sum` and `count` make of whole numbers is `numeric`, which the driver gives as Decimal.
    await connection.set_type_codec(
        "numeric",
        schema="pg_catalog",
        encoder=str,
        decoder=_number,
        format="text",
    )


async def _reset(connection: Any) -> None:
    """Nothing, and so no trip: whoever gives a connection back has ended its transaction, and nothing else is set on one."""


def _number(text: str) -> int | float:
    value = Decimal(text)
    return int(value) if value == value.to_integral_value() else float(value)
