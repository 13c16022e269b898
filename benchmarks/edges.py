"""The edges benchmark: a healthy client beside thousands of connections that do everything wrong.

`remora serve` runs as users start it, with its defaults. A healthy client takes jobs and sends callbacks at a steady rate,
first alone and then beside the attackers (`benchmarks.attackers`); in the middle of them comes a SIGTERM. Printed are the
p99 of both with and without them, how much more memory the process took than before, and how long it took to stop. It must
hold: everything healthy is answered 2xx, p99 within twice, at most 150 MiB more, stopped in time. Else it exits 1.

Each attacker is a descriptor here and one in the service: `ulimit -n` has to leave room for them (with the 512 that the service
keeps for other things). It is told where there is less.

Run: `python -m benchmarks.edges [--quick] [--connections N] [--seconds S]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from benchmarks.loadgen import percentile
from benchmarks.world import World, envelope, prompt

KEY: Final = "rmk_edges-benchmark-admin-key-only"
RATE: Final = 25  # jobs a second, and as many callbacks
START_S: Final = 120.0
STOP_S: Final = 25.0
MEMORY_MIB: Final = 150
P99_TIMES: Final = 2.0
PATIENCE_S: Final = 30.0
WARM_UP: Final = 50  # jobs that are not counted
SETTLE_S: Final = 8.0  # for the attackers to be connected


@dataclass(slots=True)
class Phase:
    """What the healthy client saw."""

    jobs_ms: list[float] = field(default_factory=list)
    callbacks_ms: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    processor_s: float = 0.0  # of the service


@dataclass(slots=True)
class Found:
    """What is judged."""

    alone: Phase
    beside: Phase
    more_mib: float
    stop_s: float
    status: int
    connections: int  # of the service, when it was told to stop

    def lines(self) -> list[str]:
        """The figures."""
        told = [
            f"{name}: p99 {percentile(alone, 0.99):.1f} ms alone, {percentile(beside, 0.99):.1f} ms beside them: "
            f"{percentile(beside, 0.99) / percentile(alone, 0.99):.2f} times ({len(beside)} requests)"
            for name, alone, beside in (
                ("jobs", self.alone.jobs_ms, self.beside.jobs_ms),
                ("callbacks", self.alone.callbacks_ms, self.beside.callbacks_ms),
            )
        ]
        return [
            *told,
            f"processor: {self.alone.processor_s:.1f} s of the service alone, {self.beside.processor_s:.1f} s beside them",
            f"memory: {self.more_mib:.0f} MiB more than before, at most",
            f"stop: {self.stop_s:.1f} s after SIGTERM with {self.connections} connections, status {self.status}",
        ]

    def problems(self, *, judge_times: bool) -> list[str]:
        """What does not hold."""
        found = [f"not answered as it should: {each}" for each in [*self.alone.refused, *self.beside.refused][:5]]
        if self.more_mib > MEMORY_MIB:
            found.append(f"more than {MEMORY_MIB} MiB")
        if self.status or self.stop_s > STOP_S:
            found.append("it did not stop as it should")
        if judge_times:
            for name in ("jobs_ms", "callbacks_ms"):
                alone, beside = getattr(self.alone, name), getattr(self.beside, name)
                if percentile(beside, 0.99) > P99_TIMES * percentile(alone, 0.99):
                    found.append(f"{name}: p99 more than {P99_TIMES:.0f} times")
        return found


class Healthy:
    """A client that does everything right: it takes a job, and calls back for it once the provider has it."""

    def __init__(self, url: str, world: World) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False)
        self._world = world
        self._submitted: dict[int, asyncio.Event] = {}
        self._number = 0
        world.on_submit = lambda number: self._submitted[number].set()
        world.on_event = lambda _: None

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def run(self, seconds: float) -> Phase:
        """Go on at the rate for so long; a request counts from when it was due."""
        phase = Phase()
        loop = asyncio.get_running_loop()
        began = loop.time()
        exchanges = []
        for number in range(int(seconds * RATE)):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
            exchanges.append(asyncio.create_task(self._exchange(phase)))
        await asyncio.gather(*exchanges)
        return phase

    async def _exchange(self, phase: Phase) -> None:
        number, self._number = self._number, self._number + 1
        self._submitted[number] = asyncio.Event()
        body = {
            "provider": "apimodels",
            "operation": "generate",
            "input": {"model": "sparkpix", "prompt": prompt(number), "aspect_ratio": "1:1"},
            "callback_url": self._world.subscriber_url,
            "metadata": {"number": str(number)},
        }
        if await self._timed(phase, phase.jobs_ms, "/v1/jobs", 202, json=body):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._submitted[number].wait()
            except TimeoutError:
                phase.refused.append("jobs: not submitted in time")
                return
            path = self._world.callback_paths[number]
            await self._timed(phase, phase.callbacks_ms, path, 200, content=envelope(number, model=True))

    async def _timed(self, phase: Phase, times: list[float], path: str, status: int, **more: object) -> bool:
        began = time.perf_counter()
        try:
            answer = await self._client.post(path, **more)  # type: ignore[arg-type]  # a body, as httpx takes it
            told = "" if answer.status_code == status else f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            told = repr(error)
        times.append((time.perf_counter() - began) * 1000)
        if told:
            phase.refused.append(f"{path.split('/')[1]}: {told}")
        return not told


class Serve:
    """`remora serve`, as users start it."""

    def __init__(self, directory: Path, world: World) -> None:
        self._directory = directory
        with socket.socket() as probe:  # callbacks need an address that is known before
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._environment = {
            **os.environ,
            "REMORA_DATABASE_URL": f"sqlite:///{directory}/remora.db",
            "REMORA_PORT": str(port),
            "REMORA_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "REMORA_ADMIN_KEY": KEY,
            "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
            "REMORA_STORAGE_URL": "none",
            "REMORA_LOG_FORMAT": "console",  # in JSON the address would be in the log
            "REMORA_LOG_LEVEL": "warning",
            "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-edges",
            "REMORA_PROVIDERS__APIMODELS__BASE_URL": world.provider_url,
            "REMORA_PROVIDERS__APIMODELS__VERIFY": "trust",
        }
        self.process: asyncio.subprocess.Process
        self.url = ""

    async def start(self) -> None:
        """Start, and wait for the address that it tells."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve"),
            cwd=self._directory,
            env={**self._environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            async for line in self.process.stdout:
                if found := re.search(rb"http://127\.0\.0\.1:(\d+)", line):
                    self.url = found[0].decode()
                    return
        raise SystemExit(f"the service ended with {await self.process.wait()} before it listened")

    def memory_mib(self) -> float:
        """What it has in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def processor_s(self) -> float:
        """What it has used so far."""
        ticks = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    async def timed(self, phase: Awaitable[Phase]) -> Phase:
        """What the healthy client saw, and what it cost."""
        before = self.processor_s()
        found = await phase
        found.processor_s = self.processor_s() - before
        return found

    def connections(self) -> int:
        """How many sockets it has."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(str(link.readlink()).startswith("socket:") for link in links if link.is_symlink())


async def _highest(serve: Serve, into: list[float]) -> None:
    while True:
        into.append(serve.memory_mib())
        await asyncio.sleep(0.25)


async def measure(directory: Path, connections: int, seconds: float) -> Found:
    """Run all of it."""
    async with World() as world:
        serve = Serve(directory, world)
        await serve.start()
        attackers: asyncio.subprocess.Process | None = None
        watching: asyncio.Task[None] | None = None
        healthy = Healthy(serve.url, world)
        try:
            await healthy.run(WARM_UP / RATE)
            alone = await serve.timed(healthy.run(seconds))
            before = serve.memory_mib()
            seen: list[float] = []
            watching = asyncio.create_task(_highest(serve, seen))
            attackers = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.attackers", serve.url.rpartition(":")[2], str(connections), KEY),
                cwd=Path(__file__).parents[1],
            )
            await asyncio.sleep(SETTLE_S)
            beside = await serve.timed(healthy.run(seconds))
            watching.cancel()
            held = serve.connections()
            began = time.perf_counter()
            serve.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_S * 2):
                status = await serve.process.wait()
            return Found(alone, beside, max(seen) - before, time.perf_counter() - began, status, held)
        finally:
            await healthy.close()
            for process in (attackers, serve.process):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()
            if watching is not None:
                await asyncio.gather(watching, return_exceptions=True)


def main() -> int:
    """Run it, print the figures; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 connections for five seconds")
    parser.add_argument("--connections", type=int, help="how many attackers; default: 2000")
    parser.add_argument("--seconds", type=float, help="how long each phase is; default: 60")
    given = parser.parse_args()
    connections = given.connections or (100 if given.quick else 2000)
    seconds = given.seconds or (5.0 if given.quick else 60.0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < connections + 600:
        print(f"only {hard} open files are allowed (ulimit -Hn): not all of {connections} connections will be taken")
    with tempfile.TemporaryDirectory(prefix="remora-edges-") as directory:
        found = asyncio.run(measure(Path(directory), connections, seconds))
    print(f"{connections} connections that do everything wrong, {seconds:.0f} s")
    print("\n".join(found.lines()))
    problems = found.problems(judge_times=True)
    print("\n".join(problems) if problems else "all of it holds")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
