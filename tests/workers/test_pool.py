"""Worker pools: bounded for each provider, in order, and a drain that lets work finish."""

from __future__ import annotations

import asyncio
from collections import Counter

from service.jobs.row import JobRow
from service.providers.limiter import Slot
from service.states import JobStatus
from service.telemetry import Metrics
from service.workers.job_claim_store import NO_SHARE, Share
from service.workers.pool import WorkerPool


class TwoEach:
    """Two at once for every provider."""

    def __init__(self) -> None:
        self.in_use: Counter[str] = Counter()

    def room(self, provider: str) -> int:
        """See `Limits`."""
        return 2 - self.in_use[provider]

    def share(self, provider: str) -> Share:
        """See `Limits`."""
        return NO_SHARE

    def note(self, job: JobRow) -> None:
        """See `Limits`."""

    def wait_s(self, provider: str) -> float | None:
        """See `Limits`."""
        return {"timed": 3.0}.get(provider)

    def enter(self, job: JobRow) -> Slot:
        """See `Limits`."""
        self.in_use[job.provider] += 1
        return Slot(None)  # type: ignore[arg-type]  # what is given back is counted here

    def leave(self, job: JobRow, slot: Slot) -> None:
        """See `Limits`."""
        self.in_use[job.provider] -= 1


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.done: list[str] = []
        self.metrics = Metrics()
        self.pool = WorkerPool(
            "poll",
            self.do,
            TwoEach(),
            accepts=lambda job: job.operation != "never",
            lease_ms=1_000,
            observer=self.metrics,
        )

    async def do(self, job: JobRow, slot: Slot) -> None:
        await self.go.wait()
        if job.operation == "breaks":
            raise RuntimeError(job.id)
        self.done.append(job.id)

    def offer(self, name: str, provider: str = "p", operation: str = "o") -> bool:
        """Reserve a slot and begin; whether there was one."""
        job = JobRow(name, "acc_1", provider, operation, JobStatus.QUEUED, 0, 9)
        taken = self.pool.reserve(job)
        if taken:
            self.pool.give(job)
        return taken


async def test_slots_are_bounded_for_each_provider() -> None:
    """Two at once for each; one provider's do not count for another's."""
    work = Work()
    taken = [work.offer("a"), work.offer("b"), work.offer("c"), work.offer("d", provider="q")]
    work.go.set()
    await work.pool.settle()

    assert taken == [True, True, False, True]
    assert work.done == ["a", "b", "d"]


async def test_new_work_queues_behind_what_waits() -> None:
    """Until a claim found nothing older in the store; a slot that is given back wakes whoever claims."""
    work = Work()
    for name in "abc":
        work.offer(name)
    work.pool.wake.clear()
    work.go.set()
    await work.pool.settle()
    woken, free_again = work.pool.wake.is_set(), work.offer("d")
    work.pool.claimed("p", count=0, more=True, stamp=work.pool.stamp("p"))
    still_behind = work.offer("e")
    work.pool.claimed("p", count=0, more=False, stamp=work.pool.stamp("p"))
    caught_up = work.offer("f")
    await work.pool.settle()

    assert (woken, free_again, still_behind, caught_up) == (True, False, False, True)


async def test_room_that_a_claim_will_fill_is_given_to_nobody_else() -> None:
    """While the store is asked, new work waits behind."""
    work = Work()
    with work.pool.held({"p": 2}):
        during = work.offer("a")
    work.pool.claimed("p", count=0, more=False, stamp=work.pool.stamp("p"))

    assert during is False
    assert work.pool.free("p") == 2
    work.go.set()


async def test_job_that_is_left_while_the_store_is_asked_is_looked_for_at_once() -> None:
    """The claim did not see it: it must not wait for the next tick, nor let newer ones pass."""
    work = Work()
    stamp = work.pool.stamp("p")
    with work.pool.held({"p": 2}):
        work.offer("a")
        work.pool.wake.clear()
        work.offer("b")
    work.pool.claimed("p", count=0, more=False, stamp=stamp)

    assert work.pool.behind() == {"p"}
    assert work.pool.wake.is_set()
    assert work.offer("c") is False


async def test_time_that_makes_room_is_told_for_providers_that_are_behind() -> None:
    """A rate or a pause wakes nobody by itself."""
    work = Work()
    before = work.pool.wait_s()
    for name in "abc":
        work.offer(name, provider="timed")
        work.offer(name, provider="p")

    assert before is None
    assert work.pool.wait_s() == 3.0
    work.go.set()
    await work.pool.settle()


async def test_work_that_is_not_accepted_takes_no_slot() -> None:
    """What cannot be done at all is left to the deadline."""
    work = Work()

    assert work.offer("a", operation="never") is False
    assert work.pool.free("p") == 2


async def test_unexpected_error_is_counted_and_gives_its_slot_back() -> None:
    """A mistake in the code must not wear a provider's slots away, nor go unseen."""
    work = Work()
    work.offer("a", operation="breaks")
    work.go.set()
    await work.pool.settle()

    assert work.pool.free("p") == 2
    assert b'remora_work_failed_total{kind="poll"} 1.0' in work.metrics.render()[0]


async def test_drain_lets_work_finish_and_begins_nothing() -> None:
    """And cuts off what does not finish in time."""
    work = Work()
    work.offer("a")
    draining = asyncio.create_task(work.pool.drain(5))
    await asyncio.sleep(0)
    late = work.offer("b")
    work.go.set()
    await draining
    stuck = Work()
    stuck.offer("c")
    await asyncio.sleep(0)
    await stuck.pool.drain(0.01)

    assert late is False
    assert work.done == ["a"]
    assert stuck.done == []
