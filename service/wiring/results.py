"""Wiring of what makes copies of results and lets them go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.db.sqlite.log_cutting import LogKeeper
from service.deliveries.retention.erasure_store import erase as erase_deliveries
from service.deliveries.retention.recalled import Recalled
from service.jobs.erase import Erase, Eraser, Follower
from service.jobs.track import Tracker
from service.providers.registry import Registry
from service.results.capture import Capturer
from service.results.captures import Captures
from service.results.download import Downloader
from service.results.store import Results
from service.results.store import erase as erase_results
from service.scheduler.capturer import CapturerDuty
from service.scheduler.duties import Duty
from service.scheduler.sweeper import STRANGERS_EVERY_S, STRANGERS_FIRST_S, Sweeper
from service.wiring.base import Base
from service.workers.fetch import Fetcher

SWEEP_S = 1.0  # of the duties that end what is over
TICK_S = 0.5  # of the duty that finds due work


@dataclass(frozen=True, slots=True)
class KeptResults:
    """Copies of results; `captures` None: none are made."""

    captures: Captures | None
    sweeper: Sweeper
    duties: list[Duty]


def captures(base: Base, fetcher: Fetcher) -> Captures | None:
    """What makes copies; None: nowhere to keep them, or no way to fetch them."""
    if base.storage is None or base.files is None:
        return None
    capturer = Capturer(
        downloader=Downloader(base.files, base.storage.spool, base.settings.result_max_bytes),
        storage=base.storage,
        writer=base.store.writer,
        reader=base.store.reader,
        clock=base.clock,
        randomness=base.randomness,
        ask=fetcher.files_of,
        observer=base.metrics,
    )
    lost = partial(base.metrics.captured, "lost", 0)
    return Captures(capturer.capture, base.clock, base.owner, _links_live_ms(base.registry), lost)


def keeping(
    base: Base, tracker: Tracker, made: Captures | None, recalled: Recalled, log: LogKeeper | None
) -> KeptResults:
    """The duties around copies, and erasing."""
    store = base.store
    Results(tracker, None if base.storage is None else base.storage.place).register(store.writer)
    followers: list[Follower] = [partial(erase_deliveries, recalled=recalled), erase_results]
    store.writer.handle(Erase, Eraser(tracker, followers).handle)
    sweeper = Sweeper(
        store.writer, store.reader, base.storage, base.clock, base.metrics, log.erased if log is not None else nothing
    )
    duties = [
        Duty("sweeper", SWEEP_S, sweeper.run_once),
        Duty("stranger-finder", STRANGERS_EVERY_S, sweeper.find_strangers, STRANGERS_FIRST_S),
    ]
    if log is not None:
        duties.append(Duty("log-keeper", SWEEP_S, log.run_once))
    if made is not None:
        duties.insert(0, Duty("capturer", TICK_S, CapturerDuty(store.writer, made, base.owner).run_once))
    return KeptResults(made, sweeper, duties)


def nothing() -> None:
    """What is to be done after an erasure about a log that is not ours."""


def _links_live_ms(registry: Registry) -> Callable[[str], int | None]:
    """How long a provider keeps its files, where its document says it."""
    lives = {
        provider.name: None if provider.retention_s is None else round(provider.retention_s * 1000)
        for provider in registry.all()
    }
    return lives.get
