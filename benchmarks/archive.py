"""A store full of finished deliveries, written straight into SQLite: a million of them in a minute.

Every job has a submission, a callback, a result, a timeline and one event, which went to its own destination and to three
subscriptions, with an attempt each. They are spread evenly over `DAYS` days. What is the same however many there are: a
hundred dead deliveries, and a thousand that are due, in fifty lanes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from service.db.migrate import upgrade

DAYS = 120
DAY_MS = 86_400_000
EACH = 4  # deliveries of an event
DEAD = 100
DUE = 1000
DUE_LANES = 50
ACCOUNT = "acc_01990000-0000-7000-8000-000000000001"
SUBSCRIPTIONS = tuple(f"sub_01990000-0000-7000-8000-00000000000{number}" for number in range(1, EACH))
CHUNK = 2_000  # jobs that are written before the next table's turn, since real rows of all tables lie side by side too


@dataclass(frozen=True, slots=True)
class Archive:
    """What was written, and what to look for in it."""

    path: Path
    deliveries: int
    a_delivery: str  # from the middle
    positions: int  # events in the feed
    now_ms: int


def _id(prefix: str, extra: str = "0") -> str:
    """SQL for an id of job `i` that sorts by time, as real ones do; `at` is the job's time."""
    return f"printf('{prefix}_%08x-%04x-7000-8%03x-%012x', at >> 16, at & 65535, {extra}, i)"


_JOBS = "WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i < :high), t AS (SELECT i, :begin + i * :step AS at FROM n)"
_EACH = f"{_JOBS}, f(j) AS (VALUES (0), (1), (2), (3))"
_ENDED = f"((i * {EACH} + j) % :dead_every = 1)"
_SUBSCRIPTION = f"CASE j {' '.join(f'WHEN {j} THEN {each!r}' for j, each in enumerate(SUBSCRIPTIONS, 1))} END"
_URL = "https://shop.example/hooks/images"
_ONE_OFF = f"{ACCOUNT}:https://shop.example"

_FILL = (
    f"""{_JOBS} INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, callback_url,
    submission_id, submit_tries, submit_failures, task_confirmed, provider_task_id, cost_basis, result_count, polls, callbacks,
    hint_tries, poll_failures, not_found_polls, overdue, created_at, finished_at, expires_at, lease_epoch)
SELECT {_id("job")}, '{ACCOUNT}', 'apimodels', 'generate', 'completed', 2, :input, '{{"order":"4711"}}', '["shop"]', '{_URL}',
    {_id("sbm")}, 1, 0, 1, 'task' || i, 'unknown', 1, 0, 1, 0, 0, 0, 0, at, at, at + {DAY_MS}, 2 FROM t""",
    f"""{_JOBS} INSERT INTO submissions (id, job_id, provider, token_hash, outcome, provider_task_id, created_at)
SELECT {_id("sbm")}, {_id("job")}, 'apimodels', randomblob(32), 'accepted', 'task' || i, at FROM t""",
    f"""{_JOBS} INSERT INTO callbacks (submission_id, received_at, body, body_hash, content_type, copies)
SELECT {_id("sbm")}, at, CAST(:body AS BLOB), randomblob(32), 'application/json', 1 FROM t""",
    f"""{_JOBS} INSERT INTO results (job_id, idx, source_url, expires_at, stored)
SELECT {_id("job")}, 0, 'https://files.example/a.jpeg', at, 0 FROM t""",
    f"""{_JOBS} INSERT INTO events (id, account_id, job_id, seq, type, source, at)
SELECT {_id("evt", "0")}, '{ACCOUNT}', {_id("job")}, 1, 'job.queued', 'api', at FROM t""",
    f"""{_JOBS} INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body)
SELECT {_id("evt", "1")}, '{ACCOUNT}', {_id("job")}, 2, 'job.completed', 'callback', at, i, CAST(:body AS BLOB) FROM t""",
    f"""{_EACH} INSERT INTO deliveries (id, event_id, account_id, job_id, type, subscription_id, lane, url, status, attempt_count,
    schedule_base, created_at, finished_at, lease_epoch)
SELECT {_id("dlv", "j")}, {_id("evt", "1")}, '{ACCOUNT}', {_id("job")}, 'job.completed', {_SUBSCRIPTION},
    coalesce({_SUBSCRIPTION}, '{_ONE_OFF}'), CASE j WHEN 0 THEN '{_URL}' END,
    CASE WHEN {_ENDED} THEN 'dead' ELSE 'delivered' END, 1, 0, at, at, 1 FROM t, f""",
    f"""{_EACH} INSERT INTO attempts (delivery_id, at, status_code, duration_ms, response_body)
SELECT {_id("dlv", "j")}, at, CASE WHEN {_ENDED} THEN 503 ELSE 204 END, 12, 'ok' FROM t, f""",
)
# The newest of the one-off deliveries are due, shared out to lanes of their own.
_MAKE_DUE = f"""
UPDATE deliveries SET status = 'pending', finished_at = NULL, due_at = created_at, lane = 'lane ' || (rowid / {EACH} % {DUE_LANES})
WHERE id IN (SELECT id FROM deliveries WHERE account_id = '{ACCOUNT}' AND subscription_id IS NULL ORDER BY id DESC LIMIT {DUE})
"""
_LANES = """
INSERT INTO lanes (id, account_id, next_due_at) SELECT lane, account_id, min(due_at) FROM deliveries WHERE status = 'pending' GROUP BY lane
"""


