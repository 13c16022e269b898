"""A world in one thread, from one seed: the production code on an inline store under a virtual clock.

Its provider and its subscriber fail in every way that the network allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from service.accounts import bootstrap
from service.accounts.keys import Keys
from service.clock import SeededRandomness, VirtualClock
from service.db import pullback
from service.db.keyring import open_box
from service.db.migrate import upgrade
from service.db.opening import Store
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.writer import Writer
from service.egress import Answer, Call
from service.environment import load
from service.errors import Conflict, EgressCut, EgressNotSent
from service.ids import Ids
from service.jobs import queries
from service.jobs.intake import Caller
from service.jobs.track import Track
from service.jobs.transitions.facts import CancelAsked, ResubmitAsked
from service.notation import SubmitRate
from service.providers.registry import Registry
from service.results.links import ResultLinks
from service.schemas.job_schemas import JobRequest
from service.settings import ProviderSettings
from service.telemetry import Metrics
from service.wiring.base import Base
from service.wiring.stages import Stages, wire
from service.workers import job_claim_store
from service.workers.job_claim_store import VoidLeases

SUBSCRIBER = "https://shop.example/hooks"
PUBLIC = "https://remora.example"


@dataclass(slots=True)
class Task:
    """One task of the provider's."""

    id: str
    prompt: str
    token: str
    state: str = "pending"
    polls: int = 0


