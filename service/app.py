"""The composition root: the only place where objects are wired, started and drained."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from service.accounts import accounts, bootstrap
from service.accounts.keys import Keys
from service.api.context import Context
from service.api.listener import Listener
from service.api.server import create_api
from service.callbacks.inbox import Inbox
from service.clock import Clock, Randomness, SystemClock, SystemRandomness
from service.db.opening import Store, open_store
from service.deliveries.changes import Changes
from service.deliveries.directory import StoreDirectory
from service.deliveries.fanout import Fanout
from service.deliveries.send import Sender
from service.deliveries.subscriptions import DestinationCache
from service.egress import Egress
from service.egress.door import Door
from service.errors import SettingsInvalid
from service.ids import Ids
from service.jobs import claims, queries
from service.jobs.cancel import Canceller
from service.jobs.fetch import Fetcher
from service.jobs.hands import TaskHand
from service.jobs.intake import Intake
from service.jobs.pace import Rules
from service.jobs.submit import Submitter
from service.jobs.track import Track, Tracker
from service.jobs.waiters import Waiters
from service.providers.breaker import Breakers
from service.providers.registry import Registry
from service.results.links import ResultLinks
from service.scheduler.duties import Duty, Ticker
from service.scheduler.expirer import Expirer
from service.scheduler.poller import Poller
from service.scheduler.rescuer import Rescuer
from service.settings import Settings
from service.telemetry import Metrics

SUBMIT_LEASE_MS = 600_000  # a queued job may wait for its turn under a rate limit
FETCH_LEASE_MS = 120_000  # longer than any poll may take
FETCHES_PER_PROVIDER = 50  # at once
DRAIN_S = 20.0  # for submits, polls and deliveries that are out when the service stops
TICK_S = 0.5  # of the duties that find due work
SWEEP_S = 1.0  # of the duties that end what is over
CLEAN_S = 60.0
REMEMBERED_JOBS = 2_000  # finished ones whose durations are looked at when the service starts
GC_THRESHOLDS = (20_000, 20, 50)  # new objects before a young collection; young ones before the next two
FAILED_STATUS = 70  # the exit status after the store failed (EX_SOFTWARE)

_log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True)
class Stages:
    """The way of a job."""

    tracker: Tracker
    waiters: Waiters
    intake: Intake
    canceller: Canceller
    breakers: Breakers
    inbox: Inbox
    sender: Sender
    submit_hand: TaskHand
    fetch_hand: TaskHand
    rescuer: Rescuer
    duties: list[Duty]


def wire(base: Base) -> Stages:
    """Wire the way of a job on a base; nothing runs yet, and nothing here knows which store or clock it is."""
    writer, settings = base.store.writer, base.settings
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
    cache = DestinationCache(base.store.box)
    sender = _sender(base, cache)
    fanout = Fanout(base.ids, cache, sender.lanes, base.owner, sender.lease_ms)
    tracker.followers.append(fanout.follow)
    Changes(cache, fanout.add, base.ids).register(writer)
    breakers = Breakers(base.clock, base.randomness)
    submitter = Submitter(
        writer=writer,
        registry=base.registry,
        ids=base.ids,
        clock=base.clock,
        randomness=base.randomness,
        callback_base=settings.public_url,
        breakers=breakers,
        observer=base.metrics,
    )
    fetcher = Fetcher(writer, base.registry, base.randomness, breakers, base.metrics)
    submit_hand = TaskHand(
        submitter.submit,
        places=_submits_at_once(base.registry, breakers),
        willing=lambda _: True,
        lease_ms=SUBMIT_LEASE_MS,
    )
    fetch_hand = TaskHand(
        fetcher.fetch, places=lambda _: FETCHES_PER_PROVIDER, willing=fetcher.can_ask, lease_ms=FETCH_LEASE_MS
    )
    tracker.submitter, tracker.fetcher = submit_hand, fetch_hand
    intake = Intake(
        writer=writer,
        reader=base.store.reader,
        registry=base.registry,
        egress=base.egress,
        tracker=tracker,
        ids=base.ids,
        clock=base.clock,
        links=base.links.url,
        job_ttl_ms=round(settings.job_ttl.total_seconds() * 1000),
    )
    inbox = Inbox(writer, base.registry, tracker, base.clock, base.metrics)
    rescuer = Rescuer(writer, base.registry, submit_hand, sender, base.owner)
    poller = Poller(writer, fetcher, fetch_hand, base.clock, base.owner)
    expirer = Expirer(writer, base.store.reader, base.clock)
    duties = [
        Duty("rescuer", TICK_S, rescuer.run_once),
        Duty("poller", TICK_S, poller.run_once),
        Duty("expirer", SWEEP_S, expirer.run_once),
        Duty("cleaner", CLEAN_S, expirer.clean),
    ]
    return Stages(
        tracker=tracker,
        waiters=waiters,
        intake=intake,
        canceller=Canceller(writer, base.registry),
        breakers=breakers,
        inbox=inbox,
        sender=sender,
        submit_hand=submit_hand,
        fetch_hand=fetch_hand,
        rescuer=rescuer,
        duties=duties,
    )


def _sender(base: Base, cache: DestinationCache) -> Sender:
    store, settings = base.store, base.settings
    return Sender(
        writer=store.writer,
        egress=base.egress,
        directory=StoreDirectory(store.reader, store.writer, store.box, cache, base.clock),
        clock=base.clock,
        randomness=base.randomness,
        owner=base.owner,
        timeout_s=settings.delivery_timeout.total_seconds(),
        schedule_s=tuple(wait.total_seconds() for wait in settings.delivery_schedule),
        observer=base.metrics,
    )


def _submits_at_once(registry: Registry, breakers: Breakers) -> Callable[[str], int]:
    def places(name: str) -> int:
        provider, breaker = registry.get(name), breakers.of(name)
        if not breaker.allows():
            return 0
        return 1 if provider is None or breaker.is_open else provider.max_in_flight

    return places


def _rules(base: Base) -> Callable[[str, str], Rules]:
    """What deciding needs to know, from cards and settings; a card that is gone leaves a job to its deadline."""
    result_ttl_ms = round(base.settings.result_ttl.total_seconds() * 1000)
    known: dict[tuple[str, str], Rules] = {}
    for provider in base.registry.all():
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
            )
    unknown = Rules(result_ttl_ms=result_ttl_ms)
    return lambda provider, operation: known.get((provider, operation), unknown)


class Service:
    """One process of Remora: `open`, then `listen`, then `wait`; `close` at the end, whatever happened."""

    def __init__(self, settings: Settings, clock: Clock, randomness: Randomness) -> None:
        self.settings = settings
        self.clock = clock
        self.randomness = randomness
        self.metrics = Metrics()
        self.url = ""  # where it listens
        self.admin_key: str | None = None  # in the clear, only when one was made just now
        self.admin_key_path: Path | None = None
        self.registry: Registry
        self._undo = contextlib.AsyncExitStack()
        self._listener: Listener
        self._socket: socket.socket
        self._base: Base
        self._stages: Stages
        self._ticker: Ticker
        self._refiller: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, settings: Settings, *, clock: Clock | None = None, randomness: Randomness | None = None
    ) -> Self:
        """Take the port and the database, read the cards, and wire everything; nothing is served yet.

        Raises:
            SettingsInvalid: Something that the settings name cannot be used.
            CardInvalid: A card is wrong.
            StoreUnavailable: Another process has the database.
            OSError: The port cannot be had.
        """
        service = cls(settings, clock or SystemClock(), randomness or SystemRandomness())
        try:
            await service._open()
        except BaseException:
            await service._undo.aclose()
            raise
        return service

    async def _open(self) -> None:
        settings, clock, randomness = self.settings, self.clock, self.randomness
        path = settings.sqlite_path
        if path is None:
            message = "REMORA_DATABASE_URL: PostgreSQL is not served by this version; use sqlite:///path"
            raise SettingsInvalid([message])
        self._listener = Listener(self._answer, settings.host, settings.port)
        self._socket = self._listener.bind()
        self._undo.callback(self._socket.close)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
        store = await open_store(path, secret_key, clock, randomness, self.metrics)
        self._undo.push_async_callback(store.close)
        egress = Door(allow=settings.egress_allow, clock=clock)
        await egress.start()
        self._undo.push_async_callback(egress.close)
        keys = Keys(store.reader, store.writer, clock)
        self._undo.push_async_callback(keys.close)
        self.registry = Registry.load(settings.providers, settings.cards_dir, egress, clock)
        self._base = Base(
            settings=settings,
            clock=clock,
            randomness=randomness,
            ids=Ids(clock, randomness),
            metrics=self.metrics,
            store=store,
            egress=egress,
            registry=self.registry,
            links=ResultLinks(store.box.derive("results"), settings.public_url or self.url),
            keys=keys,
            owner=randomness.bytes(8).hex(),
        )
        self._stages = wire(self._base)
        self._ticker = Ticker(self._stages.duties, clock)
        for register in (claims.register, accounts.register, bootstrap.register):
            register(store.writer)
        store.writer.start()
        await self._ensure_admin(store, path)
        self._app = create_api(self._context())

    async def _ensure_admin(self, store: Store, path: Path) -> None:
        given = self.settings.admin_key
        admin = await bootstrap.ensure_default(
            writer=store.writer,
            reader=store.reader,
            box=store.box,
            ids=self._base.ids,
            randomness=self.randomness,
            database=path,
            given=given.get_secret_value() if given else None,
        )
        self.admin_key = admin.text if given is None else None
        self.admin_key_path = admin.path

    def _context(self) -> Context:
        base, stages = self._base, self._stages
        return Context(
            settings=base.settings,
            clock=base.clock,
            randomness=base.randomness,
            ids=base.ids,
            reader=base.store.reader,
            writer=base.store.writer,
            box=base.store.box,
            keys=base.keys,
            registry=base.registry,
            egress=base.egress,
            intake=stages.intake,
            canceller=stages.canceller,
            breakers=stages.breakers,
            waiters=stages.waiters,
            links=base.links,
            receiver=stages.inbox,
            metrics=base.metrics,
            not_ready=self._not_ready,
            draining=self._listener.draining.is_set,
            open_metrics=_is_loopback(base.settings.host),
        )

    async def _answer(self, scope: object, receive: object, send: object) -> None:
        """The application, which exists only after the port was taken."""
        await self._app(scope, receive, send)

    async def _not_ready(self) -> list[str]:
        reasons = []
        if self._listener.draining.is_set():
            reasons.append("the service is stopping")
        try:
            await self._base.store.reader.row("SELECT 1 FROM jobs LIMIT 1")
        except Exception as error:  # whatever the store says, this question is answered
            reasons.append(f"the store does not answer: {error}")
        if self._base.store.writer.failed.done():
            reasons.append("the store failed")
        if not self._ticker.alive():
            reasons.append("the scheduler does not tick")
        return reasons

    async def listen(self) -> None:
        """Take up what an earlier process left, start all loops, and accept connections."""
        base, stages = self._base, self._stages
        left = await base.store.writer.run(claims.VoidLeases())
        stages.tracker.learn_from(await queries.recently_finished(base.store.reader, REMEMBERED_JOBS))
        await stages.sender.start()
        if left:
            _log.info("leases_voided", jobs=left)
        self._ticker.start()
        self._refiller = asyncio.create_task(stages.rescuer.refill_forever(), name="submit-refiller")
        # What was made up to here stays for good: without this every full collection walks through all of it (some
        # hundred thousand objects, tens of milliseconds), and the default of 700 new objects collects all the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await self._listener.start_on(self._socket)

    async def wait(self) -> int:
        """Serve until a signal comes or the store fails; returns the exit status."""
        self._listener.catch_signals()
        failed = self._base.store.writer.failed
        failed.add_done_callback(lambda _: self._listener.begin_drain())
        await self._listener.draining.wait()
        self._stages.waiters.release_all()
        await self._listener.stopped()
        return FAILED_STATUS if failed.done() else 0

    async def close(self) -> None:
        """Stop accepting, let what is out come back, and close everything; safe to call at any moment after `open`."""
        stages = self._stages
        self._listener.begin_drain()
        stages.waiters.release_all()
        await self._listener.stopped()
        await self._ticker.stop()
        if self._refiller is not None:
            self._refiller.cancel()
            await asyncio.gather(self._refiller, return_exceptions=True)
        await asyncio.gather(
            stages.submit_hand.drain(DRAIN_S), stages.fetch_hand.drain(DRAIN_S), stages.sender.drain(DRAIN_S)
        )
        await self._undo.aclose()


def _is_loopback(host: str) -> bool:
    return host in {"127.0.0.1", "::1", "localhost"}
