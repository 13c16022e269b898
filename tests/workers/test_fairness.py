"""Fair claims: whoever has something due is served within a round, whatever others have waiting; a claim by age alone is not fair.

The check is one function over what was claimed, tried on our claims and on planted ones that are not fair.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clock import VirtualClock
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection
from service.jobs.row import JobRow
from service.providers.limiter import Slot
from service.states import JobStatus
from service.telemetry import Metrics
from service.workers import job_claim_store
from service.workers.dispatch import Dispatcher
from service.workers.pool import WorkerPool
from tests.workers.backlog import Queue
from tests.workers.test_pool import TwoEach

STATUS = {"submit": JobStatus.QUEUED, "poll": JobStatus.RUNNING}
HOUR_MS = 3_600_000


@asynccontextmanager
async def queue_in(directory: Path) -> AsyncIterator[Queue]:
    """An empty queue."""
    upgrade(directory / "remora.db")
    queue = Queue(InlineConnection(directory / "remora.db"), VirtualClock())
    try:
        yield queue
    finally:
        await queue.writer.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def check_fair(due: Mapping[str, int], claims: Sequence[Sequence[str]], count: int) -> None:
    """Every due job was claimed once, nothing else was, and no account waited longer than a round.

    Args:
        due: How many jobs of each account are due.
        claims: The accounts of the jobs of each claim, in order.
        count: How many each claim could take.
    """
    served = Counter(account for claim in claims for account in claim)
    assert served == Counter(due), "each job that is due once, and no other"
    waiting = Counter(due)
    turn = -(-len(due) // count)  # claims in which every account could be served once
    since = dict.fromkeys(due, 0)
    for claim in claims:
        assert len(claim) == min(count, waiting.total()), "nothing stays idle while something is due"
        waiting.subtract(claim)
        for account in due:
            since[account] = 0 if account in claim or not waiting[account] else since[account] + 1
            assert since[account] <= turn, f"{account} waits for more than a round"


async def claims_of(queue: Queue, stage: job_claim_store.Stage, count: int) -> list[list[str]]:
    """Claim until nothing is due."""
    claims = []
    while taken := await queue.claim(count, stage=stage, after=queue.last.turns.get("p", "")):
        claims.append([job.rpartition("-")[0] for job in taken])
    return claims


BACKLOGS = st.dictionaries(
    st.integers(0, 9).map(lambda number: f"acc_{number}"), st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(backlogs=BACKLOGS, count=st.integers(1, 7), stage=st.sampled_from(["submit", "poll"]), data=st.data())
async def test_every_account_is_served_within_a_round(
    backlogs: dict[str, tuple[int, int]], count: int, stage: job_claim_store.Stage, data: st.DataObject
) -> None:
    """Arbitrary backlogs of arbitrary ages, beside jobs that are not due yet."""
    with scratch() as directory:
        async with queue_in(directory) as queue:
            for account, (due, later) in backlogs.items():
                age_ms = data.draw(st.integers(20, 1_000_000))
                now_ms = queue.clock.now_ms()
                queue.put(account, due, due_at=now_ms - age_ms, status=STATUS[stage])
                queue.put(account, later, name="later", due_at=now_ms + HOUR_MS, status=STATUS[stage])
            claims = await claims_of(queue, stage, count)

    check_fair({account: due for account, (due, _) in backlogs.items() if due}, claims, count)


def by_age(due: Mapping[str, int], count: int) -> list[list[str]]:
    """A planted claim: the oldest first, and the accounts' jobs are of one age each."""
    line = [account for account, jobs in due.items() for _ in range(jobs)]
    return [line[at : at + count] for at in range(0, len(line), count)]


def from_the_beginning(due: Mapping[str, int], count: int) -> list[list[str]]:
    """A planted claim: in turn, but each time from the first account on."""
    waiting, claims = Counter(due), []
    while waiting.total():
        claim = [account for account in sorted(due) if waiting[account]][:count]
        waiting.subtract(claim)
        claims.append(claim)
    return claims


@pytest.mark.parametrize("planted", [by_age, from_the_beginning])
def test_unfair_claims_are_seen(planted: object) -> None:
    """Else the check would mean nothing."""
    due = {"acc_a": 30, "acc_b": 30, "acc_c": 1}
    with pytest.raises(AssertionError, match=r"acc_[bc] waits for more than a round"):
        check_fair(due, planted(due, 1), 1)  # type: ignore[operator]


class Polls:
    """A pool whose work for some providers never comes back."""

    def __init__(self, queue: Queue, stuck: str) -> None:
        self.asked: list[str] = []
        self._stuck = stuck
        metrics = Metrics()
        self.pool = WorkerPool("poll", self._ask, TwoEach(), accepts=lambda _: True, lease_ms=60_000, observer=metrics)
        self.dispatcher = Dispatcher(
            self.pool, writer=queue.writer, clock=queue.clock, owner="me", providers=("slow", "well"), observer=metrics
        )

    async def _ask(self, job: JobRow, slot: Slot) -> None:
        self.asked.append(job.id)
        if job.provider == self._stuck:
            await asyncio.Event().wait()


async def test_provider_that_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    """A thousand polls are due at one that answers nothing; those of another go out at once, as many as it takes."""
    async with queue_in(tmp_path) as queue:
        queue.put("acc_big", 1_000, provider="slow", status=JobStatus.RUNNING)
        queue.put("acc_small", 6, provider="well", status=JobStatus.RUNNING, due_at=queue.clock.now_ms())
        polls = Polls(queue, stuck="slow")
        for _ in range(3):
            await polls.dispatcher.run_once()
            await asyncio.sleep(0)
        asked = Counter(job.partition("-")[0] for job in polls.asked)
        await polls.pool.drain(0)

    assert asked == {"acc_big": 2, "acc_small": 6}


async def test_account_with_a_thousand_polls_holds_up_no_other(tmp_path: Path) -> None:
    """At one provider, two at once: who has a single poll waits for one turn."""
    async with queue_in(tmp_path) as queue:
        queue.put("acc_big", 1_000, provider="well", status=JobStatus.RUNNING)
        queue.put("acc_small", 1, provider="well", status=JobStatus.RUNNING, due_at=queue.clock.now_ms())
        polls = Polls(queue, stuck="slow")
        for _ in range(2):
            await polls.dispatcher.run_once()
            await asyncio.sleep(0)
        await polls.pool.settle()

    assert "acc_small-0" in polls.asked
    assert len(polls.asked) <= 4
