"""Asking a provider: requests as the card describes them, and what each answer means for a submission or a poll.

Owns the path from an `Answer` to an outcome; requests are made in `build`. It must not know jobs, retries or states of
ours. Nothing here raises for anything that a provider does; `Speaker` is the seam for providers that no card can describe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import urlsplit

from service.clock import Clock
from service.egress import Answer, Call
from service.errors import EgressCut, EgressNotSent, EgressRefused
from service.providers.build import Requests
from service.providers.card import Card, Operation
from service.providers.mapping import FINAL, Observation, OperationMapper, Seen
from service.providers.paths import MAX_BYTES, compiled, decode
from service.providers.rules import Meaning, Submitted, status_fits
from service.providers.text import Scrubber
from service.settings import provider_variable
from service.states import ErrorCode

_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
MAX_RETRY_AFTER_S: Final = 86_400.0  # a day; a longer one is a misread header


class Verdict(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"  # the provider holds the task, or has finished it already
    REFUSED = "refused"  # provably not taken, and worth another try
    REJECTED = "rejected"  # provably not taken, for good
    NOT_SENT = "not_sent"  # it never left
    UNKNOWN = "unknown"  # it may have been taken


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """What is known after a submission."""

    verdict: Verdict
    observation: Observation | None = None
    error_code: ErrorCode | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


class PollVerdict(StrEnum):
    """What became of a poll."""

    OBSERVED = "observed"  # the provider told the task's state
    NOT_FOUND = "not_found"  # it knows no such task (yet)
    RETRY = "retry"  # nothing was learnt
    DENIED = "denied"  # our key is refused: the operator's to mend


@dataclass(frozen=True, slots=True)
class PollOutcome:
    """What is known after a poll."""

    verdict: PollVerdict
    observation: Observation | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


class CancelVerdict(StrEnum):
    """What became of the wish to cancel a task."""

    CANCELLED = "cancelled"  # the provider will not go on with it
    TOO_LATE = "too_late"  # it goes on with it, or has finished it
    NOT_FOUND = "not_found"  # it knows no such task
    RETRY = "retry"  # nothing was learnt
    DENIED = "denied"  # our key is refused, or the provider has no cancel


@dataclass(frozen=True, slots=True)
class CancelOutcome:
    """What is known after a cancel; the observation is what its answer says of the task, if anything."""

    verdict: CancelVerdict
    observation: Observation | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


class Outbound(Protocol):
    """The part of `Egress` that a provider is asked through."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """See `Egress`."""


class Speaker(Protocol):
    """Speaks with one provider: by its card, or by code where no card can say it."""

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """Hand a task in."""

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """Ask for a task."""

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        """Cancel a task; asked only where the card has `cancel`."""

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """What a callback says; garbled: an observation that has seen nothing."""


class CardSpeaker:
    """Speaks with a provider over HTTP, as its card says.

    Args:
        base_url: What the card's paths hang on, with the operator's setting applied.
        secret: Our key at the provider.
    """

    def __init__(self, card: Card, base_url: str, secret: str | None, egress: Outbound, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._scrubber = Scrubber(secret)
        self._requests = {name: Requests(entry, card.auth, base_url, secret) for name, entry in card.operations.items()}
        self._answers = {
            name: _Answers(card, entry, base_url, self._scrubber, clock) for name, entry in card.operations.items()
        }

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """See `Speaker`; on a connection of its own, so that none is reused that the provider was about to close."""
        requests = self._requests[operation]
        began = self._clock.monotonic()
        try:
            answer = await self._egress.call(
                requests.submit(given, callback_url),
                timeout_s=requests.submit_timeout_s,
                read_bytes=MAX_BYTES,
                fresh=True,
            )
        except (EgressRefused, EgressNotSent) as error:
            verdict, code, message = Verdict.NOT_SENT, ErrorCode.PROVIDER_UNAVAILABLE, str(error)
        except EgressCut as error:
            verdict, code = Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN
            message = f"no whole answer came, so the task may have been taken: {error}"
        else:
            return self._answers[operation].submitted(answer)
        return SubmitOutcome(verdict, None, code, self._scrubber.line(message), duration_ms=self._since_ms(began))

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """See `Speaker`."""
        requests = self._requests[operation]
        began = self._clock.monotonic()
        call = requests.poll(task_id, poll_url)
        if call is None:
            return PollOutcome(PollVerdict.RETRY, message="there is no address to ask for this task")
        try:
            answer = await self._egress.call(call, timeout_s=requests.poll_timeout_s, read_bytes=MAX_BYTES)
        except (EgressRefused, EgressNotSent, EgressCut) as error:
            message = self._scrubber.line(str(error))
            return PollOutcome(PollVerdict.RETRY, message=message, duration_ms=self._since_ms(began))
        return self._answers[operation].polled(answer)

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        """See `Speaker`; a cut answer is worth another try, since cancelling twice does nothing worse than once."""
        requests = self._requests[operation]
        began = self._clock.monotonic()
        call = requests.cancel(task_id, cancel_url)
        if call is None:
            return CancelOutcome(CancelVerdict.DENIED, message="there is no address to cancel this task at")
        try:
            answer = await self._egress.call(call, timeout_s=requests.cancel_timeout_s, read_bytes=MAX_BYTES)
        except (EgressRefused, EgressNotSent, EgressCut) as error:
            message = self._scrubber.line(str(error))
            return CancelOutcome(CancelVerdict.RETRY, message=message, duration_ms=self._since_ms(began))
        return self._answers[operation].cancelled(answer)

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """See `Speaker`."""
        return self._answers[operation].called_back(body)

    def _since_ms(self, began: float) -> int:
        return round((self._clock.monotonic() - began) * 1000)


class _Answers:
    """How the answers of one operation are read."""

    def __init__(self, card: Card, operation: Operation, base_url: str, scrubber: Scrubber, clock: Clock) -> None:
        self._name = card.name
        self._accept = operation.spoken.accept
        self._cancel = operation.cancel
        self._where = compiled(self._accept.where)
        self._mapper = OperationMapper(operation, card.errors, base_url, scrubber)
        self._scrubber = scrubber
        self._clock = clock

    def submitted(self, answer: Answer) -> SubmitOutcome:
        """What an answer to a submission means."""
        document = None if answer.truncated else decode(answer.body)
        status = self._mapper.errors.status(answer.status, document)
        outcome = self._judged(answer, status, document)
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock)
        return replace(outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms)

    def _judged(self, answer: Answer, status: int, document: object) -> SubmitOutcome:
        if 200 <= status < 300:
            observation = self._taken(answer.status, document)
            if observation is not None:
                return SubmitOutcome(Verdict.ACCEPTED, observation)
        if 300 <= status < 400:
            return SubmitOutcome(Verdict.REJECTED, None, ErrorCode.PROVIDER_REJECTED, self._redirected(answer))
        meaning = self._mapper.errors.meaning(status, document)
        verdict = _SUBMIT_VERDICTS[meaning.submit]
        code = ErrorCode.SUBMIT_UNKNOWN if verdict is Verdict.UNKNOWN else meaning.error
        return SubmitOutcome(verdict, None, code, self._said(status, meaning))

    def _taken(self, http_status: int, document: object) -> Observation | None:
        """The task that was taken: one with an id to follow, or one that is at its end already."""
        if not status_fits(self._accept.http, http_status):
            return None
        if self._where is not None and not self._where.read(document):
            return None
        observation = self._mapper.submit.read(document)
        if observation.seen is None and observation.task_id is not None:
            return replace(observation, seen=Seen.QUEUED)
        return observation if observation.task_id is not None or observation.seen in FINAL else None

    def polled(self, answer: Answer) -> PollOutcome:
        """What an answer to a poll means."""
        document = None if answer.truncated else decode(answer.body)
        status = self._mapper.errors.status(answer.status, document)
        outcome = self._told(answer, status, document)
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock)
        return replace(outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms)

    def _told(self, answer: Answer, status: int, document: object) -> PollOutcome:
        if 200 <= status < 300:
            observation = self._mapper.poll.read(document)
            if observation.seen is not None:
                return PollOutcome(PollVerdict.OBSERVED, observation)
            message = f"{self._name} answered {answer.status} without a state that can be read"
            return PollOutcome(PollVerdict.RETRY, message=message)
        if 300 <= status < 400:
            return PollOutcome(PollVerdict.RETRY, message=self._redirected(answer))
        meaning = self._mapper.errors.meaning(status, document)
        message = self._said(status, meaning)
        if meaning.poll == "failed":
            failed = Observation(Seen.FAILED, error_code=meaning.error, error_message=message)
            return PollOutcome(PollVerdict.OBSERVED, failed, message)
        return PollOutcome(PollVerdict(meaning.poll), message=message)

    def cancelled(self, answer: Answer) -> CancelOutcome:
        """What an answer to a cancel means."""
        document = None if answer.truncated else decode(answer.body)
        status = self._mapper.errors.status(answer.status, document)
        outcome = self._given_up(answer, status, document)
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock)
        return replace(outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms)

    def _given_up(self, answer: Answer, status: int, document: object) -> CancelOutcome:
        if self._cancel is not None and status_fits(self._cancel.too_late, status):
            message = self._said(status, self._mapper.errors.meaning(status, document))
            return CancelOutcome(CancelVerdict.TOO_LATE, message=message)
        if self._cancel is not None and status_fits(self._cancel.accepted, status):
            observation = self._mapper.cancel.read(document)
            word = f"{self._name} says {observation.provider_status}"
            if observation.seen in {None, Seen.CANCELLED}:
                return CancelOutcome(CancelVerdict.CANCELLED, observation)
            if observation.seen in FINAL:
                return CancelOutcome(CancelVerdict.TOO_LATE, observation, word)
            return CancelOutcome(CancelVerdict.RETRY, observation, word)
        if 300 <= status < 400:
            return CancelOutcome(CancelVerdict.RETRY, message=self._redirected(answer))
        meaning = self._mapper.errors.meaning(status, document)
        return CancelOutcome(_cancel_refused(status, meaning), message=self._said(status, meaning))

    def called_back(self, body: bytes) -> Observation:
        """What a callback says."""
        return self._mapper.callback.read(decode(body))

    def _said(self, status: int, meaning: Meaning) -> str:
        if 200 <= status < 300:
            return f"{self._name} answered {status} without a task that can be followed"
        words = meaning.words.message or meaning.words.type or meaning.words.code
        return self._scrubber.line(f"{self._name} answered {status}" + (f": {words}" if words else "")) or self._name

    def _redirected(self, answer: Answer) -> str:
        variable = provider_variable(self._name, "BASE_URL")
        to = _origin_of(answer.headers.get("location", ""))
        return f"{self._name} answered {answer.status}, a redirect{to}, and none is followed: check {variable}"


_SUBMIT_VERDICTS: Final[dict[Submitted, Verdict]] = {
    "retryable": Verdict.REFUSED,
    "final": Verdict.REJECTED,
    "unknown": Verdict.UNKNOWN,
}


def _cancel_refused(status: int, meaning: Meaning) -> CancelVerdict:
    """What a refused cancel means: any 4xx that asking again would not change is the provider's last word."""
    if meaning.poll == "not_found":
        return CancelVerdict.NOT_FOUND
    if meaning.poll == "denied":
        return CancelVerdict.DENIED
    final = meaning.poll == "failed" or (400 <= status < 500 and status not in {408, 425, 429})
    return CancelVerdict.TOO_LATE if final else CancelVerdict.RETRY


def retry_after_s(value: str | None, clock: Clock) -> float | None:
    """Seconds to wait by a Retry-After header, given in seconds or as a date; None where it says nothing usable."""
    if value is None:
        return None
    try:
        return (
            min(max(float(value), 0.0), MAX_RETRY_AFTER_S)
            if _SECONDS.fullmatch(value.strip())
            else _until(value, clock)
        )
    except (ValueError, OverflowError):
        return None


def _until(date: str, clock: Clock) -> float:
    moment = parsedate_to_datetime(date)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - clock.now_ms() / 1000, 0.0), MAX_RETRY_AFTER_S)


def _origin_of(location: str) -> str:
    """` to https://host` for a message; a redirect's path may carry anything."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return f" to {parts.scheme}://{parts.hostname}" if parts.scheme in {"http", "https"} and parts.hostname else ""
