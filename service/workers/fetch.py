"""Asking a provider for a task: because it is time to, or to verify what an unsigned callback said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import structlog

from service.clock import Clock, Randomness
from service.db.writer import Writer
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import CannotAsk, DeadlinePassed, Fact, Polled
from service.providers.breaker import Breakers
from service.providers.client import PollOutcome, PollVerdict
from service.providers.limiter import Slot
from service.providers.registry import Provider, Registry
from service.workers.until_stored import run_until_stored

PATIENCE_S = 60.0  # seconds for which the store may refuse what a poll has seen; shorter than the lease
TURN_S = 0.05  # seconds between looks at a full provider, for a question that is no job's turn …
LONGEST_TURN_S = 30.0  # … and after which it is given up for now
WORDS_TOLD = 1_000  # words of providers that no card knows; further ones are counted only
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
    _told_words: set[tuple[str, str | None]] = field(default_factory=set)

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

    def settled(self, job: JobRow) -> Fact | None:
        """What is to be recorded of a due job instead of asking for it: its deadline passed, or nobody can be asked."""
        if job.expires_at <= self.clock.now_ms() and job.is_active:
            return DeadlinePassed(job.id)
        if not self.can_ask(job):
            return CannotAsk(job.id, job.lease_epoch, for_ever=self.never_asks(job))
        return None

    async def fetch(self, job: JobRow, slot: Slot) -> None:
        """Ask for the task of a leased job."""
        provider = self.registry.get(job.provider)
        if provider is None or job.provider_task_id is None:
            return
        outcome = await self._ask(provider, job.operation, job.provider_task_id, job.poll_url, slot)
        if outcome.observation is not None and not outcome.observation.word_known:
            self.observer.unknown_word(job.provider)
            self._tell_word(job, outcome.observation.provider_status)
        spread = self.randomness.uniform(0.8, 1.2)
        polled = Polled(job.id, job.submission_id, job.lease_epoch, outcome, spread)
        await run_until_stored(self.writer, Track(polled), self.clock, PATIENCE_S, job)

    def _tell_word(self, job: JobRow, word: str | None) -> None:
        """Once: a provider that knows a word of its own uses it at every poll."""
        told = (job.provider, word)
        if told not in self._told_words and len(self._told_words) < WORDS_TOLD:
            self._told_words.add(told)
            _log.warning("unknown_status_word", provider=job.provider, word=word, job=job.id)

    async def files_of(
        self, provider_name: str, operation: str, task_id: str | None, poll_url: str | None
    ) -> tuple[str | None, ...] | None:
        """Ask for the files of a task that is completed; nothing of its job changes.

        Returns:
            See `Observation.results`, none where nobody can be asked; None: nothing was learnt now.
        """
        provider = self.registry.get(provider_name)
        if provider is None or task_id is None or not provider.configured or not provider.can_poll(operation):
            return ()
        until = self.clock.monotonic() + LONGEST_TURN_S
        while not provider.polls.room():
            if self.clock.monotonic() >= until:
                return None
            await self.clock.sleep(TURN_S)
        slot = provider.polls.enter()
        try:
            outcome = await self._ask(provider, operation, task_id, poll_url, slot)
        finally:
            slot.leave()
        if outcome.verdict in {PollVerdict.RETRY, PollVerdict.DENIED}:
            return None
        return () if outcome.observation is None else outcome.observation.results

    async def _ask(
        self, provider: Provider, operation: str, task_id: str, poll_url: str | None, slot: Slot
    ) -> PollOutcome:
        """Poll, and tell the breaker, the limits and the metrics how it went."""
        slot.sent()
        outcome = await provider.poll(operation, task_id, poll_url)
        if outcome.http_status == TOO_MANY or (outcome.verdict is PollVerdict.RETRY and outcome.retry_after_s):
            provider.polls.refused(outcome.retry_after_s)
        elif outcome.http_status is not None:
            provider.polls.accepted()
        if outcome.verdict is not PollVerdict.RETRY:
            self.breakers.of(provider.name).worked()
        elif (
            outcome.http_status != TOO_MANY
        ):  # polls that fail are a sign of the provider's own trouble, a limit is not
            self.breakers.of(provider.name).failed(outcome.message)
        self.observer.polled(provider.name, outcome.verdict.value)
        return outcome
