"""Taking a job: checked against its provider's card, then stored with its idempotency key in one transaction.

Whatever is wrong is told before anything is stored.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.clock import Clock
from service.db.reader import Reader
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.egress import Egress
from service.errors import Conflict, EgressRefused, FieldError, Invalid, Problem, RemoraError
from service.ids import Ids
from service.jobs import costs, store
from service.jobs.idempotency_store import FirstUse, body_hash, first_use, first_uses, remember
from service.jobs.inputs import KEPT, Inputs, KeptInput
from service.jobs.row import JobRow
from service.jobs.track import Tracker
from service.jobs.transitions.draft import Draft
from service.jobs.view import Links, job_view, shown
from service.ledger.book_store import book
from service.ledger.spending_limits import SpendingLimits, Want
from service.offload import beside, is_large
from service.providers.documents.longtexts import encoded
from service.providers.quote import Quote
from service.providers.registry import Provider, Registry
from service.schemas.job_schemas import JobRequest
from service.states import JobStatus, Source
from service.usage.counting import model_of

SHOWN_INPUT_BYTES = 64 * 1024  # of an input in answers and events; of a larger one only its digest is shown


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an account, and the key it used."""

    account_id: str
    key_id: str | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to a taken job: its id and the JSON of the job as it was taken."""

    job_id: str
    answer: bytes
    replayed: bool


@dataclass(frozen=True, slots=True)
class AcceptJob(Command[Taken]):
    """Store a new job; `key` and `body_hash` are those of its Idempotency-Key, if it has one.

    `job.cost_held` is what to hold for it.
    """

    job: JobRow
    answer: bytes
    key: str | None = None
    body_hash: bytes = b""
    kept: KeptInput | None = None  # a large input, apart from its job
    unpriced: tuple[FieldError, ...] = ()  # why its price is not known; accounts with a limit are refused

    def lock(self) -> Hashable | None:
        """A second request with the same key waits for the first one's batch, and then finds its answer."""
        return None if self.key is None else (self.job.account_id, self.key)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A job that was asked for, before it is stored; `full` is its input where the job's row does not hold it."""

    job: JobRow
    quote: Quote
    full: bytes | None


