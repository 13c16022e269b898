"""Where an adapter takes the card's place: in building requests, in reading what comes back, and in judging callbacks.

Each part does what the card's does, hands it to the adapter, and makes an outcome of an adapter that fails. It must not
know how adapters are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from service.clock import Clock
from service.egress import Answer, Call
from service.errors import AdapterFailed
from service.providers.adapters import Adapter, Ask, Heard, answered, unpacked_for
from service.providers.card.card import Auth, Card, Operation
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.dialect.answers import Answers, read_answer
from service.providers.dialect.build import Bound, Requests
from service.providers.documents.origins import LinkOrigins
from service.providers.documents.text import Scrubber
from service.providers.mapping import NOTHING, Observation
from service.providers.signatures import Judged
from service.states import ErrorCode


class AdaptedRequests(Requests):
    """Requests that an adapter builds, or changes."""

    def __init__(self, adapter: Adapter, name: str, operation: Operation, auth: Auth | None, bound: Bound) -> None:
        super().__init__(operation, auth, bound)
        self._adapter = adapter
        self._name = name

    def submit(self, given: Mapping[str, object], callback_url: str | None) -> Call:
        """See `Requests`.

        Raises:
            AdapterFailed: There is no request to send.
        """
        call = self._built("submit", super().submit(given, callback_url), given=given, callback_url=callback_url)
        if call is None:
            raise AdapterFailed(f"adapter {self._adapter.name!r} built no request")
        return call

    def poll(self, task_id: str, poll_url: str | None) -> Call | None:
        """See `Requests`; raises `AdapterFailed`."""
        return self._built("poll", super().poll(task_id, poll_url), task_id=task_id)

    def result(self, task_id: str, result_url: str | None) -> Call | None:
        """See `Requests`; raises `AdapterFailed`."""
        return self._built("result", super().result(task_id, result_url), task_id=task_id)

    def cancel(self, task_id: str, cancel_url: str | None) -> Call | None:
        """See `Requests`; raises `AdapterFailed`."""
        return self._built("cancel", super().cancel(task_id, cancel_url), task_id=task_id)

    def _built(
        self,
        purpose: Literal["submit", "poll", "result", "cancel"],
        call: Call | None,
        *,
        given: Mapping[str, object] | None = None,
        task_id: str | None = None,
        callback_url: str | None = None,
    ) -> Call | None:
        base_url, secret = self.bound.base_url, self.bound.secret
        return self._adapter.build(Ask(purpose, self._name, given or {}, task_id, callback_url, call, base_url, secret))


class AdaptedAnswers(Answers):
    """Answers that an adapter reads."""

    def __init__(
        self,
        adapter: Adapter,
        name: str,
        card: Card,
        operation: Operation,
        *,
        origins: LinkOrigins,
        scrubber: Scrubber,
        clock: Clock,
    ) -> None:
        super().__init__(card, operation, origins, scrubber, clock)
        self._adapter = adapter
        self._operation = name

    def submitted(self, answer: Answer) -> SubmitOutcome:
        """See `Answers`; an adapter that fails leaves open whether the task was taken."""
        by_card = super().submitted(answer)
        if answer.cut and read_answer(answer).fault is not None:
            return by_card
        try:
            outcome = self._adapter.parse_submit(answered(self._operation, answer), by_card)
        except AdapterFailed as error:
            outcome = SubmitOutcome(Verdict.UNKNOWN, None, ErrorCode.SUBMIT_UNKNOWN, str(error), cause="adapter_failed")
        return replace(outcome, http_status=answer.status, duration_ms=answer.duration_ms)

    def polled(self, answer: Answer) -> PollOutcome:
        """See `Answers`; an adapter that fails has learnt nothing."""
        return self._read(answer, super().polled(answer))

    def resulted(self, known: Observation, answer: Answer) -> PollOutcome:
        """See `Answers`."""
        return self._read(answer, super().resulted(known, answer))

    def _read(self, answer: Answer, by_card: PollOutcome) -> PollOutcome:
        if answer.cut and read_answer(answer).fault is not None:
            return by_card
        try:
            outcome = self._adapter.parse_poll(answered(self._operation, answer), by_card)
        except AdapterFailed as error:
            outcome = PollOutcome(PollVerdict.RETRY, message=str(error))
        return replace(outcome, http_status=answer.status, duration_ms=answer.duration_ms)

    def called_back(self, body: bytes, headers: Mapping[str, str]) -> Observation:
        """See `Answers`; an adapter that fails has seen nothing, and the provider is asked."""
        named = {name.lower(): value for name, value in headers.items()}
        try:
            heard = unpacked_for(Heard(self._operation, 0, named, body))
            return self._adapter.parse_callback(heard, super().called_back(body, named))
        except AdapterFailed:
            return NOTHING


class AdaptedVerifier:
    """Callbacks that an adapter verifies; one that fails proves nothing."""

    def __init__(self, adapter: Adapter, operation: str, secrets: tuple[str, ...], clock: Clock) -> None:
        self._adapter = adapter
        self._operation = operation
        self._secrets = secrets
        self._clock = clock

    def verify(self, body: bytes, headers: Mapping[str, str], url: str) -> Judged:
        """See `Verifier`."""
        named = {name.lower(): value for name, value in headers.items()}
        heard = Heard(self._operation, 0, named, body, url, self._clock.now_ms())
        try:
            found = self._adapter.verify(heard, self._secrets)
        except AdapterFailed as error:
            return Judged(None, False, str(error))
        return replace(found, evidence=found.evidence and found.valid is not False)
