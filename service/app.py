"""The composition root: the only place where objects are wired, started and drained."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
from ipaddress import ip_address
from pathlib import Path
from tempfile import gettempdir
from typing import Self

import structlog

from service.accounts import bootstrap
from service.accounts.keys import Keys
from service.api.answers.pages import LongPages
from service.api.answers.sealed_cursor import SealedCursors
from service.api.context import (
    AccountAccess,
    Context,
    EventAccess,
    JobAccess,
    ProviderAccess,
    RequestMemory,
    ResultAccess,
    ServiceState,
)
from service.api.listening.admission import ConnectionLimits
from service.api.listening.buffers import AnswerBuffers, Bodies
from service.api.listening.listener import Listener
from service.api.requests.prefix import BelowPrefix, prefix_of
from service.api.server import ROOTS, create_api
from service.clock import Clock, Randomness, SystemClock, SystemRandomness
from service.db import pullback
from service.db.keyring import installation
from service.db.opening import Store, hold, open_store
from service.db.readiness import PROBE_S, Readiness
from service.db.sqlite.file_lock import DatabaseLock
from service.deliveries.lanes.quota import SOCKETS
from service.deliveries.replays.replay import Replays
from service.deliveries.subscribing.subscribe import Subscribe
from service.egress.door import Door
from service.events.feed import MAX_FOLLOWERS
from service.events.feed_queries import plain_until
from service.ids import Ids
from service.jobs import queries
from service.jobs.listing.counts import JobCounts
from service.providers.registry import Registry
from service.results.buckets import open_storage
from service.results.capture_claim_store import VoidCaptures
from service.results.links import ResultLinks
from service.results.thumbnails import Thumbnails
from service.scheduler.duties import Duty, Ticker
from service.settings import Settings
from service.stopping import Stopping, drain_s
from service.telemetry import Metrics
from service.wiring.base import Base
from service.wiring.stages import Stages, wire
from service.workers import job_claim_store
from service.workers.job_claim_store import VoidLeases

REMEMBERED_JOBS = 1_000  # finished ones whose durations are looked at when the service starts
GC_THRESHOLDS = (20_000, 20, 50)  # new objects before a young collection; young ones before the next two
MOST_FILES = 65_536  # asked for where the hard limit is infinite
OTHER_FILES = 512  # open files that are no deliveries
FAILED_STATUS = 70  # the exit status after the store failed (EX_SOFTWARE)

_log = structlog.get_logger(__name__)


class Service:
    """One process of Remora: `open`, then `listen`, then `wait`; `close` at the end, whatever happened. `stopping` says when."""

    def __init__(self, settings: Settings, clock: Clock, randomness: Randomness) -> None:
        self.settings = settings
        self.clock = clock
        self.randomness = randomness
        self.metrics = Metrics()
        self.url = ""  # where it listens
        self.base_url = ""  # where callers reach it, as far as anybody knows
        self.owner = randomness.bytes(8).hex()  # the name of this process on leases
        self.admin_key: str | None = None  # in the clear, only when one was made just now
        self.admin_key_path: Path | None = None
        self.new_database = False  # there was none before
        self.registry: Registry
        self._undo = contextlib.AsyncExitStack()
        self._listener: Listener
        self._socket: socket.socket
        self._base: Base
        self._stages: Stages
        self._ticker: Ticker
        self._readiness: Readiness
        self.stopping: Stopping

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        listening: socket.socket | None = None,
    ) -> Self:
        """Take the port and the database, read the cards, and wire everything; nothing is served yet.

        Args:
            settings: Of this process.
            clock: The time; None: the machine's.
            randomness: None: the machine's.
            listening: A socket that was handed over, to be served on; None: the settings name the address.

        Raises:
            SettingsInvalid: Something that the settings name cannot be used.
            CardInvalid: A card is wrong.
            StoreUnavailable: Another process has the database.
            OSError: The port cannot be had.
        """
        service = cls(settings, clock or SystemClock(), randomness or SystemRandomness())
        try:
            await service._open(listening)
        except BaseException:
            await service._undo.aclose()
            raise
        return service

    async def _open(self, listening: socket.socket | None) -> None:
        settings, clock, randomness = self.settings, self.clock, self.randomness
        path = settings.sqlite_path
        lock = None
        if path is not None:  # before the port: if both are taken, the database is what matters
            lock = await asyncio.to_thread(hold, path)
            self._undo.callback(lock.release)
        self._take_port(listening)
        store = await self._open_store(lock)
        self._readiness = Readiness(store.writer, clock)
        self.new_database = store.fresh
        self._undo.push_async_callback(store.close)
        egress = Door(allow=settings.egress_allow, clock=clock)
        await egress.start()
        self._undo.push_async_callback(egress.close)
        whose = await installation(store.reader)
        storage = await asyncio.to_thread(open_storage, settings.storage_url, self._spool(path), whose)
        keys = Keys(store.reader, store.writer, clock, limit=settings.max_keys)
        self._undo.push_async_callback(keys.close)
        self.registry = Registry.load(
            settings.providers, settings.cards_dir, egress, clock, price_ceiling=settings.price_ceiling
        )
        self._base = Base(
            settings=settings,
            clock=clock,
            randomness=randomness,
            ids=Ids(clock, randomness),
            metrics=self.metrics,
            store=store,
            egress=egress,
            registry=self.registry,
            links=ResultLinks(store.box.derive("results"), self.base_url, certain=settings.public_url is not None),
            keys=keys,
            owner=self.owner,
            storage=storage,
            files=egress,
            sockets=_sockets(),
        )
        self._stages = wire(self._base)
        # Streams stay open: with few descriptors they must leave connections for everything else.
        self._stages.hub.limit = min(MAX_FOLLOWERS, self._listener.max_connections // 2)
        looks = Duty("store-check", PROBE_S, self._readiness.run_once)
        self._ticker = Ticker([*self._stages.duties, looks], clock, self.metrics)
        self.stopping = Stopping(
            self._listener,
            self._stages,
            self._ticker,
            drain_s=drain_s(settings, self.registry),
            delivery_s=settings.delivery_timeout.total_seconds(),
            port_stays=listening is not None,
        )
        for register in (job_claim_store.register, bootstrap.register, pullback.register):
            register(store.writer)
        store.writer.start()
        await self._ensure_admin(store)
        cursors = SealedCursors(store.box, await plain_until(store.reader))
        self._app = create_api(self._context(cursors))
        prefix = prefix_of(settings.public_url)
        self._entry = BelowPrefix(self._app, prefix, ROOTS) if prefix else self._app

    def _spool(self, database: Path | None) -> Path:
        """Where files on their way to a bucket are written."""
        if database is not None:
            return database.with_name(database.name + ".spool")
        return Path(gettempdir()) / f"remora-{self.owner}.spool"

    def _take_port(self, listening: socket.socket | None) -> None:
        settings = self.settings
        limits = ConnectionLimits(
            settings.max_connections, settings.max_connections_per_peer, settings.write_timeout.total_seconds()
        )
        self._listener = Listener(self._answer, settings.host, settings.port, limits)
        self._socket = listening or self._listener.bind()
        self._undo.callback(self._socket.close)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        # All addresses are none: a link that says 0.0.0.0 leads nowhere, one that says localhost at least on this machine.
        self.base_url = settings.public_url or (f"http://localhost:{port}" if is_wildcard(host) else self.url)

    async def _open_store(self, lock: DatabaseLock | None) -> Store:
        settings = self.settings
        secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
        if settings.sqlite_path is None:
            from service.db.postgres import pg_opening  # noqa: PLC0415 - its driver is there only where it is asked for

            read_timeout_s = settings.read_timeout.total_seconds()
            return await pg_opening.open_store(
                settings.database_url,
                secret_key or "",
                self.clock,
                self.randomness,
                self.metrics,
                read_timeout_s=read_timeout_s,
            )
        return await open_store(
            settings.sqlite_path,
            secret_key,
            self.clock,
            self.randomness,
            self.metrics,
            lock=lock,
            read_timeout_s=settings.read_timeout.total_seconds(),
            busy_timeout_ms=max(1, round(settings.busy_timeout.total_seconds() * 1000)),
            log_max=settings.wal_max,
        )

    async def _ensure_admin(self, store: Store) -> None:
        given = self.settings.admin_key
        admin = await bootstrap.ensure_default(
            writer=store.writer,
            reader=store.reader,
            box=store.box,
            ids=self._base.ids,
            randomness=self.randomness,
            database=self.settings.sqlite_path,
            given=given.get_secret_value() if given else None,
        )
        self.admin_key = admin.text if given is None else None
        self.admin_key_path = admin.path

    def _context(self, cursors: SealedCursors) -> Context:
        base, stages = self._base, self._stages
        reader, writer, box = base.store.pages, base.store.writer, base.store.box
        figures = stages.sender.figures
        return Context(
            settings=base.settings,
            clock=base.clock,
            randomness=base.randomness,
            reader=reader,
            writer=writer,
            jobs=JobAccess(
                stages.intake,
                stages.canceller,
                stages.waiters,
                JobCounts(reader, base.clock),
                stages.keeping.sweeper.erase,
            ),
            providers=ProviderAccess(base.registry, stages.breakers, stages.tracker.tasks.count),
            accounts=AccountAccess(base.keys, box, base.ids),
            subscriptions=Subscribe(
                writer, reader, base.egress, box, base.ids, base.randomness, base.clock, figures.standing
            ),
            replays=Replays(writer, reader, base.ids, base.clock),
            figures=figures,
            events=EventAccess(stages.hub, cursors),
            results=ResultAccess(
                base.links, base.egress, base.storage, Thumbnails(base.storage) if base.storage else None
            ),
            receiver=stages.inbox,
            memory=RequestMemory(
                Bodies(base.settings.body_memory),
                AnswerBuffers(base.settings.body_memory // 4),
                LongPages(base.clock, self.stopping.asked.is_set),
            ),
            state=ServiceState(
                base.metrics,
                self._not_ready,
                self._listener.draining.is_set,
                _is_loopback(self._socket.getsockname()[0]),
            ),
        )

    async def _answer(self, scope: object, receive: object, send: object) -> None:
        """The application, which exists only after the port was taken."""
        await self._entry(scope, receive, send)

    async def _not_ready(self) -> list[str]:
        reasons = []
        if self.stopping.asked.is_set():
            reasons.append("the service is stopping")
        try:
            await queries.any_job(self._base.store.reader)
        except Exception as error:  # whatever the store says, this question is answered
            reasons.append(f"the store does not answer: {error}")
        if trouble := await self._readiness.trouble():
            reasons.append(trouble)
        if not self._ticker.alive():
            reasons.append("the scheduler does not tick")
        return reasons

    async def listen(self) -> None:
        """Take up what an earlier process left, start all loops, and accept connections."""
        base, stages = self._base, self._stages
        left = await base.store.writer.void(VoidLeases(), 0)
        await base.store.writer.void(VoidCaptures(), 0)
        self.clock.seen(await base.store.writer.run(pullback.PullBack()))
        recent = await queries.recently_finished(base.store.reader, REMEMBERED_JOBS)
        stages.tracker.learn_from(recent)
        stages.submits.pool.note(recent)
        stages.tracker.tasks.load(await queries.at_providers(base.store.reader))
        waited_for = await queries.active_providers(base.store.reader)
        await stages.sender.start()
        if left:
            _log.info("leases_voided", jobs=left)
        self._ticker.start()
        for dispatcher in (stages.submits, stages.polls):
            dispatcher.look_for(waited_for)
            task = asyncio.create_task(dispatcher.run_forever(), name=f"{dispatcher.pool.kind}-dispatcher")
            self.stopping.loops.append(task)
        # What was made up to here stays for good: without this every full collection walks through all of it (some
        # hundred thousand objects, tens of milliseconds), and the default of 700 new objects collects all the time.
        # It is not collected before: of these objects three in a hundred are garbage.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()  # `serve` imports and starts without it
        await self._listener.start_on(self._socket)

    async def wait(self) -> int:
        """Serve until it is to stop or the store fails, and come to the end; returns the exit status."""
        failed = self._base.store.writer.failed
        failed.add_done_callback(lambda _: self.stopping.hasten("the store failed"))
        await self.stopping.asked.wait()
        await self.stopping.done()
        return FAILED_STATUS if failed.done() else 0

    def successor_socket(self) -> socket.socket | None:
        """The listening socket, to outlive this service; None: nobody asked for a restart, or the store failed."""
        failed = self._base.store.writer.failed.done()
        return self._socket.dup() if self.stopping.restarts and not failed else None

    async def close(self) -> None:
        """Stop accepting, let what is out come back, and close everything; safe to call at any moment after `open`."""
        try:
            await self.stopping.done()
        finally:
            await self._undo.aclose()


def _sockets() -> int:
    """How many deliveries may be out at once, given the open files that this process may have, raised to the hard limit.

    Half as many again are kept for destinations that have nothing out, and the rest is for callers, providers and files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, MOST_FILES)
    with contextlib.suppress(ValueError, OSError):  # a system with a limit of its own below the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        soft = hard
    return max(16, min(SOCKETS, (soft - OTHER_FILES) * 2 // 3))


def is_wildcard(host: str) -> bool:
    """Whether it stands for all addresses of this machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return host in {"127.0.0.1", "::1", "localhost"}
