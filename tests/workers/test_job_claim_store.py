"""Claims: in order, fairly between accounts, each job once, and never what somebody else holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.clock import VirtualClock
from service.db.macros import sqlite_text
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.jobs import queries
from service.states import JobStatus
from service.workers import job_claim_store
from tests.workers.backlog import Queue


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
    held = await queue.writer.run(job_claim_store.VoidLeases())
    due = await queries.abandoned(InlineReader(queue.connection), queue.clock.now_ms(), "p", queries.START, 10)

    assert held == 3
    assert [row["id"] for row in due] == ["acc_1-0"]
    assert await queue.claim(9) == ["acc_1-1", "acc_1-2"]


@pytest.mark.parametrize("stage", ["submit", "poll"])
async def test_no_account_waits_for_ever_behind_many_others(queue: Queue, stage: job_claim_store.Stage) -> None:
    """Hundreds of accounts wait for a try that is not due, one has more than fits, and one has a single job: it is served soon."""
    status = {"submit": JobStatus.QUEUED, "poll": JobStatus.RUNNING}[stage]
    for number in range(job_claim_store.ACCOUNTS_AT_ONCE * 2 + 50):
        queue.put(f"acc_a{number:04}", 1, due_at=queue.clock.now_ms() + 3_600_000, status=status)
    queue.put("acc_0", 50, status=status)
    queue.put("acc_z", 1, status=status, due_at=queue.clock.now_ms())
    served: list[str] = []
    for _ in range(5):
        served += await queue.claim(2, stage=stage, after=queue.last.turns.get("p", ""))

    assert "acc_z-0" in served
    assert len(served) == 10  # and nothing stays idle meanwhile


async def test_turn_goes_on_where_the_last_claim_ended(queue: Queue) -> None:
    """One slot at a time is still shared out evenly."""
    for account in ("acc_a", "acc_b", "acc_c"):
        queue.put(account, 20)

    assert await queue.serve(6, 1) == ["acc_a", "acc_b", "acc_c"] * 2
    assert await queue.serve(3, 4) == ["acc_a", "acc_b", "acc_c"] * 4


async def test_kept_place_goes_to_whoever_holds_few(queue: Queue) -> None:
    """Accounts that hold more than the kept places, on both sides of it in the order of turns, are not in its way."""
    queue.put("acc_a", 9)
    queue.put("acc_b", 1, due_at=queue.clock.now_ms())
    queue.put("acc_c", 9)
    share = job_claim_store.Share(1, {"acc_a": 5, "acc_c": 4})
    served: list[str] = []
    for _ in range(4):
        served += await queue.claim(1, after=queue.last.turns.get("p", ""), share=share)

    assert served == ["acc_b-0"]


async def test_places_beyond_one_claim_are_kept_places_too(queue: Queue) -> None:
    """A claim takes a part of what is free, and who holds many may fill it, as long as the rest is enough for the others."""
    queue.put("acc_a", 9)
    queue.put("acc_b", 1, provider="q")
    share = job_claim_store.Share(4, {"acc_a": 50})
    roomy = await queue.claim(4, share=share, beyond=4)
    tight = await queue.claim(4, share=share, beyond=2)

    assert (len(roomy), len(tight)) == (4, 2)


async def test_what_fits_is_taken_in_the_order_in_which_it_fell_due(queue: Queue) -> None:
    """Turns matter only where there is more than fits; then the answer says that more is left."""
    queue.put("acc_b", 2)
    queue.put("acc_a", 2, due_at=queue.clock.now_ms())
    some, left = await queue.claim(3), set(queue.last.more)
    rest, nothing_left = await queue.claim(3), set(queue.last.more)

    assert (some, left) == (["acc_a-0", "acc_b-0", "acc_a-1"], {"p"})
    assert (rest, nothing_left) == (["acc_b-1"], set[str]())


async def test_claims_read_no_more_than_what_they_name(queue: Queue) -> None:
    """Every question of a claim is answered by an index that leads to its rows: a million jobs cost what a dozen cost."""
    asked = {"provider": "p", "now": 1, "count": 1, "after": "", "until": "~", "account": "a"}
    plans = [
        " ".join(row[3] for row in queue.raw.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", asked))
        for statements in (job_claim_store._OLDEST, job_claim_store._ACCOUNTS, job_claim_store._OF_ACCOUNT)
        for sql in statements.values()
    ]

    assert len(plans) == 6
    assert [plan for plan in plans if "SCAN jobs" in plan or "TEMP B-TREE" in plan or "ix_jobs_for_" not in plan] == []