@dataclass(slots=True)
class Network:
    """The outside: a provider in the manner of apimodels, and a subscriber. `kind` is how often things go wrong."""

    chance: random.Random
    trouble: float = 0.4
    lying: bool = False  # a planted fault: says that nothing was sent when it was
    tasks: dict[str, Task] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)  # submits that may have had an effect, by prompt
    bodies: dict[str, set[bytes]] = field(default_factory=dict)  # what the subscriber got, by webhook-id
    accepted: dict[str, set[str]] = field(default_factory=dict)  # job ids by event type, answered 2xx

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Every URL may be reached."""

    async def _pass_time(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """The provider."""
        await self._pass_time()
        if self.chance.random() < self.trouble / 4:
            raise EgressNotSent("connect_refused", "the provider is down")
        return await (self._submit(call) if call.method == "POST" else self._poll(call))

    async def _submit(self, call: Call) -> Answer:
        body = json.loads(call.body or b"")
        luck = self.chance.random() / max(self.trouble, 0.001)
        if luck < 0.15:
            return _answer(429, {"code": 429, "msg": "slow down"}, {"retry-after": "3"})
        if luck < 0.2:
            return _answer(402, {"code": 402, "msg": "no credits"})
        self.answered[body["prompt"]] += 1
        if luck < 0.3:
            raise EgressCut("timeout", "nothing was created")
        task = Task(f"t{len(self.tasks)}", body["prompt"], urlsplit(body["callBackUrl"]).path.rpartition("/")[2])
        self.tasks[task.id] = task
        if luck < 0.45 and self.lying:
            raise EgressNotSent("connect_refused", "a lie")
        if luck < 0.45:
            raise EgressCut("connection_cut", "created, but nobody was told")
        await self._pass_time()
        if luck < 0.5:
            return _answer(500, {"code": 500, "msg": "boom"})
        return _answer(200, {"code": 200, "msg": "success", "data": {"taskId": task.id, "state": "pending"}})

    async def _poll(self, call: Call) -> Answer:
        task = self.tasks.get(parse_qs(urlsplit(call.url).query)["task_id"][0])
        if task is None:
            return _answer(404, {"code": 404, "msg": "task not found"})
        task.polls += 1
        if self.chance.random() < self.trouble / 3:
            return _answer(500, {"code": 500, "msg": "boom"})
        return _answer(200, envelope(task))

    async def deliver(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        read_bytes: int,
    ) -> Answer:
        """The subscriber."""
        await self._pass_time()
        if self.chance.random() < self.trouble / 4:
            raise EgressNotSent("dns_temporary", "no name server")
        self.bodies.setdefault(headers["webhook-id"], set()).add(body)
        if self.chance.random() < self.trouble / 3:
            raise EgressCut("timeout", "it came, but nobody was told")
        if self.chance.random() < self.trouble / 3:
            return _answer(503, {})
        event = json.loads(body)
        self.accepted.setdefault(event["type"], set()).add(event["data"]["job"]["id"])
        return _answer(204, {})


def envelope(task: Task) -> dict[str, Any]:
    """What the provider says of a task (apimodels-sparkpix.txt, "Success Response", "Failed Response")."""
    data: dict[str, Any] = {"taskId": task.id, "state": task.state}
    if task.state == "completed":
        data |= {"resultUrls": [f"https://r2.example/{task.id}.jpeg"], "createTime": 1, "completeTime": 2}
    elif task.state == "failed":
        data |= {"failMsg": "Content policy violation"}
    return {"code": 200, "msg": "success", "data": data}


def _answer(status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, headers or {}, json.dumps(body).encode(), truncated=False, duration_ms=1)


def base_on(path: Path, clock: VirtualClock, randomness: SeededRandomness, egress: Any, registry: Registry) -> Base:
    """What a process stands on: an inline store, and whatever network it is given."""
    connection = InlineConnection(path)
    writer, reader = Writer(connection, clock), InlineReader(connection)
    box = open_box(connection.raw, path, "a key of at least 32 characters!!", randomness)
    return Base(
        settings=load({"REMORA_PUBLIC_URL": PUBLIC, "REMORA_JOB_TTL": "2d"}, path.parent),
        clock=clock,
        randomness=randomness,
        ids=Ids(clock, randomness),
        metrics=Metrics(),
        store=Store(writer, reader, reader, box, fresh=False),
        egress=egress,
        registry=registry,
        links=ResultLinks(box.derive("results"), PUBLIC),
        keys=Keys(reader, writer, clock),
        owner=randomness.bytes(4).hex(),
    )


async def begin(base: Base) -> Stages:
    """Wire the way of a job and start the writer, as a process does; an earlier one's leases are void."""
    stages, store = wire(base), base.store
    for register in (job_claim_store.register, bootstrap.register, pullback.register):
        register(store.writer)
    store.writer.start()
    await bootstrap.ensure_default(
        writer=store.writer,
        reader=store.reader,
        box=store.box,
        ids=base.ids,
        randomness=base.randomness,
        database=None,
        given="an admin key that is long enough",
    )
    await store.writer.run(VoidLeases())
    base.clock.seen(await store.writer.run(pullback.PullBack()))
    stages.tracker.tasks.load(await queries.at_providers(store.reader))
    return stages


