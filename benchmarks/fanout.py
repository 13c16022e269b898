"""A hundred thousand events from ten publishers to a hundred destinations: everything arrives, nothing is invented.

A publisher is a connection that brings the provider's callbacks, with eight whose event has not come; every event goes to
the one of a hundred subscriptions that has its tag. The measured process has core 0 alone, everything else the other
core. Judged by the bare relay of the path benchmark in the same run: the same callbacks over the same connections, passed
on and not stored. Afterwards ids are reconciled: what the event feed lists is what came, each at its own destination and
once. Else it exits 1.

Run: `python -m benchmarks.fanout [--quick]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.loadgen import Client, answer, closed_loop, percentile, port_of, request, serve
from benchmarks.loadgen import Tally as Counted
from benchmarks.path import Run, cores
from benchmarks.report import machine
from benchmarks.slow import Tagged, subscribe
from benchmarks.subject import CPU, pin
from benchmarks.targets import ADMIN_KEY, Plain
from benchmarks.world import World

PUBLISHERS = 10
IN_FLIGHT = 8  # of each publisher: callbacks whose event has not come
DESTINATIONS = 100
PREPARED = 20_000  # jobs that are made ready at a time
PAGE = 200
_NO_CONTENT = answer("204 No Content")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    events: int
    relayed: int  # through the bare relay


FULL = Plan(events=100_000, relayed=50_000)
QUICK = Plan(events=2_000, relayed=2_000)


@dataclass(slots=True)
class Destinations:
    """All hundred behind one port; the path tells which one is meant."""

    came: Counter[tuple[str, str]] = field(default_factory=Counter)  # by event and path
    tally: Counted | None = None
    first: int = 0  # the number of the tally's first message

    def take(self, head: bytes, body: bytes) -> bytes:
        """The handler of requests."""
        path = head.split(b" ", 2)[1]
        at = head.lower().find(b"webhook-id: ")
        self.came[head[at + 12 : at + 52].decode(), path.decode()] += 1
        number = int(body.partition(b'"number":"')[2].partition(b'"')[0])
        if self.tally is not None:
            self.tally.arrived(number - self.first)
        return _NO_CONTENT


@dataclass(slots=True)
class Measured:
    """What one target did."""

    count: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # ms
    cpu: CPU = field(default_factory=lambda: CPU(0.0, 0.0))

    @property
    def per_s(self) -> float:
        """Events a second."""
        return self.count / self.seconds

    def line(self, name: str, relay: float) -> str:
        """For the table."""
        figures = " | ".join(f"{percentile(self.latencies, share):,.1f}" for share in (0.5, 0.95, 0.99))
        cpu_us = 1e6 * self.cpu.all_s / self.count
        return f"| {name} | {self.count:,} | {self.per_s:,.0f} | {self.per_s / relay:.0%} | {cpu_us:,.0f} | {figures} |"


async def publish(host: str, port: int, tally: Counted, ready: list[bytes]) -> None:
    """All publishers at once, each with its own share of the messages under way."""
    async with contextlib.AsyncExitStack() as stack:
        # Made for each batch: the service closes connections that say nothing while jobs are made ready.
        clients = [await stack.enter_async_context(Client(host, port, IN_FLIGHT)) for _ in range(PUBLISHERS)]

        def send(index: int) -> None:
            clients[index % PUBLISHERS].send(ready[index], lambda status, _: tally.answered(index, status))

        await closed_loop(tally, send, PUBLISHERS * IN_FLIGHT, 60 + tally.count / 100)


def _add(measured: Measured, tally: Counted, cpu: CPU) -> None:
    if tally.refused() or tally.once() != tally.count:
        raise SystemExit(f"{tally.refused()} refused, {tally.count - tally.once()} not exactly once, of {tally.count}")
    measured.count += tally.count
    measured.seconds += tally.last - tally.scheduled[0]
    measured.latencies += [1000 * each for each in tally.arrived_s]
    measured.cpu = CPU(measured.cpu.loop_s + cpu.loop_s, measured.cpu.others_s + cpu.others_s)


async def relay(run: Run, plan: Plan) -> Measured:
    """The same callbacks, passed on."""
    measured = Measured()
    async with World() as world, run.subject("benchmarks.relay", "--subscriber", world.plain_url) as subject:
        target = Plain(subject)
        async with Client(target.host, target.port) as client:
            ready = await target.requests(client, range(plan.relayed))
        tally = Counted(plan.relayed)
        world.on_event = tally.arrived
        before = subject.cpu()
        await publish(target.host, target.port, tally, ready)
        _add(measured, tally, subject.cpu() - before)
    return measured


async def remora(run: Run, plan: Plan) -> tuple[Measured, list[str]]:
    """The service; what came is compared with what its feed says."""
    measured, all_of = Measured(), Destinations()
    async with World() as world:
        server = await serve(all_of.take)
        target = await Tagged.start(world, run.fresh("fanout"), "trust", run.core)
        target.tag_of = {number: f"d-{number % DESTINATIONS}" for number in range(plan.events)}
        base = f"http://127.0.0.1:{port_of(server)}"
        wanted: list[dict[str, object]] = [
            {"url": f"{base}/d/{number}", "tags": [f"d-{number}"]} for number in range(DESTINATIONS)
        ]
        async with Client(target.host, target.port) as client:
            await subscribe(client, target.host, wanted)
        for start in range(0, plan.events, PREPARED):
            numbers = range(start, min(start + PREPARED, plan.events))
            async with Client(target.host, target.port) as client:
                ready = await target.requests(client, numbers)
            tally = Counted(len(numbers))
            all_of.tally, all_of.first = tally, start
            before = target.subject.cpu()
            await publish(target.host, target.port, tally, ready)
            _add(measured, tally, target.subject.cpu() - before)
            print(f"{numbers.stop:,} events", file=sys.stderr, flush=True)
        async with Client(target.host, target.port) as client:
            problems = await reconcile(client, target.host, all_of, plan)
        status = await target.subject.stop()
        server.close()
    return measured, problems + ([f"exit status {status}"] if status else [])


async def reconcile(client: Client, host: str, all_of: Destinations, plan: Plan) -> list[str]:
    """Every event of the feed came once, to the destination of its tag, and nothing else came."""
    listed: Counter[tuple[str, str]] = Counter()
    cursor = ""
    while True:
        page = await _page(client, host, cursor)
        for event in page["data"]:
            [tag] = event["data"]["job"]["tags"]
            listed[event["id"], "/d/" + tag.removeprefix("d-")] += 1
        if not page["data"] and cursor.endswith(page["next_cursor"]):
            break  # an empty page alone says only that nothing among the events it looked at has the type
        cursor = f"&cursor={page['next_cursor']}"
    lost, invented = listed - all_of.came, all_of.came - listed
    problems = [
        f"{lost.total()} of {listed.total()} events did not come, {invented.total()} came that the feed has not"
    ]
    return problems if lost or invented or listed.total() != plan.events else []


async def _page(client: Client, host: str, cursor: str) -> dict[str, Any]:
    answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
    key = f"Authorization: Bearer {ADMIN_KEY}"
    asked = request("GET", f"/v1/events?type=job.completed&limit={PAGE}{cursor}", host, b"", key)
    client.send(asked, lambda code, body: answered.set_result((code, body)))
    code, body = await answered
    if code != 200:
        raise SystemExit(f"the feed was answered {code}: {body[:300]!r}")
    return msgspec.json.decode(body)  # type: ignore[no-any-return]


async def measure(run: Run, plan: Plan) -> list[str]:
    """Both; prints the table."""
    began = time.perf_counter()
    bare = await relay(run, plan)
    ours, problems = await remora(run, plan)
    print("| | events | events/s | of the relay | CPU µs each | p50 ms | p95 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    print(bare.line("bare relay, stores nothing", bare.per_s))
    print(ours.line(f"Remora, {PUBLISHERS} publishers, {DESTINATIONS} destinations", bare.per_s))
    print(f"\ntook {time.perf_counter() - began:,.0f} s, of which {ours.seconds:,.0f} s publishing")
    return problems


def main() -> int:
    """Measure, print, and say by the exit status whether everything added up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 events, for a first look")
    plan = QUICK if parser.parse_args().quick else FULL
    core, own = cores()
    pin(own)
    with tempfile.TemporaryDirectory(prefix="remora-fanout-") as directory:
        run = Run(Path(directory), core, None, [])  # type: ignore[arg-type]  # the plan is that of another benchmark
        print("\n".join(f"{name}: {fact}" for name, fact in machine(Path(directory)).items()), end="\n\n")
        problems = uvloop.run(measure(run, plan))
    for problem in problems:
        print(f"DOES NOT ADD UP: {problem}")
    if not problems:
        print("everything adds up: each event of the feed came once, to the destination of its tag, and no other")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
