"""A store with jobs that a sweep is to end, some of which cannot be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.clock import SeededRandomness, VirtualClock
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.ids import Ids
from service.jobs.track import Track, Tracker
from service.jobs.waiters import Waiters
from service.polling.pace import Rules
from service.scheduler.expirer import Expirer
from tests.workers.backlog import Queue

DAY_MS = 86_400_000
#: What a job that is being submitted has besides.
SUBMISSIONS = """
INSERT INTO submissions (id, job_id, provider, token_hash, outcome, created_at)
SELECT 'sbm_' || id, id, provider, id, 'in_flight', 1 FROM jobs WHERE status = 'submitting' AND submission_id IS NULL
"""
SUBMITTED = "UPDATE jobs SET submission_id = 'sbm_' || id WHERE status = 'submitting' AND submission_id IS NULL"
#: A job whose id begins so cannot be written.
STUCK = """
CREATE TRIGGER stuck BEFORE UPDATE ON jobs WHEN old.id LIKE 'stuck%' BEGIN SELECT RAISE(ABORT, 'stuck'); END
"""


class Late:
    """Jobs in a store, the tracker that ends them, and the sweep that finds them."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.reader = InlineReader(queue.connection)
        tracker = Tracker(
            ids=Ids(queue.clock, SeededRandomness(1)),
            clock=queue.clock,
            links=lambda job_id, index: f"https://remora.example/r/{job_id}/{index}",
            rules=lambda _provider, _operation: Rules(),
            owner="me",
            waiters=Waiters(),
        )
        queue.writer.handle(Track, tracker.handle)

    def put(self, account: str, count: int, **columns: Any) -> None:
        """Jobs whose deadline is a day away."""
        now_ms = self.queue.clock.now_ms()
        self.queue.put(account, count, **({"created_at": now_ms - 1, "expires_at": now_ms + DAY_MS} | columns))
        self.queue.raw.execute("DROP TRIGGER IF EXISTS stuck")
        for sql in (SUBMISSIONS, SUBMITTED, STUCK):
            self.queue.raw.execute(sql)

    def expirer(self, kind: type[Expirer] = Expirer, batch: int = 200) -> Expirer:
        """A sweep of this store."""
        return kind(self.queue.writer, self.reader, self.queue.clock, batch)

    def left(self, which: str) -> list[str]:
        """The ids of such jobs."""
        return [row["id"] for row in self.queue.raw.execute(f"SELECT id FROM jobs WHERE {which} ORDER BY id")]


@asynccontextmanager
async def late(directory: Path) -> AsyncIterator[Late]:
    """An empty store."""
    upgrade(directory / "remora.db")
    queue = Queue(InlineConnection(directory / "remora.db"), VirtualClock())
    try:
        yield Late(queue)
    finally:
        await queue.writer.close()
