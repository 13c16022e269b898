"""The way of a result on a bench: the production wiring on a real store and a real door, under a clock that a test moves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from service.accounts.keys import Keys
from service.clock import SeededRandomness, VirtualClock
from service.db.inspection.invariants import breaches
from service.db.opening import SQLiteStore, open_store
from service.db.transaction import Tx
from service.db.writer import Command
from service.egress.door import Door
from service.environment import load
from service.ids import Ids
from service.jobs.row import COLUMNS, JobRow, all_values
from service.jobs.track import Track
from service.jobs.transitions.facts import Polled
from service.providers.client import PollOutcome, PollVerdict
from service.providers.mapping import Observation, Seen
from service.providers.registry import Registry
from service.results.captures import Captures
from service.results.links import ResultLinks
from service.results.storage import Storage
from service.settings import ProviderSettings
from service.states import JobStatus
from service.telemetry import Metrics
from service.wiring.base import Base
from service.wiring.stages import Stages, wire

ACCOUNT = "acc_0199a000-0000-7000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Running(Command[None]):
    """Put a job into the store that its provider works on."""

    job: JobRow


async def _put(tx: Tx, commands: Sequence[Running]) -> list[Exception | None]:
    for command in commands:
        job = command.job
        columns = ", ".join(COLUMNS)
        names = ", ".join(":" + name for name in COLUMNS)
        tx.write(f"INSERT INTO jobs ({columns}) VALUES ({names})", [dict(zip(COLUMNS, all_values(job), strict=True))])
        row = {"id": job.submission_id, "job": job.id, "hash": job.id.encode(), "event": "evt" + job.id[3:]}
        row |= {"account": job.account_id}
        tx.write(
            "INSERT INTO submissions (id, job_id, provider, token_hash, outcome, created_at) "
            "VALUES (:id, :job, 'apimodels', :hash, 'accepted', 1)",
            [row],
        )
        tx.write(
            "INSERT INTO events (id, account_id, job_id, seq, type, source, at) "
            "VALUES (:event, :account, :job, 1, 'job.queued', 'api', 1)",
            [row],
        )
    return [None for _ in commands]


@dataclass(slots=True)
class Bench:
    """What a test drives and looks at."""

    store: SQLiteStore
    clock: VirtualClock
    ids: Ids
    stages: Stages
    directory: Path
    storage: Storage
    metrics: Metrics

    @property
    def captures(self) -> Captures:
        """The hand that fetches."""
        assert self.stages.keeping.captures is not None
        return self.stages.keeping.captures

    async def complete(self, *files: str | None) -> str:
        """A job whose provider has just said that it is completed, with these files; returns its id, captures settled.

        None stands for what is no URL.
        """
        urls = tuple(file for file in files if file is not None)
        not_urls = tuple(place for place, file in enumerate(files) if file is None)
        now_ms = self.clock.now_ms()
        job = JobRow(
            id=self.ids.new("job"),
            account_id=ACCOUNT,
            provider="apimodels",
            operation="generate",
            status=JobStatus.RUNNING,
            created_at=now_ms,
            expires_at=now_ms + 7 * 86_400_000,
            input='{"prompt": "x"}',
            submission_id=self.ids.new("sbm"),
            provider_task_id="t1",
            due_at=now_ms + 60_000,
        )
        await self.store.writer.run(Running(job))
        said = Observation(seen=Seen.COMPLETED, task_id="t1", provider_status="completed", urls=urls, not_urls=not_urls)
        outcome = PollOutcome(PollVerdict.OBSERVED, said, http_status=200)
        assert await self.store.writer.run(Track(Polled(job.id, job.submission_id, job.lease_epoch, outcome))) is True
        await self.captures.settle()
        return job.id

    async def later(self, seconds: float) -> None:
        """Move the clock, and let every duty of results do what is due."""
        self.clock.advance(seconds)
        for duty in self.stages.keeping.duties:
            await duty.run_once()
        await self.captures.settle()

    def result(self, job_id: str, index: int = 0) -> dict[str, Any]:
        """The row of a result."""
        [row] = self.rows("SELECT * FROM results WHERE job_id = ? AND idx = ?", job_id, index)
        return row

    def events(self, job_id: str) -> list[str]:
        """The types of the rows of a job's timeline from its completion on, in order."""
        types = [row["type"] for row in self.rows("SELECT type FROM events WHERE job_id = ? ORDER BY seq", job_id)]
        return types[types.index("job.completed") :]

    def bodies(self, job_id: str, event_type: str) -> list[dict[str, Any]]:
        """The events of a type, as they are sent."""
        found = self.rows("SELECT body FROM events WHERE job_id = ? AND type = ? ORDER BY seq", job_id, event_type)
        return [json.loads(row["body"]) for row in found]

    def rows(self, sql: str, *params: object) -> list[dict[str, Any]]:
        """What another process would read now."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store.path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, params).fetchall()]

    def change(self, sql: str, *params: object) -> None:
        """Change what is stored, between two commands."""
        with contextlib.closing(sqlite3.connect(self.store.path)) as connection:
            connection.execute(sql, params)
            connection.commit()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something is so that nobody tells of."""
        async with asyncio.timeout(20):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.005)

    def stored(self) -> bool:
        """Whether any result has its copy."""
        return bool(self.rows("SELECT 1 FROM results WHERE stored"))

    def files(self) -> list[Path]:
        """All files of a local storage, the spool's too."""
        return sorted(each for each in (self.directory / "kept").rglob("*") if each.is_file())


@contextlib.asynccontextmanager
async def bench(
    directory: Path, storage: Storage, provider_url: str = "http://127.0.0.1:9", **env: str
) -> AsyncIterator[Bench]:
    """Open everything; at the end close it and check the invariants."""
    clock, randomness = VirtualClock(), SeededRandomness(1)
    store = await open_store(directory / "remora.db", None, clock, randomness)
    door = Door(allow=(ip_network("127.0.0.0/8"),), clock=clock)
    await door.start()
    ids = Ids(clock, randomness)
    mine = ProviderSettings(api_key=SecretStr("sk-secret"), base_url=provider_url)
    base = Base(
        settings=load({"REMORA_PUBLIC_URL": "https://remora.example"} | env, directory),
        clock=clock,
        randomness=randomness,
        ids=ids,
        metrics=Metrics(),
        store=store,
        egress=door,
        registry=Registry.load({"apimodels": mine}, None, door, clock),
        links=ResultLinks(store.box.derive("results"), "https://remora.example"),
        keys=Keys(store.reader, store.writer, clock),
        owner="me",
        storage=storage,
        files=door,
    )
    stages = wire(base)
    store.writer.handle(Running, _put)
    with contextlib.closing(sqlite3.connect(directory / "remora.db")) as connection:
        connection.execute(
            "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
            "VALUES (?, 'ours', 'active', 'none', x'00', 'whsec_', 0)",
            (ACCOUNT,),
        )
        connection.commit()
    store.writer.start()
    made = Bench(store, clock, ids, stages, directory, storage, base.metrics)
    try:
        yield made
    finally:
        await made.captures.drain(1)
        await base.keys.close()
        await door.close()
        await store.close()
    with contextlib.closing(sqlite3.connect(directory / "remora.db")) as connection:
        assert breaches(connection) == []
