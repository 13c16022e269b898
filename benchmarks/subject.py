"""What is measured, as a process of its own: pinned to a core, its processor time read from outside, profiled on request.

Both sides of that are here: `Subject` starts and watches the process, `arguments` and `Profiler` are what it runs with.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

START_S = 30.0  # until the address is printed
STOP_S = 40.0  # longer than the service drains


def listening_socket() -> socket.socket:
    """A free port of 127.0.0.1 that already queues connections, so that its address can be told at once."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


def arguments(doc: str | None) -> argparse.Namespace:
    """The arguments of a measured process; pins it before it has threads."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--core", type=int)
    parser.add_argument("--subscriber", default="")
    parser.add_argument("--database", type=Path)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--profile")
    parser.add_argument("--clean", action="store_true")
    given = parser.parse_args()
    pin(given.core)
    return given


def pin(core: int | None) -> None:
    """Keep this process, and the threads it will start, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class Profiler:
    """cProfile over the loop's thread, from SIGUSR1 to SIGUSR2, written to a file in the end; does nothing without one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str | None) -> None:
        self._loop = loop
        self._path = path
        # Processor time, not the wall's: on one core a call that lets go of the GIL also waits for the writer's thread,
        # and HMAC and urandom looked like the dearest functions of all.
        self._profile = cProfile.Profile(time.thread_time)

    def __enter__(self) -> Self:
        """Listen for the signals."""
        if self._path is not None:
            self._loop.add_signal_handler(signal.SIGUSR1, self._profile.enable)
            self._loop.add_signal_handler(signal.SIGUSR2, self._profile.disable)
        return self

    def __exit__(self, *_: object) -> None:
        """Write what was seen."""
        if self._path is not None:
            self._profile.disable()
            self._profile.dump_stats(self._path)


@dataclass(frozen=True, slots=True)
class CPU:
    """Processor seconds of a process: of its main thread, where the loop runs, and of its other threads."""

    loop_s: float
    others_s: float

    def __sub__(self, other: CPU) -> CPU:
        return CPU(self.loop_s - other.loop_s, self.others_s - other.others_s)

    @property
    def all_s(self) -> float:
        return self.loop_s + self.others_s


class Subject:
    """A running process that serves at `url`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)

    @classmethod
    async def start(cls, module: str, options: Sequence[str], env: Mapping[str, str] | None = None) -> Self:
        """Run `python -m module` and wait for its address."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *options,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=Path(__file__).parents[1],
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
        except TimeoutError:
            process.kill()
            raise
        if not line:
            raise SystemExit(f"{module} ended with {await process.wait()} before it listened")
        return cls(process, line.decode().strip())

    async def stop(self) -> int:
        """End it as an operator would; returns its exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(STOP_S):
            return await self.process.wait()

    def cpu(self) -> CPU:
        """What it has used so far, from /proc."""
        pid = self.process.pid
        spent = {task.name: _spent_s(task / "schedstat") for task in Path(f"/proc/{pid}/task").iterdir()}
        loop_s = spent.pop(str(pid), 0.0)
        return CPU(loop_s, sum(spent.values()))

    def signal(self, number: signal.Signals) -> None:
        """Start or stop its profiler."""
        self.process.send_signal(number)


def _spent_s(schedstat: Path) -> float:
    """The first figure is nanoseconds on a core; `stat` beside it counts in ticks of 10 ms."""
    try:
        return int(schedstat.read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0  # the thread ended between the listing and the look
