"""A database that is moved, deleted or replaced under the running service: nobody is told 202 for what nobody will find."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from service.clock import SeededRandomness, SystemClock
from service.db.inspection.examine import examine
from service.db.opening import SQLiteStore, open_store
from service.db.readiness import Probe, Readiness
from service.errors import SettingsInvalid, StoreFailed, StoreInDoubt


async def opened(path: Path) -> SQLiteStore:
    """An open store that takes writes."""
    store = await open_store(path, None, SystemClock(), SeededRandomness(1))
    Readiness(store.writer, SystemClock())
    store.writer.start()
    await store.writer.run(Probe())
    return store


def contents(directory: Path) -> dict[str, bytes]:
    """Every file."""
    return {each.name: each.read_bytes() for each in directory.iterdir()}


def deleted(database: Path) -> None:
    """By hand."""
    database.unlink()


def moved(database: Path) -> None:
    """To another name."""
    database.rename(database.with_name("old.db"))


def replaced(database: Path) -> None:
    """By another one under its name."""
    shutil.copy(database, database.with_name("new.db"))
    database.with_name("new.db").rename(database)


def log_deleted(database: Path) -> None:
    """The file that holds what was not brought into the database yet."""
    database.with_name(database.name + "-wal").unlink()


def index_deleted(database: Path) -> None:
    """The file by which processes see each other's locks."""
    database.with_name(database.name + "-shm").unlink()


def directory_moved(database: Path) -> None:
    """With all that is in it."""
    database.parent.rename(database.parent.with_name("aside"))


def directory_replaced(database: Path) -> None:
    """Restored from a backup, say."""
    directory_moved(database)
    shutil.copytree(database.parent.with_name("aside"), database.parent)


def link_turned(database: Path) -> None:
    """The name that the settings have leads to another file."""
    link = database.parent.parent / "link.db"
    shutil.copy(database, database.with_name("other.db"))
    link.unlink()
    link.symlink_to(database.with_name("other.db"))


WAYS = [deleted, moved, replaced, log_deleted, index_deleted, directory_moved, directory_replaced, link_turned]


@pytest.mark.parametrize("way", WAYS)
async def test_write_into_a_lost_database_is_not_acknowledged(way: Callable[[Path], None], tmp_path: Path) -> None:
    """The first write after it is answered as unavailable, and the store fails for good, with the file's name."""
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "data" / "remora.db")
    store = await opened(link)
    way(tmp_path / "data" / "remora.db")
    with pytest.raises(StoreInDoubt):  # it may be in the file that was taken away
        await store.writer.run(Probe())
    failed = store.writer.failed.result()
    await store.close()

    assert isinstance(failed, StoreFailed)
    assert "moved, deleted or replaced under the running service" in str(failed)
    assert str(tmp_path) in str(failed)


@pytest.mark.parametrize("way", [deleted, link_turned])
async def test_lost_database_is_noticed_while_nobody_writes(way: Callable[[Path], None], tmp_path: Path) -> None:
    """By looking, which costs no write."""
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "data" / "remora.db")
    store = await opened(link)
    store.writer.check()
    before = store.writer.failed.done()
    way(tmp_path / "data" / "remora.db")
    store.writer.check()
    store.writer.check()
    after = store.writer.failed.done()
    await store.close()

    assert (before, after) == (False, True)


async def test_lost_database_is_not_made_anew(tmp_path: Path) -> None:
    """An empty one in its place would know no key, and take the files of the lost one for nobody's."""
    store = await opened(tmp_path / "remora.db")
    await store.close()
    moved(tmp_path / "remora.db")
    before = contents(tmp_path)
    with pytest.raises(SettingsInvalid, match=r"put it back or restore a backup; to begin anew remove remora\.db\.\*"):
        await open_store(tmp_path / "remora.db", None, SystemClock(), SeededRandomness(2))
    with pytest.raises(SettingsInvalid, match="moved or deleted"):
        examine(tmp_path / "remora.db", None, SeededRandomness(2), 0)

    assert contents(tmp_path) == before


async def test_closing_a_moved_database_brings_everything_into_it(tmp_path: Path) -> None:
    """What was in the log is in the moved file, and no log stays behind that would be replayed into another database."""
    store = await opened(tmp_path / "remora.db")
    moved(tmp_path / "remora.db")
    store.writer.check()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        [(probes,)] = connection.execute("SELECT count(*) FROM meta WHERE key = 'last_probe'").fetchall()

    assert probes == 1
    assert (tmp_path / "remora.db-wal").stat().st_size == 0


async def test_closing_a_replaced_database_leaves_the_other_ones_log_alone(tmp_path: Path) -> None:
    """SQLite removes a log by its path: the one there now belongs to the database that was put in the place of ours."""
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    with closing(sqlite3.connect(tmp_path / "new" / "remora.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE precious (n)")
        connection.commit()
        shutil.copytree(tmp_path / "new", tmp_path / "saved")  # as a copy that was made while it was open
    store = await opened(tmp_path / "remora.db")
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"remora.db{end}").rename(tmp_path / "old" / f"remora.db{end}")
    for end in ("", "-wal"):
        (tmp_path / "saved" / f"remora.db{end}").rename(tmp_path / f"remora.db{end}")
    store.writer.check()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "remora.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    with closing(sqlite3.connect(tmp_path / "old" / "remora.db")) as connection:
        [(probes,)] = connection.execute("SELECT count(*) FROM meta WHERE key = 'last_probe'").fetchall()

    assert tables == [("precious",)]
    assert probes == 1