class World:
    """One process at a time, which can be killed and started again on the same store."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock()
        self.randomness = SeededRandomness(seed)
        self.network = Network(self.chance)
        self.path = directory / "remora.db"
        upgrade(self.path)
        self.taken: dict[str, str] = {}  # job ids by prompt
        self.resubmitted: Counter[str] = Counter()
        self._before: set[asyncio.Task[Any]] = set()
        self.stages: Stages
        self.base: Base
        self.account_id = ""

    async def start(self) -> None:
        """Start a process."""
        self._before = asyncio.all_tasks()
        settings = ProviderSettings(
            api_key=SecretStr("sk"),
            verify=self.chance.choice(["fetch", "trust"]),
            max_in_flight=self.chance.choice([1, 3, None]),
            max_submits=self.chance.choice([1, 2, None]),
            submit_rate=self.chance.choice([SubmitRate(1, 10.0), SubmitRate(5, 1.0), None]),
        )
        registry = Registry.load({"apimodels": settings}, None, self.network, self.clock)
        self.base = base_on(self.path, self.clock, self.randomness, self.network, registry)
        self.stages = await begin(self.base)
        self.account_id = (await self.base.store.reader.rows("SELECT id FROM accounts"))[0]["id"]
        await self.stages.sender.start()
        self.loops = [asyncio.create_task(each.run_forever()) for each in (self.stages.submits, self.stages.polls)]

    async def kill(self) -> None:
        """Kill -9: whatever runs stops where it is, and nothing is tidied up."""
        mine = asyncio.all_tasks() - self._before - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        raw = self.raw
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raw.close()

    def set_clock(self, off_by_s: float) -> None:
        """The next process finds a wall clock that is off by so much from the time of the last one."""
        self.clock = VirtualClock(self.clock.now_ms() + round(off_by_s * 1000))

    @property
    def raw(self) -> sqlite3.Connection:
        """The database as it is."""
        connection: InlineConnection = self.base.store.writer._engine  # type: ignore[assignment]
        return connection.raw

    async def breathe(self, turns: int = 60) -> None:
        """Let everything that can go on without time going on go on."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def take(self, number: int) -> None:
        """A caller hands in a job."""
        prompt = f"cat {number}"
        body = {"provider": "apimodels", "input": {"model": "sparkpix", "prompt": prompt}, "callback_url": SUBSCRIBER}
        taken = await self.stages.intake.take(Caller(self.account_id, None), JobRequest.read(body), f"key-{number}")
        assert self.taken.setdefault(prompt, taken.job_id) == taken.job_id

    async def duties(self) -> None:
        """Every duty once, in an arbitrary order; the clock is looked at before, as the ticker does."""
        self.clock.slew()
        for duty in self.chance.sample(self.stages.duties, len(self.stages.duties)):
            await duty.run_once()

    def work(self) -> None:
        """The provider goes on with some of its tasks."""
        for task in self.network.tasks.values():
            if task.state in {"pending", "processing"} and self.chance.random() < 0.5:
                task.state = (
                    "processing" if task.state == "pending" else self.chance.choice(["completed"] * 4 + ["failed"])
                )

    async def call_back(self) -> None:
        """Some callbacks arrive: true, doubled, early, forged or garbled; others are lost."""
        for task in list(self.network.tasks.values()):
            luck = self.chance.random()
            body = json.dumps(envelope(task)).encode()
            if luck < 0.1:
                foreign = Task(self.chance.choice(list(self.network.tasks)), "", "", state="completed")
                body = json.dumps(envelope(foreign)).encode()
            elif luck < 0.15:
                body = b"\xff{"
            elif luck > 0.5:
                continue
            if task.state in {"completed", "failed"} or luck < 0.15:
                trusting = self.base.registry.get("apimodels")
                if luck < 0.1 and trusting is not None and trusting.verify == "trust":
                    continue  # who trusts unsigned callbacks trusts forged ones
                assert await self.stages.inbox.receive(task.token, body, "application/json", {})

    async def meddle(self) -> None:
        """Callers and operators do what they may."""
        for prompt, job_id in self.taken.items():
            luck = self.chance.random()
            with contextlib.suppress(Conflict):
                if luck < 0.02:
                    await self.base.store.writer.run(Track(CancelAsked(job_id, self.account_id, force=luck < 0.005)))
                elif luck < 0.06:
                    await self.base.store.writer.run(Track(ResubmitAsked(job_id, self.account_id)))
                    self.resubmitted[prompt] += 1

    async def run_out(self, days: float) -> None:
        """Trouble ends; time goes on until everything is over."""
        self.network.trouble = 0.0
        for _ in range(round(days * 48)):
            self.clock.advance(1_800)
            await self.duties()
            self.work()
            await self.breathe(120)

    def statuses(self) -> dict[str, str]:
        """Every job's state."""
        return dict(self.raw.execute("SELECT id, status FROM jobs").fetchall())


@contextlib.asynccontextmanager
async def world(directory: Path, seed: int) -> Any:
    """A world with a running process."""
    made = World(directory, seed)
    await made.start()
    yield made
    await made.kill()
