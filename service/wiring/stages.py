"""The way of a job, wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from service.callbacks.inbox import Inbox
from service.db.opening import SQLiteStore
from service.db.sqlite.log_cutting import LogKeeper
from service.db.writer import Writer
from service.deliveries.fanout_store import FanoutsDuty
from service.deliveries.retention import retention_store as sent_retention
from service.deliveries.send import Sender
from service.events.feed import Hub
from service.jobs import retention_store as job_retention
from service.jobs.inputs import Inputs
from service.jobs.intake import Intake
from service.jobs.row import JobRow
from service.jobs.tokens import CallbackTokens
from service.jobs.track import NoKeeper, Track, Tracker
from service.jobs.transitions.facts import Fact
from service.jobs.unfinished import UnfinishedTasks
from service.jobs.waiters import Waiters
from service.ledger import book_store
from service.ledger.spending_limits import SpendingLimits
from service.moderation.moderation import Moderation
from service.moderation.moderators import installed, moderators
from service.polling.pace import Rules
from service.providers.breaker import Breakers
from service.results.vault import StorageVault
from service.scheduler.cleaner import Cleaner
from service.scheduler.disabler import Disabler
from service.scheduler.duties import Duty
from service.scheduler.expirer import Expirer
from service.scheduler.replayer import Replayer
from service.scheduler.roller import Roller
from service.usage import store as usage_store
from service.wiring.base import Base
from service.wiring.deliveries import deliveries
from service.wiring.results import KeptResults, captures, keeping, nothing
from service.workers.cancel import Canceller
from service.workers.capacity import Capacity, SubmitCapacity
from service.workers.dispatch import Dispatcher
from service.workers.fetch import Fetcher
from service.workers.pool import WorkerPool
from service.workers.submit import Submitter

SUBMIT_LEASE_MS = 600_000  # longer than moderation and loading an input may take; the request has a lease of its own
POLL_LEASE_MS = 120_000  # longer than any poll may take
TICK_S = 0.5  # of the duties that find due work
SWEEP_S = 1.0  # of the duties that end what is over
CLEAN_S = 60.0  # seconds between runs of retention
COUNT_S = 5.0  # of counting what ended


@dataclass(frozen=True, slots=True)
class Stages:
    """The way of a job."""

    tracker: Tracker
    waiters: Waiters
    hub: Hub
    intake: Intake
    canceller: Canceller
    breakers: Breakers
    inbox: Inbox
    sender: Sender
    submits: Dispatcher
    polls: Dispatcher
    cleaner: Cleaner
    keeping: KeptResults
    duties: list[Duty]


def wire(base: Base) -> Stages:
    """Wire the way of a job on a base; nothing runs yet."""
    writer, hub, waiters, tasks = base.store.writer, Hub(), Waiters(), UnfinishedTasks()
    breakers = Breakers(base.clock, base.randomness)
    tokens = CallbackTokens(base.store.reader, base.randomness)
    fetcher = Fetcher(writer, base.registry, base.clock, base.randomness, breakers, base.metrics)
    submits, polls = _submits(base, tasks, tokens, breakers), _polls(base, fetcher)
    sent, made = deliveries(base, hub), captures(base, fetcher)
    tracker = Tracker(
        ids=base.ids,
        clock=base.clock,
        links=base.links.url,
        rules=_rules(base),
        owner=base.owner,
        waiters=waiters,
        observer=base.metrics,
        followers=(sent.fanout.follow,),
        tasks=tasks,
        submitter=submits.pool,
        fetcher=polls.pool,
        keeper=made or NoKeeper(),
    )
    writer.handle(Track, tracker.handle)
    log = _log_keeper(base)
    cleaner = _cleaner(base, log.erased if log is not None else nothing)
    kept = keeping(base, tracker, made, sent.sender.recalled, log)
    return Stages(
        tracker=tracker,
        waiters=waiters,
        hub=hub,
        intake=_intake(base, tracker),
        canceller=Canceller(writer, base.registry),
        breakers=breakers,
        inbox=Inbox(writer, tokens, base.registry, tracker, clock=base.clock, observer=base.metrics),
        sender=sent.sender,
        submits=submits,
        polls=polls,
        cleaner=cleaner,
        keeping=kept,
        duties=[*_duties(base, submits, polls, sent.sender, cleaner), *kept.duties],
    )


def _log_keeper(base: Base) -> LogKeeper | None:
    """What keeps SQLite's log small; None: PostgreSQL looks after its own."""
    store, settings = base.store, base.settings
    if not isinstance(store, SQLiteStore):
        return None
    return LogKeeper(
        writer=store.writer,
        barrier=store.barrier,
        path=store.log_path,
        most=settings.wal_max,
        longest_wait_s=settings.read_timeout.total_seconds(),
        clock=base.clock,
        observer=base.metrics,
    )


def _submits(base: Base, tasks: UnfinishedTasks, tokens: CallbackTokens, breakers: Breakers) -> Dispatcher:
    closing = asyncio.Event()
    pool = WorkerPool(
        "submit",
        _submitter(base, breakers, tokens, closing).submit,
        SubmitCapacity(base.registry, breakers, tasks, base.clock),
        accepts=lambda _: True,
        lease_ms=SUBMIT_LEASE_MS,
        observer=base.metrics,
        closing=closing,
    )
    return _dispatcher(base, pool)


