"""Claims: in order, fairly between accounts, each job once, and never what somebody else holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.clock import VirtualClock
from service.db.inline import InlineConnection
from service.db.migrate import upgrade
from service.db.writer import Writer
from service.jobs import claims
from service.jobs.row import COLUMNS, JobRow, all_values
from service.states import JobStatus


class Queue:
    """A store with jobs that wait."""

    def __init__(self, connection: InlineConnection, clock: VirtualClock) -> None:
        self.clock = clock
        self.raw = connection.raw
        self.writer = Writer(connection, clock)
        claims.register(self.writer)
        self.writer.start()

    def put(self, account: str, count: int, **columns: Any) -> None:
        """Queue jobs of an account, each a millisecond after the one before."""
        sql = "INSERT OR IGNORE INTO accounts (id, name, secret, status, limit_kind, secret_prefix, created_at) "
        sql += "VALUES (?, 'a', x'00', 'active', 'none', 'whsec_', 0)"
        self.raw.execute(sql, (account,))
        for number in range(count):
            given: dict[str, Any] = {
                "provider": "p",
                "status": JobStatus.QUEUED,
                "due_at": self.clock.now_ms() - 1_000 + number,
            }
            job = JobRow(
                id=f"{account}-{number}",
                account_id=account,
                operation="o",
                created_at=1,
                expires_at=9,
                **(given | columns),
            )
            marks = ", ".join("?" * len(COLUMNS))
            self.raw.execute(f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", all_values(job))

    async def claim(self, count: int, owner: str = "me") -> list[str]:
        """Claim so many jobs of provider p."""
        return [job.id for job in await self.writer.run(claims.ClaimQueued(owner, 60_000, (("p", count),)))]


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    """An empty queue."""
    upgrade(tmp_path / "remora.db")
    made = Queue(InlineConnection(tmp_path / "remora.db"), VirtualClock())
    yield made
    await made.writer.close()


async def test_jobs_of_one_account_leave_in_order(queue: Queue) -> None:
    """First in, first out."""
    queue.put("acc_1", 5)

    assert await queue.claim(3) == ["acc_1-0", "acc_1-1", "acc_1-2"]
    assert await queue.claim(3) == ["acc_1-3", "acc_1-4"]
    assert await queue.claim(3) == []


async def test_large_backlog_hides_no_small_one(queue: Queue) -> None:
    """Accounts take turns: one with a thousand waiting jobs does not delay another's only one."""
    queue.put("acc_big", 1_000)
    queue.put("acc_small", 1, due_at=queue.clock.now_ms())

    assert await queue.claim(4) == ["acc_big-0", "acc_small-0", "acc_big-1", "acc_big-2"]


async def test_leased_jobs_are_left_alone_until_the_lease_runs_out(queue: Queue) -> None:
    """Then the next owner takes them, with another epoch."""
    queue.put("acc_1", 2)
    await queue.claim(2, owner="first")
    during = await queue.claim(2, owner="second")
    queue.clock.advance(61)
    after = await queue.claim(2, owner="second")
    epochs = {row[0] for row in queue.raw.execute("SELECT lease_epoch FROM jobs")}

    assert during == []
    assert after == ["acc_1-0", "acc_1-1"]
    assert epochs == {2}


async def test_what_is_not_due_is_not_claimed(queue: Queue) -> None:
    """A job that waits for its next try stays where it is."""
    queue.put("acc_1", 1, due_at=queue.clock.now_ms() + 5_000)
    early = await queue.claim(1)
    queue.clock.advance(5)
    due = await queue.claim(1)

    assert (early, due) == ([], ["acc_1-0"])


async def test_start_voids_every_lease(queue: Queue) -> None:
    """On SQLite the process that held them is gone; what was in flight becomes due at once."""
    queue.put("acc_1", 3)
    await queue.claim(3)
    queue.raw.execute("UPDATE jobs SET status = 'submitting', due_at = due_at + 90000 WHERE id = 'acc_1-0'")
    held = await queue.writer.run(claims.VoidLeases())
    due = await queue.writer.run(claims.ClaimDue("me", 60_000, 10))

    assert held == 3
    assert [job.id for job in due] == ["acc_1-0"]
    assert await queue.claim(9) == ["acc_1-1", "acc_1-2"]
