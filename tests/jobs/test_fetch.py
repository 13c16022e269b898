"""Asking a provider: within its rate, and not at all while it wants a pause."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from service.clock import SeededRandomness, VirtualClock
from service.egress import Answer, Call
from service.jobs.facts import Polled, PollPostponed
from service.jobs.fetch import Fetcher
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.providers.breaker import Breakers
from service.providers.registry import Registry
from service.settings import ProviderSettings
from service.states import JobStatus
from service.telemetry import Metrics


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
    """429 with Retry-After on one poll: the next job is not asked for, and is put off by what is left of the pause."""
    provider, clock, log = Provider(429, {"retry-after": "60"}), VirtualClock(), Log()
    asking = fetcher(provider, clock, log)
    await asking.fetch(job("job_1"))
    clock.advance(20)
    await asking.fetch(job("job_2"))
    clock.advance(41)
    await asking.fetch(job("job_3"))

    assert provider.asked == 2
    assert isinstance(log.facts[0], Polled)
    assert log.facts[1] == PollPostponed("job_2", 3, 40_000)
    assert isinstance(log.facts[2], Polled)


async def test_failing_poll_puts_off_no_other_job() -> None:
    """A 500 is this job's trouble."""
    provider, clock, log = Provider(500), VirtualClock(), Log()
    asking = fetcher(provider, clock, log)
    await asking.fetch(job("job_1"))
    await asking.fetch(job("job_2"))

    assert provider.asked == 2
