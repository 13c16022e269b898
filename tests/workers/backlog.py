"""A store with jobs that wait to be claimed."""

from __future__ import annotations

from typing import Any

from service.clock import VirtualClock
from service.db.sqlite.inline_store import InlineConnection
from service.db.writer import Writer
from service.jobs.row import COLUMNS, JobRow, all_values
from service.states import JobStatus
from service.workers import job_claim_store


class Queue:
    """A store with jobs that wait."""

    def __init__(self, connection: InlineConnection, clock: VirtualClock) -> None:
        self.clock = clock
        self.connection = connection
        self.raw = connection.raw
        self.writer = Writer(connection, clock)
        job_claim_store.register(self.writer)
        self.writer.start()
        self.last = job_claim_store.ClaimedJobs([])

    def put(self, account: str, count: int, *, name: str = "", **columns: Any) -> None:
        """Queue jobs of an account, each a millisecond after the one before."""
        sql = "INSERT OR IGNORE INTO accounts (id, name, secret, status, limit_kind, secret_prefix, created_at) "
        sql += "VALUES (?, 'a', x'00', 'active', 'none', 'whsec_', 0)"
        self.raw.execute(sql, (account,))
        for number in range(count):
            given: dict[str, Any] = {
                "provider": "p",
                "status": JobStatus.QUEUED,
                "due_at": self.clock.now_ms() - 1_000 + number,
                "created_at": 1,
                "expires_at": 9,
            }
            job = JobRow(
                id=f"{account}-{name}{number}",
                account_id=account,
                operation="o",
                **(given | columns),
            )
            marks = ", ".join("?" * len(COLUMNS))
            self.raw.execute(f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", all_values(job))

    async def claim(
        self,
        count: int,
        owner: str = "me",
        *,
        stage: job_claim_store.Stage = "submit",
        after: str = "",
        share: job_claim_store.Share = job_claim_store.NO_SHARE,
        beyond: int = 0,
    ) -> list[str]:
        """Claim so many jobs of provider p."""
        rooms = (job_claim_store.ProviderRoom("p", count, after, share, beyond),)
        self.last = await self.writer.run(job_claim_store.ClaimJobs(stage, owner, 60_000, rooms))
        return [job.id for job in self.last.jobs]

    async def serve(self, rounds: int, count: int) -> list[str]:
        """Claim again and again, each time from where the last claim ended; the accounts in the order in which they were served."""
        served: list[str] = []
        for _ in range(rounds):
            served += [job.partition("-")[0] for job in await self.claim(count, after=self.last.turns.get("p", ""))]
        return served
