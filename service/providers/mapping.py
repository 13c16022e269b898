"""What a provider said of a task, whichever way it came: a document, read by a card, becomes one Observation.

Pure: no network, no clock, no store, and nothing here raises for anything that a document holds. It must not know what
becomes of a job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Final, Literal

from service.clock import parse_iso
from service.providers.card.card import Errors, Operation
from service.providers.card.forms import FETCH_RESULT, RETRY
from service.providers.card.observe import Cost, Moment, Observe
from service.providers.card.rules import ErrorReader, WordsReader
from service.providers.documents.filelist import file_list
from service.providers.documents.origins import LinkOrigins
from service.providers.documents.paths import Expression, compiled
from service.providers.documents.reading import REPLACEMENT, Written
from service.providers.documents.text import WORD_CHARS, Scrubber, word
from service.states import ErrorCode

MAX_TASK_ID_CHARS: Final = 1_024  # of a provider's task id
_MAX_USD: Final = Decimal(1_000_000)  # a higher price of one task is a misread field
_TIMES_MS: Final = range(946_684_800_000, 4_102_444_800_000)  # 2000 to 2100: anything else is a misread unit
_MICRO: Final = Decimal(1_000_000)
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?", re.ASCII)


class Seen(StrEnum):
    """The state of a task, in our words."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED})


