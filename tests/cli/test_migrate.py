"""`remora migrate`: the database up to date without a start."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from service.db.migrate import newest
from service.db.sqlite.file_lock import DatabaseLock
from tests.cli.commands import run


def test_migrate_makes_a_database_and_finds_it_up_to_date(tmp_path: Path) -> None:
    """The first run tells from and to, the second that there is nothing to do."""
    first = run("migrate", directory=tmp_path)
    second = run("migrate", directory=tmp_path)

    assert (first.returncode, second.returncode) == (0, 0)
    assert f"new → {newest()}" in first.stdout
    assert f"up to date: {newest()}" in second.stdout
    with sqlite3.connect(tmp_path / "remora.db") as raw:
        assert raw.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    raw.close()


def test_migrate_leaves_a_database_in_use_alone(tmp_path: Path) -> None:
    """One line that names the process that has it, status 3."""
    lock = DatabaseLock(tmp_path / "remora.db")
    lock.acquire()
    try:
        result = run("migrate", directory=tmp_path)
    finally:
        lock.release()

    assert result.returncode == 3
    assert f"pid {os.getpid()}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "remora.db").exists()


def test_migrate_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """The setting and the reason, and no traceback."""
    (tmp_path / "remora.db").write_text("certainly no database" * 100)
    result = run("migrate", directory=tmp_path)

    assert result.returncode == 2
    assert "REMORA_DATABASE_URL" in result.stderr
    assert "not a database" in result.stderr
    assert "Traceback" not in result.stderr


def test_migrate_reports_all_wrong_settings_at_once(tmp_path: Path) -> None:
    """One line each, status 2."""
    result = run("migrate", directory=tmp_path, REMORA_PORT="http", REMORA_JOB_TTL="soon", REMORA_PROT="1")

    assert result.returncode == 2
    assert [line.split("=")[0].split()[0] for line in result.stderr.splitlines()[1:]] == [
        "REMORA_PROT",
        "REMORA_PORT",
        "REMORA_JOB_TTL",
    ]
    assert "Traceback" not in result.stderr
