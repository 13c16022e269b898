"""A store with a million finished deliveries beside one with ten thousand: picking due work, listing, and cleaning up.

First the same questions are asked of both stores in turns, through the service's own queries and its writer: the medians
may differ by half. Then the service runs on the large store, on a core of its own, and delivers 200 events a second (the
callbacks of `benchmarks.path`) while everything older than 90 days is removed, which is 500,000 attempts and deliveries
and as many rows more of other kinds; an event's latency counts from when its callback was due. Afterwards every callback
has its event, and the database breaks no rule.

Run: `python -m benchmarks.million [--quick] [--only reads|cleaning] [--directory DIR]`; about eight minutes, quick one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.archive import ACCOUNT, SUBSCRIPTIONS, Archive, fill, settle
from benchmarks.loadgen import Client, request
from benchmarks.path import cores
from benchmarks.phases import Bench, Measured
from benchmarks.report import aim, machine, stolen_s
from benchmarks.subject import pin
from benchmarks.targets import Remora
from benchmarks.world import World
from service.clock import SystemClock, SystemRandomness
from service.db.inspection.invariants import breaches
from service.db.opening import SQLiteStore, open_store
from service.db.transaction import Tx
from service.db.writer import Command
from service.deliveries import claim_store, delivery_queries
from service.deliveries.delivery_queries import DeliveryFilter
from service.events import feed_queries

RATE = 200  # deliveries a second while it is cleaned
MOST_RATIO = 1.5  # of the medians
MOST_DELAY_MS = 100.0
CLAIMED_LANES = 5  # of one claim
PAGE_BYTES = 1_000_000  # of a page of the feed
KEEP_ALL = "jobs=3650d, payloads=3650d, attempts=3650d"
KEEP_90 = "jobs=365d, payloads=90d, attempts=90d"


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the stores are, and how often is asked."""

    small: int  # deliveries
    large: int
    rounds: int  # of every question to each store
    phase_s: float  # of delivering
    phases: int  # at most, while it is cleaned
    removed: int  # rows, while it is measured


FULL = Plan(small=10_000, large=1_000_000, rounds=300, phase_s=30.0, phases=20, removed=500_000)
QUICK = Plan(small=10_000, large=100_000, rounds=60, phase_s=5.0, phases=4, removed=20_000)


@dataclass(frozen=True, slots=True)
class Unclaim(Command[None]):
    """Give everything back that was claimed, so that it can be claimed again."""


async def _handle_unclaim(tx: Tx, commands: Sequence[Unclaim]) -> list[Exception | None]:
    tx.write("UPDATE deliveries SET lease_owner = NULL, lease_until = NULL WHERE lease_until IS NOT NULL", [{}])
    tx.write(
        "UPDATE lanes SET next_due_at = (SELECT min(due_at) FROM deliveries WHERE lane = lanes.id AND status = 'pending')",
        [{}],
    )
    return [None for _ in commands]


