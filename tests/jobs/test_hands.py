"""Hands: bounded places for each provider, in order where order matters, and a drain that lets work finish."""

from __future__ import annotations

import asyncio

import pytest

from service.jobs.hands import TaskHand
from service.jobs.row import JobRow
from service.states import JobStatus


class Work:
    """Work that ends when the test says so."""

    def __init__(self, *, in_order: bool) -> None:
        self.go = asyncio.Event()
        self.done: list[str] = []
        self.hand = TaskHand(
            self.do, places=lambda _: 2, willing=lambda job: job.operation != "never", lease_ms=1_000, in_order=in_order
        )

    async def do(self, job: JobRow) -> None:
        await self.go.wait()
        self.done.append(job.id)

    def offer(self, name: str, provider: str = "p", operation: str = "o") -> bool:
        """Reserve a place and begin; whether there was one."""
        job = JobRow(name, "acc_1", provider, operation, JobStatus.QUEUED, 0, 9)
        taken = self.hand.reserve(job)
        if taken:
            self.hand.give(job)
        return taken


async def test_places_are_bounded_for_each_provider() -> None:
    """Two at once for each; one provider's do not count for another's."""
    work = Work(in_order=False)
    taken = [work.offer("a"), work.offer("b"), work.offer("c"), work.offer("d", provider="q")]
    work.go.set()
    await work.hand.settle()

    assert taken == [True, True, False, True]
    assert work.done == ["a", "b", "d"]


@pytest.mark.parametrize(("in_order", "after"), [(True, False), (False, True)])
async def test_new_work_queues_behind_what_waits_only_where_order_matters(*, in_order: bool, after: bool) -> None:
    """A fetch takes a free place at once; a submission waits until the store has nothing older."""
    work = Work(in_order=in_order)
    for name in "abc":
        work.offer(name)
    work.go.set()
    await work.hand.settle()
    free_again = work.offer("d")
    work.hand.caught_up("p")
    caught_up = work.offer("e")
    await work.hand.settle()

    assert free_again is after
    assert caught_up is True
    assert work.hand.wake.is_set() is in_order


async def test_unwilling_work_takes_no_place() -> None:
    """What cannot be done at all is left to the deadline."""
    work = Work(in_order=True)

    assert work.offer("a", operation="never") is False
    assert work.hand.free("p") == 2


async def test_drain_lets_work_finish_and_begins_nothing() -> None:
    """And cuts off what does not finish in time."""
    work = Work(in_order=False)
    work.offer("a")
    draining = asyncio.create_task(work.hand.drain(5))
    await asyncio.sleep(0)
    late = work.offer("b")
    work.go.set()
    await draining
    stuck = Work(in_order=False)
    stuck.offer("c")
    await asyncio.sleep(0)
    await stuck.hand.drain(0.01)

    assert late is False
    assert work.done == ["a"]
    assert stuck.done == []
