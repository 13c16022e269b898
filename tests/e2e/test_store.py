"""The machine under the database: a full disk, a quota, a file that is moved away. Real processes on real file systems."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.app import FAILED_STATUS
from tests.api.conftest import ADMIN_KEY, STUCK
from tests.cli.commands import PATIENCE_S, read_until, start


@dataclass(slots=True)
class Running:
    """`remora serve`, and a client with its key."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def take(self) -> httpx.Response:
        """A job, which stays in the queue."""
        return await self.client.post("/v1/jobs", json=STUCK)

    async def until_ready(self, status: int) -> httpx.Response:
        """The first answer of `/readyz` with this status."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self.client.get("/readyz")
                if answer.status_code == status:
                    return answer
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Running]:
    """Start it over a database in this directory."""
    process = await start(
        "serve",
        directory=directory,
        REMORA_PORT="0",
        REMORA_ADMIN_KEY=ADMIN_KEY,
        REMORA_STORAGE_URL="none",
        REMORA_LOG_FORMAT="console",
        REMORA_PROVIDERS__APIMODELS__API_KEY="sk-test",
        REMORA_PROVIDERS__APIMODELS__BASE_URL="http://127.0.0.1:9",
        REMORA_EGRESS_ALLOW="127.0.0.0/8",
    )
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", "\n".join(await read_until(process, "listens on")))
        assert found is not None
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(base_url=found[0], headers=headers, timeout=60, trust_env=False) as client:
            yield Running(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    directory.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"LOUD: a full disk cannot be tried here, since only root may mount: {mounted.stderr.decode()}")
    try:
        yield directory
    finally:
        subprocess.run(["/bin/umount", "-l", directory], check=True)


def fill(disk: Path) -> None:
    """Take all the room that is left."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


async def holds_while_full(service: Running) -> None:
    """Takes jobs until there is no room: each is stored or refused, and readiness says why."""
    async with asyncio.timeout(PATIENCE_S):
        while (refused := await service.take()).status_code == 202:
            pass
    unready = await service.until_ready(503)
    alive = await service.client.get("/healthz")

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert unready.json()["code"] == "not_ready"
    assert "the database cannot be used now" in unready.json()["detail"]
    assert alive.status_code == 200


async def test_full_disk_makes_unready_until_there_is_room(tmp_path: Path) -> None:
    """Reads go on; by itself it takes jobs again."""
    with small_disk(tmp_path / "disk") as disk:
        async with running(disk) as service:
            assert (await service.take()).status_code == 202
            await asyncio.to_thread(fill, disk)
            await holds_while_full(service)
            (disk / "ballast").unlink()
            await service.until_ready(200)

            assert (await service.take()).status_code == 202


async def test_quota_makes_unready_and_does_not_end_the_process(tmp_path: Path) -> None:
    """A limit on what may be written comes as an I/O error; nothing was written, so that nothing is lost."""
    async with running(tmp_path) as service:
        assert (await service.take()).status_code == 202
        size = (tmp_path / "remora.db-wal").stat().st_size
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        await holds_while_full(service)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await service.until_ready(200)

        assert (await service.take()).status_code == 202


async def test_database_that_was_moved_away_ends_the_process(tmp_path: Path) -> None:
    """The job that comes next is refused, the log says in one line what happened, and the exit status tells of it."""
    async with running(tmp_path) as service:
        assert (await service.take()).status_code == 202
        (tmp_path / "remora.db").rename(tmp_path / "elsewhere.db")
        with contextlib.suppress(httpx.TransportError):  # the process may be gone already: it looks by itself, too
            assert (await service.take()).status_code == 503
        _, stderr = await asyncio.wait_for(service.process.communicate(), PATIENCE_S)
        lines = [line for line in stderr.decode().splitlines() if "store_failed" in line]

    assert service.process.returncode == FAILED_STATUS
    assert len(lines) == 1
    assert "moved, deleted or replaced under the running service" in lines[0]
    assert str(tmp_path / "remora.db") in lines[0]