def fill(path: Path, deliveries: int, now_ms: int) -> Archive:
    """Make a store with so many deliveries, the last of them of this moment (ms UTC)."""
    upgrade(path)
    jobs = deliveries // EACH
    step = DAYS * DAY_MS // jobs
    given = {
        "begin": now_ms - jobs * step,
        "step": step,
        "dead_every": max(1, deliveries // DEAD),
        "input": f'{{"model":"sparkpix","prompt":"{"A cute cat wearing a space helmet. " * 8}"}}',
        "body": f'{{"type":"job.completed","data":{{"job":{{"input":"{"x" * 800}"}}}}}}',
    }
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        _destinations(connection, now_ms)
        for low in range(1, jobs + 1, CHUNK):
            for statement in _FILL:
                connection.execute(statement, given | {"low": low, "high": min(low + CHUNK - 1, jobs)})
        connection.execute(_MAKE_DUE)
        connection.execute(_LANES)
        connection.execute("UPDATE usage_progress SET pos = ?", (jobs,))  # counting them is not what is measured
        connection.execute("COMMIT")
        middle = f"SELECT {_id('dlv')} FROM (SELECT :i AS i, :begin + :i * :step AS at)"
        [(a_delivery,)] = connection.execute(middle, given | {"i": jobs // 2})
        connection.execute("PRAGMA journal_mode = WAL")
    return Archive(path, jobs * EACH, a_delivery, jobs, now_ms)


def settle(archive: Archive) -> None:
    """Let what is due have been delivered: nobody listens at its destination."""
    with contextlib.closing(sqlite3.connect(archive.path)) as connection, connection:
        connection.execute(
            "UPDATE deliveries SET status = 'delivered', finished_at = created_at, due_at = NULL WHERE status = 'pending'"
        )
        connection.execute("DELETE FROM lanes")


def _destinations(connection: sqlite3.Connection, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES (?, 'archive', 'active', 'none', x'00', 'whsec_', ?)",
        (ACCOUNT, now_ms),
    )
    connection.executemany(
        "INSERT INTO subscriptions (id, account_id, url, description, events, providers, operations, tags, max_in_flight, signatures, "
        "status, secret, created_at) VALUES (?, ?, 'https://shop.example', '', '[]', '[]', '[]', '[]', 10, '[\"v1\"]', 'enabled', x'00', ?)",
        [(each, ACCOUNT, now_ms) for each in SUBSCRIPTIONS],
    )
