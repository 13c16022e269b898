"""Fair claims: whoever has something due is served within a round, whatever others have waiting; a claim by age alone is not fair.

The check is one function over what was claimed, tried on our claims and on planted statements that are not fair.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clock import VirtualClock
from service.db.leases import Leased, free
from service.db.sqlite.inline_store import InlineConnection
from service.db.transaction import Tx
from service.db.writer import Handler
from service.jobs.row import COLUMNS, JobRow, from_row
from service.providers.limiter import Slot
from service.states import JobStatus
from service.telemetry import Metrics
from service.workers import job_claim_store
from service.workers.dispatch import Dispatcher
from service.workers.pool import WorkerPool
from tests.fairness import BACKLOGS, check_fair, copied
from tests.workers.backlog import Queue
from tests.workers.test_pool import TwoEach

STATUS = {"submit": JobStatus.QUEUED, "poll": JobStatus.RUNNING}
HOUR_MS = 3_600_000


@asynccontextmanager
async def queue_in(template: Path) -> AsyncIterator[Queue]:
    """An empty queue."""
    with copied(template) as path:
        queue = Queue(InlineConnection(path), VirtualClock())
        try:
            yield queue
        finally:
            await queue.writer.close()


#: Providers, each with its accounts' backlogs and how much it takes at once.
PROVIDERS = st.dictionaries(st.sampled_from(["p", "q", "r"]), st.tuples(BACKLOGS, st.integers(1, 7)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(providers=PROVIDERS, stage=st.sampled_from(["submit", "poll"]), data=st.data())
async def test_every_account_is_served_within_a_round(
    template: Path,
    providers: dict[str, tuple[dict[str, tuple[int, int]], int]],
    stage: job_claim_store.Stage,
    data: st.DataObject,
) -> None:
    """At every provider by itself: arbitrary backlogs of arbitrary ages, beside jobs that are not due yet."""
    async with queue_in(template) as queue:
        now_ms = queue.clock.now_ms()
        for provider, (backlogs, _) in providers.items():
            for account, (due, later) in backlogs.items():
                columns = {"provider": provider, "status": STATUS[stage]}
                age_ms = data.draw(st.integers(20, 1_000_000))
                queue.put(account, due, name=f"{provider}-due-", due_at=now_ms - age_ms, **columns)
                queue.put(account, later, name=f"{provider}-later-", due_at=now_ms + HOUR_MS, **columns)
        claims = await claims_of(queue, stage, {name: count for name, (_, count) in providers.items()})

    for provider, (backlogs, count) in providers.items():
        check_fair({account: due for account, (due, _) in backlogs.items() if due}, claims[provider], count)


async def claims_of(
    queue: Queue, stage: job_claim_store.Stage, counts: Mapping[str, int]
) -> dict[str, list[list[str]]]:
    """Claim for all providers at once until nothing is due; the accounts of each claim, by provider."""
    claims: dict[str, list[list[str]]] = {provider: [] for provider in counts}
    turns: dict[str, str] = {}
    for _ in range(1_000):
        rooms = tuple(
            job_claim_store.ProviderRoom(provider, count, turns.get(provider, "")) for provider, count in counts.items()
        )
        claimed = await queue.writer.run(job_claim_store.ClaimJobs(stage, "me", 60_000, rooms))
        turns |= claimed.turns
        if not claimed.jobs:
            break
        for provider in counts:
            claims[provider].append([job.account_id for job in claimed.jobs if job.provider == provider])
    return claims


#: Planted statements: each claims what is due, but in an order that is not fair.
_FREE = f"due_at <= :now AND {free()}"
UNFAIR = {
    "by due time only": f"SELECT {{columns}} FROM jobs WHERE provider = :provider AND {_FREE} ORDER BY due_at LIMIT :count",
    "always from the first account on": (
        f"SELECT {{columns}} FROM (SELECT *, row_number() OVER (PARTITION BY account_id ORDER BY due_at) AS turn FROM jobs "
        f"WHERE provider = :provider AND {_FREE}) ORDER BY turn <> 1, account_id, turn LIMIT :count"
    ),
    "one order over all providers": (
        f"SELECT {{columns}} FROM (SELECT * FROM jobs WHERE {_FREE} ORDER BY due_at LIMIT :count) WHERE provider = :provider"
    ),
}


def planted(order: str) -> Handler[job_claim_store.ClaimJobs, job_claim_store.ClaimedJobs]:
    """A handler that claims by one of these statements."""

    async def handle(
        tx: Tx, commands: Sequence[job_claim_store.ClaimJobs]
    ) -> list[job_claim_store.ClaimedJobs | Exception]:
        [command] = commands
        sql = UNFAIR[order].format(columns=", ".join(COLUMNS))
        asked = [{"provider": room.provider, "count": room.count, "now": tx.now_ms} for room in command.rooms]
        found = await tx.rows_each(sql, asked)
        Leased("jobs", ("id",)).claim(tx, found, command.owner, command.lease_ms)
        return [job_claim_store.ClaimedJobs([from_row(row) for row in found])]

    return handle


def check_each(due: Mapping[str, int], claims: Mapping[str, list[list[str]]]) -> None:
    """Every provider's claims of one job each were fair."""
    for of_provider in claims.values():
        check_fair(due, of_provider, 1)


