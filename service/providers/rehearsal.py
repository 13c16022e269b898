"""Trying a card on its own examples: nothing leaves this process, and every difference is told with its place.

Owns the comparison. It must not know files nor how differences are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from service.clock import Clock
from service.egress import Answer, Call
from service.errors import EgressCut, EgressNotSent
from service.providers.card.card import Card
from service.providers.card.example import Example, Exchange, Expected, Said, Sent, plain
from service.providers.client import CancelOutcome, PollOutcome, SubmitOutcome
from service.providers.mapping import Money, Observation
from service.providers.registry import Provider
from service.settings import ProviderSettings

KEY: Final = "example-key"
_SHOWN_CHARS: Final = 200  # of a value in a message
_MICRO: Final = 1_000_000
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an example is not what comes out, and how."""

    place: Place
    reason: str


class _Stage:
    """Plays the provider: answers with what the example says, and keeps what it was asked."""

    def __init__(self) -> None:
        self._answers: list[Said] = []
        self.calls: list[Call] = []

    def set(self, exchanges: Sequence[Exchange]) -> None:
        self._answers = [exchange.answer for exchange in exchanges]
        self.calls = []

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """See `Outbound`."""
        self.calls.append(call)
        if not self._answers:
            raise EgressNotSent("no_answer", "the example has no answer for this request")
        said = self._answers.pop(0)
        if said.lost == "not_sent":
            raise EgressNotSent("connect", "the example says that it was not sent")
        if said.lost == "cut":
            raise EgressCut("cut", "the example says that no whole answer came")
        headers = {name.lower(): value for name, value in said.headers.items()}
        body = _bytes(said.text, said.body)
        return Answer(said.status, headers, body[:read_bytes], truncated=len(body) > read_bytes, duration_ms=0)


async def rehearse(card: Card, clock: Clock) -> list[Difference]:
    """Try every example of the card; empty when all of them come out as they say."""
    differences: list[Difference] = []
    for index, example in enumerate(card.examples):
        tried = _Trial(card, example, clock)
        differences += [
            Difference(("examples", index, *found.place), found.reason)
            for found in [*tried.input(), *await tried.steps()]
        ]
    return differences


class _Trial:
    """One example, tried on a provider of its own."""

    def __init__(self, card: Card, example: Example, clock: Clock) -> None:
        self._example = example
        self._stage = _Stage()
        self._provider = Provider(card, ProviderSettings(api_key=SecretStr(KEY)), self._stage, clock)

    def input(self) -> Iterator[Difference]:
        """What is wrong with the input against what should be, and what it costs."""
        example = self._example
        if "input" not in example.model_fields_set:
            return
        found = self._provider.validate(example.operation, plain(example.input))
        wanted = set(example.invalid)
        for error in found:
            if error.pointer not in wanted:
                yield Difference(("input",), f"{error.pointer}: {error.detail}")
        for pointer in sorted(wanted - {error.pointer for error in found}):
            yield Difference(("invalid",), f"nothing is wrong with {pointer}")
        if "estimate" in example.model_fields_set:
            estimate = self._provider.estimate(example.operation, plain(example.input))
            wanted_usd = None if example.estimate is None else int(example.estimate * _MICRO)
            yield from _differ(("estimate",), wanted_usd, estimate.micro_usd if estimate else None)

    async def steps(self) -> list[Difference]:
        """Every step of the example, each for itself."""
        example, operation, found = self._example, self._example.operation, list[Difference]()
        if example.submit is not None:
            self._stage.set([example.submit])
            submitted = await self._provider.submit(operation, plain(example.input), example.submit.callback_url)
            found += self._compared("submit", [example.submit], example.submit.expect, submitted)
        if example.poll is not None:
            exchanges = [example.poll, *example.poll.more]
            self._stage.set(exchanges)
            polled = await self._provider.poll(operation, example.poll.task_id, example.poll.poll_url)
            found += self._compared("poll", exchanges, example.poll.expect, polled)
        if example.cancel is not None:
            self._stage.set([example.cancel])
            cancelled = await self._provider.cancel(operation, example.cancel.task_id, example.cancel.cancel_url)
            found += self._compared("cancel", [example.cancel], example.cancel.expect, cancelled)
        if example.callback is not None:
            callback = example.callback
            headers = {name.lower(): value for name, value in callback.headers.items()}
            said = self._provider.read_callback(operation, _bytes(callback.text, callback.body), headers)
            found += _expected(("callback", "expect"), callback.expect, _told(said))
        return found

    def _compared(
        self,
        step: str,
        exchanges: Sequence[Exchange],
        expect: Expected,
        outcome: SubmitOutcome | PollOutcome | CancelOutcome,
    ) -> Iterator[Difference]:
        for index, exchange in enumerate(exchanges):
            place: Place = (step, "request") if index == 0 else (step, "more", index - 1, "request")
            if index < len(self._stage.calls):
                yield from _request(place, exchange.request, self._stage.calls[index])
            else:
                yield Difference(place, f"is never sent: {outcome.message or 'there was nothing to ask for'}")
        for call in self._stage.calls[len(exchanges) :]:
            yield Difference((step,), f"one request more is sent: {call.method} {call.url}")
        told = _told(outcome.observation) | {"verdict": outcome.verdict.value, "retry_after": outcome.retry_after_s}
        if isinstance(outcome, SubmitOutcome) and outcome.error_code is not None:
            told["error"] = outcome.error_code
        if outcome.message is not None:
            told["message"] = outcome.message
        yield from _expected((step, "expect"), expect, told)


