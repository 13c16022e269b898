"""Submitting: the dangerous moment, since no provider here has an idempotency key.

Intent and callback token are committed before the request leaves; whatever is not provably refused or unsent afterwards
is `submit_unknown` and never sent again by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from service.clock import Clock, Randomness
from service.db.writer import Writer
from service.errors import FileMissing, StorageUnavailable, StoreUnavailable
from service.ids import Ids
from service.jobs.inputs import Inputs
from service.jobs.row import JobRow, about
from service.jobs.tokens import CallbackTokens, hash_of
from service.jobs.track import Track
from service.jobs.transitions.facts import (
    ModerationAwaited,
    SubmitAnswered,
    SubmitBegun,
    SubmitBlocked,
    SubmitImpossible,
    SubmitPostponed,
)
from service.moderation.moderation import Moderation, is_ruled
from service.providers.breaker import Breakers
from service.providers.client import SubmitOutcome, Verdict
from service.providers.limiter import Slot
from service.providers.registry import Provider, Registry
from service.states import ErrorCode
from service.workers.until_stored import RETRY_S, run_until_stored

_log = structlog.get_logger(__name__)

LEASE_MARGIN_MS = 30_000  # the lease outlasts the provider's deadline by this
STORAGE_DOWN_MS = 15_000  # the same for a job whose input lies in a storage that does not answer
STORE_DOWN_S = 300.0  # for which a submission waits for a store that takes no writes; half of its lease
PROVIDER_DOWN_MS = 5_000  # how long a job that came while its provider is down waits at least


class Observer(Protocol):
    """Who counts submits (telemetry)."""

    def submitted(self, provider: str, verdict: str) -> None:
        """A submit try ended."""

    def unknown_word(self, provider: str) -> None:
        """A provider used a state word that its card does not know."""


@dataclass(slots=True)
class Submitter:
    """Sends one job to its provider; `callback_base` is the public URL, None where providers cannot reach us."""

    writer: Writer
    registry: Registry
    ids: Ids
    clock: Clock
    randomness: Randomness
    callback_base: str | None
    tokens: CallbackTokens
    breakers: Breakers
    observer: Observer
    inputs: Inputs
    closing: asyncio.Event  # set: no request may leave any more
    moderation: Moderation | None = None

    async def submit(self, job: JobRow, slot: Slot) -> None:
        """Send a leased job, for which there is a slot, and bring back what the provider said.

        While the store takes no writes it is begun anew: nothing was sent then, and the lease is far longer than a moment.
        """
        end = self.clock.monotonic() + STORE_DOWN_S
        while True:
            try:
                return await self._begin(job, slot)
            except StoreUnavailable:
                if self.writer.closed or self.closing.is_set() or self.clock.monotonic() >= end:
                    raise
            await self.clock.sleep(RETRY_S)

    async def _begin(self, job: JobRow, slot: Slot) -> None:
        provider = self.registry.get(job.provider)
        if provider is None or not provider.configured or provider.operation(job.operation) is None:
            reason = (
                "its card is gone" if provider is None else provider.reason or f"it has no operation {job.operation}"
            )
            message = f"{job.provider}/{job.operation} cannot be used any more: {reason}"
            await self.writer.run(
                Track(SubmitImpossible(job.id, job.lease_epoch, ErrorCode.PROVIDER_REJECTED, message))
            )
            return
        breaker = self.breakers.of(provider.name)
        if not breaker.allows():
            await self.writer.run(Track(SubmitPostponed(job.id, job.lease_epoch, PROVIDER_DOWN_MS)))
            return
        cleared, record = await self._cleared(job, provider)
        if not cleared:
            return
        given = await self._given(job)
        if given is not None:
            await self._submit(provider, job, given, record, slot)

    async def _given(self, job: JobRow) -> dict[str, Any] | None:
        """The input, before anything is begun; None: it cannot be had, and the job knows."""
        try:
            return await self.inputs.load(job)
        except FileMissing as error:
            fact = SubmitImpossible(job.id, job.lease_epoch, ErrorCode.INTERNAL, f"the job cannot be sent: {error}")
            await self.writer.run(Track(fact))
        except StorageUnavailable as error:
            _log.warning("input_unavailable", **about(job), reason=str(error))
            await self.writer.run(Track(SubmitPostponed(job.id, job.lease_epoch, STORAGE_DOWN_MS)))
        return None

    async def _cleared(self, job: JobRow, provider: Provider) -> tuple[bool, str | None]:
        """Whether moderation lets the job go, and its verdict where it was asked just now: that is kept with the submission."""
        if self.moderation is None or is_ruled(job.moderation):
            return True, None
        given = await self._given(job)
        if given is None:
            return False, None
        known = provider.card.operations[job.operation].input.get("properties", {})
        ruling = await self.moderation.rule(job.account_id, job.provider, job.operation, given, known)
        record = ruling.record(self.clock.now_ms())
        if ruling.verdict == "blocked":
            about = f": {', '.join(ruling.categories)}" if ruling.categories else ""
            message = f"moderation ({ruling.by}) blocked the input before it was sent{about}"
            await self.writer.run(Track(SubmitBlocked(job.id, job.lease_epoch, record, message)))
        elif ruling.verdict == "waiting":
            reason, spread = ruling.reason or "", self.randomness.uniform(0.8, 1.2)
            await self.writer.run(Track(ModerationAwaited(job.id, job.lease_epoch, record, reason, spread)))
        return ruling.verdict in {"passed", "skipped"}, record

    async def _submit(
        self, provider: Provider, job: JobRow, given: dict[str, Any], moderation: str | None, slot: Slot
    ) -> None:
        if self.closing.is_set():
            return  # nothing was sent: the next process takes the job up
        token = self.tokens.new()
        lease_ms = round(provider.submit_timeout_s * 1000) + LEASE_MARGIN_MS
        begun = SubmitBegun(job.id, job.lease_epoch, self.ids.new("sbm"), hash_of(token), lease_ms, moderation)
        if await self.writer.run(Track(begun)) is not True:
            return  # cancelled, expired, or somebody else's by now
        self.breakers.of(provider.name).begin()
        slot.sent()
        answered = await self._send(provider, job, given, begun, token)
        await run_until_stored(self.writer, Track(answered), self.clock, begun.lease_ms / 1000, job)

    async def _send(
        self, provider: Provider, job: JobRow, given: dict[str, Any], begun: SubmitBegun, token: str
    ) -> SubmitAnswered:
        callback_url = None
        if self.callback_base is not None and provider.wants_callback(job.operation):
            callback_url = f"{self.callback_base}/callbacks/{token}"
        probing = self.breakers.of(provider.name).is_open
        outcome = await provider.submit(job.operation, given, callback_url)
        self._judge(provider.name, outcome)
        self._pace(provider, outcome)
        self.observer.submitted(provider.name, outcome.verdict.value)
        if outcome.observation is not None and not outcome.observation.word_known:
            self.observer.unknown_word(provider.name)
        spread, pause_s = self.randomness.uniform(0.8, 1.2), provider.submits.pause_s()
        return SubmitAnswered(job.id, begun.submission_id, begun.epoch, outcome, spread, probing, pause_s)

    def _pace(self, provider: Provider, outcome: SubmitOutcome) -> None:
        """Tell the limits: a provider that wants no more for now (429, or any refusal that names a time) gets nothing from anybody."""
        limiter = provider.submits
        wants_less = outcome.verdict is Verdict.REFUSED and outcome.retry_after_s is not None
        if not wants_less and outcome.error_code is not ErrorCode.RATE_LIMITED:
            if outcome.http_status is not None:
                limiter.accepted()
            return
        was_paused = limiter.pause_s() > 0
        limiter.refused(outcome.retry_after_s)
        if not was_paused:
            _log.warning(
                "provider_paused", provider=provider.name, for_s=round(limiter.pause_s(), 1), reason=outcome.message
            )

    def _judge(self, provider: str, outcome: SubmitOutcome) -> None:
        """Tell the breaker: no answer or a broken one is the provider's failure, a refusal of the task is not."""
        breaker = self.breakers.of(provider)
        unavailable = outcome.verdict is Verdict.REFUSED and outcome.error_code is not ErrorCode.RATE_LIMITED
        was_open = breaker.is_open
        if unavailable or outcome.verdict in {Verdict.NOT_SENT, Verdict.UNKNOWN}:
            breaker.failed(outcome.message)
        else:
            breaker.worked()
        if breaker.is_open and not was_open:
            _log.warning(
                "provider_down",
                provider=provider,
                code=_code(outcome),
                reason=outcome.message,
                jobs="wait in the queue",
            )
        elif was_open and not breaker.is_open:
            _log.warning("provider_back", provider=provider)


def _code(outcome: SubmitOutcome) -> str | None:
    """In a word, what the last of the failures was."""
    return outcome.cause or (outcome.error_code and outcome.error_code.value)