@dataclass(frozen=True, slots=True)
class Money:
    """An amount, its source, and the provider's own figure where it gave one."""

    micro_usd: int
    basis: Literal["provider", "price_list", "estimate", "assumed", "unknown"]
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What a provider said of one task.

    Args:
        seen: None: the document tells no state (garbled, wrong shape).
        provider_status: The provider's own word, cut to 64 characters.
        urls: http(s) or data: URLs, of a completed task only; a completed task may have none.
        not_urls: The places among the results, from 0, at which something stands that is no URL.
        left_out: How many more results there may be than are taken.
        error_message: Cut to 500 characters, without secrets.
        poll_url: Absolute, and on the card's own origin, as is `cancel_url`.
        word_known: False: a state word that the card does not list, which counts as running.
        awaits_result: The task is at its end, and a second request, at `result_url`, tells which.
        fault: Why a callback's body told nothing, as it goes on after "its body".
    """

    seen: Seen | None
    task_id: str | None = None
    provider_status: str | None = None
    urls: tuple[str, ...] = ()
    error_code: ErrorCode | None = None
    error_message: str | None = None
    cost: Money | None = None
    poll_url: str | None = None
    finished_at_ms: int | None = None
    word_known: bool = True
    created_at_ms: int | None = None
    cancel_url: str | None = None
    result_url: str | None = None
    awaits_result: bool = False
    not_urls: tuple[int, ...] = ()
    left_out: int = 0
    fault: str | None = None

    @property
    def results(self) -> tuple[str | None, ...]:
        """The URLs in the order in which the provider gave them; None for what is no URL."""
        if not self.not_urls:
            return self.urls
        urls = iter(self.urls)
        count = len(self.urls) + len(self.not_urls)
        return tuple(None if place in self.not_urls else next(urls, None) for place in range(count))


NOTHING: Final = Observation(seen=None)

#: Statuses about our key, our pace or the address; only a card that writes one out means the task by it.
NOT_OF_THE_TASK: Final = frozenset({"401", "402", "403", "404", "405", "408", "425", "429"})

_Meaning = tuple[Seen | None, ErrorCode | None, bool]  # state, error, whether the result has to be fetched
_RUNNING: Final[_Meaning] = (Seen.RUNNING, None, False)
_SILENT: Final[_Meaning] = (None, None, False)

_FAILURE_COSTS: Final = {"free": Money(0, "price_list"), "assumed_free": Money(0, "assumed")}


@dataclass(frozen=True, slots=True)
class Origin:
    """What all documents of one operation have in common: where they come from and how their errors are read."""

    origins: LinkOrigins
    errors: ErrorReader
    scrubber: Scrubber
    failure_cost: Money | None


class Mapper:
    """One `observe` of a card, compiled."""

    def __init__(self, observe: Observe, origin: Origin) -> None:
        self._task_id = compiled(observe.task_id)
        self._state = compiled(observe.state)
        self._states = {name: _meaning(text) for name, text in observe.states.items()}
        self._urls = compiled(observe.urls)
        self._words = WordsReader(observe.error, origin.scrubber)
        self._cost = _CostReader(observe.cost) if observe.cost else None
        self._created_at = _MomentReader(observe.created_at) if observe.created_at else None
        self._finished_at = _MomentReader(observe.finished_at) if observe.finished_at else None
        self._poll_url = compiled(observe.poll_url)
        self._cancel_url = compiled(observe.cancel_url)
        self._result_url = compiled(observe.result_url)
        self._by_status = _StatusReader(observe.http) if observe.http else None
        self._origin = origin

    def read(self, document: object, status: int | None = None) -> Observation:
        """What the document says.

        Args:
            document: Decoded JSON, or None.
            status: Of the answer that brought it, where statuses may speak for themselves.
        """
        if not isinstance(document, dict | list):
            return self._without_document(status)
        said = word(self._state.read(document)) if self._state else None
        seen, code, awaits_result = self._states.get(said, _RUNNING) if said else self._meant(status)
        message = None
        if seen is Seen.FAILED:
            words = self._words.read(document) if said else self._origin.errors.words(document)
            code = code or self._origin.errors.failure(words)
            message = words.message or self._origin.scrubber.line(words.type or words.code)
        found = self._urls.read(document) if self._urls and seen is Seen.COMPLETED else None
        files = file_list(found, self._origin.origins)
        return Observation(
            seen=seen,
            task_id=self.named(document),
            provider_status=self._origin.scrubber.hide(said)[:WORD_CHARS] if said else None,
            urls=files.urls,
            error_code=code,
            error_message=message,
            cost=self._costs(document, seen),
            poll_url=self._given(self._poll_url, document),
            finished_at_ms=self._finished_at.read(document) if self._finished_at and seen in FINAL else None,
            word_known=said is None or said in self._states,
            created_at_ms=self._created_at.read(document) if self._created_at else None,
            cancel_url=self._given(self._cancel_url, document),
            result_url=self._given(self._result_url, document) if awaits_result else None,
            awaits_result=awaits_result,
            not_urls=files.not_urls,
            left_out=files.left_out,
        )

    def named(self, document: object) -> str | None:
        """The id of the task, of which the rest of the document may say anything."""
        return task_id(self._task_id.read(document)) if self._task_id else None

    def speaks(self, status: int) -> bool:
        """Whether the card says what this status means, whatever stands in the body."""
        return self._by_status is not None and self._by_status.meaning(status) is not None

    def _meant(self, status: int | None) -> _Meaning:
        return (self._by_status.meaning(status) if self._by_status and status is not None else None) or _SILENT

    def _without_document(self, status: int | None) -> Observation:
        """What a status says alone; a result is nothing without its document."""
        seen, code, awaits_result = self._meant(status)
        if seen is Seen.COMPLETED:
            return NOTHING
        if seen is Seen.FAILED:
            return Observation(seen, error_code=code or ErrorCode.PROVIDER_FAILED, cost=self._origin.failure_cost)
        return Observation(seen, awaits_result=awaits_result)

    def _given(self, place: Expression | None, document: object) -> str | None:
        """An address that the document gives, if our key may go there."""
        return self._origin.origins.absolute(place.read(document)) if place else None

    def _costs(self, document: object, seen: Seen | None) -> Money | None:
        """What the document says; for a failed task only if that is nothing, since a quote may stay in it."""
        said = self._cost.read(document) if self._cost else None
        if seen is Seen.FAILED and self._origin.failure_cost is not None:
            return said if said is not None and not said.micro_usd else self._origin.failure_cost
        return said


class OperationMapper:
    """The ways in which a task of one operation is heard of."""

    def __init__(self, operation: Operation, errors: Errors, origins: LinkOrigins, scrubber: Scrubber) -> None:
        self.errors = ErrorReader(errors, scrubber)
        refetch_when = operation.callback.refetch_when if operation.callback else None
        result = operation.poll.result if operation.poll else None
        failures = operation.price.failures if operation.price else "unknown"
        origin = Origin(origins, self.errors, scrubber, _FAILURE_COSTS.get(failures))
        self.submit = Mapper(operation.submit_observe(), origin)
        self.poll = Mapper(operation.poll.observe, origin) if operation.poll else self.submit
        self.cancel = Mapper(operation.cancel_observe(), origin) if operation.cancel else self.poll
        self.callback = Mapper(operation.callback_observe(), origin)
        self.result = Mapper(result.observe, origin) if result else self.poll
        self.refetch_when = compiled(refetch_when)
        # An observe that the submission borrows from the poll says what the statuses of polls mean, not of its own.
        self.submit_statuses = operation.submit is not None and operation.submit.observe is not None


def task_id(value: object) -> str | None:
    """A task's id as text, a number as it was written; None for what cannot be one."""
    if isinstance(value, Written):
        value = value.text
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and REPLACEMENT in value:
        return None  # a part of it could not be decoded: this would ask for another task
    usable = isinstance(value, str) and 0 < len(value) <= MAX_TASK_ID_CHARS and value.isprintable()
    text = value.strip() if usable and isinstance(value, str) else ""
    return text if text.strip(".") else None  # `..` in the path of a poll would lead elsewhere


