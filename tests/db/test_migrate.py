"""The migrations make the schema that the code expects, once, and nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

import service.db.tables  # noqa: F401 - fills SQLModel's metadata
from service.db.migrate import current, migrations_directory, newest, upgrade
from service.db.sqlite.inline_store import InlineConnection
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.results.capture_claim_store import host_of, lane_of


def differences(path: Path) -> list[Any]:
    """Between a database and `tables`, as Alembic sees them."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    engine.dispose()
    return list(found)


def test_migrations_and_tables_do_not_drift(tmp_path: Path) -> None:
    """What the migrations make is what `tables.py` says; a planted difference is seen."""
    path = tmp_path / "remora.db"
    upgrade(path)
    found = differences(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN planted TEXT")

    assert found == []
    assert [difference[0] for difference in differences(path)] == ["remove_column"]


def test_check_constraints_are_in_the_migration(tmp_path: Path) -> None:
    """Alembic does not compare CHECKs, so every one of `tables.py` is looked for by name."""
    upgrade(tmp_path / "remora.db")
    made = "\n".join(
        row[0]
        for row in sqlite3.connect(tmp_path / "remora.db").execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
        )
    )
    wanted = {
        str(constraint.name)
        for table in SQLModel.metadata.tables.values()
        for constraint in table.constraints
        if str(constraint.name).startswith("ck_")
    }

    assert wanted
    assert [name for name in sorted(wanted) if name not in made] == []


def test_upgrade_is_idempotent_and_says_from_where_to_where(tmp_path: Path) -> None:
    """A second start changes nothing."""
    path = tmp_path / "remora.db"
    first, second = upgrade(path), upgrade(path)

    assert first == (None, newest())
    assert second == (newest(), newest())
    assert current(path) == newest()


def upgrade_to(path: Path, revision: str, *, guarded: bool = False) -> None:
    """A new database as an earlier version made it, or one that is brought so far; guarded: its schema cannot be written."""
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        if guarded:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_authorizer(_guard)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def _guard(action: int, name: str | None, *_: object) -> int:
    """Let the pragma have no effect, as in a SQLite that was built to defend itself."""
    return sqlite3.SQLITE_IGNORE if (action, name) == (sqlite3.SQLITE_PRAGMA, "writable_schema") else sqlite3.SQLITE_OK


async def test_numbers_of_erased_events_outlive_the_upgrade(tmp_path: Path) -> None:
    """A database that remembered the highest erased position for all accounts gives no number twice afterwards."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "0005")
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta (key, value) VALUES ('feed_pos', 41)")
    connection.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', 0)"
    )
    connection.commit()
    connection.close()
    upgrade(path)
    opened = InlineConnection(path)
    [left] = opened.raw.execute("SELECT count(*) FROM meta WHERE key = 'feed_pos'").fetchall()
    await opened.close()

    assert opened.last_pos == 41
    assert left[0] == 0


def test_jobs_whose_events_left_the_feed_are_counted_after_the_upgrade(tmp_path: Path) -> None:
    """Ended, but erased or old: no event tells of them, so they are named. What has its event or runs is not."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "0004")
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', 0)"
    )
    for job, status, ended in (("gone", "cancelled", 2), ("told", "cancelled", 2), ("runs", "queued", None)):
        connection.execute(
            "INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, "
            "submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, "
            "not_found_polls, overdue, created_at, expires_at, finished_at, due_at, lease_epoch) VALUES (?, 'acc_1', 'p', 'o', ?, "
            "2, '{}', '{}', '[]', 0, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 1, 2, ?, ?, 0)",
            (job, status, ended, None if ended else 1),
        )
        connection.execute(
            "INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body) "
            "VALUES ('evt_' || :job, 'acc_1', :job, 1, 'job.cancelled', 'api', 2, :pos, :body)",
            {"job": job, "pos": 7 if job == "told" else None, "body": b"{}" if job == "told" else None},
        )
    connection.commit()
    connection.close()
    upgrade(path)

    with contextlib.closing(sqlite3.connect(path)) as opened:
        assert opened.execute("SELECT account_id, job_id FROM usage_recounts").fetchall() == [("acc_1", "gone")]


