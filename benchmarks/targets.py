"""What callbacks are sent to: the bare relay, the obvious build, Remora, and for the ceiling the subscriber itself.

A target makes ready what its callbacks need (Remora and the obvious build need jobs) and hands out the requests; it does
not measure.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

import msgspec

from benchmarks.loadgen import Client, Tally, closed_loop, request
from benchmarks.subject import Subject
from benchmarks.world import World, callback, prompt
from service.db.inspection.invariants import breaches

ADMIN_KEY = "a-key-for-benchmarks-only-0123456789"
TAKING = 64  # jobs between POST and submission, while jobs are taken
LIMIT_S = 30.0  # beyond which what has not come is missing
SETTLE_S = 0.02  # between two looks at whether all jobs are running


class Target(Protocol):
    """Where callbacks go."""

    host: str
    port: int
    expected: int  # the status of a callback that was taken

    @property
    def subject(self) -> Subject | None:
        """Its process; None where it has none of its own."""

    async def requests(self, client: Client, numbers: range) -> list[bytes]:
        """Ready callbacks for these numbers."""

    def problems(self, numbers: range) -> list[str]:
        """What only this target can find wrong about events that came."""


def watch(world: World, tally: Tally, numbers: range) -> Callable[[int], None]:
    """Tell the tally of its numbers; all others are strangers."""

    def came(number: int) -> None:
        if number in numbers:
            tally.arrived(number - numbers.start)
        else:
            world.seen.strangers += 1

    return came


class Subscriber:
    """The subscriber without anybody in between: what the load side itself can do at most."""

    subject = None
    expected = 204

    def __init__(self, world: World) -> None:
        self.host, self.port = "127.0.0.1", world.plain_port

    async def requests(self, client: Client, numbers: range) -> list[bytes]:
        return [callback("/hooks", self.host, number) for number in numbers]

    def problems(self, numbers: range) -> list[str]:
        return []


class Plain:
    """A process that needs nothing made ready: the relay, and the obvious build with its jobs seeded."""

    expected = 200

    def __init__(self, subject: Subject, path: str = "/callbacks/{number}") -> None:
        self.subject = subject
        self.host, self.port = subject.host, subject.port
        self._path = path

    async def requests(self, client: Client, numbers: range) -> list[bytes]:
        return [callback(self._path.format(number=number), self.host, number) for number in numbers]

    def problems(self, numbers: range) -> list[str]:
        return []


class _Taken(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    data: list[_Taken]


class Remora:
    """The service, with the world as its provider and its subscriber."""

    expected = 200

    def __init__(self, subject: Subject, world: World, database: Path) -> None:
        self.subject = subject
        self.host, self.port = subject.host, subject.port
        self._world = world
        self._database = database
        self.jobs: dict[int, str] = {}  # the id that each number got

    @classmethod
    async def start(
        cls,
        world: World,
        directory: Path,
        verify: str,
        core: int | None,
        profile: str | None = None,
        *,
        more: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> Self:
        """A fresh service on the database in this directory; `more` are settings, `flags` are its process's own."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]  # the public URL has to be known before the service has its port
        database = directory / "remora.db"
        provider = {
            "API_KEY": "bench",
            "BASE_URL": world.provider_url,
            "VERIFY": verify,
            "FALLBACK_AFTER": "1h",
            "MAX_IN_FLIGHT": "1000000",
            "MAX_SUBMITS": "256",
        }
        env = {
            "REMORA_DATABASE_URL": f"sqlite:///{database}",
            "REMORA_PORT": str(port),
            "REMORA_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "REMORA_ADMIN_KEY": ADMIN_KEY,
            "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
            "REMORA_LOG_LEVEL": "warning",
            "REMORA_STORAGE_URL": "none",  # what is measured is the way of an event; its files do not exist
        } | {f"REMORA_PROVIDERS__APIMODELS__{name}": value for name, value in provider.items()}
        options = [*flags, *(("--core", str(core)) if core is not None else ())]
        if profile is not None:
            options += ["--profile", profile]
        return cls(await Subject.start("benchmarks.service_process", options, env | dict(more or {})), world, database)

    def job(self, number: int) -> bytes:
        """The request that takes a job."""
        body = {
            "provider": "apimodels",
            "operation": "generate",
            "input": {"model": "sparkpix", "prompt": prompt(number), "aspect_ratio": "16:9"},
            "callback_url": self._world.subscriber_url,
            "metadata": {"number": str(number)},
        }
        key = f"Authorization: Bearer {ADMIN_KEY}"
        return request("POST", "/v1/jobs", self.host, msgspec.json.encode(body), key)

    def taken(self, number: int, status: int, body: bytes) -> None:
        """Remember the id of a job that was taken."""
        if status == 202:
            self.jobs[number] = msgspec.json.decode(body, type=_Taken).id

    async def requests(self, client: Client, numbers: range) -> list[bytes]:
        """Take jobs until all are running; their callbacks go to the addresses that the provider was given."""
        tally = Tally(len(numbers), expected=202)
        self._world.on_submit = watch(self._world, tally, numbers)

        def send(index: int) -> None:
            number = numbers[index]

            def done(status: int, body: bytes) -> None:
                self.taken(number, status, body)
                tally.answered(index, status)

            client.send(self.job(number), done)

        await closed_loop(tally, send, TAKING, LIMIT_S + len(numbers) / 100)
        if tally.refused() or tally.once() != len(numbers):
            raise SystemExit(
                f"of {len(numbers)} jobs {tally.refused()} were not taken ({set(tally.status)}) and "
                f"{len(numbers) - tally.once()} not submitted exactly once"
            )
        async with asyncio.timeout(LIMIT_S):
            # The service has no signal for "none is on its way".
            while await self._count(client, "submitting") or await self._count(client, "queued"):  # noqa: ASYNC110
                await asyncio.sleep(SETTLE_S)
        return [self.callback(number) for number in numbers]

    def callback(self, number: int) -> bytes:
        """The provider's callback for a job that was submitted."""
        return callback(self._world.callback_paths[number], self.host, number)

    async def _count(self, client: Client, status: str) -> int:
        """Whether any job has this status."""
        answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        key = f"Authorization: Bearer {ADMIN_KEY}"
        asked = request("GET", f"/v1/jobs?status={status}&limit=1", self.host, b"", key)
        client.send(asked, lambda code, body: answered.set_result((code, body)))
        code, body = await answered
        if code != 200:
            raise SystemExit(f"the list of {status} jobs was answered {code}: {body[:200]!r}")
        return len(msgspec.json.decode(body, type=_Page).data)

    def problems(self, numbers: range) -> list[str]:
        """Events that named another job than the one that was taken."""
        named = self._world.event_jobs
        wrong = sum(number in named and named[number] != self.jobs.get(number) for number in numbers)
        return [f"{wrong} events named the wrong job"] if wrong else []

    def audit(self) -> list[str]:
        """Once it has stopped: whether every row that has to be there is, and every rule holds."""
        jobs = len(self.jobs)
        connection = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)
        try:
            found = {what: connection.execute(question).fetchone()[0] for what, question in _ROWS.items()}
            broken = [f"{breach.rule} {breach.says}: {breach.rows}" for breach in breaches(connection)]
        finally:
            connection.close()
        return [f"{count} {what} for {jobs} jobs" for what, count in found.items() if count != jobs] + broken


_ROWS = {
    "jobs": "SELECT count(*) FROM jobs",
    "completed jobs": "SELECT count(*) FROM jobs WHERE status = 'completed' AND resolved_by = 'callback'",
    "submissions": "SELECT count(*) FROM submissions",
    "callbacks": "SELECT count(*) FROM callbacks",
    "results": "SELECT count(*) FROM results",
    "completion events": "SELECT count(*) FROM events WHERE type = 'job.completed' AND pos IS NOT NULL",
    "deliveries": "SELECT count(*) FROM deliveries",
    "delivered deliveries": "SELECT count(*) FROM deliveries WHERE status = 'delivered' AND attempt_count = 1",
    "attempts": "SELECT count(*) FROM attempts",
}
