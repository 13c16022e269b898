"""A store with results that wait to be copied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from service.clock import VirtualClock
from service.db.sqlite.inline_store import InlineConnection
from service.results import capture_claim_store
from service.results.capture_claim_store import Capture, ClaimCaptures, lane_of
from service.states import JobStatus
from tests.workers.backlog import Queue

HOST = "cdn.example"
_RESULT = """
INSERT INTO results (job_id, idx, source_url, stored, expires_at, due_at, lane, link_dies_at)
VALUES (?, ?, 'https://' || ? || '/a.png', 0, 9000000000000, ?, ?, ?)
"""


class Shelf:
    """Results, and the claims of one process."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.now_ms = queue.clock.now_ms()
        self._placed = 0
        capture_claim_store.register(queue.writer)

    def put(
        self,
        account: str,
        dies_in_ms: Sequence[int | None],
        *,
        host: str = HOST,
        due_in_ms: int = -1_000,
    ) -> None:
        """Results of an account at a host, one for each life; None: nobody knows how long the link lives."""
        if not self.queue.raw.execute("SELECT 1 FROM jobs WHERE account_id = ?", (account,)).fetchone():
            self.queue.put(account, 1, status=JobStatus.RUNNING)
        lane, due_at = lane_of(account, host), self.now_ms + due_in_ms
        self.queue.raw.executemany(
            _RESULT,
            [
                (f"{account}-0", number, host, due_at, lane, None if life is None else self.now_ms + life)
                for number, life in enumerate(dies_in_ms, self._placed)
            ],
        )
        self._placed += len(dies_in_ms)

    async def claim(
        self, count: int, *, per_host: int = 1_000, waiting: tuple[tuple[str, int], ...] = ()
    ) -> list[Capture]:
        """Claim so many."""
        return await self.queue.writer.run(ClaimCaptures("me", 60_000, count, per_host, waiting))

    async def steps(self, count: int, *, per_host: int, waiting: tuple[tuple[str, int], ...]) -> int:
        """What a claim of so many costs, in tens of SQLite's own instructions."""
        counted = 0

        def step() -> int:
            nonlocal counted
            counted += 1
            return 0

        self.queue.raw.set_progress_handler(step, 10)
        assert len(await self.claim(count, per_host=per_host, waiting=waiting)) == count
        self.queue.raw.set_progress_handler(None, 0)
        return counted


def accounts_of(captures: Sequence[Capture]) -> list[str]:
    """Whose they are."""
    return [capture.lane.partition(" ")[0] for capture in captures]


@asynccontextmanager
async def shelf(path: Path) -> AsyncIterator[Shelf]:
    """Over a store that is up to date."""
    queue = Queue(InlineConnection(path), VirtualClock())
    try:
        yield Shelf(queue)
    finally:
        await queue.writer.close()
