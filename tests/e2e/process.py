"""`remora serve` as a process of its own, which can be signalled, killed and started again on the same port and database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.rig import environment

START_S = 60.0  # for a process on a busy machine, without compiled bytecode


class Process:
    """The process; `more` are further settings."""

    def __init__(self, directory: Path, port: int, providers: Mapping[str, str], **more: str) -> None:
        fixed = {"REMORA_PROVIDERS__APIMODELS__FALLBACK_AFTER": "1s", "REMORA_LOG_FORMAT": "json"}
        self._environment = {"PATH": os.environ["PATH"]} | environment(directory, port, providers, **fixed | more)
        self._log = directory / "serve.log"
        self._directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and wait until it is ready."""
        log = self._log.open("ab")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "serve", cwd=self._directory, env=self._environment, stdout=log, stderr=log
        )
        log.close()
        async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.02)

    def send(self, how: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(how)

    async def stop(self, how: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        self.send(how)
        return await self.ended()

    async def ended(self) -> int:
        """The exit status, once there is one."""
        assert self._process is not None
        async with asyncio.timeout(START_S):
            return await self._process.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What its log says of an event, over all starts."""
        lines = (line for line in self._log.read_text().splitlines() if line.startswith("{"))
        return [line for line in map(json.loads, lines) if line.get("event") == event]

    async def until(self, event: str, count: int = 1) -> dict[str, Any]:
        """The line of the log, once there are so many of the event."""
        async with asyncio.timeout(START_S):
            while True:
                found = self.lines(event)
                if len(found) >= count:
                    return found[count - 1]
                await asyncio.sleep(0.02)
