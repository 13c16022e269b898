"""The lock of a database: one process at a time, under whatever name it comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.clock import SeededRandomness, SystemClock
from service.db.inspection.examine import examine
from service.db.opening import SQLiteStore, hold, open_store
from service.db.sqlite.file_lock import DatabaseLock, in_use
from service.errors import StoreUnavailable

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="LOUD: only Linux has the locks that these tests are about"
)

#: Takes the lock of the database that its argument names, says so or says what it was told, and waits to be ended.
OTHER = """
import sys
from pathlib import Path
from service.db.sqlite.file_lock import DatabaseLock
from service.errors import StoreUnavailable
lock = DatabaseLock(Path(sys.argv[1]).resolve())
try:
    lock.acquire()
except StoreUnavailable as error:
    print(error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def other(path: Path) -> AsyncIterator[tuple[str, int]]:
    """Another process that wants the database: what it says, and its pid."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER, str(path), stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process.pid
    finally:
        process.stdin.close()
        await process.wait()


async def opened(path: Path) -> SQLiteStore:
    """An open store."""
    store = await open_store(path, None, SystemClock(), SeededRandomness(1))
    store.writer.start()
    return store


def lock_file_removed(database: Path) -> Path:
    """The same name, but nothing says any more that somebody has it."""
    database.with_name(database.name + ".lock").unlink()
    return database


def hard_link(database: Path) -> Path:
    """Another name in another directory."""
    (database.parent / "elsewhere").mkdir()
    name = database.parent / "elsewhere" / "other.db"
    os.link(database, name)
    return name


def symbolic_link(database: Path) -> Path:
    """A link to the file."""
    name = database.parent / "link.db"
    name.symlink_to(database)
    return name


def linked_directory(database: Path) -> Path:
    """A link to the directory."""
    name = database.parent.with_name("linked")
    name.symlink_to(database.parent)
    return name / database.name


def moved(database: Path) -> Path:
    """Another name, since the file was moved: whoever has it open still writes to it."""
    return database.rename(database.with_name("moved.db"))


@pytest.mark.parametrize("way", [lock_file_removed, hard_link, symbolic_link, linked_directory, moved])
async def test_lock_keeps_a_second_process_out_by_every_way_to_the_file(
    way: Callable[[Path], Path], tmp_path: Path
) -> None:
    """It is told who has the database; the first one closed, it gets in."""
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / "remora.db"
    store = await opened(path)
    name = way(path)
    async with other(name) as (refused, _):
        pass
    used = in_use(name)
    await store.close()
    async with other(name) as (held, pid):
        with pytest.raises(StoreUnavailable, match=f"pid {pid}"):
            hold(name)

    assert "in use by another Remora process" in refused
    assert f"pid {os.getpid()}" in refused
    assert used
    assert held == "held"
    assert not in_use(name)


async def test_lock_does_not_disturb_what_the_engine_locks(tmp_path: Path) -> None:
    """SQLite's own locks belong to the process and go with any descriptor of the file that it closes: we close none.

    Without them another program could take the database out of its mode with a log, under the running service.
    """
    store = await opened(tmp_path / "remora.db")
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode = DELETE')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "remora.db"), stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    await store.close()

    assert b"database is locked" in told


def test_lock_is_seen_by_those_who_only_look(tmp_path: Path) -> None:
    """`doctor` says that a service has the database, takes no lock itself, and leaves nothing behind."""
    path = tmp_path / "remora.db"
    lock = hold(path)
    lock.make()
    path.with_name("remora.db.lock").unlink()
    seen = examine(path, None, SeededRandomness(1), 0)
    lock.release()
    free = examine(path, None, SeededRandomness(1), 0)

    assert (seen.in_use, free.in_use) == (True, False)
    assert [file.name for file in tmp_path.iterdir()] == ["remora.db"]


def test_lock_of_a_process_that_knows_only_the_file_beside_counts(tmp_path: Path) -> None:
    """A version before this one holds nothing else; both ways round one of the two is refused."""
    path = tmp_path / "remora.db"
    first, second = DatabaseLock(path), DatabaseLock(path)
    first.acquire()
    with pytest.raises(StoreUnavailable, match=r"remora\.db is in use by another Remora process \(pid \d+\)"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()

    assert not path.exists()