@dataclass(slots=True)
class Asked:
    """An open store, and what is asked of it."""

    archive: Archive
    store: SQLiteStore
    taken_ms: dict[str, list[float]] = field(default_factory=dict)

    def questions(self) -> dict[str, Callable[[], Awaitable[int]]]:
        """Every question by its name; it answers how many rows it found."""
        return {
            "claim what is due in five lanes": self._claim,
            "the newest 50 deliveries": self._page,
            "… of a subscription": lambda: self._page(subscription_id=SUBSCRIPTIONS[1]),
            "… that are dead": lambda: self._page(status=("dead",)),
            "… that were skipped (there are none)": lambda: self._page(status=("skipped",)),
            "… that were delivered": lambda: self._page(status=("delivered",)),
            "50 deliveries from the middle on": lambda: self._page(before_id=self.archive.a_delivery),
            "one delivery with its attempts": self._one,
            "the oldest 50 events of the feed": lambda: self._feed(0),
            "50 events of the feed from the middle on": lambda: self._feed(self.archive.positions // 2),
            "the newest 50 events of the feed": lambda: self._feed(self.archive.positions - 50),
        }

    async def _claim(self) -> int:
        claimed = await self.store.writer.run(claim_store.ClaimDeliveries("me", 600_000, due_lanes=CLAIMED_LANES))
        if not claimed.rows:
            await self.store.writer.run(Unclaim())
        return len(claimed.rows)

    async def _page(self, **wanted: object) -> int:
        filters = DeliveryFilter(**wanted)  # type: ignore[arg-type]
        return len((await delivery_queries.list_deliveries(self.store.reader, ACCOUNT, filters, 50)).deliveries)

    async def _one(self) -> int:
        found = await delivery_queries.find_delivery(self.store.reader, ACCOUNT, self.archive.a_delivery)
        return len(found["attempts"]) if found else 0

    async def _feed(self, after: int) -> int:
        wanted = feed_queries.FeedFilter()
        page = await feed_queries.read_page(self.store.reader, ACCOUNT, after, wanted, limit=50, max_bytes=PAGE_BYTES)
        return len(page.entries)

    async def ask(self, name: str) -> int:
        """Ask once and note how long it took; a claim that found nothing is not counted."""
        began = time.perf_counter()
        found = await self.questions()[name]()
        if found or name != "claim what is due in five lanes":
            self.taken_ms.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        return found

    def median_ms(self, name: str) -> float:
        """The median of all answers so far."""
        return statistics.median(self.taken_ms[name])


async def _open(archive: Archive) -> Asked:
    store = await open_store(archive.path, None, SystemClock(), SystemRandomness())
    claim_store.register(store.writer)
    store.writer.handle(Unclaim, _handle_unclaim)
    store.writer.start()
    return Asked(archive, store)


async def reads(small: Archive, large: Archive, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Every question with its median in both stores, in ms; they are asked in turns, so that both see the same machine."""
    stores = [await _open(small), await _open(large)]
    try:
        for name in stores[0].questions():
            for _ in range(rounds):
                found = [await asked.ask(name) for asked in stores]
                if found[0] != found[1]:
                    raise SystemExit(f"{name}: {found[0]} rows in one store and {found[1]} in the other")
    finally:
        for asked in stores:
            await asked.store.writer.run(Unclaim())
            await asked.store.close()
    return ((name, stores[0].median_ms(name), stores[1].median_ms(name)) for name in stores[0].questions())


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Delivering without and with the clean-up."""

    before: list[Measured]
    during: list[Measured]
    removed: dict[str, int]  # while it was measured
    seconds: float  # of measuring, while it was cleaned
    wal_bytes: int
    problems: list[str]

    def extra_ms(self, phases: list[Measured]) -> float:
        """The slowest event's latency, less what it usually is without the clean-up."""
        return max(each.max_ms for each in phases) - statistics.median(each.p50_ms for each in self.before)


async def cleaning(large: Archive, plan: Plan, core: int | None) -> Cleaning:
    """Deliver at a fixed rate on the large store, first with nothing to remove, then with a quarter of it."""
    count = round(RATE * plan.phase_s)
    settle(large)
    async with World() as world:
        bench = Bench(world)
        target = await _service(world, large, core, KEEP_ALL)
        await bench.callbacks(target, RATE)
        before = [await bench.callbacks(target, count, RATE) for _ in range(2)]
        problems = _ended(await target.subject.stop())
        target = await _service(world, large, core, KEEP_90)
        await bench.callbacks(target, RATE)
        during: list[Measured] = []
        removed: dict[str, int] = {}
        while len(during) < plan.phases and sum(removed.values()) < plan.removed:
            so_far = await _removed(target)
            during.append(await bench.callbacks(target, count, RATE))
            for what, number in (await _removed(target)).items():
                removed[what] = removed.get(what, 0) + number - so_far.get(what, 0)
        wal_bytes = large.path.with_name(large.path.name + "-wal").stat().st_size
        problems += _ended(await target.subject.stop())
    if sum(removed.values()) < plan.removed:
        problems.append(f"only {sum(removed.values()):,} rows were removed while it was measured")
    problems += [problem for each in (*before, *during) for problem in each.problems] + _broken(large.path)
    return Cleaning(before, during, removed, plan.phase_s * len(during), wal_bytes, problems)


async def _service(world: World, large: Archive, core: int | None, retention: str) -> Remora:
    more = {"REMORA_RETENTION": retention}
    return await Remora.start(world, large.path.parent, "trust", core, None, more=more, flags=("--clean",))


def _ended(status: int) -> list[str]:
    return [f"the service ended with {status}"] if status else []


async def _removed(target: Remora) -> dict[str, int]:
    """What the service says it has removed so far, by kind."""
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with Client(target.host, target.port, connections=1) as client:
        client.send(request("GET", "/metrics", target.host, b""), lambda _, body: answered.set_result(body))
        text = (await answered).decode()
    found = re.findall(r'^remora_retention_removed_total\{what="(\w+)"\} ([0-9.e+]+)$', text, re.MULTILINE)
    return {what: round(float(number)) for what, number in found}


def _broken(path: Path) -> list[str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [f"{breach.rule} {breach.says}: {breach.rows}" for breach in breaches(connection)]
    finally:
        connection.close()


def reads_table(plan: Plan, found: list[tuple[str, float, float]]) -> Iterator[str]:
    """The medians and their ratios as a Markdown table, and whether they are what they should be."""
    yield f"| | {plan.small:,} deliveries, ms | {plan.large:,}, ms | ratio |"
    yield "|---|---|---|---|"
    for name, small_ms, large_ms in found:
        yield f"| {name} | {small_ms:.2f} | {large_ms:.2f} | {large_ms / small_ms:.2f} |"
    worst = max(large_ms / small_ms for _, small_ms, large_ms in found)
    yield ""
    yield aim(f"at most {MOST_RATIO} times as slow", f"{worst:.2f}", holds=worst <= MOST_RATIO)


def cleaning_table(found: Cleaning) -> Iterator[str]:
    """Latencies without and with the clean-up as a Markdown table, and whether they are what they should be."""
    yield f"| {RATE} events a second | events | p50, ms | p99, ms | slowest, ms |"
    yield "|---|---|---|---|---|"
    for name, phases in (("nothing to remove", found.before), ("cleaning", found.during)):
        middle = [statistics.median(each) for each in zip(*((one.p50_ms, one.p99_ms) for one in phases), strict=True)]
        slowest = max(one.max_ms for one in phases)
        yield f"| {name} | {sum(one.count for one in phases):,} | {middle[0]:.1f} | {middle[1]:.1f} | {slowest:.1f} |"
    total = sum(found.removed.values())
    kinds = ", ".join(f"{count:,} {what}" for what, count in sorted(found.removed.items()) if count)
    yield ""
    yield f"removed meanwhile: {total:,} rows ({kinds}), {total / found.seconds:,.0f}/s; write-ahead log {found.wal_bytes / 1e6:.0f} MB"
    extra_ms = found.extra_ms(found.during)
    yield aim(
        f"delays no delivery by more than {MOST_DELAY_MS:.0f} ms",
        f"{extra_ms:.1f} ms, and {found.extra_ms(found.before):.1f} ms with nothing to remove",
        holds=extra_ms <= MOST_DELAY_MS,
    )


async def measure(directory: Path, plan: Plan, core: int | None, only: str) -> list[str]:
    """Fill, measure, print; returns what did not add up."""
    now_ms = SystemClock().now_ms()
    archives = []
    for name, deliveries in (("small", plan.small), ("large", plan.large)):
        (directory / name).mkdir()
        archives.append(await asyncio.to_thread(fill, directory / name / "remora.db", deliveries, now_ms))
        print(f"{name}: {deliveries:,} deliveries", file=sys.stderr, flush=True)
    if only != "cleaning":
        print(
            "\n".join(reads_table(plan, list(await reads(archives[0], archives[1], plan.rounds)))),
            end="\n\n",
            flush=True,
        )
    if only == "reads":
        return []
    found = await cleaning(archives[1], plan, core)
    print("\n".join(cleaning_table(found)), end="\n\n")
    return found.problems


def main() -> int:
    """Measure, print, and say by the exit status whether everything added up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth as many, for a first look")
    parser.add_argument("--only", choices=("reads", "cleaning"), default="")
    parser.add_argument("--directory", type=Path, help="where the databases are made; default: the temporary directory")
    given = parser.parse_args()
    core, own = cores()
    pin(own)
    with tempfile.TemporaryDirectory(prefix="remora-million-", dir=given.directory) as directory:
        facts, stolen = machine(Path(directory)), stolen_s()
        problems = uvloop.run(measure(Path(directory), QUICK if given.quick else FULL, core, given.only))
        facts["stolen by the host"] = f"{stolen_s() - stolen:.1f} s during the run; load now {os.getloadavg()[0]:.1f}"
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    for problem in problems:
        print(f"DOES NOT ADD UP: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