@pytest.mark.parametrize("guarded", [False, True])
def test_truth_values_outlive_the_upgrade(tmp_path: Path, *, guarded: bool) -> None:
    """Columns that were numbers become truth values and keep what they hold, whether SQLite lets its schema be written or not."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "0012")
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript("""
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) VALUES ('acc_1', 'a', 'active', 'none', x'00', '', 0);
INSERT INTO subscriptions (id, account_id, url, description, events, providers, operations, tags, max_in_flight, signatures, status,
    secret, created_at, stop_at_expiry) VALUES ('sub_0', 'acc_1', '', '', '', '', '', '', 1, '', '', x'00', 0, 0),
    ('sub_1', 'acc_1', '', '', '', '', '', '', 1, '', '', x'00', 0, 1);
INSERT INTO results (job_id, idx, source_url, stored, expires_at, refreshed) VALUES ('job_1', 0, '', 0, 9, 1), ('job_1', 1, '', 1, 9, 0);
""")
    upgrade_to(path, "head", guarded=guarded)

    with contextlib.closing(sqlite3.connect(path)) as new:
        types = {
            (table, row[1]): row[2]
            for table in ("subscriptions", "results")
            for row in new.execute(f"PRAGMA table_info({table})")
        }
        assert types["subscriptions", "stop_at_expiry"] == types["results", "refreshed"] == "BOOLEAN"
        assert new.execute("SELECT id, stop_at_expiry FROM subscriptions ORDER BY id").fetchall() == [
            ("sub_0", 0),
            ("sub_1", 1),
        ]
        assert new.execute("SELECT idx, stored, refreshed FROM results ORDER BY idx").fetchall() == [
            (0, 0, 1),
            (1, 1, 0),
        ]
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert differences(path) == []


def test_copies_that_wait_have_their_lanes_after_the_upgrade(tmp_path: Path) -> None:
    """Account and host, as new ones have them; what waits for nothing has none."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "0013")
    urls = ["https://CDN.example:8443/a/b.png?u=http://x/", "https://a.example?x=https://o/", "http://b.example#f"]
    urls += ["http://c.example", "data:image/png;base64,AA//", "", f"https://d.example/{'x' * 400}", "http:///a"]
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute(
            "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
            "VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', 0)"
        )
        old.execute(
            "INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, "
            "submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, "
            "not_found_polls, overdue, created_at, expires_at, due_at, lease_epoch) VALUES ('job_1', 'acc_1', 'p', 'o', 'running', "
            "2, '{}', '{}', '[]', 0, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0)"
        )
        old.executemany(
            "INSERT INTO results (job_id, idx, source_url, stored, expires_at, due_at) VALUES ('job_1', ?, ?, 0, 9, ?)",
            [(number, url, 5) for number, url in enumerate(urls)] + [(99, urls[0], None)],
        )
        old.commit()
    upgrade(path)

    with contextlib.closing(sqlite3.connect(path)) as new:
        lanes = [lane for (lane,) in new.execute("SELECT lane FROM results ORDER BY idx")]
    assert lanes == [*(lane_of("acc_1", host_of(url)) for url in urls), ""]


@pytest.mark.parametrize("guarded", [False, True])
def test_numbers_and_bytes_of_events_outlive_the_upgrade(tmp_path: Path, *, guarded: bool) -> None:
    """Each event keeps what it had, what refers to it stays, and the numbers of erased ones are where they are looked for."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "0012")
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript("""
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at, feed_erased)
    VALUES ('acc_1', 'a', 'active', 'none', x'00', '', 0, 2);
INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body, erased_pos) VALUES
    ('evt_noted', 'acc_1', 'job_1', 1, 'job.queued', 'api', 1, NULL, NULL, NULL),
    ('evt_sent', 'acc_1', 'job_1', 2, 'job.completed', 'poll', 1, 3, x'7b7d', NULL),
    ('evt_erased', 'acc_1', 'job_2', 1, 'job.completed', 'poll', 1, NULL, NULL, 2),
    ('evt_old', 'acc_1', 'job_3', 1, 'job.completed', 'poll', 1, NULL, NULL, NULL);
INSERT INTO deliveries (id, event_id, account_id, type, lane, status, attempt_count, schedule_base, created_at, due_at, lease_epoch)
    VALUES ('dlv_1', 'evt_sent', 'acc_1', 'job.completed', 'l', 'pending', 0, 0, 1, 1, 0);
