"""A store with things of every age, and a cleaner that never really waits."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.clock import SeededRandomness, VirtualClock
from service.db.inspection.invariants import breaches
from service.db.migrate import upgrade
from service.db.opening import SQLiteStore, open_store
from service.deliveries.retention import retention_store as sent_retention
from service.ids import Ids
from service.jobs import retention_store as job_retention
from service.notation import retention
from service.scheduler.cleaner import Cleaner

DAY_MS = 86_400_000
OURS = "acc_0199a000-0000-7000-8000-000000000001"
THEIRS = "acc_0199a000-0000-7000-8000-000000000002"
PROMPT = b"the prompt that has to go"


class PatientClock(VirtualClock):
    """Waiting moves it on: `pause_s` a time, whatever was asked for."""

    pause_s = 0.01

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        self.advance(self.pause_s)


@dataclass(slots=True)
class Attic:
    """What a test fills, cleans and looks at."""

    path: Path
    clock: PatientClock
    connection: sqlite3.Connection
    counts: list[tuple[str, int]] = field(default_factory=list)  # what the cleaner told, command by command
    pos: int = 0
    made: int = 0

    def swept(self, what: str, count: int) -> None:
        """The cleaner's observer: the rules hold after every command, since the service may be killed there."""
        self.counts.append((what, count))
        assert breaches(self.connection) == []

    def removed(self) -> dict[str, int]:
        """What the cleaner told, together."""
        told: Counter[str] = Counter()
        for what, count in self.counts:
            told[what] += count
        return dict(+told)

    def insert(self, table: str, **values: Any) -> None:
        """One row; columns that are not named have their default, or what the engine gives."""
        marks = ", ".join("?" * len(values))
        self.connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))

    def job(self, age_days: float, *, account: str = OURS, pending: bool = False, **columns: Any) -> str:
        """A job that ended so long ago, with everything that belongs to a completed one; returns its number in all ids."""
        at = self.clock.now_ms() - round(age_days * DAY_MS)
        self.made += 1
        ids = Ids(VirtualClock(at), SeededRandomness(self.made))
        job, submission, event = ids.new("job"), ids.new("sbm"), ids.new("evt")
        self.insert("jobs", **_job(job, submission, account, at) | columns)
        self.insert(
            "submissions",
            id=submission,
            job_id=job,
            provider="p",
            token_hash=job.encode(),
            outcome="accepted",
            created_at=at,
        )
        self._paid(job, account, at)
        hashed = job.encode()
        self.insert("callbacks", submission_id=submission, received_at=at, body=PROMPT, body_hash=hashed, copies=1)
        self.insert("results", job_id=job, idx=0, source_url="https://f", stored=0, expires_at=at + 7 * DAY_MS)
        self.insert(
            "events", id=ids.new("evt"), account_id=account, job_id=job, seq=1, type="job.queued", source="api", at=at
        )
        self.event(event, at, account=account, job_id=job)
        self.delivery(ids.new("dlv"), event, at, account=account, job_id=job, pending=pending)
        return job

    def _paid(self, job: str, account: str, at: int) -> None:
        """The books of a job that has cost ten millionths of a dollar."""
        for seq, kind, debit, credit in ((1, "hold", "available", "held"), (2, "charge", "held", "spent")):
            self.insert(
                "transfers",
                account_id=account,
                job_id=job,
                seq=seq,
                kind=kind,
                debit=debit,
                credit=credit,
                amount=10,
                at=at,
            )
        self.connection.execute("UPDATE accounts SET balance = balance - 10 WHERE id = ?", (account,))

    def event(self, event_id: str, at: int, *, account: str = OURS, job_id: str | None = None) -> None:
        """An event of the feed."""
        self.pos += 1
        kind = "ping" if job_id is None else "job.completed"
        of_job = {"id": event_id, "account_id": account, "job_id": job_id, "seq": 2, "type": kind, "source": "poll"}
        self.insert("events", **of_job, at=at, pos=self.pos, body=PROMPT)

    def delivery(
        self,
        delivery_id: str,
        event_id: str,
        at: int,
        *,
        account: str = OURS,
        job_id: str | None = None,
        subscription: str | None = None,
        pending: bool = False,
        attempts: int = 1,
        attempted_at: int | None = None,
    ) -> None:
        """A delivery with its attempts."""
        self.insert(
            "deliveries",
            id=delivery_id,
            event_id=event_id,
            account_id=account,
            job_id=job_id,
            subscription_id=subscription,
            lane="l",
            url="u",
            type="job.completed",
            attempt_count=attempts,
            schedule_base=0,
            created_at=at,
            lease_epoch=1,
            status="pending" if pending else "delivered",
            finished_at=None if pending else at,
            due_at=at if pending else None,
        )
        for _ in range(attempts):
            self.insert(
                "attempts", delivery_id=delivery_id, at=attempted_at or at, duration_ms=1, response_body="a body"
            )
        if pending:
            self.connection.execute(
                "INSERT OR IGNORE INTO lanes (id, account_id, next_due_at) VALUES ('l', ?, ?)", (account, at)
            )

    def have(self, table: str, where: str = "1 = 1", *params: object) -> int:
        """How many rows there are, as another process would see it."""
        [(count,)] = self.connection.execute(f"SELECT count(*) FROM {table} WHERE {where}", params).fetchall()
        return int(count)

    @contextlib.asynccontextmanager
    async def cleaner(self, kept: str = "", *, traced: list[str] | None = None) -> AsyncIterator[Cleaner]:
        """A cleaner on an open store; afterwards the rules hold in what is left."""
        self.connection.commit()
        store = await open_store(self.path, None, self.clock, SeededRandomness(1))
        if traced is not None:
            await _connection(store).on_thread(lambda raw: raw.set_trace_callback(traced.append))
        for register in (job_retention.register, sent_retention.register):
            register(store.writer)
        store.writer.start()
        try:
            yield Cleaner(store.writer, self.clock, retention(kept), self)
        finally:
            await store.close()
        assert breaches(self.connection) == []


def _connection(store: SQLiteStore) -> Any:
    return store.writer._engine


def _job(job: str, submission: str, account: str, at: int) -> dict[str, Any]:
    numbers = ("submit_tries", "submit_failures", "polls", "hint_tries", "poll_failures", "not_found_polls", "overdue")
    return {
        "id": job,
        "account_id": account,
        "provider": "p",
        "operation": "o",
        "status": "completed",
        "seq": 2,
        "input": PROMPT.decode(),
        "input_full": PROMPT.decode(),
        "job_metadata": "{}",
        "tags": "[]",
        "submission_id": submission,
        "callback_url": "u",
        "task_confirmed": 1,
        "cost_basis": "unknown",
        "cost_charged": 10,
        "result_count": 1,
        "callbacks": 1,
        **dict.fromkeys(numbers, 0),
        "created_at": at,
        "finished_at": at,
        "expires_at": at + DAY_MS,
        "lease_epoch": 1,
    }


@contextlib.contextmanager
def attic(directory: Path) -> Any:
    """An empty one, with two accounts."""
    path = directory / "remora.db"
    upgrade(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        made = Attic(path, PatientClock(), connection)
        for account in (OURS, THEIRS):
            made.insert(
                "accounts",
                id=account,
                name="a",
                status="active",
                limit_kind="none",
                secret=b"\0",
                secret_prefix="whsec_",
                created_at=0,
            )
        yield made