def _polls(base: Base, fetcher: Fetcher) -> Dispatcher:
    pool = WorkerPool(
        "poll",
        fetcher.fetch,
        Capacity(base.registry, base.clock, lambda provider: provider.polls),
        accepts=fetcher.can_ask,
        lease_ms=POLL_LEASE_MS,
        observer=base.metrics,
    )
    return _dispatcher(base, pool, fetcher.settled)


def _dispatcher(base: Base, pool: WorkerPool, settled: Callable[[JobRow], Fact | None] = lambda _: None) -> Dispatcher:
    return Dispatcher(
        pool,
        writer=base.store.writer,
        clock=base.clock,
        owner=base.owner,
        providers=[provider.name for provider in base.registry.all()],
        observer=base.metrics,
        settled=settled,
    )


def _duties(base: Base, submits: Dispatcher, polls: Dispatcher, sender: Sender, cleaner: Cleaner) -> list[Duty]:
    expirer = Expirer(base.store.writer, base.store.reader, base.clock)
    roller = Roller(base.store.writer, base.store.reader)
    usage_store.register(base.store.writer)
    replayer = Replayer(base.store.writer, base.store.reader, base.clock, base.owner)
    return [
        Duty("submits", TICK_S, submits.run_once),
        Duty("polls", TICK_S, polls.run_once),
        Duty("deliveries", TICK_S, sender.run_once),
        Duty("fanouts", TICK_S, FanoutsDuty(base.store.writer, base.store.reader).run_once),
        Duty("replayer", TICK_S, replayer.run_once),
        Duty("expirer", SWEEP_S, expirer.run_once),
        Duty("cleaner", CLEAN_S, cleaner.run_once),
        Duty("roller", COUNT_S, roller.run_once),
        Duty("roller-cleaner", CLEAN_S, roller.clean),
        Duty("disabler", CLEAN_S, Disabler(base.store.writer, base.store.reader).run_once),
    ]


def _cleaner(base: Base, erased: Callable[[], None]) -> Cleaner:
    for register in (job_retention.register, sent_retention.register):
        register(base.store.writer)
    return Cleaner(base.store.writer, base.clock, base.settings.retention, base.metrics, erased)


def _limits(writer: Writer) -> SpendingLimits:
    """Judges new jobs, and is told of changed limits; also the books get their credits."""
    limits = SpendingLimits()
    limits.register(writer)
    book_store.register(writer)
    return limits


def _intake(base: Base, tracker: Tracker) -> Intake:
    return Intake(
        writer=base.store.writer,
        reader=base.store.reader,
        registry=base.registry,
        egress=base.egress,
        tracker=tracker,
        limits=_limits(base.store.writer),
        ids=base.ids,
        clock=base.clock,
        links=base.links.url,
        job_ttl_ms=round(base.settings.job_ttl.total_seconds() * 1000),
        inputs=_inputs(base),
    )


def _inputs(base: Base) -> Inputs:
    return Inputs(base.store.reader, StorageVault(base.storage) if base.storage else None)


def _submitter(base: Base, breakers: Breakers, tokens: CallbackTokens, closing: asyncio.Event) -> Submitter:
    return Submitter(
        writer=base.store.writer,
        registry=base.registry,
        ids=base.ids,
        clock=base.clock,
        randomness=base.randomness,
        callback_base=base.settings.public_url,
        tokens=tokens,
        breakers=breakers,
        observer=base.metrics,
        inputs=_inputs(base),
        closing=closing,
        moderation=_moderation(base),
    )


def _moderation(base: Base) -> Moderation | None:
    """Who judges inputs before they are sent; nobody where the operator names nobody."""
    asked = moderators(base.settings, base.egress, base.clock, installed())
    if not asked:
        return None
    return Moderation(
        asked,
        fail_open=base.settings.moderation_fail == "open",
        clock=base.clock,
        randomness=base.randomness,
        observer=base.metrics,
    )


def _rules(base: Base) -> Callable[[str, str], Rules]:
    """What deciding needs to know, from cards and settings; a card that is gone leaves a job to its deadline."""
    result_ttl_ms = round(base.settings.result_ttl.total_seconds() * 1000)
    known: dict[tuple[str, str], Rules] = {}
    for provider in base.registry.all():
        overdue_after_s = provider.overdue_after_s
        for operation in provider.card.operations:
            timing = provider.timing(operation)
            known[provider.name, operation] = Rules(
                can_poll=provider.can_poll(operation),
                called_back=base.settings.public_url is not None and provider.wants_callback(operation),
                fallback_after_ms=round(timing.fallback_after_s * 1000),
                poll_every_ms=round(timing.poll_every_s * 1000),
                typical_ms=round(timing.typical_s * 1000),
                not_found_grace_ms=round(timing.not_found_grace_s * 1000),
                result_ttl_ms=result_ttl_ms,
                overdue_after_ms=None if overdue_after_s is None else round(overdue_after_s * 1000),
            )
    unknown = Rules(result_ttl_ms=result_ttl_ms)
    return lambda provider, operation: known.get((provider, operation), unknown)
