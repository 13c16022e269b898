"""Ten thousand destinations that answer after ten seconds, held open at once: what healthy ones feel of it, and what it costs.

The measured process has core 0 alone; load generator, provider and destinations, one process of bare protocols, have the
other core. Slow destinations are subscriptions in a hundred groups, one event to each group every tenth of a second, so
that from the tenth second on all are held open all the time; healthy ones get events at a steady rate, first alone and
then beside the slow ones. Latency counts from the moment at which the provider's callback was due to the last byte of the
event's request. Afterwards everything has to add up: each event came to each of its destinations exactly once.

Needs open files: as many as there are slow destinations and half as many again, on both sides (`ulimit -Hn`).

Run: `python -m benchmarks.slow [--quick]`.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

from benchmarks.loadgen import Client, answer, length_of, percentile, port_of, request
from benchmarks.path import Run, cores
from benchmarks.report import machine
from benchmarks.subject import pin
from benchmarks.targets import ADMIN_KEY, Remora
from benchmarks.world import World

HELD_S = 10.0  # how long a slow destination takes to answer
GROUPS = 100
HEALTHY = 20  # destinations
RATE = 50  # healthy events a second
SLACK_FILES = 500
LIMIT_P99_MS = 250.0
LIMIT_MIB = 512.0
_NO_CONTENT = answer("204 No Content")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    slow: int  # destinations
    alone_s: int  # seconds in which the healthy ones are alone
    beside_s: int  # and beside the slow ones, once all are held open


FULL = Plan(slow=10_000, alone_s=5, beside_s=25)
QUICK = Plan(slow=500, alone_s=2, beside_s=4)


@dataclass(slots=True)
class Destinations:
    """All of them behind one port; the path tells which one is meant."""

    came: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)  # by event and path
    arrived: dict[bytes, float] = field(default_factory=dict)  # healthy events by job number
    held: int = 0  # slow requests that have no answer yet
    peak: int = 0

    async def listen(self) -> asyncio.Server:
        """Listen on a free port of 127.0.0.1."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=16_384)


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, all_of: Destinations) -> None:
        self._all = all_of
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._out = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or len(self._held) < end + 4 + length_of(self._held[:end]):
            return
        head, body, self._held = self._held[:end], self._held[end + 4 :], b""
        path = head.split(b" ", 2)[1]
        at = head.lower().find(b"webhook-id: ")
        self._all.came[head[at + 12 : at + 52], path] += 1
        if path.startswith(b"/slow/"):
            self._all.held += 1
            self._all.peak = max(self._all.peak, self._all.held)
            asyncio.get_running_loop().call_later(HELD_S, self._answer_late)
        else:
            number = body.partition(b'"number":"')[2].partition(b'"')[0]
            self._all.arrived[number] = time.perf_counter()
            self._answer()

    def _answer_late(self) -> None:
        self._all.held -= 1
        self._answer()

    def _answer(self) -> None:
        self._out.write(_NO_CONTENT)  # type: ignore[attr-defined]  # uvloop's transports have no class of their own


class Tagged(Remora):
    """Jobs that are sent to nobody but the subscriptions of their tag."""

    tag_of: dict[int, str]

    def job(self, number: int) -> bytes:
        """The request that takes a job."""
        whole = super().job(number)
        asked = msgspec.json.decode(whole.partition(b"\r\n\r\n")[2])
        del asked["callback_url"]
        asked["tags"] = [self.tag_of[number]]
        key = f"Authorization: Bearer {ADMIN_KEY}"
        return request("POST", "/v1/jobs", self.host, msgspec.json.encode(asked), key)


async def subscribe(client: Client, host: str, wanted: list[dict[str, object]]) -> None:
    """Make subscriptions; all have to be taken."""
    left, done = len(wanted), asyncio.Event()
    refused: list[bytes] = []

    def answered(status: int, body: bytes) -> None:
        nonlocal left
        left -= 1
        if status != 201:
            refused.append(body)
        if not left:
            done.set()

    for each in wanted:
        key = f"Authorization: Bearer {ADMIN_KEY}"
        client.send(request("POST", "/v1/subscriptions", host, msgspec.json.encode(each), key), answered)
    await done.wait()
    if refused:
        raise SystemExit(f"{len(refused)} subscriptions were refused: {refused[0][:300]!r}")


def subscriptions(port: int, plan: Plan) -> list[dict[str, object]]:
    """All destinations as they are asked for."""
    base = f"http://127.0.0.1:{port}"
    slow: list[dict[str, object]] = [
        {"url": f"{base}/slow/{number}", "tags": [f"slow-{number % GROUPS}"], "max_in_flight": 1}
        for number in range(plan.slow)
    ]
    return slow + [{"url": f"{base}/well/{number}", "tags": [f"well-{number}"]} for number in range(HEALTHY)]


@dataclass(slots=True)
class Measured:
    """Latencies of healthy events in ms, and what was held meanwhile."""

    latencies: list[float]
    least_held: int = 0

    def line(self, name: str) -> str:
        """For the table."""
        figures = " | ".join(f"{percentile(self.latencies, share):,.1f}" for share in (0.5, 0.95, 0.99, 1.0))
        return f"| {name} | {len(self.latencies):,} | {figures} | {self.least_held:,} |"