INSERT INTO fanouts (event_id, place, account_id, subscription_ids) VALUES ('evt_sent', 0, 'acc_1', '[]');
""")
        before = _made(old)
    upgrade_to(path, "head", guarded=guarded)

    with contextlib.closing(sqlite3.connect(path)) as new:
        assert new.execute("SELECT id, pos, body, left_pos FROM events ORDER BY id").fetchall() == [
            ("evt_erased", None, None, 2),
            ("evt_noted", None, None, None),
            ("evt_old", None, None, None),
            ("evt_sent", 3, b"{}", None),
        ]
        assert (
            new.execute("SELECT event_id FROM deliveries UNION ALL SELECT event_id FROM fanouts").fetchall()
            == [("evt_sent",)] * 2
        )
        assert _made(new) == before
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
    assert differences(path) == []


def _made(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    """All that stands in the schema: tables, and of what hangs on them kind, name and table."""
    return set(connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall())


_EVENT = "INSERT INTO events (id, account_id, seq, type, source, at, pos, body) VALUES ('evt_1', 'acc_1', 0, 'ping', 'api', 1, 1, x'00')"


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE events SET body = NULL", "ck_events_body"),
        ("UPDATE events SET left_pos = 1", "ck_events_left"),
        ("UPDATE events SET left_pos = pos, pos = NULL", "ck_events_left"),
    ],
)
@pytest.mark.parametrize("guarded", [False, True])
def test_engine_itself_refuses_an_event_that_is_half_in_the_feed(
    tmp_path: Path, statement: str, name: str, *, guarded: bool
) -> None:
    """What has its number in the feed has its bytes, and what has left has none, whoever writes."""
    path = tmp_path / "remora.db"
    upgrade_to(path, "head", guarded=guarded)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(_EVENT)

        with pytest.raises(sqlite3.IntegrityError, match=name):
            connection.execute(statement)


def test_engine_takes_an_event_whose_number_and_bytes_come_and_go_apart(tmp_path: Path) -> None:
    """It may wait for its number, be numbered, and leave its number behind."""
    path = tmp_path / "remora.db"
    upgrade(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(_EVENT)
        for states in ("pos = NULL", "pos = 7", "left_pos = pos, pos = NULL, body = NULL"):
            connection.execute(f"UPDATE events SET {states}")

        assert connection.execute("SELECT pos, body, left_pos FROM events").fetchall() == [(None, None, 7)]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE jobs SET status = 'lost', finished_at = 1", "ck_jobs_status"),
        ("UPDATE jobs SET due_at = NULL", "ck_jobs_wake_up"),
        ("UPDATE jobs SET finished_at = 1", "ck_jobs_finished"),
        ("UPDATE jobs SET status = 'completed', finished_at = 1", "ck_jobs_completed_has_result"),
        ("UPDATE jobs SET status = 'failed', finished_at = 1", "ck_jobs_failed_has_code"),
        ("UPDATE jobs SET cost_charged = -1", "ck_jobs_charge"),
    ],
)
def test_engine_itself_refuses_a_broken_job(tmp_path: Path, statement: str, name: str) -> None:
    """The invariants are repeated as CHECKs: a wrong write fails, whoever makes it."""
    path = tmp_path / "remora.db"
    upgrade(path)
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, previous_secret, previous_secret_until, created_at) VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', NULL, NULL, 0)"
    )
    connection.execute(
        "INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, submit_failures, "
        "task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls, overdue, created_at, expires_at, due_at, "
        "lease_epoch) VALUES ('job_1', 'acc_1', 'p', 'o', 'queued', 1, '{}', '{}', '[]', 0, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0)"
    )
    with pytest.raises(sqlite3.IntegrityError, match=name):
        connection.execute(statement)
    connection.close()


async def test_database_with_larger_pages_keeps_them_and_is_served(tmp_path: Path) -> None:
    """A new one has pages of 2 KiB; one that was there before keeps its own, and its log is as large in bytes before it is emptied."""
    paths = {2_048: tmp_path / "new.db", 4_096: tmp_path / "old.db"}
    with contextlib.closing(sqlite3.connect(paths[4_096])) as old:
        old.execute("PRAGMA page_size = 4096")
        old.execute("VACUUM")
    for page_bytes, path in paths.items():
        upgrade(path)
        connection = await SQLiteWriteConnection.open(path)
        try:
            found = await connection.on_thread(
                lambda raw: [
                    raw.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "wal_autocheckpoint")
                ]
            )
        finally:
            await connection.close()

        assert found == [page_bytes, (16 << 20) // page_bytes]
