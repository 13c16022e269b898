"""Announces the end of results, lets our copies go when it comes, and finds files that no row knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from service.clock import Clock
from service.db.reader import Reader
from service.db.writer import Writer
from service.errors import StorageUnavailable
from service.jobs.view import ERASED
from service.results import queries
from service.results.queries import Due, DueInput
from service.results.storage import Kept, Storage, thumb_key
from service.results.store import DropInputs, MarkSwept

BATCH: Final = 200  # results of one sweep; the next tick goes on
PAUSE_S: Final = 60.0  # after our storage failed
STRANGER_AGE_MS: Final = 86_400_000  # a file without a row may be on its way for a while
STRANGERS_EVERY_S: Final = 21_600.0  # between two looks through all files
AWAY_MS: Final = 3_600_000  # until a file in another storage is looked for again
LOG_RETRY_S: Final = 5.0  # while somebody reads from the log
STRANGERS_FIRST_S: Final = 60.0  # after a start: a process that never lives for hours finds them too

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Sweeper:
    """Sweeps in batches; what is due lives in the store, and a file goes before its row says so, so that a crash loses nothing."""

    writer: Writer
    reader: Reader
    storage: Storage | None
    clock: Clock
    _paused_until: float = 0.0
    _told_away: bool = False
    _log_due: float | None = 0.0  # monotonic, when the database's log is to be emptied; after a start nobody knows

    async def run_once(self) -> int:
        """Sweep once; returns how many results were looked at."""
        if self.clock.monotonic() < self._paused_until:
            return 0
        now_ms = self.clock.now_ms()
        due = await queries.due_for_sweep(self.reader, now_ms, BATCH)
        inputs = await queries.inputs_for_sweep(self.reader, now_ms, BATCH)
        try:
            await self._sweep(due, now_ms)
            await self._drop(inputs)
        except StorageUnavailable as error:
            self._paused_until = self.clock.monotonic() + PAUSE_S
            _log.warning("sweep_postponed", error=str(error))
        await self._empty_log()
        return len(due) + len(inputs)

    async def erase(self, job_id: str) -> None:
        """Remove an erased job's files now; what fails is swept later."""
        now_ms = self.clock.now_ms()
        self._log_due = self.clock.monotonic()
        try:
            await self._sweep(await queries.of_job_for_sweep(self.reader, job_id, now_ms), now_ms)
            await self._drop(await queries.inputs_of_job(self.reader, job_id))
        except StorageUnavailable as error:
            _log.warning("erasure_postponed", job=job_id, error=str(error))

    async def find_strangers(self) -> int:
        """Remove files that no row knows, older than a day; returns how many."""
        if self.storage is None:
            return 0
        if not await self.storage.is_ours():  # the rows of its files are in another database
            _log.error("storage_of_another_installation")
            return 0
        found = 0
        async for some in self.storage.listing():
            found += await self._remove_strangers(some)
        return found

    async def _empty_log(self) -> None:
        """Once after erasures: the log holds prompts until it is emptied."""
        if self._log_due is None or self.clock.monotonic() < self._log_due:
            return
        self._log_due = None  # an erasure that comes meanwhile asks again
        if not await self.writer.empty_log() and self._log_due is None:
            self._log_due = self.clock.monotonic() + LOG_RETRY_S

    async def _sweep(self, due: Sequence[Due], now_ms: int) -> None:
        gone = [each for each in due if each.error == ERASED or each.expires_at <= now_ms]
        away = await self._away(gone)
        held = [each.storage_key for each in gone if each.storage_key and each.storage_key not in away]
        keys = [key for each in held for key in (each, thumb_key(each))]
        if self.storage is not None:
            for job_id in {each.job_id for each in due if each.error == ERASED}:
                keys += await self.storage.of_job(job_id)
            if keys:
                await self.storage.delete(keys)
        again_at = now_ms + AWAY_MS
        marks = [
            MarkSwept(each.job_id, each.index, each in gone, again_at if each.storage_key in away else None)
            for each in due
        ]
        # All at once, so that the writer takes them as one set.
        await asyncio.gather(*(self.writer.run(mark) for mark in marks))

    async def _drop(self, inputs: Sequence[DueInput]) -> None:
        if not inputs:
            return
        away = await self._away(inputs)
        here = [each for each in inputs if each.storage_key not in away]
        if here and self.storage is not None:
            await self.storage.delete([each.storage_key for each in here])
        others = tuple(each.job_id for each in inputs if each.storage_key in away)
        await self.writer.run(DropInputs(tuple(each.job_id for each in here), others, self.clock.now_ms() + AWAY_MS))

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
        before = self.clock.now_ms() - STRANGER_AGE_MS
        old = [each.key for each in some if each.modified_ms < before]
        strangers = await queries.strangers(self.reader, old) if old else []
        if strangers and self.storage is not None:
            await self.storage.delete(strangers)
            _log.info("files_without_rows_removed", files=len(strangers))
        return len(strangers)
