"""Stopping and restarting a real process: what is out at a provider comes back, and a planned restart refuses nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from service.app import Service
from service.environment import load
from service.settings import Settings
from service.stopping import RECORD_S
from tests.e2e.process import START_S, Process
from tests.e2e.rig import ADMIN_KEY, check, environment, free_port
from tests.receiver import PATIENCE_S

AUTH = {"Authorization": f"Bearer {ADMIN_KEY}"}
SYNC = {"provider": "apimodels", "operation": "sparkpix", "input": {"prompt": "a cat"}}
MORE = {"REMORA_STORAGE_URL": "none", "REMORA_LOG_LEVEL": "info"}


class SyncProvider:
    """A provider whose answer is the result, and comes when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.requests = 0

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests += 1
        self.asked.set()
        await self.answers.wait()
        return web.json_response({"code": 200, "data": {"url": "http://127.0.0.1:9/cat.png", "model": "sparkpix"}})


@pytest.fixture
async def provider() -> AsyncIterator[tuple[SyncProvider, str]]:
    slow = SyncProvider()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", slow.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield slow, "http://{}:{}".format(*runner.addresses[0][:2])
    slow.answers.set()
    await runner.cleanup()


async def _take(client: httpx.AsyncClient, url: str) -> str:
    answer = await client.post(f"{url}/v1/jobs", json=SYNC, headers=AUTH)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def _status(client: httpx.AsyncClient, url: str, job_id: str) -> str:
    return str((await client.get(f"{url}/v1/jobs/{job_id}", headers=AUTH)).json()["status"])


