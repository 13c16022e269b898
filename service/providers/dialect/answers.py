"""What each answer of a provider means for a submission, a poll or a cancel, by the card and by what HTTP says.

Pure but for the clock that a Retry-After date is measured with, and nothing here raises for anything that an answer
holds. It must not know how answers travel nor what becomes of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from service.backoff import retry_after_s
from service.clock import Clock
from service.egress import Answer
from service.providers.card.card import Card, Operation
from service.providers.card.rules import Meaning, Submitted, status_fits
from service.providers.client import CancelOutcome, CancelVerdict, PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.documents.origins import LinkOrigins
from service.providers.documents.paths import compiled
from service.providers.documents.reading import Reading, read, read_callback
from service.providers.documents.text import Scrubber
from service.providers.documents.unpacking import MOST_BYTES
from service.providers.mapping import FINAL, Mapper, Observation, OperationMapper, Seen
from service.settings import provider_variable
from service.states import ErrorCode


class Answers:
    """How the answers of one operation are read."""

    def __init__(
        self, card: Card, operation: Operation, origins: LinkOrigins, scrubber: Scrubber, clock: Clock
    ) -> None:
        self._name = card.name
        self._accept = operation.spoken.accept
        self._cancel = operation.cancel
        self._where = compiled(self._accept.where)
        self._mapper = OperationMapper(operation, card.errors, origins, scrubber)
        self._scrubber = scrubber
        self._clock = clock

    def submitted(self, answer: Answer) -> SubmitOutcome:
        """What an answer to a submission means."""
        reading = read_answer(answer)
        if answer.cut and reading.fault is not None:
            message = f"no whole answer came, so the task may have been taken: {answer.cut}"
            line = self._scrubber.line(message)
            outcome = SubmitOutcome(Verdict.UNKNOWN, None, ErrorCode.SUBMIT_UNKNOWN, line, cause="connection_cut")
        else:
            outcome = self._judged(answer, self._mapper.errors.status(answer.status, reading.document), reading)
        head = None
        if outcome.verdict is Verdict.UNKNOWN:
            head = self._scrubber.head(answer.head)
            if 200 <= answer.status < 300:
                task_id = self._mapper.submit.named(reading.document or reading.beginning)
                outcome = replace(outcome, observation=Observation(None, task_id) if task_id else None)
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock.wall_ms())
        return replace(
            outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms, head=head
        )

    def _judged(self, answer: Answer, status: int, reading: Reading) -> SubmitOutcome:
        document = reading.document
        if 200 <= status < 300:
            observation = self._taken(answer.status, document)
            if observation is not None:
                return SubmitOutcome(Verdict.ACCEPTED, observation)
        if 300 <= status < 400:
            return SubmitOutcome(Verdict.REJECTED, None, ErrorCode.PROVIDER_REJECTED, self._redirected(answer))
        meaning = self._mapper.errors.meaning(status, document)
        verdict = _SUBMIT_VERDICTS[meaning.submit]
        code = ErrorCode.SUBMIT_UNKNOWN if verdict is Verdict.UNKNOWN else meaning.error
        return SubmitOutcome(verdict, None, code, self._said(status, meaning, reading.fault))

    def _taken(self, http_status: int, document: object) -> Observation | None:
        """The task that was taken: one with an id to follow, or one that is at its end already."""
        if not status_fits(self._accept.http, http_status):
            return None
        if self._where is not None and not self._where.read(document):
            return None
        observation = self._mapper.submit.read(document, http_status if self._mapper.submit_statuses else None)
        if observation.seen is None and observation.task_id is not None:
            return replace(observation, seen=Seen.QUEUED)
        return observation if observation.task_id is not None or observation.seen in FINAL else None

    def polled(self, answer: Answer) -> PollOutcome:
        """What an answer to a poll means."""
        return self._heard(self._mapper.poll, answer)

    def resulted(self, known: Observation, answer: Answer) -> PollOutcome:
        """What the answer to a poll's second request means, for what the first one told."""
        outcome = self._heard(self._mapper.result, answer)
        found = outcome.observation
        if found is None:
            return outcome
        if known.task_id and found.task_id and found.task_id != known.task_id:
            message = f"{self._name} answered {answer.status} with the result of another task, {found.task_id}"
            head, line = self._scrubber.head(answer.head), self._scrubber.line(message)
            return replace(outcome, verdict=PollVerdict.RETRY, observation=None, message=line, head=head)
        return replace(outcome, observation=_together(known, found))

    def _heard(self, mapper: Mapper, answer: Answer) -> PollOutcome:
        reading = read_answer(answer)
        if answer.cut and reading.fault is not None:
            outcome = PollOutcome(PollVerdict.RETRY, message=self._scrubber.line(answer.cut))
        else:
            status = self._mapper.errors.status(answer.status, reading.document)
            outcome = self._told(mapper, answer, status, reading)
        told_nothing = outcome.verdict is PollVerdict.RETRY and (answer.cut or 200 <= answer.status < 300)
        head = self._scrubber.head(answer.head) if told_nothing else None
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock.wall_ms())
        return replace(
            outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms, head=head
        )

    def _told(self, mapper: Mapper, answer: Answer, status: int, reading: Reading) -> PollOutcome:
        document = reading.document
        if 200 <= status < 300 or mapper.speaks(status):
            observation = mapper.read(document, status)
            if observation.seen is not None:
                return PollOutcome(PollVerdict.OBSERVED, observation)
            why = f", but its body {reading.fault}" if reading.fault else " without a state that can be read"
            return PollOutcome(PollVerdict.RETRY, message=f"{self._name} answered {answer.status}{why}")
        if 300 <= status < 400:
            return PollOutcome(PollVerdict.RETRY, message=self._redirected(answer))
        meaning = self._mapper.errors.meaning(status, document)
        message = self._said(status, meaning, reading.fault)
        if meaning.poll == "failed":
            failed = Observation(Seen.FAILED, error_code=meaning.error, error_message=message)
            return PollOutcome(PollVerdict.OBSERVED, failed, message)
        return PollOutcome(PollVerdict(meaning.poll), message=message)

    def cancelled(self, answer: Answer) -> CancelOutcome:
        """What an answer to a cancel means."""
        reading = read_answer(answer)
        if answer.cut and reading.fault is not None:
            outcome = CancelOutcome(CancelVerdict.RETRY, message=self._scrubber.line(answer.cut))
        else:
            status = self._mapper.errors.status(answer.status, reading.document)
            outcome = self._given_up(answer, status, reading)
        waits = retry_after_s(answer.headers.get("retry-after"), self._clock.wall_ms())
        return replace(outcome, http_status=answer.status, retry_after_s=waits, duration_ms=answer.duration_ms)

    def _given_up(self, answer: Answer, status: int, reading: Reading) -> CancelOutcome:
        document = reading.document
        if self._cancel is not None and status_fits(self._cancel.too_late, status):
            message = self._said(status, self._mapper.errors.meaning(status, document), reading.fault)
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
        return CancelOutcome(_cancel_refused(status, meaning), message=self._said(status, meaning, reading.fault))

    def called_back(self, body: bytes, headers: Mapping[str, str]) -> Observation:
        """What a callback says."""
        reading = read_callback(body, headers)
        document = reading.document
        if reading.fault is not None:
            named = self._mapper.callback.named(reading.beginning)
            return Observation(None, named, fault=reading.fault)
        said = self._mapper.callback.read(document)
        refetch_when = self._mapper.refetch_when
        if said.awaits_result or (refetch_when is not None and refetch_when.read(document)):
            return replace(said, seen=None, urls=())  # a hint, signed or not
        return said

    def _said(self, status: int, meaning: Meaning, fault: str | None) -> str:
        if 200 <= status < 300:
            why = f", but its body {fault}" if fault else " without a task that can be followed"
            return f"{self._name} answered {status}{why}"
        words = meaning.words.message or meaning.words.type or meaning.words.code
        return self._scrubber.line(f"{self._name} answered {status}" + (f": {words}" if words else "")) or self._name

    def _redirected(self, answer: Answer) -> str:
        variable = provider_variable(self._name, "BASE_URL")
        to = _origin_of(answer.headers.get("location", ""))
        said = f"{self._name} answered {answer.status}, a redirect{to}, and none is followed: check {variable}"
        return self._scrubber.line(said) or self._name


