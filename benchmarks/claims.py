"""What one claim costs beside a hundred thousand that are due: submits, polls, deliveries, copies, deadlines, abandoned submits.

Each is timed beside a bare `SELECT` of as many rows by primary key from the same table in the same run, so that the ratio says what order,
turns and leases cost. All that is due is one account's, or a thousand accounts'; a claim that is no more work for more
rows has the same ratio with a tenth of them.

Run: `python -m benchmarks.claims [--due 100000] [--times 30]`; about a minute and 400 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import machine
from service.clock import VirtualClock
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.writer import Writer
from service.deliveries import claim_store as delivery_claims
from service.deliveries.claim_store import ClaimDeliveries
from service.jobs import queries
from service.results import capture_claim_store as capture_claims
from service.results.capture_claim_store import ClaimCaptures
from service.workers import job_claim_store as work_store
from service.workers.job_claim_store import ClaimJobs, ProviderRoom, Stage

LEASE_MS = 60_000
JOBS = 64  # of one claim
DELIVERIES = 200  # lanes of one claim; each is given one
COPIES = 128
SWEPT = 200

_EACH = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :due - 1)"
_ACCOUNT = "printf('acc_%04d', i % :accounts)"
_JOB = f"""
{_EACH} INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, submission_id,
    submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls,
    overdue, created_at, expires_at, due_at, lease_epoch)
SELECT :status || printf('_%09d', i), {_ACCOUNT}, 'apimodels', 'generate', :status, 1, :input, '{{}}', '[]', 1, NULL,
    0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 1, CASE :status WHEN 'queued' THEN i ELSE :now + 9999999 END, i, 0 FROM n
"""
_FILL = (
    f"""
{_EACH} INSERT INTO accounts (id, name, secret, status, limit_kind, secret_prefix, created_at)
SELECT {_ACCOUNT}, 'a', x'00', 'active', 'none', 'whsec_', 0 FROM n WHERE i < :accounts
""",
    f"""
{_EACH} INSERT INTO results (job_id, idx, source_url, stored, expires_at, due_at, lane, link_dies_at)
SELECT printf('running_%09d', i), 0, 'https://cdn.example/' || i || '.png', 0, :now + 9999999, i, {_ACCOUNT} || ' cdn' || i % 4,
    CASE WHEN i % 2 THEN :now + i END FROM n
""",
    f"""
{_EACH} INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body)
SELECT printf('evt_%09d', i), {_ACCOUNT}, printf('running_%09d', i), 1, 'job.completed', 'poll', i, i + 1, CAST(:input AS BLOB) FROM n
""",
    f"""
{_EACH} INSERT INTO deliveries (id, event_id, account_id, type, subscription_id, lane, status, attempt_count, schedule_base, created_at,
    due_at, lease_epoch)
SELECT printf('dlv_%09d', i), printf('evt_%09d', i), {_ACCOUNT}, 'job.completed', printf('sub_%04d', i % 1000),
    printf('sub_%04d', i % 1000), 'pending', 0, 0, i, i, 0 FROM n
""",
    "INSERT INTO lanes (id, account_id, next_due_at) SELECT lane, min(account_id), min(due_at) FROM deliveries GROUP BY lane",
)


@dataclass(slots=True)
class Due:
    """A store in which so much of everything is due, and the claims of one process."""

    path: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    connection: InlineConnection = field(init=False)
    writer: Writer = field(init=False)

    def fill(self, due: int, accounts: int) -> None:
        """Put it there."""
        upgrade(self.path)
        self.connection = InlineConnection(self.path)
        given = {
            "due": due,
            "accounts": accounts,
            "now": self.clock.now_ms(),
            "input": '{"prompt": "a cat"}' + " " * 400,
        }
        accounts_sql, *rest = _FILL
        self.connection.raw.execute(accounts_sql, given)
        for status in ("queued", "running", "submitting"):
            self.connection.raw.execute(_JOB, given | {"status": status})
        for sql in rest:
            self.connection.raw.execute(sql, given)
        self.writer = Writer(self.connection, self.clock)
        for store in (work_store, delivery_claims, capture_claims):
            store.register(self.writer)
        self.writer.start()

    def claims(self) -> dict[str, tuple[str, Callable[[], Awaitable[Sized]]]]:
        """What is timed: the table, and a claim; each takes other rows than the one before."""
        turns: dict[str, str] = {}
        reader, now_ms, middle = InlineReader(self.connection), self.clock.now_ms(), (1_000, "")

        async def jobs(stage: Stage) -> Sized:
            room = ProviderRoom("apimodels", JOBS, turns.get(stage, ""))
            claimed = await self.writer.run(ClaimJobs(stage, "me", LEASE_MS, (room,)))
            turns[stage] = claimed.turns.get("apimodels", "")
            return claimed.jobs

        async def deliveries() -> Sized:
            claim = ClaimDeliveries("me", LEASE_MS, due_lanes=DELIVERIES, most=DELIVERIES)
            return (await self.writer.run(claim)).rows

        return {
            "submit": ("jobs", lambda: jobs("submit")),
            "poll": ("jobs", lambda: jobs("poll")),
            "delivery": ("deliveries", deliveries),
            "copy": ("results", lambda: self.writer.run(ClaimCaptures("me", LEASE_MS, COPIES, COPIES))),
            "deadline": ("jobs", lambda: queries.past_deadline(reader, now_ms, middle, SWEPT)),
            "abandoned": ("jobs", lambda: queries.abandoned(reader, now_ms, "apimodels", middle, SWEPT)),
        }


@dataclass(frozen=True, slots=True)
class Timed:
    """A claim, and a bare look at as many rows."""

    rows: int
    claim_s: float
    look_s: float

    @property
    def ratio(self) -> float:
        """How many such looks the claim costs."""
        return self.claim_s / self.look_s


async def timed(due: Due, table: str, claim: Callable[[], Awaitable[Sized]], times: int) -> Timed:
    """The median of so many of both, in turns."""
    key = "job_id, idx" if table == "results" else "id"
    claims: list[float] = []
    looks: list[float] = []
    rows = 0
    for _ in range(times):
        started = time.perf_counter()
        rows = len(await claim())
        claims.append(time.perf_counter() - started)
        started = time.perf_counter()
        due.connection.raw.execute(f"SELECT * FROM {table} ORDER BY {key} LIMIT {rows}").fetchall()
        looks.append(time.perf_counter() - started)
    return Timed(rows, statistics.median(claims), statistics.median(looks))


async def measured(count: int, accounts: int, times: int) -> dict[str, Timed]:
    """Every claim beside so many that are due."""
    with tempfile.TemporaryDirectory() as directory:
        due = Due(Path(directory) / "remora.db")
        due.fill(count, accounts)
        try:
            return {kind: await timed(due, table, claim, times) for kind, (table, claim) in due.claims().items()}
        finally:
            await due.writer.close()


async def _main(due: int, times: int) -> None:
    print(machine(Path(tempfile.gettempdir())))
    print("| claim | due | accounts | rows | one claim ms | bare SELECT ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count, accounts in ((due // 10, 1), (due, 1), (due, 1_000)):
        for kind, found in (await measured(count, accounts, times)).items():
            figures = f"{1_000 * found.claim_s:.2f} | {1_000 * found.look_s:.2f} | {found.ratio:.1f}×"
            print(f"| {kind} | {count:,} | {accounts:,} | {found.rows} | {figures} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--due", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=30)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.due, arguments.times))