async def _until(client: httpx.AsyncClient, url: str, job_id: str, status: str) -> str:
    """The job's status, once it is this one or a while has passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await _status(client, url, job_id) == status:
                    break
                await asyncio.sleep(0.02)
    return await _status(client, url, job_id)


async def test_stop_waits_for_what_is_out_at_a_provider(tmp_path: Path, provider: tuple[SyncProvider, str]) -> None:
    """First it is unready, still takes jobs and answers, submits nothing more; the answer that was paid for is kept.

    A signal that a wrapper forwards beside the terminal's own is the same one.
    """
    slow, base_url = provider
    process = Process(tmp_path, free_port(), {"apimodels": base_url}, **MORE)
    await process.start()
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        job_id = await _take(client, process.url)
        await asyncio.wait_for(slow.asked.wait(), PATIENCE_S)
        process.send(signal.SIGTERM)
        process.send(signal.SIGINT)
        stopping = await process.until("stopping")
        ready = await client.get(f"{process.url}/readyz")
        later = await _take(client, process.url)
        progress = await process.until("stopping", 2)
        slow.answers.set()
        status = await process.ended()
        await process.start()
        kept = await _status(client, process.url, job_id)
        sent_later = await _until(client, process.url, later, "completed")
        again = await process.stop(signal.SIGTERM)

    assert (status, again) == (0, 0)
    assert ready.status_code == 503
    assert "stopping" in ready.json()["detail"]
    assert ready.headers["connection"] == "close"
    assert stopping["submits"] == progress["submits"] == 1
    assert stopping["at_most_s"] == 60 + RECORD_S
    assert (kept, sent_later) == ("completed", "completed")
    assert slow.requests == 2
    assert "cut_off" not in process.lines("stopped")[0]
    check(tmp_path)


async def test_second_signal_ends_at_once_and_says_what_is_left(
    tmp_path: Path, provider: tuple[SyncProvider, str]
) -> None:
    """Nothing is waited for any more; the job that was cut off is named, and is `submit_unknown` after the next start."""
    slow, base_url = provider
    process = Process(tmp_path, free_port(), {"apimodels": base_url}, **MORE)
    await process.start()
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        job_id = await _take(client, process.url)
        waiting = asyncio.create_task(
            client.get(f"{process.url}/v1/jobs/{job_id}", headers=AUTH | {"Prefer": "wait=60"})
        )
        await asyncio.wait_for(slow.asked.wait(), PATIENCE_S)
        process.send(signal.SIGTERM)
        await process.until("stopping")
        while not process.lines("stopping_at_once"):
            process.send(signal.SIGINT)
            await asyncio.sleep(0.1)
        status = await process.ended()
        await asyncio.gather(waiting, return_exceptions=True)
        await process.start()
        left = await _until(client, process.url, job_id, "submit_unknown")
        await process.stop(signal.SIGTERM)

    assert status == 0
    assert process.lines("stopping_at_once")[0]["submits"] == 1
    assert process.lines("stopped")[0]["cut_off"] == {"submits": 1, "jobs": [job_id]}
    assert left == "submit_unknown"


async def test_drain_that_is_set_is_kept(tmp_path: Path, provider: tuple[SyncProvider, str]) -> None:
    """`REMORA_DRAIN` is how long is waited, however long a submission may take."""
    slow, base_url = provider
    process = Process(tmp_path, free_port(), {"apimodels": base_url}, **MORE, REMORA_DRAIN="1s")
    await process.start()
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        await _take(client, process.url)
    await asyncio.wait_for(slow.asked.wait(), PATIENCE_S)
    status = await process.stop(signal.SIGTERM)

    assert status == 0
    assert process.lines("stopping")[0]["at_most_s"] == 1
    assert process.lines("stopped")[0]["cut_off"]["submits"] == 1


@pytest.mark.parametrize(("key", "longest_s"), [("", 60), ("SHARKAI", 300)])
async def test_drain_is_the_longest_submit_deadline_in_force(tmp_path: Path, key: str, longest_s: int) -> None:
    """Of the providers that are configured: those without a key are sent nothing."""
    given = {f"REMORA_PROVIDERS__{key}__API_KEY": "sk-test"} if key else {}
    service = await Service.open(_settings(tmp_path, given))
    drain_s = service.stopping.drain_s
    await service.close()

    assert drain_s == longest_s + RECORD_S


def _settings(directory: Path, given: dict[str, str]) -> Settings:
    return load(environment(directory, free_port(), {}) | given, directory)


class Load:
    """Callers of all sorts, who never let up; whatever is not answered is noted."""

    def __init__(self, url: str) -> None:
        self.refused: list[str] = []
        self.answered = 0
        self._url = url
        self._go_on = True

    async def pooled(self) -> None:
        """On connections that are kept, as backends do it."""
        async with httpx.AsyncClient(trust_env=False, timeout=START_S) as client:
            await self._ask(client)

    async def fresh(self) -> None:
        """A connection for each request, as callbacks come."""
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, timeout=START_S, limits=limits) as client:
            await self._ask(client)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        while self._go_on:
            try:
                answer = await client.post(f"{self._url}/v1/jobs", json=SYNC, headers=AUTH)
            except httpx.HTTPError as error:
                self.refused.append(repr(error))
                continue
            if answer.status_code == 202:
                self.answered += 1
            else:
                self.refused.append(answer.text)

    async def answers(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.answered + count
        async with asyncio.timeout(START_S):
            while True:
                if self.answered >= wanted:
                    return
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """Begin nothing more."""
        self._go_on = False


async def test_restart_by_signal_refuses_nobody(tmp_path: Path, provider: tuple[SyncProvider, str]) -> None:
    """SIGUSR2: the same process id, the settings as they are now, and every request under load is answered 202."""
    slow, base_url = provider
    slow.answers.set()
    process = Process(tmp_path, free_port(), {"apimodels": base_url}, **MORE)
    await process.start()
    load = Load(process.url)
    callers = [asyncio.create_task(each()) for each in (load.pooled, load.pooled, load.fresh, load.fresh)]
    (tmp_path / "remora.toml").write_text('drain = "77s"\n')
    for count in (2, 3):
        process.send(signal.SIGUSR2)
        await process.until("started", count)
        await load.answers(20)
    load.stop()
    await asyncio.gather(*callers)
    status = await process.stop(signal.SIGTERM)

    assert load.refused == []
    assert status == 0
    assert [line["drain_s"] for line in process.lines("started")] == [65, 77, 77]
    assert [line["restarts"] for line in process.lines("stopped")] == [True, True, False]
    check(tmp_path)


async def test_restart_into_wrong_settings_is_refused(tmp_path: Path) -> None:
    """What would not start must not take the place of what runs; a stop during a restart is a stop."""
    process = Process(tmp_path, free_port(), {}, **MORE)
    await process.start()
    (tmp_path / "remora.toml").write_text('drain = "soon"\n')
    process.send(signal.SIGUSR2)
    refused = await process.until("restart_refused")
    async with httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"{process.url}/readyz")
    (tmp_path / "remora.toml").write_text("")
    process.send(signal.SIGUSR2)
    await process.until("stopping")
    status = await process.stop(signal.SIGTERM)

    assert "REMORA_DRAIN" in refused["error"]
    assert ready.status_code == 200
    assert status == 0
    assert process.lines("stopped")[0]["restarts"] is False


async def test_signal_at_the_very_end_of_a_restart_makes_it_a_stop(tmp_path: Path) -> None:
    """Whoever stops the service while it closes its store is not left with a successor."""
    process = Process(tmp_path, free_port(), {}, **MORE)
    await process.start()
    process.send(signal.SIGUSR2)
    while not process.lines("stopped"):  # noqa: ASYNC110 - of a process that tells nobody else
        await asyncio.sleep(0)  # some milliseconds later it is over
    process.send(signal.SIGTERM)
    status = await process.ended()

    assert status in {0, -signal.SIGTERM, 128 + signal.SIGTERM}  # by where it was


PARENT = """
import os, socket, sys
held = socket.create_server(("127.0.0.1", 0), backlog=64)
print(held.getsockname()[1], flush=True)
for line in sys.stdin:  # a start for each
    pid = os.fork()
    if not pid:
        os.dup2(held.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        os.execv(sys.executable, [sys.executable, "-m", "service", "serve"])
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


async def test_socket_of_a_parent_is_served_and_outlives_the_process(tmp_path: Path) -> None:
    """As systemd hands it over: what comes while nothing runs is answered by the next start, and metrics know where it listens."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()} | environment(tmp_path, free_port(), {}, **MORE)  # noqa: PTH109
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, cwd=tmp_path, env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None
    reader = parent.stdout
    url = f"http://127.0.0.1:{int(await reader.readline())}"

    async def numbers() -> int:
        while True:  # the banner goes the same way
            line = (await asyncio.wait_for(reader.readline(), START_S)).decode().strip()
            if line.lstrip("-").isdecimal():
                return int(line)

    ended, ready = [], []
    async with httpx.AsyncClient(trust_env=False, timeout=START_S) as client:
        for _ in range(2):
            waiting = asyncio.create_task(client.get(f"{url}/readyz"))  # before anything is there to answer
            parent.stdin.write(b"start\n")
            pid = await numbers()
            ready.append((await waiting).status_code)
            os.kill(pid, signal.SIGTERM)
            ended.append(await numbers())
    parent.stdin.close()
    await parent.wait()

    assert ready == [200, 200]
    assert ended == [0, 0]


@pytest.mark.parametrize(
    ("fds", "reason"), [("2", "one socket can be served"), ("1", "does not listen on TCP")], ids=["two", "no listener"]
)
def test_socket_that_cannot_be_served_is_refused(tmp_path: Path, fds: str, reason: str) -> None:
    """Told in one line like every wrong setting."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())} | environment(tmp_path, free_port(), {})
    code = (
        "import os, sys; os.environ |= {'LISTEN_FDS': sys.argv[1], 'LISTEN_PID': str(os.getpid())}; "
        "os.dup2(int(sys.argv[2]), 3); os.set_inheritable(3, True); "
        "os.execv(sys.executable, [sys.executable, '-m', 'service', 'serve'])"
    )
    with socket.socket() as silent:
        ran = subprocess.run(
            [sys.executable, "-c", code, fds, str(silent.fileno())],
            cwd=tmp_path, env=env, pass_fds=[silent.fileno()], capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip

    assert ran.returncode == 2, ran.stderr
    assert reason in ran.stderr
    assert "Traceback" not in ran.stderr
