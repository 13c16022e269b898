"""How the objects of the way of a job are wired on a base: part of the composition root, without the process around it.

Nothing here runs by itself, and nothing knows which store, clock or network it is: a simulation wires the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.accounts import accounts
from service.accounts.keys import Keys
from service.callbacks.inbox import Inbox
from service.clock import Clock, Randomness
from service.db.log import LogKeeper
from service.db.opening import Store
from service.db.writer import Writer
from service.deliveries import retention as sent_retention
from service.deliveries.directory import StoreDirectory
from service.deliveries.erasure_store import erase as erase_deliveries
from service.deliveries.fanout import Fanout
from service.deliveries.fanout_store import FanoutsDuty, WriteFanoutPart
from service.deliveries.lanes.quota import SOCKETS
from service.deliveries.recalled import Recalled
from service.deliveries.replays import replay_store
from service.deliveries.send import Sender
from service.deliveries.subscribing.changes import Changes
from service.egress import Egress, Files
from service.events.feed import Hub
from service.ids import Ids
from service.jobs import retention as job_retention
from service.jobs.cancel import Canceller
from service.jobs.erase import Erase, Eraser, Follower
from service.jobs.inputs import Inputs
from service.jobs.intake import Intake
from service.jobs.row import JobRow
from service.jobs.tokens import CallbackTokens
from service.jobs.track import Track, Tracker
from service.jobs.transitions.facts import Fact
from service.jobs.waiters import Waiters
from service.ledger import transfers
from service.ledger.spending_limits import Limits
from service.moderation.moderation import Moderation
from service.moderation.moderators import installed, moderators
from service.polling.pace import Rules
from service.providers.breaker import Breakers
from service.providers.registry import Registry
from service.results.capture import Capturer
from service.results.captures import Captures
from service.results.download import Downloader
from service.results.links import ResultLinks
from service.results.storage import Storage
from service.results.store import Results
from service.results.store import erase as erase_results
from service.results.vault import StorageVault
from service.scheduler.capturer import CapturerDuty
from service.scheduler.cleaner import Cleaner
from service.scheduler.disabler import Disabler
from service.scheduler.duties import Duty
from service.scheduler.expirer import Expirer
from service.scheduler.replayer import Replayer
from service.scheduler.roller import Roller
from service.scheduler.sweeper import STRANGERS_EVERY_S, STRANGERS_FIRST_S, Sweeper
from service.settings import Settings
from service.subscriptions.destinations import DestinationCache
from service.telemetry import Metrics
from service.usage import store as usage_store
from service.workers.capacity import Capacity, SubmitCapacity
from service.workers.dispatch import Dispatcher
from service.workers.fetch import Fetcher
from service.workers.pool import WorkerPool
from service.workers.submit import Submitter

SUBMIT_LEASE_MS = 600_000  # longer than moderation and loading an input may take; the request has a lease of its own
POLL_LEASE_MS = 120_000  # longer than any poll may take
TICK_S = 0.5  # of the duties that find due work
SWEEP_S = 1.0  # of the duties that end what is over
CLEAN_S = 60.0
COUNT_S = 5.0  # of counting what ended


@dataclass(frozen=True, slots=True)
class Base:
    """What everything stands on."""

    settings: Settings
    clock: Clock
    randomness: Randomness
    ids: Ids
    metrics: Metrics
    store: Store
    egress: Egress
    registry: Registry
    links: ResultLinks
    keys: Keys
    owner: str  # the name of this process on leases
    sockets: int = SOCKETS  # requests of deliveries at once
    storage: Storage | None = None  # where copies of results are kept …
    files: Files | None = None  # … and how they are fetched; without both none are made


@dataclass(frozen=True, slots=True)
class Keeping:
    """Copies of results; `captures` None: none are made."""

    captures: Captures | None
    sweeper: Sweeper
    duties: list[Duty]


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
    keeping: Keeping
    duties: list[Duty]


def wire(base: Base) -> Stages:
    """Wire the way of a job on a base; nothing runs yet."""
    writer = base.store.writer
    waiters = Waiters()
    tracker = Tracker(
        ids=base.ids,
        clock=base.clock,
        links=base.links.url,
        rules=_rules(base),
        owner=base.owner,
        waiters=waiters,
        observer=base.metrics,
    )
    writer.handle(Track, tracker.handle)
    hub = Hub()
    sender = _deliveries(base, tracker, hub)
    breakers = Breakers(base.clock, base.randomness)
    fetcher = Fetcher(writer, base.registry, base.clock, base.randomness, breakers, base.metrics)
    tokens = CallbackTokens(base.store.reader, base.randomness)
    submitter = _submitter(base, breakers, tokens)
    submits, polls = _submits(base, tracker, submitter, breakers), _polls(base, fetcher)
    tracker.submitter, tracker.fetcher = submits.pool, polls.pool
    submitter.stopping = lambda: submits.pool.closed
    log = _log_keeper(base)
    cleaner = _cleaner(base, log)
    keeping = keep(base, tracker, fetcher, sender.recalled, log)
    return Stages(
        tracker=tracker,
        waiters=waiters,
        hub=hub,
        intake=_intake(base, tracker),
        canceller=Canceller(writer, base.registry),
        breakers=breakers,
        inbox=Inbox(writer, tokens, base.registry, tracker, clock=base.clock, observer=base.metrics),
        sender=sender,
        submits=submits,
        polls=polls,
        cleaner=cleaner,
        keeping=keeping,
        duties=[*_duties(base, submits, polls, sender, cleaner), *keeping.duties],
    )


def _log_keeper(base: Base) -> LogKeeper:
    store, settings = base.store, base.settings
    return LogKeeper(
        writer=store.writer,
        barrier=store.barrier,
        path=store.log_path,
        most=settings.wal_max,
        longest_wait_s=settings.read_timeout.total_seconds(),
        clock=base.clock,
        observer=base.metrics,
    )


def _submits(base: Base, tracker: Tracker, submitter: Submitter, breakers: Breakers) -> Dispatcher:
    capacity = SubmitCapacity(base.registry, breakers, tracker.tasks, base.clock)
    pool = WorkerPool(
        "submit",
        submitter.submit,
        capacity,
        accepts=lambda _: True,
        lease_ms=SUBMIT_LEASE_MS,
        observer=base.metrics,
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


def keep(base: Base, tracker: Tracker, fetcher: Fetcher, recalled: Recalled, log: LogKeeper) -> Keeping:
    """Wire what makes copies of results and lets them go."""
    store = base.store
    Results(tracker, None if base.storage is None else base.storage.place).register(store.writer)
    followers: list[Follower] = [partial(erase_deliveries, recalled=recalled), erase_results]
    store.writer.handle(Erase, Eraser(tracker, followers).handle)
    sweeper = Sweeper(store.writer, store.reader, base.storage, base.clock, base.metrics, log.erased)
    duties = [
        Duty("sweeper", SWEEP_S, sweeper.run_once),
        Duty("stranger-finder", STRANGERS_EVERY_S, sweeper.find_strangers, STRANGERS_FIRST_S),
        Duty("log-keeper", SWEEP_S, log.run_once),
    ]
    if base.storage is None or base.files is None:
        return Keeping(None, sweeper, duties)
    capturer = Capturer(
        downloader=Downloader(base.files, base.storage.spool, base.settings.result_max_bytes),
        storage=base.storage,
        writer=store.writer,
        reader=store.reader,
        clock=base.clock,
        randomness=base.randomness,
        ask=fetcher.files_of,
        observer=base.metrics,
    )
    lost = partial(base.metrics.captured, "lost", 0)
    captures = Captures(capturer.capture, base.clock, base.owner, _links_live_ms(base.registry), lost)
    tracker.keeper = captures
    duty = CapturerDuty(store.writer, captures, base.owner)
    return Keeping(captures, sweeper, [Duty("capturer", TICK_S, duty.run_once), *duties])


def _links_live_ms(registry: Registry) -> Callable[[str], int | None]:
    """How long a provider keeps its files, where its document says it."""
    lives = {
        provider.name: None if provider.retention_s is None else round(provider.retention_s * 1000)
        for provider in registry.all()
    }
    return lives.get


def _cleaner(base: Base, log: LogKeeper) -> Cleaner:
    for register in (job_retention.register, sent_retention.register):
        register(base.store.writer)
    return Cleaner(base.store.writer, base.clock, base.settings.retention, base.metrics, log.erased)


def _limits(writer: Writer) -> Limits:
    """Judges new jobs, and is told of changed limits; also the books get their credits."""
    limits = Limits()
    limits.register(writer)
    transfers.register(writer)
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


def _submitter(base: Base, breakers: Breakers, tokens: CallbackTokens) -> Submitter:
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


def _deliveries(base: Base, tracker: Tracker, hub: Hub) -> Sender:
    """The sender, and the follower that gives it its deliveries."""
    cache = DestinationCache(base.store.box)
    sender = _sender(base, cache)
    fanout = Fanout(base.ids, cache, sender.lanes, base.owner, sender.lease_ms, hub)
    tracker.followers.append(fanout.follow)
    base.store.writer.handle(WriteFanoutPart, fanout.write_later)
    renewed, forgotten = sender.lanes.renew, sender.lanes.breakers.forget
    limit = base.settings.max_subscriptions
    changes = Changes(cache, fanout.add, base.ids, limit=limit, renewed=renewed, forgotten=forgotten)
    changes.register(base.store.writer)
    replay_store.register(base.store.writer, base.ids, sender.lanes.left_in_store)
    return sender


def _sender(base: Base, cache: DestinationCache) -> Sender:
    store, settings = base.store, base.settings
    directory = StoreDirectory(store.reader, store.writer, store.box, cache, base.clock)
    accounts.register(store.writer, directory.forget_secrets)
    return Sender(
        writer=store.writer,
        egress=base.egress,
        directory=directory,
        clock=base.clock,
        randomness=base.randomness,
        owner=base.owner,
        timeout_s=settings.delivery_timeout.total_seconds(),
        schedule_s=tuple(wait.total_seconds() for wait in settings.delivery_schedule),
        observer=base.metrics,
        sockets=base.sockets,
        memory=settings.delivery_memory,
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
