"""A store with a million jobs that ended within a month beside one with ten thousand: looking, listing, usage, expiring.

First all jobs are counted into the usage of their days by the service's own roller, which says how many a second that is.
Then the same questions are asked of both stores in turns, through the service's own queries: the lower
quartiles may differ by half.

Run: `python -m benchmarks.usage [--quick] [--directory DIR]`; about five minutes and eight gigabytes, quick half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.ended import ACCOUNT, DAY_MS, Ended, fill
from benchmarks.report import aim, machine, stolen_s
from service.clock import SystemClock, SystemRandomness
from service.db.opening import SQLiteStore, open_store
from service.jobs import queries
from service.jobs.listing import list_queries
from service.jobs.listing.list_queries import JobFilter
from service.results import queries as result_queries
from service.scheduler.roller import Roller
from service.usage import store as usage_store
from service.usage.counting import UsageQuery, grouped

MOST_RATIO = 1.5  # of the quartiles
SWEPT = 200  # of one sweep


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the stores are, and how often is asked."""

    small: int  # jobs
    large: int
    rounds: int  # of every question to each store


FULL = Plan(small=10_000, large=1_000_000, rounds=100)
QUICK = Plan(small=10_000, large=100_000, rounds=40)


@dataclass(slots=True)
class Asked:
    """An open store, and what is asked of it."""

    ended: Ended
    store: SQLiteStore
    counted_per_s: float
    taken_ms: dict[str, list[float]] = field(default_factory=dict)
    _turn: int = 0

    def questions(self) -> dict[str, Callable[[], Awaitable[int]]]:
        """Every question by its name; it answers how many rows it found."""
        return {
            "one job with its results": self._one,
            "the newest 50 jobs with their results": self._page,
            "… that failed": lambda: self._page(status=("failed",)),
            "… before one in the middle": lambda: self._page(before_id=self.ended.some[50]),
            "usage of a month by day and provider": lambda: self._usage("day", "provider"),
            "… by day, model, key and status": lambda: self._usage("day", "model", "key", "status"),
            "… by tag": lambda: self._usage("tag"),
            "… of one tag by day": lambda: self._usage("day", tag="batch-1"),
            "jobs past their deadline or overdue": self._expiry,
            "results whose end is due": self._sweep,
        }

    async def _one(self) -> int:
        self._turn += 1
        job_id = self.ended.some[self._turn % len(self.ended.some)]
        job = await queries.find(self.store.reader, ACCOUNT, job_id)
        await queries.results(self.store.reader, job_id)
        return int(job is not None)

    async def _page(self, **wanted: object) -> int:
        found = await list_queries.list_jobs(self.store.reader, ACCOUNT, JobFilter(**wanted), 50)  # type: ignore[arg-type]
        await queries.results_of(self.store.reader, found.jobs)
        return len(found.jobs)

    async def _usage(self, *group_by: str, tag: str | None = None) -> int:
        today = self.ended.now_ms // DAY_MS
        wanted = UsageQuery(today - 30, today, group_by, tag=tag)
        return len(grouped(await usage_store.usage(self.store.reader, ACCOUNT, wanted), wanted))

    async def _expiry(self) -> int:
        late = await queries.past_deadline(self.store.reader, self.ended.now_ms, queries.START, SWEPT)
        return len(late) + len(await queries.newly_overdue(self.store.reader, self.ended.now_ms, queries.START, SWEPT))

    async def _sweep(self) -> int:
        return len(await result_queries.due_for_sweep(self.store.reader, self.ended.now_ms, SWEPT))

    async def ask(self, name: str) -> int:
        """Ask once and note how long it took."""
        began = time.perf_counter()
        found = await self.questions()[name]()
        self.taken_ms.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        return found

    def quartile_ms(self, name: str) -> float:
        """What a quarter of the answers stays below: what else the machine does only ever adds."""
        return statistics.quantiles(self.taken_ms[name], n=4)[0]


async def opened(ended: Ended) -> Asked:
    """Open a store and count everything in it."""
    store = await open_store(ended.path, None, SystemClock(), SystemRandomness())
    usage_store.register(store.writer)
    store.writer.start()
    began = time.perf_counter()
    counted = await Roller(store.writer, store.reader).run_once()
    if counted != ended.jobs:
        raise SystemExit(f"{counted} jobs were counted of {ended.jobs}")
    return Asked(ended, store, counted / (time.perf_counter() - began))


async def ask_all(small: Asked, large: Asked, rounds: int) -> list[tuple[str, float, float]]:
    """Every question with its lower quartile in both stores, in ms; they are asked in turns, so that both see the same machine."""
    names = list(small.questions())
    for name in names:
        for each in (small, large):
            await each.ask(name)  # the first finds nothing in any cache
            each.taken_ms[name].clear()
        for _ in range(rounds):
            for each in (small, large):
                await each.ask(name)
    return [(name, small.quartile_ms(name), large.quartile_ms(name)) for name in names]


def table(plan: Plan, found: list[tuple[str, float, float]]) -> Iterator[str]:
    """The quartiles and their ratios as a Markdown table, and whether they are what they should be."""
    yield f"| | {plan.small:,} jobs, ms | {plan.large:,}, ms | ratio |"
    yield "|---|---|---|---|"
    for name, small_ms, large_ms in found:
        yield f"| {name} | {small_ms:.2f} | {large_ms:.2f} | {large_ms / small_ms:.2f} |"
    worst = max(large_ms / small_ms for _, small_ms, large_ms in found)
    yield ""
    yield aim(f"at most {MOST_RATIO} times as slow", f"{worst:.2f}", holds=worst <= MOST_RATIO)


async def measure(directory: Path, plan: Plan) -> Iterator[str]:
    """Fill, count, ask; the lines to print."""
    now_ms = SystemClock().now_ms()
    asked: list[Asked] = []
    try:
        for name, jobs in (("small", plan.small), ("large", plan.large)):
            (directory / name).mkdir()
            asked.append(await opened(await asyncio.to_thread(fill, directory / name / "remora.db", jobs, now_ms)))
            print(f"{name}: {jobs:,} jobs", file=sys.stderr, flush=True)
        found = await ask_all(asked[0], asked[1], plan.rounds)
    finally:
        for each in asked:
            await each.store.close()
    large = asked[1]
    return iter(
        [
            *table(plan, found),
            f"bytes a job: {large.ended.bytes_each:,.0f} (deliveries aside); counted: {large.counted_per_s:,.0f} jobs/s",
        ]
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth as many, for a first look")
    parser.add_argument("--directory", type=Path, help="where the databases are made; default: the temporary directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="remora-usage-", dir=given.directory) as directory:
        facts, stolen = machine(Path(directory)), stolen_s()
        print("\n".join(uvloop.run(measure(Path(directory), QUICK if given.quick else FULL))))
        facts["stolen by the host"] = f"{stolen_s() - stolen:.1f} s during the run; load now {os.getloadavg()[0]:.1f}"
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
