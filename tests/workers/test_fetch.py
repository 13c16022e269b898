"""Asking a provider: within its rate, and not at all while it wants a pause."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import SecretStr

from service.clock import SeededRandomness, VirtualClock
from service.egress import Answer, Call
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.providers.breaker import Breakers
from service.providers.registry import POLLS_AT_ONCE, Registry
from service.settings import ProviderSettings
from service.states import JobStatus
from service.telemetry import Metrics
from service.workers.fetch import Fetcher
from tests.providers.scripted import found


class Provider:
    """A provider that answers what the test says, and remembers when it was asked."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.answer = Answer(status, headers or {}, b'{"code":429,"msg":"slow down"}', truncated=False, duration_ms=1)
        self.asked = 0

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """See `Outbound`."""
        self.asked += 1
        return self.answer


class Log:
    """A writer that keeps what it is told."""

    closed = False

    def __init__(self) -> None:
        self.facts: list[Any] = []

    async def run(self, command: Track) -> bool:
        self.facts.append(command.fact)
        return True


def fetcher(provider: Provider, clock: VirtualClock, log: Log) -> Fetcher:
    """A fetcher for apimodels."""
    registry = Registry.load({"apimodels": ProviderSettings(api_key=SecretStr("sk"))}, None, provider, clock)
    randomness = SeededRandomness(1)
    return Fetcher(log, registry, clock, randomness, Breakers(clock, randomness), Metrics())  # type: ignore[arg-type]


def job(name: str) -> JobRow:
    """A running job of that provider."""
    return JobRow(
        name,
        "acc_1",
        "apimodels",
        "generate",
        JobStatus.RUNNING,
        0,
        9,
        provider_task_id="t1",
        lease_epoch=3,
        lease_owner="me",
    )


async def test_pause_that_a_provider_asks_for_holds_for_all_its_jobs() -> None:
    """429 with Retry-After on one poll: there is no room for the next job until the pause is over."""
    provider, clock, log = Provider(429, {"retry-after": "60"}), VirtualClock(), Log()
    asking = fetcher(provider, clock, log)
    polls = found(asking.registry, "apimodels").polls
    slot = polls.enter()
    await asking.fetch(job("job_1"), slot)
    slot.leave()
    clock.advance(20)
    paused = polls.room(), polls.wait_s()
    clock.advance(40)

    assert paused == (0, 40.0)
    assert polls.room() == 1


async def test_failing_poll_puts_off_no_other_job() -> None:
    """A 500 is this job's trouble."""
    provider, clock, log = Provider(500), VirtualClock(), Log()
    asking = fetcher(provider, clock, log)
    polls = found(asking.registry, "apimodels").polls
    await asking.fetch(job("job_1"), polls.enter())

    assert polls.room() == POLLS_AT_ONCE - 1
    assert provider.asked == 1


async def test_question_beside_the_jobs_waits_for_a_slot_and_gives_up_in_time() -> None:
    """Asking for a fresh link must neither pass the provider's limits nor wait for ever."""
    provider, clock, log = Provider(500), VirtualClock(), Log()
    asking = fetcher(provider, clock, log)
    polls = found(asking.registry, "apimodels").polls
    polls.refused(120)
    question = asyncio.create_task(asking.files_of("apimodels", "generate", "t1", None))
    for _ in range(700):
        await asyncio.sleep(0)
        clock.advance(0.05)
    answer = await question

    assert answer is None
    assert provider.asked == 0
