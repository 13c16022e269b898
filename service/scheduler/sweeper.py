"""Announces the end of results, lets our copies go when it comes, and finds files that no row knows.

A file that cannot be removed while the storage answers is left for an hour, by itself: what lies behind it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from service.clock import Clock
from service.db.reader import Reader
from service.db.writer import Writer
from service.errors import StorageUnavailable
from service.jobs.view import ERASED
from service.results import queries
from service.results.queries import Due, DueInput
from service.results.storage import Kept, Storage, owner_of, thumb_key
from service.results.store import DropInputs, MarkSwept

BATCH: Final = 200  # results of one sweep; the next tick goes on
PAUSE_S: Final = 60.0  # after our storage failed
STRANGER_AGE_MS: Final = 86_400_000  # a file without a row may be on its way for a while
STRANGERS_EVERY_S: Final = 21_600.0  # between two looks through all files
AWAY_MS: Final = 3_600_000  # until a file in another storage, or one that could not be removed, is looked for again
STRANGERS_FIRST_S: Final = 60.0  # after a start: a process that never lives for hours finds them too

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts files that cannot be removed (telemetry)."""

    def files_not_removed(self, count: int) -> None:
        """The storage answers, and would not remove so many files of one sweep."""


@dataclass(slots=True)
class Sweeper:
    """Sweeps in batches; what is due lives in the store, and a file goes before its row says so, so that a crash loses nothing."""

    writer: Writer
    reader: Reader
    storage: Storage | None
    clock: Clock
    observer: Observer
    erased: Callable[[], None]  # something was: what still holds it must go
    _paused_until: float = 0.0
    _told_away: bool = False

    async def run_once(self) -> int:
        """Sweep once; returns how many results were looked at."""
        if self.clock.monotonic() < self._paused_until:
            return 0
        now_ms = self.clock.now_ms()
        due = await queries.due_for_sweep(self.reader, now_ms, BATCH)
        inputs = await queries.inputs_for_sweep(self.reader, now_ms, BATCH)
        try:
            # Both, whatever becomes of the one: the same rows come first again at the next tick.
            ends = await asyncio.gather(self._sweep(due, now_ms), self._drop(inputs), return_exceptions=True)
            for error in ends:
                if error is not None:
                    raise error
        except StorageUnavailable as error:
            self._paused_until = self.clock.monotonic() + PAUSE_S
            _log.warning("sweep_postponed", error=str(error))
        return len(due) + len(inputs)

    async def erase(self, job_id: str) -> None:
        """Remove an erased job's files now; what fails is swept later."""
        now_ms = self.clock.now_ms()
        self.erased()
        try:
            await self._sweep(await queries.of_job_for_sweep(self.reader, job_id, now_ms), now_ms)
            await self._drop(await queries.inputs_of_job(self.reader, job_id))
        except StorageUnavailable as error:
            _log.warning("erasure_postponed", job=job_id, error=str(error))

    async def find_strangers(self) -> int:
        """Remove files that no row knows, older than a day; returns how many."""
        if self.storage is None:
            return 0
        found = 0
        try:
            if not await self.storage.is_ours():  # the rows of its files are in another database
                _log.error("storage_of_another_installation")
                return 0
            async for some in self.storage.listing():
                found += await self._remove_strangers(some)
        except StorageUnavailable as error:  # the next look begins anew
            _log.warning("storage_not_looked_through", error=str(error))
        return found

    async def _sweep(self, due: Sequence[Due], now_ms: int) -> None:
        gone = [each for each in due if each.error == ERASED or each.expires_at <= now_ms]
        away = await self._away(gone)
        files: dict[str, list[str]] = {}
        for each in gone:
            if each.storage_key and each.storage_key not in away:
                files.setdefault(each.job_id, []).extend((each.storage_key, thumb_key(each.storage_key)))
        left = await self._remove(files, {each.job_id for each in due if each.error == ERASED})
        later = {each for each in gone if each.storage_key in away or each.job_id in left}
        marks = [
            MarkSwept(each.job_id, each.index, each in gone, now_ms + AWAY_MS if each in later else None)
            for each in due
        ]
        # All at once, so that the writer takes them as one set.
        await asyncio.gather(*(self.writer.run(mark) for mark in marks))

    async def _drop(self, inputs: Sequence[DueInput]) -> None:
        if not inputs:
            return
        away = await self._away(inputs)
        here = {each.job_id: [each.storage_key] for each in inputs if each.storage_key not in away}
        left = await self._remove(here)
        gone = tuple(job_id for job_id in here if job_id not in left)
        others = tuple(each.job_id for each in inputs if each.storage_key in away or each.job_id in left)
        await self.writer.run(DropInputs(gone, others, self.clock.now_ms() + AWAY_MS))

    async def _remove(self, files: Mapping[str, Sequence[str]], erased: Iterable[str] = ()) -> set[str]:
        """Remove files, by job, and of erased jobs whatever there is.

        Returns:
            Jobs of which something is left, though the storage answers.

        Raises:
            StorageUnavailable: It does not answer.
        """
        if self.storage is None:
            return set()
        try:
            await self._remove_all(self.storage, files, erased)
        except StorageUnavailable:  # one file, or the storage as a whole: job by job it shows
            pass
        else:
            return set()
        left: dict[str, str] = {}
        erased = set(erased)
        for job_id in {*files, *erased}:
            try:
                await self._remove_all(self.storage, {job_id: files.get(job_id, ())}, erased & {job_id})
            except StorageUnavailable as error:
                await self.storage.is_ours()  # raises where nothing at all can be removed
                left[job_id] = str(error)
        if left:
            job_id, error_text = min(left.items())
            self.observer.files_not_removed(len(left))
            _log.warning("files_not_removed", jobs=len(left), job=job_id, error=error_text)
        return set(left)

    @staticmethod
    async def _remove_all(storage: Storage, files: Mapping[str, Sequence[str]], erased: Iterable[str]) -> None:
        keys = [key for some in files.values() for key in some]
        for job_id in erased:
            keys += await storage.of_job(job_id)
        if keys:
            await storage.delete(keys)

    async def _away(self, files: Sequence[Due | DueInput]) -> set[str]:
        """The keys of files that lie in a storage which is not the one of the setting: nobody can remove these now.

        A directory that was moved has another name and the same files, so that a file is looked for where the name differs.
        """
        away: set[str] = set()
        for each in files:
            key, place = each.storage_key, each.storage_place
            if key is None or (self.storage is not None and place in {None, self.storage.place}):
                continue
            if self.storage is None or key not in await self.storage.of_job(each.job_id):
                away.add(key)
        if away and not self._told_away:
            self._told_away = True
            _log.warning("files_in_another_storage", hint="they are removed once REMORA_STORAGE_URL names it again")
        return away

    async def _remove_strangers(self, some: Sequence[Kept]) -> int:
        # Files bear the machine's time: a clock that was stepped must not make those on their way look old.
        before = min(self.clock.now_ms(), self.clock.wall_ms()) - STRANGER_AGE_MS
        old = [each.key for each in some if each.modified_ms < before]
        strangers = await queries.strangers(self.reader, old) if old else []
        by_job: dict[str, list[str]] = {}
        for key in strangers:
            owner = owner_of(key)
            by_job.setdefault(owner[0] if owner else "", []).append(key)
        left = await self._remove(by_job)
        removed = sum(len(keys) for job_id, keys in by_job.items() if job_id not in left)
        if removed:
            _log.info("files_without_rows_removed", files=removed)
        return removed