async def fire(client: Client, requests: list[bytes], rate: float, due: dict[int, float], first: int) -> None:
    """Send callbacks at a fixed rate."""
    began = time.perf_counter()
    for index, each in enumerate(requests):
        at = began + index / rate
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        due[first + index] = at
        client.send(each, lambda status, _: None if status == 200 else sys.exit(f"a callback was answered {status}"))


async def healthy(client: Client, target: Tagged, numbers: range, all_of: Destinations) -> Measured:
    """Events for healthy destinations at the steady rate, until all came."""
    due: dict[int, float] = {}
    least = [all_of.held]
    ready = [target.callback(number) for number in numbers]
    firing = asyncio.create_task(fire(client, ready, RATE, due, numbers.start))
    while not firing.done():
        await asyncio.sleep(0.1)
        least.append(all_of.held)
    await firing
    async with asyncio.timeout(60):
        while not all(str(number).encode() in all_of.arrived for number in numbers):  # noqa: ASYNC110 - a benchmark
            await asyncio.sleep(0.05)
    latencies = [1000 * (all_of.arrived[str(number).encode()] - due[number]) for number in numbers]
    return Measured(latencies, min(least))


def memory_mib(pid: int) -> float:
    """The most resident memory that the process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


async def measure(run: Run, plan: Plan) -> bool:
    """Everything; prints the table, and says whether all held."""
    all_of = Destinations()
    rounds = round((plan.beside_s + HELD_S) / HELD_S) + 1
    slow_jobs = GROUPS * rounds
    async with World() as world:
        server = await all_of.listen()
        target = await Tagged.start(world, run.fresh("slow"), "trust", run.core)
        async with Client(target.host, target.port) as client:
            await subscribe(client, target.host, subscriptions(port_of(server), plan))
            counts = (RATE * plan.alone_s, slow_jobs, RATE * plan.beside_s)
            alone = range(counts[0])
            slow = range(alone.stop, alone.stop + counts[1])
            beside = range(slow.stop, slow.stop + counts[2])
            target.tag_of = {number: f"well-{number % HEALTHY}" for number in (*alone, *beside)}
            target.tag_of |= {number: f"slow-{index % GROUPS}" for index, number in enumerate(slow)}
            await target.requests(client, range(beside.stop))
            first = await healthy(client, target, alone, all_of)
            base_mib = memory_mib(target.subject.process.pid)
            before, came = target.subject.cpu(), all_of.came.total()
            ready = [target.callback(number) for number in slow]
            firing = asyncio.create_task(fire(client, ready, GROUPS / HELD_S, {}, slow.start))
            await asyncio.sleep(HELD_S + 1)
            second = await healthy(client, target, beside, all_of)
            await firing
            expected = slow_jobs * plan.slow // GROUPS + counts[0] + counts[2]
            async with asyncio.timeout(120):
                while all_of.came.total() < expected or all_of.held:  # noqa: ASYNC110 - a benchmark
                    await asyncio.sleep(0.1)
            peak_mib = memory_mib(target.subject.process.pid)
            cpu_us = 1e6 * (target.subject.cpu() - before).all_s / (all_of.came.total() - came)
        status = await target.subject.stop()
        server.close()
    twice = sum(count > 1 for count in all_of.came.values())
    print("| healthy events | count | p50 ms | p95 ms | p99 ms | max ms | slow requests held open, at least |")
    print("|---|---|---|---|---|---|---|")
    print(first.line("alone"))
    print(second.line(f"beside {plan.slow:,} slow destinations"))
    print(
        f"\nmemory: {peak_mib:,.0f} MiB at most, {base_mib:,.0f} MiB before; at most {all_of.peak:,} requests held open"
    )
    print(f"processor time: {cpu_us:,.0f} µs for a delivery, fan-out and waiting included")
    print(f"{all_of.came.total():,} deliveries of {expected:,}, {twice} of them twice; exit status {status}")
    return (
        percentile(second.latencies, 0.99) <= LIMIT_P99_MS
        and peak_mib <= LIMIT_MIB
        and all_of.came.total() == expected
        and not twice
        and not status
    )


def main() -> int:
    """Measure, print, and say by the exit status whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 slow destinations, for a first look")
    plan = QUICK if parser.parse_args().quick else FULL
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < plan.slow * 3 // 2 + SLACK_FILES:
        raise SystemExit(f"needs a hard limit of {plan.slow * 3 // 2 + SLACK_FILES} open files, and has {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    core, own = cores()
    pin(own)
    with tempfile.TemporaryDirectory(prefix="remora-slow-") as directory:
        run = Run(Path(directory), core, None, [])  # type: ignore[arg-type]  # the plan is that of another benchmark
        print("\n".join(f"{name}: {fact}" for name, fact in machine(Path(directory)).items()), end="\n\n")
        held = uvloop.run(measure(run, plan))
    print("held" if held else f"DID NOT HOLD: p99 <= {LIMIT_P99_MS:.0f} ms, memory <= {LIMIT_MIB:.0f} MiB, each once")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