def _meaning(text: str) -> _Meaning:
    if text == FETCH_RESULT:
        return Seen.RUNNING, None, True
    state, _, code = text.partition("/")
    return Seen(state), ErrorCode(code) if code else None, False


class _StatusReader:
    """What an answer's status says of the task; `retry` says nothing."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        self._meanings = {status: _SILENT if text == RETRY else _meaning(text) for status, text in meanings.items()}

    def meaning(self, status: int) -> _Meaning | None:
        """The meaning of the status itself, else of its hundred; None where the card says nothing."""
        text = str(status)
        return self._meanings.get(text) or (None if text in NOT_OF_THE_TASK else self._meanings.get(f"{text[0]}xx"))


class _CostReader:
    def __init__(self, cost: Cost) -> None:
        self._path = compiled(cost.path)
        self._usd_each = cost.usd_each
        self._usd = cost.usd
        self._basis = cost.basis

    def read(self, document: object) -> Money | None:
        """A number, or a text such as `$0.02`; None for anything else."""
        value = self._path.read(document) if self._path else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        raw = str(value)[:64]
        if self._usd is not None:
            return Money(_micro_usd(self._usd), self._basis, raw)
        number = raw.strip().removeprefix("$").strip()
        if not _NUMBER.fullmatch(number):  # `Decimal` also reads 1_000 and the digits of all scripts
            return None
        try:
            amount = Decimal(number) * self._usd_each
        except ArithmeticError:  # no number, or one beyond all bounds
            return None
        if not amount.is_finite() or not 0 <= amount <= _MAX_USD:
            return None
        return Money(_micro_usd(amount), self._basis, raw)


def _micro_usd(usd: Decimal) -> int:
    return int((usd * _MICRO).to_integral_value(ROUND_HALF_UP))


class _MomentReader:
    def __init__(self, moment: Moment) -> None:
        self._path = compiled(moment.path)
        self._unit = moment.unit

    def read(self, document: object) -> int | None:
        """Milliseconds since 1970; None for what is no time of this century."""
        value = self._path.read(document) if self._path else None
        try:
            ms = self._ms(value)
        except (ValueError, ArithmeticError):
            return None
        return ms if ms in _TIMES_MS else None

    def _ms(self, value: object) -> int:
        if self._unit == "iso":
            return parse_iso(value) if isinstance(value, str) else 0
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return 0
        ms = Decimal(str(value)[:32]) * (1000 if self._unit == "s" else 1)
        return round(ms) if 0 < ms < _TIMES_MS.stop else 0  # judged before it is made an int, which may be endless
