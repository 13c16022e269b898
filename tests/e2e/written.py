"""What one job's way writes to the disk: bytes of the engine's log, and of the database when the log is in it."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.db.sqlite.sqlite_engine import PAGE_BYTES
from tests.e2e.rig import Rig

_PAGE: Final = PAGE_BYTES
_FRAME: Final = 24 + _PAGE  # of the log: its head and a page
_HEAD: Final = 32
_PENDING: Final = """
SELECT 1 FROM deliveries WHERE status = 'pending' UNION ALL SELECT 1 FROM results WHERE due_at IS NOT NULL
"""
JOBS: Final = 10


@dataclass(frozen=True, slots=True)
class Written:
    """A job's share of what was written, in bytes; `by_table` tells which pages of the log that was."""

    log: float
    growth: float
    by_table: Counter[str]


async def lifecycles(running: Rig, prompt: str, jobs: int = JOBS) -> Written:
    """Take jobs one after the other, each to its end and both of its deliveries."""
    writer = running.service._base.store.writer
    before = len(running.receiver.received)
    await writer.empty_log()
    size = _pages(running.directory)
    for number in range(1, jobs + 1):
        job = await running.take(prompt, metadata={"order": str(number)}, tags=["shop"])
        assert (await running.finished(job["id"]))["status"] == "completed"
        await running.receiver.wait_for(before + 2 * number)
        await settled(running)
    log = (running.directory / "remora.db-wal").read_bytes()
    await writer.empty_log()
    grown = (_pages(running.directory) - size) * _PAGE
    return Written((len(log) - _HEAD) / jobs, grown / jobs, _tables(running.directory, log))


async def settled(running: Rig) -> None:
    """Wait until nothing is left to be done for any job."""
    async with asyncio.timeout(20):
        while await running.service._base.store.reader.rows(_PENDING):  # noqa: ASYNC110 - nothing tells that nothing is left
            await asyncio.sleep(0.01)


def _pages(directory: Path) -> int:
    return (directory / "remora.db").stat().st_size // _PAGE


def _tables(directory: Path, log: bytes) -> Counter[str]:
    """How many pages of each table and index the log holds."""
    connection = sqlite3.connect(f"file:{directory}/remora.db?mode=ro", uri=True)
    try:
        names = dict(connection.execute("SELECT pageno, name || ' ' || pagetype FROM dbstat"))
    finally:
        connection.close()
    frames = (struct.unpack_from(">I", log, at)[0] for at in range(_HEAD, len(log) - _FRAME + 1, _FRAME))
    return Counter(names.get(page, "(free)") for page in frames)
