"""Before a restart: whatever would keep the successor from starting keeps the process that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.successor import check_start
from service.clock import SeededRandomness, SystemClock
from service.db.opening import open_store
from service.environment import load
from service.errors import RemoraError

WRONG = {
    "a list of words that is not there": {"REMORA_MODERATION_LIST": "nowhere.txt"},
    "a storage that cannot be": {"REMORA_STORAGE_URL": "file:/proc/nowhere"},
    "another secret key": {"REMORA_SECRET_KEY": "k" * 40},
    "another database": {"REMORA_DATABASE_URL": "sqlite:///other.db"},
    "a setting that is none": {"REMORA_NOTHING": "1"},
    "cards that are not there": {"REMORA_CARDS_DIR": "nowhere"},
}


async def _database(directory: Path, seed: int = 1) -> Path:
    path = directory / "remora.db"
    await (await open_store(path, None, SystemClock(), SeededRandomness(seed))).close()
    return path


async def test_start_that_would_succeed_passes(tmp_path: Path) -> None:
    """Also beside the process that has the database."""
    path = tmp_path / "remora.db"
    store = await open_store(path, None, SystemClock(), SeededRandomness(1))
    try:
        check_start({}, tmp_path, path)
    finally:
        await store.close()


@pytest.mark.parametrize("wrong", WRONG)
async def test_start_that_would_fail_is_told(wrong: str, tmp_path: Path) -> None:
    """With the setting at fault."""
    path = await _database(tmp_path)
    with pytest.raises(RemoraError, match=next(iter(WRONG[wrong]))):
        check_start(WRONG[wrong], tmp_path, path)


async def test_key_that_is_gone_is_told(tmp_path: Path) -> None:
    """Nothing that is sealed could be opened."""
    path = await _database(tmp_path)
    (tmp_path / "remora.db.secret-key").unlink()
    with pytest.raises(RemoraError, match="secret-key"):
        check_start({}, tmp_path, path)


async def test_database_that_is_none_any_more_is_told(tmp_path: Path) -> None:
    """It was overwritten, say."""
    path = await _database(tmp_path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(RemoraError, match="REMORA_DATABASE_URL"):
        check_start({}, tmp_path, load({}, tmp_path).sqlite_path)


async def test_storage_of_another_installation_is_told(tmp_path: Path) -> None:
    """As a start would."""
    path = await _database(tmp_path)
    check_start({}, tmp_path, path)
    (tmp_path / "else").mkdir()
    other = await _database(tmp_path / "else", 2)
    check_start({}, tmp_path / "else", other)
    with pytest.raises(RemoraError, match="REMORA_STORAGE_URL"):
        check_start({"REMORA_STORAGE_URL": f"file:{tmp_path}/else/remora.db.results"}, tmp_path, path)