@pytest.mark.parametrize("order", UNFAIR)
@pytest.mark.parametrize("stage", STATUS)
async def test_unfair_statement_is_seen(template: Path, order: str, stage: job_claim_store.Stage) -> None:
    """Else the check would mean nothing; our own claim passes on the same backlog."""
    due = {"acc_a": 30, "acc_b": 30, "acc_c": 1}
    found = {}
    for name, handler in (("ours", None), ("planted", planted(order))):
        async with queue_in(template) as queue:
            for number, (account, count) in enumerate(due.items()):
                for provider in ("p", "q"):
                    age_ms = 9_000 - 1_000 * number + (500 if provider == "p" else 0)
                    columns = {"provider": provider, "status": STATUS[stage], "due_at": queue.clock.now_ms() - age_ms}
                    queue.put(account, count, name=provider, **columns)
            if handler is not None:
                queue.writer.handle(job_claim_store.ClaimJobs, handler)
            found[name] = await claims_of(queue, stage, {"p": 1, "q": 1})

    check_each(due, found["ours"])
    with pytest.raises(AssertionError, match=r"waits for more than a round|stays idle"):
        check_each(due, found["planted"])


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


async def test_provider_that_does_not_answer_holds_up_no_other(template: Path) -> None:
    """A thousand polls are due at one that answers nothing; those of another go out at once, as many as it takes."""
    async with queue_in(template) as queue:
        queue.put("acc_big", 1_000, provider="slow", status=JobStatus.RUNNING)
        queue.put("acc_small", 6, provider="well", status=JobStatus.RUNNING, due_at=queue.clock.now_ms())
        polls = Polls(queue, stuck="slow")
        for _ in range(3):
            await polls.dispatcher.run_once()
            await asyncio.sleep(0)
        asked = Counter(job.partition("-")[0] for job in polls.asked)
        await polls.pool.drain(0)

    assert asked == {"acc_big": 2, "acc_small": 6}


async def test_account_with_a_thousand_polls_holds_up_no_other(template: Path) -> None:
    """At one provider, two at once: who has a single poll waits for one turn."""
    async with queue_in(template) as queue:
        queue.put("acc_big", 1_000, provider="well", status=JobStatus.RUNNING)
        queue.put("acc_small", 1, provider="well", status=JobStatus.RUNNING, due_at=queue.clock.now_ms())
        polls = Polls(queue, stuck="slow")
        for _ in range(2):
            await polls.dispatcher.run_once()
            await asyncio.sleep(0)
        await polls.pool.settle()

    assert "acc_small-0" in polls.asked
    assert len(polls.asked) <= 4
