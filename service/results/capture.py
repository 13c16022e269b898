"""Making our copy of one result: fetch it, put it away, record it; and what to do when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from service.clock import Clock, Randomness
from service.db.reader import Reader
from service.db.writer import Writer
from service.errors import StorageUnavailable, StoreUnavailable
from service.jobs.view import is_link, shown
from service.results import queries
from service.results.capture_claim_store import Capture
from service.results.captures import LEASE_MS
from service.results.download import TOTAL_S, Downloader, Fetched
from service.results.formats.sniff import ENDINGS
from service.results.retry import STORAGE, Missed, after, counted
from service.results.storage import Storage, result_key
from service.results.store import RecordCopy, RecordMiss
from service.telemetry import SparingLog

STORE_TRIES: Final = 20  # for a row whose file is in its place; then the lease runs out and it is fetched again
STORE_RETRY_S: Final = 2.0  # seconds between tries to record a copy

#: Asks a provider for a job's files again: provider, operation, task, address. None: nothing was learnt now; an empty
#: answer: it cannot be asked, or has none. As `Observation.results`.
Asker = Callable[[str, str, str | None, str | None], Awaitable[tuple[str | None, ...] | None]]


class Observer(Protocol):
    """Who counts captures (telemetry)."""

    def captured(self, outcome: str, size_bytes: int) -> None:
        """A capture ended: `stored`, `retried` or `lost`."""


@dataclass(slots=True)
class Capturer:
    """Makes copies; one for a process."""

    downloader: Downloader
    storage: Storage
    writer: Writer
    reader: Reader
    clock: Clock
    randomness: Randomness
    ask: Asker
    observer: Observer
    _lines: SparingLog = field(init=False)

    def __post_init__(self) -> None:
        """Made from what was given."""
        self._lines = SparingLog(__name__, self.clock)

    async def capture(self, capture: Capture) -> bool | None:
        """Fetch one result that this process holds; False: our own storage failed; None: it was not tried."""
        if self.clock.now_ms() > capture.lease_until - LEASE_MS // 6 - round(TOTAL_S * 1000):
            # It waited too long in the queue: somebody else may have it by the time it is there.
            await self._give_back(capture)
            return None
        url = capture.url or await queries.source_url(self.reader, capture.job_id, capture.index)
        try:
            fetched = await self.downloader.get(url)
            if isinstance(fetched, Fetched):
                await self._keep(capture, fetched, url)
                return True
        except StorageUnavailable as error:
            self._lines.say("warning", "storage_unavailable", error=str(error))
            await self._miss(capture, Missed(STORAGE))
            return False
        await self._miss(capture, fetched)
        return True

    async def _keep(self, capture: Capture, fetched: Fetched, url: str) -> None:
        look = fetched.look
        # The picture in a data: URL is in its place then; a digest of one takes long.
        source_url = url if is_link(url) else await asyncio.to_thread(shown, url)
        key = result_key(capture.job_id, capture.index, capture.epoch, ENDINGS[look.content_type])
        try:
            await self.storage.put(key, fetched.file, look.content_type)
        finally:
            if isinstance(fetched.file, Path):
                await asyncio.to_thread(fetched.file.unlink, missing_ok=True)
        record = RecordCopy(
            job_id=capture.job_id,
            index=capture.index,
            epoch=capture.epoch,
            storage_key=key,
            content_type=look.content_type,
            size_bytes=fetched.size_bytes,
            sha256=fetched.sha256,
            width=look.width,
            height=look.height,
            source_url=source_url,
        )
        if await self._record(record) is False:
            await self.storage.delete([key])  # erased, expired, or somebody else's meanwhile
            return
        self.observer.captured("stored", fetched.size_bytes)

    async def _miss(self, capture: Capture, missed: Missed) -> None:
        now_ms = self.clock.now_ms()
        tries, refused = counted(missed, capture.tries, capture.dead_tries)
        refreshed, fresh = capture.refreshed, None
        if missed.dead and not refreshed:
            refreshed, fresh = await self._refreshed(capture)
        if fresh is not None:
            record = RecordMiss(capture.job_id, capture.index, capture.epoch, now_ms, None, tries, 0, True, fresh)
        else:
            ends_ms = min(capture.link_dies_at or capture.expires_at, capture.expires_at)
            then = after(missed, tries, refused, now_ms, ends_ms, self.randomness)
            record = RecordMiss(
                capture.job_id, capture.index, capture.epoch, then.due_at, then.error, tries, refused, refreshed
            )
        lost = record.due_at is None
        self.observer.captured("lost" if lost else "retried", 0)
        self._lines.say(
            "warning" if lost else "info",
            "result_lost" if lost else "result_not_fetched",
            job=capture.job_id,
            index=capture.index,
            reason=missed.reason,
            tries=tries,
        )
        await self._record(record)

    async def _give_back(self, capture: Capture) -> None:
        now_ms, tries, dead_tries = self.clock.now_ms(), capture.tries, capture.dead_tries
        await self._record(
            RecordMiss(capture.job_id, capture.index, capture.epoch, now_ms, None, tries, dead_tries, capture.refreshed)
        )

    async def _refreshed(self, capture: Capture) -> tuple[bool, str | None]:
        """Whether the provider was asked for a fresh link, and the link where it is another one."""
        urls = await self.ask(capture.provider, capture.operation, capture.task_id, capture.poll_url)
        if urls is None:
            return False, None
        known = capture.url or await queries.source_url(self.reader, capture.job_id, capture.index)
        fresh = urls[capture.index] if capture.index < len(urls) else None
        return True, None if fresh == known else fresh

    async def _record(self, record: RecordCopy | RecordMiss) -> bool | None:
        """Write it as soon as the store takes it; None: it never did."""
        for _ in range(STORE_TRIES):
            try:
                return await self.writer.run(record)
            except StoreUnavailable:
                if self.writer.closed:
                    return None
            await self.clock.sleep(STORE_RETRY_S)
        return None
