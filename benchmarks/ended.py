"""A store full of jobs that ended within thirty days, written straight into SQLite: a million of them in a few minutes.

Every job has what the service leaves of one: its submission, callback and result, its two transfers, and a timeline of five rows,
three of which are in the feed. What is the same however many there are: a thousand jobs that still run, two hundred of them past their
deadline, and some four hundred results whose end is due.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from benchmarks.archive import CHUNK
from service.db.migrate import upgrade

DAYS = 30
DAY_MS = 86_400_000
RUNNING = 1_000
DUE = 200
PRICE = 10_000  # micro-USD of a job
ACCOUNT = "acc_01990000-0000-7000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Ended:
    """What was written, and what to look for in it."""

    path: Path
    jobs: int
    some: tuple[str, ...]  # ids of jobs from all over it
    now_ms: int
    bytes_each: float


def _id(prefix: str, extra: str = "0") -> str:
    """SQL for an id of job `i` that sorts by time, as real ones do; `at` is the job's time."""
    return f"printf('{prefix}_%08x-%04x-7000-8%03x-%012x', at >> 16, at & 65535, {extra}, i)"


_JOBS = "WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i < :high), t AS (SELECT i, :begin + i * :step AS at FROM n)"
# Of a hundred jobs 94 are completed, and all kinds of provider, model, key, tag and duration go together.
_STATUS = "CASE WHEN i * 7919 % 100 < 94 THEN 'completed' WHEN i * 7919 % 100 < 97 THEN 'failed' WHEN i * 7919 % 100 < 99 THEN 'cancelled' ELSE 'expired' END"
_TOOK_MS = "2000 + (i * 104729 % 1000) * (i * 104729 % 1000) / 10"
_PROVIDER = "CASE i % 3 WHEN 0 THEN 'apimodels' WHEN 1 THEN 'sharkai' ELSE 'sharkapi' END"

_FILL = (
    f"""{_JOBS} INSERT INTO jobs (id, account_id, key_id, provider, operation, model, status, seq, input, job_metadata, tags,
    submission_id, submit_tries, submit_failures, task_confirmed, provider_task_id, provider_status, resolved_by,
    error_code, cost_estimated, cost_charged, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures,
    not_found_polls, overdue, created_at, submitted_at, finished_at, expires_at, lease_epoch)
SELECT {_id("job")}, '{ACCOUNT}', 'key_' || (i % 3), {_PROVIDER}, 'generate', 'model-' || (i % 4), {_STATUS}, 5, :input,
    '{{"order":"' || i || '"}}', '["shop","batch-' || (i % 7) || '"]', {_id("sbm")}, 1, 0, 1,
    'task' || i, 'completed', 'callback', CASE WHEN {_STATUS} IN ('failed', 'expired') THEN 'provider_failed' END, {PRICE},
    CASE WHEN {_STATUS} = 'completed' THEN {PRICE} END, 'price_list', {_STATUS} = 'completed', 0, 1, 0, 0, 0, 0,
    at - ({_TOOK_MS}), at - ({_TOOK_MS}) + 500, at, at + 7 * {DAY_MS}, 2 FROM t""",
    f"""{_JOBS} INSERT INTO submissions (id, job_id, provider, token_hash, outcome, provider_task_id, http_status, created_at, answered_at)
SELECT {_id("sbm")}, {_id("job")}, {_PROVIDER}, randomblob(32), 'accepted', 'task' || i, 200, at, at FROM t""",
    f"""{_JOBS} INSERT INTO callbacks (submission_id, received_at, body, body_hash, content_type, copies)
SELECT {_id("sbm")}, at, CAST(:callback AS BLOB), randomblob(32), 'application/json', 1 FROM t""",
    f"""{_JOBS} INSERT INTO results (job_id, idx, source_url, expires_at, stored, content_type, size_bytes, sha256, width, height,
    storage_key, sweep_at)
SELECT {_id("job")}, 0, 'https://files.example/images/' || i || '.jpeg', at + 7 * {DAY_MS}, 1, 'image/jpeg', 183201,
    hex(randomblob(32)), 1024, 1024, {_id("job")} || '/0', CASE WHEN :total - i < {2 * DUE} THEN at ELSE at + 60 * {DAY_MS} END
FROM t WHERE {_STATUS} = 'completed'""",  # the others' turn comes long after what is asked for
    f"""{_JOBS} INSERT INTO transfers (account_id, job_id, seq, kind, debit, credit, amount, at, basis)
SELECT '{ACCOUNT}', {_id("job")}, 1, 'hold', 'available', 'held', {PRICE}, at - ({_TOOK_MS}), 'price_list' FROM t""",
    f"""{_JOBS} INSERT INTO transfers (account_id, job_id, seq, kind, debit, credit, amount, at, basis)
SELECT '{ACCOUNT}', {_id("job")}, 5, CASE {_STATUS} WHEN 'completed' THEN 'charge' ELSE 'release' END, 'held',
    CASE {_STATUS} WHEN 'completed' THEN 'spent' ELSE 'available' END, {PRICE}, at, 'price_list' FROM t""",
    *(
        f"""{_JOBS} INSERT INTO events (id, account_id, job_id, seq, type, source, at, detail)
SELECT {_id("evt", str(seq))}, '{ACCOUNT}', {_id("job")}, {seq}, '{kind}', '{source}', at, '{{}}' FROM t"""
        for seq, kind, source in ((1, "job.queued", "api"), (2, "job.submitting", "submit"))
    ),
    *(
        f"""{_JOBS} INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body)
SELECT {_id("evt", str(seq))}, '{ACCOUNT}', {_id("job")}, {seq}, {kind}, 'callback', at, i * 3 + {seq}, CAST(:event AS BLOB) FROM t"""
        for seq, kind in ((3, "'job.submitted'"), (4, "'job.running'"), (5, f"'job.' || {_STATUS}"))
    ),
)
_RUN = f"""{_JOBS} INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries,
    submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls,
    overdue, created_at, expires_at, due_at, overdue_at, lease_epoch)
SELECT {_id("job", "1")}, '{ACCOUNT}', 'apimodels', 'generate', 'running', 0, :input, '{{}}', '[]', 1, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0,
    0, at, CASE WHEN i <= {DUE} THEN at ELSE at + {DAY_MS} END, CASE WHEN i <= {DUE} THEN at ELSE at + {DAY_MS} END,
    CASE WHEN i <= {DUE} THEN at ELSE at + {DAY_MS} END, 1 FROM t"""

