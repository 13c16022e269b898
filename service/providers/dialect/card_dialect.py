"""Speaking with a provider over HTTP: requests as the card describes them, through the one way out.

Owns the path from a request to its answer; requests are made in `build`, answers are read in `answers`. It must not know
jobs, retries or states of ours. Nothing here raises for anything that a provider does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from service import offload
from service.clock import Clock
from service.egress import Answer, AnswerCut, Call
from service.errors import AdapterFailed, EgressCut, EgressNotSent, EgressRefused
from service.providers import guard
from service.providers.adapters import Adapter
from service.providers.card.card import Card
from service.providers.client import (
    CancelOutcome,
    CancelVerdict,
    Outbound,
    PollOutcome,
    PollVerdict,
    SubmitOutcome,
    Verdict,
)
from service.providers.dialect.adapted import AdaptedAnswers, AdaptedRequests
from service.providers.dialect.answers import Answers
from service.providers.dialect.build import Bound, Requests
from service.providers.documents.origins import LinkOrigins
from service.providers.documents.reading import beside
from service.providers.documents.text import Scrubber
from service.providers.documents.unpacking import MOST_BYTES
from service.providers.mapping import Observation
from service.states import ErrorCode

_Made = TypeVar("_Made")


class CardDialect:
    """Speaks with a provider over HTTP, as its card says.

    Args:
        base_url: What the card's paths hang on, with the operator's setting applied.
        secret: Our key at the provider.
        webhook_secrets: What its callbacks are signed with; the first is told to a provider that wants one.
        adapter: Code for what the card cannot say.
    """

    def __init__(
        self,
        card: Card,
        base_url: str,
        secret: str | None,
        egress: Outbound,
        clock: Clock,
        *,
        webhook_secrets: Sequence[str] = (),
        adapter: Adapter | None = None,
    ) -> None:
        self._name = card.name
        self._egress = egress
        self._clock = clock
        self._scrubber = Scrubber(secret, *webhook_secrets)
        origins = LinkOrigins(base_url, card.trusted_origins)
        bound = Bound(base_url, secret, origins, next(iter(webhook_secrets), None))
        self._requests: dict[str, Requests] = {}
        self._answers: dict[str, Answers] = {}
        for name, entry in card.operations.items():
            if adapter is None:
                self._requests[name] = Requests(entry, card.auth, bound)
                self._answers[name] = Answers(card, entry, origins, self._scrubber, clock)
            else:
                self._requests[name] = AdaptedRequests(adapter, name, entry, card.auth, bound)
                self._answers[name] = AdaptedAnswers(
                    adapter, name, card, entry, origins=origins, scrubber=self._scrubber, clock=clock
                )

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """See `Dialect`; on a connection of its own, so that none is reused that the provider was about to close."""
        requests = self._requests[operation]
        began = self._clock.monotonic()
        head: str | None = None
        cause: str | None = None
        try:
            step = guard.Step(self._name, operation, "build")
            call = await offload.beside(offload.is_large(given), guard.run, step, requests.submit, given, callback_url)
            read = self._answers[operation].submitted
            return await self._asked(call, requests.submit_timeout_s, read, fresh=True)
        except (EgressRefused, EgressNotSent) as error:
            verdict, code, message = Verdict.NOT_SENT, ErrorCode.PROVIDER_UNAVAILABLE, str(error)
        except AdapterFailed as error:  # there was no request to send
            verdict, code, message = Verdict.REJECTED, ErrorCode.INTERNAL, str(error)
        except EgressCut as error:
            verdict, code = Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN
            message = f"no whole answer came, so the task may have been taken: {error}"
            head, cause = self._scrubber.head(error.head), error.reason
        line = self._scrubber.line(message)
        return SubmitOutcome(verdict, None, code, line, duration_ms=self._since_ms(began), head=head, cause=cause)

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """See `Dialect`; where the answer holds no result, the request for it follows at once."""
        requests, answers = self._requests[operation], self._answers[operation]
        began = self._clock.monotonic()
        try:
            call = requests.poll(task_id, poll_url)
            if call is None:
                return PollOutcome(PollVerdict.RETRY, message="there is no address to ask for this task")
            outcome = await self._asked(call, requests.poll_timeout_s, answers.polled)
            known = outcome.observation
            if known is None or not known.awaits_result:
                return outcome
            call = requests.result(task_id, known.result_url)
            if call is None:
                return PollOutcome(PollVerdict.RETRY, message="there is no address to fetch the result at")
            return await self._asked(call, requests.poll_timeout_s, partial(answers.resulted, known))
        except (AdapterFailed, EgressRefused, EgressNotSent, EgressCut) as error:
            line = self._scrubber.line(str(error))
            head = self._scrubber.head(error.head) if isinstance(error, EgressCut) else None
            return PollOutcome(PollVerdict.RETRY, message=line, duration_ms=self._since_ms(began), head=head)

    async def _asked(
        self, call: Call, timeout_s: float, read: Callable[[Answer], _Made], *, fresh: bool = False
    ) -> _Made:
        """Ask, and read what came, also where the rest of it was cut."""
        try:
            answer = await self._egress.call(call, timeout_s=timeout_s, read_bytes=MOST_BYTES, fresh=fresh)
        except AnswerCut as error:
            answer = error.answer
        try:
            return await beside(answer.body, answer.headers, read, answer)
        finally:
            answer.close()

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        """See `Dialect`; a cut answer is worth another try, since cancelling twice does nothing worse than once."""
        requests = self._requests[operation]
        began = self._clock.monotonic()
        try:
            call = requests.cancel(task_id, cancel_url)
            if call is None:
                return CancelOutcome(CancelVerdict.DENIED, message="there is no address to cancel this task at")
            return await self._asked(call, requests.cancel_timeout_s, self._answers[operation].cancelled)
        except (AdapterFailed, EgressRefused, EgressNotSent, EgressCut) as error:
            message = self._scrubber.line(str(error))
            return CancelOutcome(CancelVerdict.RETRY, message=message, duration_ms=self._since_ms(began))

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """See `Dialect`."""
        return self._answers[operation].called_back(body, headers)

    def _since_ms(self, began: float) -> int:
        return round((self._clock.monotonic() - began) * 1000)
