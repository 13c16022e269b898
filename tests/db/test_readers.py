"""The pools of read-only connections: deadlines, callers that go, and connections that come back fit for use."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.db.migrate import upgrade
from service.db.sqlite.readers import SQLiteReader
from service.errors import Unavailable

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
HANGS = 600.0  # seconds: only what hangs for ever takes so long


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database in WAL mode."""
    path = tmp_path / "remora.db"
    upgrade(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return path


@pytest.fixture
async def pool(path: Path) -> AsyncIterator[SQLiteReader]:
    """A pool of one connection whose reads have a short deadline."""
    pool = await SQLiteReader.open(path, count=1, timeout_s=0.2)
    yield pool
    await pool.close()


async def test_read_that_takes_too_long_is_ended_and_told(pool: SQLiteReader) -> None:
    """It is a 503 with a code and a time to come back, and its connection reads on."""
    with pytest.raises(Unavailable, match=r"within 0\.2 s") as told:
        await pool.rows(ENDLESS)
    [row] = await pool.rows("SELECT 1 AS one")

    assert (told.value.code, told.value.status, told.value.retry_after_s) == ("read_timeout", 503, 5)
    assert row["one"] == 1


async def test_waiting_for_a_connection_counts(path: Path) -> None:
    """With every connection taken, a read waits as long as it may take, and no longer."""
    pool = await SQLiteReader.open(path, count=1, timeout_s=0.2)
    async with asyncio.timeout(HANGS):
        slow, waiting = await asyncio.gather(pool.rows(ENDLESS), pool.rows("SELECT 1"), return_exceptions=True)
    await pool.close()

    assert isinstance(slow, Unavailable)
    assert isinstance(waiting, Unavailable | list)  # both deadlines fall on one moment


async def test_cancelled_read_is_interrupted(path: Path) -> None:
    """Who goes away leaves nothing running: the only connection answers others although no deadline helps."""
    pool = await SQLiteReader.open(path, count=1)
    for spins in range(20):
        read = asyncio.create_task(pool.rows(ENDLESS))
        for _ in range(spins):  # cancelled while it waits for the connection, is about to begin, and runs
            await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        async with asyncio.timeout(HANGS):
            [row] = await pool.rows("SELECT :n AS n", {"n": spins})
        assert row["n"] == spins
    await pool.close()


async def test_borrowed_connection_comes_back_only_when_its_statement_has_ended(path: Path) -> None:
    """What is read next is read by a connection that has nothing else to do, so that no snapshot is kept from before."""
    pool = await SQLiteReader.open(path, count=1)
    read = asyncio.create_task(pool.rows(ENDLESS))
    await asyncio.sleep(0)
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    assert pool._idle.empty()

    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO meta (key, value) VALUES ('new', 1)")
    assert await pool.rows("SELECT value FROM meta WHERE key = 'new'")
    with sqlite3.connect(path) as connection:  # nobody reads, so the whole log can be brought in and cut
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    await pool.close()


async def test_pool_closes_while_reads_end(path: Path) -> None:
    """Closing waits for what is being interrupted, and no thread stays."""
    pool = await SQLiteReader.open(path, count=2, timeout_s=0.05)
    answers = await asyncio.gather(*(pool.rows(ENDLESS) for _ in range(6)), return_exceptions=True)
    async with asyncio.timeout(HANGS):
        await pool.close()

    assert all(isinstance(each, Unavailable) for each in answers)


async def test_pools_do_not_wait_for_each_other(path: Path) -> None:
    """With callers' pages all busy for ever, the service's own reads go on."""
    pages, work = await SQLiteReader.open(path, count=2), await SQLiteReader.open(path, count=1)
    busy = [asyncio.create_task(pages.rows(ENDLESS)) for _ in range(5)]
    async with asyncio.timeout(HANGS):
        [row] = await work.rows("SELECT 1 AS one")
    for each in busy:
        each.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await pages.close()
    await work.close()

    assert row["one"] == 1
