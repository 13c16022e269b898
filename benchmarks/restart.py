"""What a start costs, and whom a restart refuses: real processes of `remora serve`, started as users start them.

`python -m benchmarks.restart [--quick] [--only start|restart]`. The processor time of a start is taken when it prints where it
listens, with an empty database and with 100,000 jobs, beside what Python needs to import the bare libraries. A restart is made
under load: callers on kept connections, callers and callbacks on fresh ones, who never wait between two requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks import ended
from service.db.migrate import upgrade
from service.sandbox.server import SandboxOptions, SandboxServer

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = "litestar, uvicorn, sqlmodel, aiosqlite, httpx, apscheduler"
KEY = "rmk_an-admin-key-for-benchmarks"
JOB = {"provider": "apimodels", "operation": "sparkpix", "input": {"prompt": "a cat"}}
BEFORE_S = 2.0  # under load before a restart, and after it
PATIENCE_S = 120.0
EACH = 3  # callers of each kind


def _environment(directory: Path, port: int, provider: str = "") -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {
        "PYTHONPATH": str(ROOT),
        "REMORA_DATABASE_URL": f"sqlite:///{directory}/remora.db",
        "REMORA_PORT": str(port),
        "REMORA_PUBLIC_URL": f"http://127.0.0.1:{port or 1}",
        "REMORA_ADMIN_KEY": KEY,
        "REMORA_STORAGE_URL": "none",
        "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
        "REMORA_LOG_FORMAT": "console",  # in JSON the address would be in the log
        "REMORA_LOG_LEVEL": "warning",
    }
    if provider:
        given |= {
            "REMORA_PROVIDERS__APIMODELS__BASE_URL": provider,
            "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-benchmark",
        }
    return kept | given


def _start(directory: Path, port: int, provider: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        cwd=directory,
        env=_environment(directory, port, provider),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _until_listening(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if "listens on" in line:
            return
    raise RuntimeError(f"the service did not start: {process.wait()}")


# -- what a start costs --------------------------------------------------------------------------------------------------


def _bare_s() -> float:
    """Processor seconds of importing the bare libraries."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _start_s(directory: Path) -> float:
    """Processor seconds of a process until it listens."""
    process = _start(directory, 0)
    try:
        _until_listening(process)
        tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    finally:
        process.terminate()
        process.communicate()


def starts(directory: Path, jobs: int, rounds: int) -> Iterator[str]:
    """The table: the least and the median of so many rounds, in turns, so that a busy machine is busy for all."""
    small, large = directory / "small", directory / "large"
    small.mkdir()
    large.mkdir()
    upgrade(small / "remora.db")
    ended.fill(large / "remora.db", jobs, time.time_ns() // 1_000_000)
    cases: dict[str, Callable[[], float]] = {
        f"`import {LIBRARIES}`": _bare_s,
        "ready, no jobs": lambda: _start_s(small),
        f"ready, {jobs:,} jobs": lambda: _start_s(large),
    }
    for case in cases.values():
        case()  # the first time makes the bytecode
    took: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            took[name].append(case())
    bare = min(next(iter(took.values())))
    yield "| processor until | least s | median s | of the bare libraries |"
    yield "| --- | --- | --- | --- |"
    for name, each in took.items():
        yield f"| {name} | {min(each):.2f} | {statistics.median(each):.2f} | {min(each) / bare:.2f}× |"


# -- whom a restart refuses ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """Callers who never let up, and what became of their requests."""

    url: str
    answered: list[float] = field(default_factory=list)  # when, monotonic
    refused: int = 0
    slowest_s: float = 0.0
    goes_on: bool = True

    async def call(self, *, kept: bool, callback: bool = False) -> None:
        """Ask again and again; a callback for nobody is answered 404, which is an answer."""
        limits = httpx.Limits(max_keepalive_connections=None if kept else 0)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, limits=limits) as client:
            while self.goes_on:
                began = time.monotonic()
                try:
                    if callback:
                        answer = await client.post(f"{self.url}/callbacks/nobody", content=b"{}")
                    else:
                        headers = {"Authorization": f"Bearer {KEY}"}
                        answer = await client.post(f"{self.url}/v1/jobs", json=JOB, headers=headers)
                    taken = answer.status_code in {202, 404}
                except httpx.TransportError:
                    taken = False
                if taken:
                    self.answered.append(time.monotonic())
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                else:
                    self.refused += 1
                    await asyncio.sleep(0.01)

    async def goes_well(self) -> None:
        """Until every caller was answered about five times more."""
        wanted = len(self.answered) + 15 * EACH
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if len(self.answered) >= wanted:
                    return
                await asyncio.sleep(0.05)

    def gap_ms(self) -> float:
        """The longest time without any answer."""
        return max(later - earlier for earlier, later in zip(self.answered, self.answered[1:], strict=False)) * 1000


async def _restart(how: str, directory: Path, provider: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = _start(directory, port, provider)
    await asyncio.to_thread(_until_listening, process)
    load = Load(f"http://127.0.0.1:{port}")
    callers = [
        asyncio.create_task(load.call(kept=kept, callback=callback))
        for kept, callback in ((True, False), (False, False), (False, True))
        for _ in range(EACH)
    ]
    await load.goes_well()
    await asyncio.sleep(BEFORE_S)
    if how == "SIGUSR2":
        process.send_signal(signal.SIGUSR2)
        await asyncio.to_thread(_until_listening, process)
    elif how:
        process.send_signal(signal.Signals[how])
        await asyncio.to_thread(process.wait)
        process = _start(directory, port, provider)
        await asyncio.to_thread(_until_listening, process)
    await load.goes_well()
    await asyncio.sleep(BEFORE_S)
    load.goes_on = False
    await asyncio.gather(*callers)
    process.terminate()
    await asyncio.to_thread(process.communicate)
    return f"| {how or 'none'} | {len(load.answered)} | {load.refused} | {load.gap_ms():.0f} | {load.slowest_s * 1000:.0f} |"


async def restarts(directory: Path) -> list[str]:
    """The table, a line for each kind of restart."""
    sandbox = SandboxServer(SandboxOptions(speed=1000.0))
    await sandbox.start()
    lines = ["| restart | answered | refused | longest gap ms | slowest answer ms |", "| --- | --- | --- | --- | --- |"]
    try:
        for how in ("", "SIGUSR2", "SIGTERM", "SIGKILL"):
            place = directory / f"restart-{how}"
            place.mkdir()
            lines.append(await _restart(how, place, sandbox.base_url))
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await sandbox.stop()
    return lines


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs, three rounds")
    parser.add_argument("--only", choices=("start", "restart"), default="")
    given = parser.parse_args()
    jobs, rounds = (10_000, 3) if given.quick else (100_000, 7)
    with tempfile.TemporaryDirectory() as made:
        if given.only != "restart":
            print("\n".join(starts(Path(made), jobs, rounds)), end="\n\n", flush=True)
        if given.only != "start":
            print("\n".join(asyncio.run(restarts(Path(made)))))


if __name__ == "__main__":
    main()