def read_answer(answer: Answer) -> Reading:
    """What can be read of an answer's body."""
    missing = f"is larger than {MOST_BYTES >> 20} MiB" if answer.truncated else answer.cut and "broke off"
    return read(answer.body, answer.headers, missing=missing)


_SUBMIT_VERDICTS: Final[dict[Submitted, Verdict]] = {
    "retryable": Verdict.REFUSED,
    "final": Verdict.REJECTED,
    "unknown": Verdict.UNKNOWN,
}


def _together(first: Observation, result: Observation) -> Observation:
    """What both requests of a poll tell; the result is the later word."""
    return replace(
        result,
        task_id=first.task_id or result.task_id,
        provider_status=result.provider_status or first.provider_status,
        cost=result.cost or first.cost,
        created_at_ms=result.created_at_ms or first.created_at_ms,
        finished_at_ms=result.finished_at_ms or first.finished_at_ms,
        poll_url=first.poll_url,
        cancel_url=first.cancel_url,
    )


def _cancel_refused(status: int, meaning: Meaning) -> CancelVerdict:
    """What a refused cancel means: any 4xx that asking again would not change is the provider's last word."""
    if meaning.poll == "not_found":
        return CancelVerdict.NOT_FOUND
    if meaning.poll == "denied":
        return CancelVerdict.DENIED
    final = meaning.poll == "failed" or (400 <= status < 500 and status not in {408, 425, 429})
    return CancelVerdict.TOO_LATE if final else CancelVerdict.RETRY


def _origin_of(location: str) -> str:
    """` to https://host` for a message; a redirect's path may carry anything."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return f" to {parts.scheme}://{parts.hostname}" if parts.scheme in {"http", "https"} and parts.hostname else ""