_BALANCE = "UPDATE accounts SET balance = -(SELECT sum(amount) FROM transfers WHERE account_id = accounts.id AND credit = 'spent')"


def fill(path: Path, jobs: int, now_ms: int) -> Ended:
    """Make a store in which so many jobs ended, the last of them at this moment (ms UTC); nothing is counted yet."""
    upgrade(path)
    step = DAYS * DAY_MS // jobs
    prompt = "A cute cat wearing a space helmet, digital art. " * 4
    shown = f'{{"model":"sparkpix","prompt":"{prompt}","aspect_ratio":"16:9"}}'
    given = {
        "begin": now_ms - jobs * step,
        "step": step,
        "total": jobs,
        "input": shown,
        "callback": '{"code":200,"msg":"success","data":{"taskId":"clxxx","state":"success","resultUrls":["https://files.example/images/1.jpeg"]}}',
        "event": f'{{"type":"job.completed","timestamp":"2026-11-21T10:00:00.000Z","data":{{"seq":5,"job":{{"input":{shown}{" " * 700}}}}}}}',
    }
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
            "VALUES (?, 'ended', 'active', 'none', x'00', 'whsec_', ?)",
            (ACCOUNT, now_ms),
        )
        for low in range(1, jobs + 1, CHUNK):
            for statement in _FILL:
                connection.execute(statement, given | {"low": low, "high": min(low + CHUNK - 1, jobs)})
        connection.execute(_RUN, given | {"low": 1, "high": RUNNING, "begin": now_ms - RUNNING, "step": 1})
        connection.execute(_BALANCE)
        connection.execute("COMMIT")
        places = [{"i": 1 + place * (jobs - 1) // 99, **given} for place in range(100)]
        find = f"SELECT {_id('job')} FROM (SELECT :i AS i, :begin + :i * :step AS at)"
        some = tuple(connection.execute(find, place).fetchone()[0] for place in places)
        connection.execute("PRAGMA journal_mode = WAL")
    return Ended(path, jobs, some, now_ms, path.stat().st_size / jobs)