class Intake:
    """The use case behind `POST /v1/jobs`."""

    def __init__(
        self,
        *,
        writer: Writer,
        reader: Reader,
        registry: Registry,
        egress: Egress,
        tracker: Tracker,
        limits: SpendingLimits,
        ids: Ids,
        clock: Clock,
        links: Links,
        job_ttl_ms: int,
        inputs: Inputs,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._registry = registry
        self._egress = egress
        self._tracker = tracker
        self._limits = limits
        self._ids = ids
        self._clock = clock
        self._links = links
        self._job_ttl_ms = job_ttl_ms
        self._inputs = inputs
        writer.handle(AcceptJob, self.handle)

    async def take(self, caller: Caller, request: JobRequest, key: str | None) -> Taken:
        """Take a job, or give the first answer again.

        Raises:
            Invalid: A field is at fault, or the key was used with another body; nothing was stored.
            BalanceTooSmall: It does not fit the account's limit; nothing was stored.
            Invalid: `price_unknown`: the account has a limit, and nobody knows what the job will cost.
            StoreUnavailable: Nothing was stored.
        """
        sent_hash = b""
        if key is not None:
            sent_hash = await beside(is_large(request.input), body_hash, request.sent)
            if (first := await self._first_answer(caller, key, sent_hash)) is not None:
                return first
        provider, operation = self._find(request)
        drawn = await self._drawn(caller, request, provider, operation)
        await self._check_callback(request.callback_url)
        if drawn.full is not None:  # no file is written for what will be refused
            await self._limits.foresee(self._reader, _want(drawn.job, drawn.quote.unpriced), self._clock.now_ms())
        return await self._store(drawn, key, sent_hash)

    async def take_again(self, caller: Caller, old: JobRow, key: str | None = None) -> Taken:
        """Make a new job of a failed or expired one, with `retry_of`; its provider must still take the input.

        Raises:
            Conflict: The job is in another state, or its input was erased.
            Invalid: The provider's card does not take the input any more, or the account has a limit and it has no price.
            BalanceTooSmall: It does not fit the account's limit.
        """
        if old.status not in {JobStatus.FAILED, JobStatus.EXPIRED}:
            msg = f"the job is {old.status.value}; only submit_unknown, failed and expired jobs can be submitted again"
            raise Conflict(msg, code="not_resubmittable")
        if old.erased_at is not None:
            msg = "the job's input was erased, by request or for its age; send it again as a new job"
            raise Conflict(msg, code="input_erased")
        request = JobRequest.model_construct(  # it was checked when it came
            provider=old.provider,
            operation=old.operation,
            input=await self._inputs.load(old),
            callback_url=old.callback_url,
            callback_events=None if old.callback_events is None else tuple(msgspec.json.decode(old.callback_events)),
            metadata=msgspec.json.decode(old.job_metadata),
            tags=tuple(msgspec.json.decode(old.tags)),
            expires_in_s=(old.expires_at - old.created_at) // 1000,
        )
        provider, operation = self._find(request)
        drawn = await self._drawn(caller, request, provider, operation)  # its card may have changed since
        drawn.job.retry_of = old.id
        return await self._store(drawn, key, hashlib.sha256(f"again {old.id}".encode()).digest())

    async def _drawn(self, caller: Caller, request: JobRequest, provider: Provider, operation: str) -> _Drawn:
        """The job that a request asks for, and its price.

        Raises:
            Invalid: The provider's card does not take the input.
        """
        large = is_large(request.input)
        job_id = self._ids.new("job")  # here, since work on a large input is done in a thread

        def draw() -> _Drawn:
            if errors := provider.validate(operation, request.input):
                raise Invalid.of(errors)
            quote = provider.quote(operation, request.input)
            seen, full = _seen(request.input, encoded if large else msgspec.json.encode)
            job = self._make(caller, request, provider, operation, quote, job_id=job_id, seen=seen)
            job.input_full = None if full is None else KEPT
            return _Drawn(job, quote, full)

        return await beside(large, draw)

    async def _store(self, drawn: _Drawn, key: str | None, body_hash: bytes) -> Taken:
        """Store a job; the file of its input goes again where this job was not taken."""
        job = drawn.job
        kept = None if drawn.full is None else await self._inputs.keep(job, drawn.full)
        answer = msgspec.json.encode(job_view(job, (), self._links))
        try:
            taken = await self._writer.run(AcceptJob(job, answer, key, body_hash, kept, drawn.quote.unpriced))
        except RemoraError:
            if not self._writer.closed:  # of a store that failed nobody knows whether it has the job
                await self._inputs.let_go(kept)
            raise
        if taken.job_id != job.id:
            await self._inputs.let_go(kept)
        return taken

    async def handle(self, tx: Tx, commands: Sequence[AcceptJob]) -> list[Taken | Exception]:
        """The writer's handler for `AcceptJob`."""
        answers: list[Taken | Exception] = []
        drafts: list[Draft] = []
        known = await first_uses(tx, [(each.job.account_id, each.key) for each in commands if each.key is not None])
        refused = await self._judge(
            tx, [each for each in commands if (each.job.account_id, each.key or "") not in known]
        )
        for command in commands:
            first = known.get((command.job.account_id, command.key or ""))
            if first is not None:
                answers.append(_replay(first, command.body_hash))
                continue
            if (refusal := refused.get(command.job.id)) is not None:
                answers.append(refusal)
                continue
            # A copy: the command is applied again when its batch fails.
            draft = Draft(copy.copy(command.job), tx.now_ms, self._links)
            draft.note("job.queued", Source.API)
            self._tracker.lease_if_due(tx, draft.job)
            drafts.append(draft)
            answers.append(Taken(command.job.id, command.answer, replayed=False))
        transfers = costs.hold(drafts)
        store.insert(tx, [draft.job for draft in drafts])
        book(tx, transfers)
        taken = {draft.job.id for draft in drafts}
        store.insert_inputs(tx, [each.kept for each in commands if each.kept is not None and each.job.id in taken])
        remember(tx, _uses(each for each in commands if each.job.id in taken))
        await self._tracker.follow(tx, drafts)
        return answers

    async def _judge(self, tx: Tx, commands: Sequence[AcceptJob]) -> dict[str, Problem]:
        """What does not fit its account's limit, by job."""
        wants = [_want(each.job, each.unpriced) for each in commands]
        return await self._limits.judge(tx, list(filter(self._limits.concern, wants)))

    async def _first_answer(self, caller: Caller, key: str, body_hash: bytes) -> Taken | None:
        row = await first_use(self._reader, caller.account_id, key, self._clock.now_ms())
        if row is None:
            return None
        first = _replay(row, body_hash)
        if isinstance(first, Exception):
            raise first
        return first

    def _find(self, request: JobRequest) -> tuple[Provider, str]:
        provider = self._registry.get(request.provider)
        if provider is None:
            known = ", ".join(sorted(each.name for each in self._registry.all()))
            raise _at(
                "/provider", f"there is no provider {request.provider[:64]!r}; known are {known}", "unknown_provider"
            )
        name = request.operation or provider.default_operation
        if name is None:
            known = ", ".join(sorted(provider.card.operations))
            raise _at("/operation", f"is needed here: {provider.name} has {known}", "unknown_operation")
        if provider.operation(name) is None:
            known = ", ".join(sorted(provider.card.operations))
            raise _at(
                "/operation", f"{provider.name} has no operation {name[:64]!r}; it has {known}", "unknown_operation"
            )
        if not provider.configured:
            raise _at("/provider", f"{provider.name} is not configured: {provider.reason}", "provider_not_configured")
        return provider, name

    async def _check_callback(self, url: str | None) -> None:
        if url is None:
            return
        try:
            await self._egress.check(url)
        except EgressRefused as error:
            raise _at("/callback_url", str(error), f"callback_url_{error.reason.removeprefix('url_')}") from error

    def _make(
        self,
        caller: Caller,
        request: JobRequest,
        provider: Provider,
        operation: str,
        quote: Quote,
        *,
        job_id: str,
        seen: str,
    ) -> JobRow:
        now_ms = self._clock.now_ms()
        ttl_ms = request.expires_in_s * 1000 if request.expires_in_s is not None else self._job_ttl_ms
        return JobRow(
            id=job_id,
            account_id=caller.account_id,
            key_id=caller.key_id,
            provider=provider.name,
            operation=operation,
            model=model_of(request.input),
            status=JobStatus.QUEUED,
            seq=0,
            input=seen,
            job_metadata=msgspec.json.encode(request.metadata or {}).decode(),
            tags=msgspec.json.encode(request.tags or ()).decode(),
            callback_url=request.callback_url,
            callback_events=None
            if request.callback_events is None
            else msgspec.json.encode(request.callback_events).decode(),
            cost_estimated=None if quote.estimate is None else quote.estimate.micro_usd,
            cost_basis="unknown" if quote.estimate is None else quote.estimate.basis,
            cost_held=quote.hold or None,
            overdue_at=None if provider.overdue_after_s is None else now_ms + round(provider.overdue_after_s * 1000),
            created_at=now_ms,
            expires_at=now_ms + ttl_ms,
            due_at=now_ms,
        )


def _seen(given: dict[str, Any], encode: Callable[[Any], bytes]) -> tuple[str, bytes | None]:
    """An input as it is shown, and as it is sent where that differs."""
    full = encode(given)
    seen = msgspec.json.encode(shown(given))
    if len(seen) > SHOWN_INPUT_BYTES:
        seen = msgspec.json.encode({"…": f"sha256:{hashlib.sha256(full).hexdigest()} ({len(full)} bytes)"})
    return seen.decode(), None if seen == full else full


def _want(job: JobRow, unpriced: tuple[FieldError, ...]) -> Want:
    return Want(job.id, job.account_id, job.cost_held or 0, unpriced)


def _uses(commands: Iterable[AcceptJob]) -> Iterator[FirstUse]:
    for each in commands:
        if each.key is not None:
            yield FirstUse(each.job.account_id, each.key, each.body_hash, each.job.id, each.answer)


def _replay(row: Any, body_hash: bytes) -> Taken | Exception:
    if row["body_hash"] != body_hash:
        msg = "this Idempotency-Key was used with another body in the last 24 hours; use a new key for a new job"
        return Invalid(msg, code="idempotency_key_reused")
    return Taken(row["job_id"], bytes(row["answer"]), replayed=True)


def _at(pointer: str, detail: str, code: str) -> Invalid:
    return Invalid.of([FieldError(pointer, detail)], code=code)
