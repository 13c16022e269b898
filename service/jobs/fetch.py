"""Asking a provider for a task: for the poller, and to verify what an unsigned callback said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import structlog

from service.clock import Clock, Randomness
from service.db.writer import Writer
from service.jobs.facts import Polled, PollPostponed
from service.jobs.insist import insist
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.providers.breaker import Breakers
from service.providers.client import PollOutcome, PollVerdict
from service.providers.registry import Registry

PATIENCE_S = 60.0  # seconds for which the store may refuse what a poll has seen; shorter than the lease
PAUSE_S = 5.0  # seconds without polls of a provider that answers 429, unless it asks for more …
LONGEST_PAUSE_S = 300.0  # … up to this
TURN_S = 0.05  # seconds between looks at a full provider
TOO_MANY = 429  # the answer to polls that come too fast

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts polls (telemetry)."""

    def polled(self, provider: str, verdict: str) -> None:
        """A provider was asked."""

    def unknown_word(self, provider: str) -> None:
        """A provider used a state word that its card does not know."""


@dataclass(slots=True)
class Fetcher:
    """Asks once and brings back the answer as a fact."""

    writer: Writer
    registry: Registry
    clock: Clock
    randomness: Randomness
    breakers: Breakers
    observer: Observer
    _paused: dict[str, float] = field(default_factory=dict)  # until when, in monotonic seconds, by provider

    def can_ask(self, job: JobRow) -> bool:
        """Whether there is a task to ask for and a provider that answers."""
        provider = self.registry.get(job.provider)
        return (
            job.provider_task_id is not None
            and provider is not None
            and provider.configured
            and provider.can_poll(job.operation)
        )

    def never_asks(self, job: JobRow) -> bool:
        """Whether the card says that this operation has no way to ask."""
        provider = self.registry.get(job.provider)
        known = provider is not None and provider.operation(job.operation) is not None
        return known and provider is not None and not provider.can_poll(job.operation)

    async def fetch(self, job: JobRow) -> None:
        """Ask for the task of a leased job."""
        provider = self.registry.get(job.provider)
        if provider is None or job.provider_task_id is None:
            return
        pause_s = self._paused.get(provider.name, 0.0) - self.clock.monotonic()
        if pause_s > 0:
            await self.writer.run(Track(PollPostponed(job.id, job.lease_epoch, round(pause_s * 1000))))
            return
        while not (turn := provider.poll_limits.enter()).granted:
            await self.clock.sleep(turn.wait_s or TURN_S)
        try:
            outcome = await provider.poll(job.operation, job.provider_task_id, job.poll_url)
        finally:
            provider.poll_limits.leave()
        if outcome.http_status == TOO_MANY:
            self._paused[provider.name] = self.clock.monotonic() + min(
                outcome.retry_after_s or PAUSE_S, LONGEST_PAUSE_S
            )
        self._judge(job.provider, outcome)
        self.observer.polled(job.provider, outcome.verdict.value)
        if outcome.observation is not None and not outcome.observation.word_known:
            self.observer.unknown_word(job.provider)
            _log.warning(
                "unknown_status_word", provider=job.provider, word=outcome.observation.provider_status, job=job.id
            )
        spread = self.randomness.uniform(0.8, 1.2)
        polled = Polled(job.id, job.submission_id, job.lease_epoch, outcome, spread)
        await insist(self.writer, Track(polled), self.clock, PATIENCE_S)

    async def files_of(
        self, provider_name: str, operation: str, task_id: str | None, poll_url: str | None
    ) -> tuple[str, ...] | None:
        """Ask for the files of a task that is completed; nothing of its job changes.

        Returns:
            Their addresses, none where nobody can be asked; None: nothing was learnt now.
        """
        provider = self.registry.get(provider_name)
        if provider is None or task_id is None or not provider.configured or not provider.can_poll(operation):
            return ()
        while not (turn := provider.poll_limits.enter()).granted:
            await self.clock.sleep(turn.wait_s or TURN_S)
        try:
            outcome = await provider.poll(operation, task_id, poll_url)
        finally:
            provider.poll_limits.leave()
        self._judge(provider_name, outcome)
        self.observer.polled(provider_name, outcome.verdict.value)
        if outcome.verdict in {PollVerdict.RETRY, PollVerdict.DENIED}:
            return None
        return () if outcome.observation is None else tuple(outcome.observation.urls)

    def _judge(self, provider: str, outcome: PollOutcome) -> None:
        """Tell the breaker: polls that fail are a sign of the provider's own trouble, a limit on them is not."""
        if outcome.verdict is not PollVerdict.RETRY:
            self.breakers.of(provider).worked()
        elif outcome.http_status != TOO_MANY:
            self.breakers.of(provider).failed(outcome.message)