def _request(place: Place, wanted: Sent, call: Call) -> Iterator[Difference]:
    """How a request differs from the one that the example shows."""
    given = wanted.model_fields_set
    if "method" in given:
        yield from _differ((*place, "method"), wanted.method, call.method)
    if "url" in given:
        yield from _differ((*place, "url"), wanted.url, call.url)
    for name, value in wanted.headers.items():
        yield from _differ((*place, "headers", name), value.replace("{secret}", KEY), call.headers.get(name.lower()))
    if "body" in given:
        sent = None if call.body is None else msgspec.json.decode(call.body)
        yield from _differ((*place, "body"), plain(wanted.body), sent)


def _told(observation: Observation | None) -> dict[str, Any]:
    """An observation in the words of examples."""
    said = observation or Observation(seen=None)
    return {
        "state": said.seen.value if said.seen else None,
        "task_id": said.task_id,
        "provider_status": said.provider_status,
        "known": said.word_known,
        "urls": list(said.urls),
        "error": said.error_code,
        "message": said.error_message,
        "cost": said.cost,
        "created_at": said.created_at_ms,
        "finished_at": said.finished_at_ms,
        "poll_url": said.poll_url,
        "cancel_url": said.cancel_url,
    }


def _expected(place: Place, wanted: Expected, told: Mapping[str, Any]) -> Iterator[Difference]:
    """How what came out differs from what the example expects."""
    for name in sorted(wanted.model_fields_set - {"cost"}):
        yield from _differ((*place, name), getattr(wanted, name), told.get(name))
    if "cost" in wanted.model_fields_set:
        cost: Money | None = told.get("cost")
        if wanted.cost is None or cost is None:
            yield from _differ((*place, "cost"), wanted.cost and str(wanted.cost.usd), cost)
            return
        yield from _differ((*place, "cost", "usd"), int(wanted.cost.usd * _MICRO), cost.micro_usd)
        for name in sorted(wanted.cost.model_fields_set - {"usd"}):
            yield from _differ((*place, "cost", name), getattr(wanted.cost, name), getattr(cost, name))


def _differ(place: Place, wanted: Any, got: Any) -> Iterator[Difference]:
    """Every place where two values differ."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for name in wanted | got:
            if name not in wanted:
                yield Difference((*place, name), f"is sent too: {_shown(got[name])}")
            else:
                yield from _differ((*place, name), wanted[name], got.get(name))
    elif wanted != got or isinstance(wanted, bool) is not isinstance(got, bool):
        yield Difference(place, f"expected {_shown(wanted)}, got {_shown(got)}")


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else repr(str(value))
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _bytes(text: str | None, body: object) -> bytes:
    if text is not None:
        return text.encode()
    return b"" if body is None else msgspec.json.encode(plain(body))
