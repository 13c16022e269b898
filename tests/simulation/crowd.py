"""Many providers and many tenants on one process, in virtual time: the production code, with providers that behave as badly as they can.

What is measured is how long a tenant's jobs take at a provider that is well, with and without the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from service.accounts.accounts import CreateAccount
from service.accounts.keys import KeyText
from service.clock import SeededRandomness, VirtualClock
from service.db.migrate import upgrade
from service.egress import Answer, Call
from service.errors import EgressCut
from service.jobs.intake import Caller
from service.providers.registry import Registry
from service.schemas.job_schemas import JobRequest
from service.settings import ProviderSettings
from service.wiring.base import Base
from service.wiring.stages import Stages
from tests.simulation.world import base_on, begin

STEP_S = 0.05
TICK_S = 0.5
TASK_S = 2.0  # what a task takes at a provider that is well
ANSWER_S = 0.1  # what a request takes there

CARD = """\
card: 1
name: {name}
base_url: https://{name}.example
default_operation: generate
operations:
  generate:
    input: {{type: object}}
    submit: {{path: /tasks, timeout: 30s, observe: {{task_id: id}}}}
    poll:
      path: "/tasks/{{id}}"
      every: 500ms
      timeout: 15s
      observe: {{task_id: id, state: state, states: {{running: running, done: completed}}, urls: url}}
    callback: {{slot: {{in: body, field: webhook}}, fallback_after: 30s}}
    typical: 2s
"""

#: How a provider behaves: `well`; takes seconds for every answer, and more for polls; takes nothing and answers nothing; takes tasks and then
#: answers no poll; refuses everything for the moment, for ever.
Manner = Literal["well", "slow", "dead", "mute", "refusing"]


@dataclass(slots=True)
class Outside:
    """All providers, by the first label of their host."""

    clock: VirtualClock
    manners: dict[str, Manner]
    asked: Counter[str] = field(default_factory=Counter)  # requests, by provider and method
    ends: dict[str, float] = field(default_factory=dict)  # when each task is done
    hooks: dict[str, tuple[str, str]] = field(default_factory=dict)  # callback tokens and providers, by task
    peak: Counter[str] = field(default_factory=Counter)  # tasks unfinished at once, by provider
    calls_back: bool = False

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Every URL may be reached."""

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """Nobody subscribes here."""
        raise AssertionError(url)

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """A provider is asked."""
        name = (urlsplit(call.url).hostname or "").partition(".")[0]
        manner = self.manners[name]
        self.asked[f"{name} {call.method}"] += 1
        if manner == "dead" or (manner == "mute" and call.method == "GET"):
            await self.clock.sleep(timeout_s)
            raise EgressCut("timeout", "nothing came")
        slow_s = 5.0 if call.method == "GET" else 1.0
        await self.clock.sleep(slow_s if manner == "slow" else ANSWER_S)
        if manner == "refusing":
            return _answer(429, {"error": "slow down"}, {"retry-after": "60"})
        if call.method == "GET":
            task = call.url.rpartition("/")[2]
            done = self.clock.monotonic() >= self.ends[task]
            return _answer(
                200, {"id": task, "state": "done" if done else "running", "url": f"https://files.example/{task}.png"}
            )
        task = f"{name}-{len(self.ends)}"
        self.ends[task] = self.clock.monotonic() + TASK_S
        hook = json.loads(call.body or b"{}").get("webhook")
        if hook:
            self.hooks[task] = (hook.rpartition("/")[2], name)
        unfinished = sum(end > self.clock.monotonic() for each, end in self.ends.items() if each.startswith(f"{name}-"))
        self.peak[name] = max(self.peak[name], unfinished)
        return _answer(200, {"id": task})

    def due_hooks(self) -> list[tuple[str, str]]:
        """Tokens of callbacks that are due now, with their task."""
        now = self.clock.monotonic()
        due = [(token, task) for task, (token, _) in self.hooks.items() if self.ends[task] <= now]
        for _, task in due:
            del self.hooks[task]
        return due


def _answer(status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, headers or {}, json.dumps(body).encode(), truncated=False, duration_ms=1)


