"""The name of a database: every part opens the very file that the setting names, however odd its name is."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.accounts.bootstrap import key_file as admin_key_file
from service.clock import SeededRandomness, SystemClock
from service.db.inspection.examine import bring_up_to_date, examine, refuse_unreadable
from service.db.migrate import current, newest, upgrade
from service.db.opening import open_store
from service.db.sqlite.file_lock import DatabaseLock
from service.db.sqlite.readers import SQLiteReader
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.environment import load
from service.errors import SettingsInvalid
from service.results.storage import LocalStorage

NAMES = (
    st.text(st.characters(exclude_characters="/?#", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=50)
    .filter(lambda name: name.isprintable() and name == name.strip())
    .filter(lambda name: name not in {".", ".."} and not name.startswith(":"))
)


@pytest.fixture(scope="module")
def ready() -> Iterator[Path]:
    """A database that is up to date."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ready.db"
        upgrade(path)
        yield path


async def opened_and_closed(path: Path) -> None:
    """As by a start and a stop."""
    store = await open_store(path, None, SystemClock(), SeededRandomness(1))
    store.writer.start()
    await store.close()


def named(directory: Path, name: str) -> Path:
    """The database as the settings have it."""
    path = load({"REMORA_DATABASE_URL": f"sqlite:///{name}"}, directory).sqlite_path
    assert path is not None
    return path


async def opened_by_writer_and_readers(path: Path) -> None:
    """Both find the migrated database."""
    lock = DatabaseLock(path)
    lock.acquire()
    writer = await SQLiteWriteConnection.open(path)
    reader = await SQLiteReader.open(path, count=1)
    row = await reader.row("SELECT version_num FROM alembic_version")
    await reader.close()
    await writer.close()
    lock.release()

    assert row is not None
    assert row["version_num"] == newest()


@hypothesis_settings(max_examples=40)
@given(name=NAMES)
@example(name="50%25off.db")
@example(name="50%off.db")
@example(name="a b&c=d;e.db")
@example(name="'quoted\" \\ name`.db")
@example(name="file:x.db")
@example(name="bücher 猫 😀.db")
@example(name="-" + "x" * 239)
def test_every_part_opens_the_file_that_is_named(name: str, ready: Path) -> None:
    """Migrations, writer, readers, lock and examination open one file; what is made lies beside it under its name."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        path = named(directory, name)
        shutil.copy(ready, path)
        refuse_unreadable(path)
        revision = current(path)
        done = bring_up_to_date(path)
        asyncio.run(opened_by_writer_and_readers(path))
        seen = examine(path, None, SeededRandomness(1), 0)
        there = {file.name for file in directory.iterdir()}

    assert path == directory / name
    assert revision == newest()
    assert done == (newest(), newest())
    assert (seen.revision, seen.breaches) == (newest(), [])
    assert there <= {name, f"{name}.lock", f"{name}-wal", f"{name}-shm"}


def test_what_is_made_for_an_odd_name_lies_beside_it(tmp_path: Path) -> None:
    """From nothing: the database, its secret key, its admin key's place, and the copies of results."""
    settings = load({"REMORA_DATABASE_URL": "sqlite:///50%25 off & more.db"}, tmp_path)
    assert settings.sqlite_path is not None
    asyncio.run(opened_and_closed(settings.sqlite_path))
    assert settings.storage_url is not None
    LocalStorage(Path(settings.storage_url.removeprefix("file:")), "x", alone=True).prepare()

    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "50%25 off & more.db",
        "50%25 off & more.db.lock",
        "50%25 off & more.db.results",
        "50%25 off & more.db.secret-key",
    ]
    assert admin_key_file(settings.sqlite_path) == tmp_path / "50%25 off & more.db.admin-key"


def test_secret_key_lies_beside_the_file_and_not_beside_a_link_to_it(tmp_path: Path) -> None:
    """The service and `doctor` look in the same place, whichever name they were given."""
    (tmp_path / "volume").mkdir()
    link = tmp_path / "remora.db"
    link.symlink_to(tmp_path / "volume" / "real.db")
    asyncio.run(opened_and_closed(link))

    assert (tmp_path / "volume" / "real.db.secret-key").exists()
    assert examine(link, None, SeededRandomness(1), 0).key_problem is None


@pytest.mark.parametrize(
    "name", ["data/", "data/.", "..", "x" * 241, "ü" * 121, "a?mode=ro", "a#b", ":memory:", "a\nb"]
)
def test_name_that_is_no_files_is_refused(name: str, tmp_path: Path) -> None:
    """In one sentence that names the setting, before anything is made."""
    with pytest.raises(SettingsInvalid) as refused:
        named(tmp_path, name)

    [problem] = refused.value.problems
    assert problem.startswith("REMORA_DATABASE_URL (from the environment): ")
    assert list(tmp_path.iterdir()) == []
