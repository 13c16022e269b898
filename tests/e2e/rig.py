"""The whole machine on loopback: the service, the provider's sandbox and a subscriber, all real, each on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from service.app import Service
from service.db.inspection.invariants import Breach, breaches
from service.db.postgres import pg_examine
from service.environment import load
from service.sandbox.server import SandboxOptions, SandboxServer
from service.settings import provider_variable
from tests import postgres
from tests.receiver import PATIENCE_S, Receiver

ADMIN_KEY = "rmk_an-admin-key-for-tests-only"
FINAL = ("completed", "failed", "cancelled", "expired")
CAT = {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet, digital art", "aspect_ratio": "16:9"}


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(directory: Path, port: int, providers: Mapping[str, str], **more: str) -> dict[str, str]:
    """The settings of a service that talks to a sandbox; `providers` are base URLs by card."""
    cards = {provider_variable(card, "BASE_URL"): url for card, url in providers.items()}
    cards |= {provider_variable(card, "API_KEY"): "sk-test" for card in providers}
    return (
        cards
        | postgres.settings_of(directory)
        | {
            "REMORA_PORT": str(port),
            "REMORA_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "REMORA_ADMIN_KEY": ADMIN_KEY,
            "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
            "REMORA_DELIVERY_SCHEDULE": "1s,1s,1s",
            "REMORA_LOG_LEVEL": "warning",
        }
        | more
    )


@dataclass(slots=True)
class Rig:
    """What a test drives and looks at."""

    directory: Path
    service: Service
    sandbox: SandboxServer
    receiver: Receiver
    api: httpx.AsyncClient

    async def take(self, prompt: str = CAT["prompt"], **more: Any) -> dict[str, Any]:
        """Take a job with a callback to the receiver; returns the job as it was taken."""
        headers = more.pop("headers", {})
        body = {
            "provider": "apimodels",
            "operation": "generate",
            "input": CAT | {"prompt": prompt},
            "callback_url": self.receiver.url,
        } | more
        answer = await self.api.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        answer = await self.api.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def finished(self, job_id: str) -> dict[str, Any]:
        """The job once it is final."""
        return await self.until(job_id, *FINAL)

    async def until(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of these states; every state change is a row of the timeline, so looking is enough."""
        async with asyncio.timeout(PATIENCE_S):
            while (job := await self.job(job_id))["status"] not in states:
                if set(FINAL) & set(states) == set(FINAL):
                    await self.api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=5"})
                else:
                    await asyncio.sleep(0.02)
        return job

    async def timeline(self, job_id: str) -> list[dict[str, Any]]:
        """The whole timeline."""
        answer = await self.api.get(f"/v1/jobs/{job_id}/events", params={"limit": 200})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]  # type: ignore[no-any-return]

    async def secret(self) -> str:
        """A new signing secret of the account, so that the test knows it."""
        answer = await self.api.post("/v1/account/rotate-secret")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["secret"])

    def submits(self) -> int:
        """How many submissions the provider has seen."""
        return sum(
            request.method == "POST" and request.path.endswith("/generations") for request in self.sandbox.requests
        )


def check(directory: Path, *, on_postgresql: bool = postgres.ON_POSTGRESQL) -> None:
    """The rules hold in the database as it is now."""
    if on_postgresql:
        assert postgres.apart(_breaches_of(postgres.database_of(directory))) == []
        return
    connection = sqlite3.connect(f"file:{directory}/remora.db?mode=ro", uri=True)
    try:
        assert breaches(connection) == []
    finally:
        connection.close()


async def _breaches_of(url: str) -> list[Breach]:
    connection = await asyncpg.connect(url)
    try:
        return await pg_examine.breaches(connection)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def rig(
    directory: Path, *, speed: float = 40.0, faults: str = "", env: Mapping[str, str] | None = None, **more: str
) -> AsyncIterator[Rig]:
    """Start everything; at the end stop it and check the invariants."""
    from service.sandbox.faults import parse_faults  # noqa: PLC0415 - the words of one test

    sandbox = SandboxServer(SandboxOptions(speed=speed, faults=parse_faults(faults), seed=1))
    await sandbox.start()
    try:
        port = free_port()
        settings = load(environment(directory, port, sandbox.base_urls, **{**(env or {}), **more}), directory)
        service = await Service.open(settings)
    except BaseException:
        await sandbox.stop()
        raise
    try:
        await service.listen()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with (
            Receiver() as receiver,
            httpx.AsyncClient(base_url=service.url, headers=headers, timeout=70, trust_env=False) as api,
        ):
            yield Rig(directory, service, sandbox, receiver, api)
    finally:
        await service.close()
        await sandbox.stop()
        check(directory)