class Crowd:
    """One process; `tenant` makes accounts, `take` takes jobs, `run` lets time pass."""

    def __init__(self, stages: Stages, base: Base, outside: Outside, raw: Any) -> None:
        self.stages = stages
        self.base = base
        self.outside = outside
        self.clock = outside.clock
        self.raw = raw
        self._loops = [asyncio.create_task(each.run_forever()) for each in (stages.submits, stages.polls)]
        self._next_tick = self.clock.monotonic()

    async def tenant(self) -> str:
        """A new account; its id."""
        account_id = self.base.ids.new("acc")
        key = KeyText(f"rmk_{self.base.randomness.bytes(20).hex()}")
        await self.base.store.writer.run(
            CreateAccount(account_id, "t", "none", b"x", "whsec_", self.base.ids.new("key"), key, ("jobs:write",))
        )
        return account_id

    async def take(self, account_id: str, provider: str, count: int = 1) -> list[str]:
        """So many jobs of a tenant at a provider; their ids."""
        body = JobRequest.read({"provider": provider, "input": {"prompt": "a cat"}})
        taken = [await self.stages.intake.take(Caller(account_id, None), body, None) for _ in range(count)]
        return [each.job_id for each in taken]

    async def run(self, seconds: float) -> None:
        """Let time pass, with the ticks of the duties that the way of a job needs."""
        await self.run_slowly(seconds, step_s=STEP_S)

    async def run_slowly(self, seconds: float, *, step_s: float) -> None:
        """Let time pass in longer steps."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            if self.outside.calls_back:
                for token, task in self.outside.due_hooks():
                    body = json.dumps({"id": task, "state": "done"}).encode()
                    await self.stages.inbox.receive(token, body, "application/json", {})
            if self.clock.monotonic() >= self._next_tick:
                self._next_tick += TICK_S
                for duty in self.stages.duties:
                    if duty.name in {"submits", "polls", "expirer"}:
                        await duty.run_once()
            for _ in range(25):
                await asyncio.sleep(0)

    def seconds(self, job_ids: list[str]) -> list[float]:
        """How long jobs took, sorted; those that are not over yet took until now."""
        marks = ",".join("?" * len(job_ids))
        rows = self.raw.execute(f"SELECT created_at, finished_at FROM jobs WHERE id IN ({marks})", job_ids).fetchall()
        return sorted(((row[1] or self.clock.now_ms()) - row[0]) / 1000 for row in rows)

    def statuses(self, provider: str) -> Counter[str]:
        """The states of a provider's jobs."""
        rows = self.raw.execute("SELECT status, count(*) FROM jobs WHERE provider = ? GROUP BY status", (provider,))
        return Counter(dict(rows.fetchall()))


def _furnish(directory: Path, manners: Iterable[str], overdue_after: str | None) -> None:
    directory.mkdir(exist_ok=True)
    upgrade(directory / "remora.db")
    more = f"    overdue_after: {overdue_after}\n" if overdue_after else ""
    for name in manners:
        (directory / f"{name}.yaml").write_text(CARD.format(name=name) + more)


@contextlib.asynccontextmanager
async def crowd(
    directory: Path,
    manners: Mapping[str, Manner],
    *,
    calls_back: bool = False,
    after: Outside | None = None,
    overdue_after: str | None = None,
    **settings: Any,
) -> AsyncIterator[Crowd]:
    """A process with these providers.

    Args:
        directory: Of the database and the cards.
        manners: How each provider behaves.
        calls_back: Providers that are well call back; the service asks them for the truth.
        after: The outside of an earlier process, which goes on.
        overdue_after: As the cards say it.
        settings: Of all providers.
    """
    outside = after or Outside(VirtualClock(), dict(manners), calls_back=calls_back)
    clock, randomness, before = outside.clock, SeededRandomness(7), asyncio.all_tasks()
    _furnish(directory, manners, overdue_after)
    given = ProviderSettings(callbacks=None if calls_back else "off", **settings)
    registry = Registry.load(dict.fromkeys(manners, given), directory, outside, clock)
    base = base_on(directory / "remora.db", clock, randomness, outside, registry)
    connection = base.store.writer._engine
    made = Crowd(await begin(base), base, outside, connection.raw)  # type: ignore[attr-defined]
    try:
        yield made
    finally:
        mine = asyncio.all_tasks() - before
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        connection.raw.close()  # type: ignore[attr-defined]
