"""The SQL that writes what becomes of results: claims of captures, copies, misses, expiry. The job's events are the tracker's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.db.leases import RELEASED, STILL_HELD, VOID, Leased, free
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.jobs.track import Tracker
from service.jobs.transitions.facts import ResultHappened
from service.jobs.view import ERASED, RESULT_COLUMNS, ResultRow
from service.results.retry import GONE

LONG_URL: int = 16_384  # a longer one (a picture in a data: URL) is read when its turn comes, not kept in memory
EXPIRING_MS: int = 24 * 3_600_000  # before the end, when it is announced
_HOST_CHARS = 300  # of a URL, in which its host ends
_AFTER_HOST = re.compile(r"[/?#]")
_LOOKS = 4  # of one claim: each passes over the hosts that the one before filled


@dataclass(frozen=True, slots=True)
class Capture:
    """A result that this process is to fetch; `url` is empty where it is too long to wait in memory."""

    job_id: str
    index: int
    url: str
    provider: str
    operation: str
    task_id: str | None
    poll_url: str | None
    expires_at: int
    link_dies_at: int | None
    epoch: int
    lease_until: int
    tries: int = 0  # failures of the host's
    dead_tries: int = (
        0  # of those the last ones in a row, so many refused the file: the link is dead, or the file is wrong
    )
    refreshed: bool = False
    host: str = ""  # as `host_of`, also where the URL is too long


def host_of(url: str) -> str:
    """Where a file is fetched from, so that one slow host is told from others; empty for a `data:` URL. As `_CLAIM` sees it."""
    host = _AFTER_HOST.split(url[:_HOST_CHARS].partition("://")[2], maxsplit=1)[0]
    return host.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")  # ASCII letters only


@dataclass(frozen=True, slots=True)
class ClaimCaptures(Command[list[Capture]]):
    """Claim results to fetch, those first whose links die first; of each host no more than `per_host` with what waits."""

    owner: str
    lease_ms: int
    count: int
    per_host: int
    waiting: tuple[tuple[str, int], ...] = ()  # hosts with what this process has in its queue

    def lock(self) -> Hashable | None:
        """Two claims never share a batch: each must see what the other took."""
        return "claim"


@dataclass(frozen=True, slots=True)
class RecordCopy(Command[bool]):
    """A file is in its place; False: the result is somebody else's by now, and the file is to go."""

    job_id: str
    index: int
    epoch: int
    storage_key: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    source_url: str  # as it stands in the row from now on


@dataclass(frozen=True, slots=True)
class RecordMiss(Command[bool]):
    """A try brought nothing; `due_at` None: it is given up, and `error` says why."""

    job_id: str
    index: int
    epoch: int
    due_at: int | None
    error: str | None = None
    tries: int = 0
    dead_tries: int = 0
    refreshed: bool = False
    source_url: str | None = None  # a fresh one


@dataclass(frozen=True, slots=True)
class MarkSwept(Command[None]):
    """A result's moment came: its end is near, or `gone`: its file is removed, or `again_at` it is to be tried again."""

    job_id: str
    index: int
    gone: bool
    again_at: int | None = None


@dataclass(frozen=True, slots=True)
class DropInputs(Command[None]):
    """The files of these jobs' inputs are removed; of the others it is to be tried again at that moment."""

    job_ids: tuple[str, ...]
    others: tuple[str, ...] = ()
    again_at: int = 0


@dataclass(frozen=True, slots=True)
class VoidCaptures(Command[int]):
    """Every lease is void when a process starts: on SQLite nobody else can hold one."""


_CLAIM = f"""
SELECT r.job_id, r.idx, CASE WHEN length(r.source_url) > {LONG_URL} THEN '' ELSE r.source_url END AS url, j.provider,
    j.operation, j.provider_task_id, j.poll_url, r.expires_at, r.link_dies_at, r.lease_epoch, r.tries, r.dead_tries,
    r.refreshed, substr(r.source_url, 1, {_HOST_CHARS}) AS start
FROM results r JOIN jobs j ON j.id = r.job_id
WHERE r.due_at <= :now AND {free("r")}
    AND NOT EXISTS (
        SELECT 1 FROM @set(:full) f
        WHERE lower(substr(r.source_url, @position(r.source_url, '://') + 3, length(f.value))) = f.value
            AND substr(r.source_url, @position(r.source_url, '://') + 3 + length(f.value), 1) IN ('/', '?', '#', '')
    )
ORDER BY r.link_dies_at NULLS FIRST LIMIT :count @skip_locked(r)
"""
_LEASED = Leased("results", ("job_id", "idx"), "due_at IS NOT NULL")
_OF_JOBS = f"""
SELECT job_id, {RESULT_COLUMNS}, storage_key, lease_epoch, due_at, sweep_at
FROM results WHERE job_id IN @set(:ids) ORDER BY job_id, idx
"""
_COPY = f"""
UPDATE results SET stored = TRUE, storage_key = :storage_key, storage_place = :storage_place,
    content_type = :content_type, size_bytes = :size_bytes, sha256 = :sha256, width = :width, height = :height,
    source_url = :source_url, error = NULL, due_at = NULL, {RELEASED}
WHERE job_id = :job_id AND idx = :idx AND {STILL_HELD} AND due_at IS NOT NULL
"""
_MISS = f"""
UPDATE results SET due_at = :due_at, error = :error, tries = :tries, dead_tries = :dead_tries, refreshed = :refreshed,
    source_url = coalesce(:source_url, source_url), {RELEASED}
WHERE job_id = :job_id AND idx = :idx AND {STILL_HELD} AND due_at IS NOT NULL
"""
_WARNED = "UPDATE results SET sweep_at = expires_at WHERE job_id = :job_id AND idx = :idx"
_GONE = f"""
UPDATE results SET stored = FALSE, storage_key = CASE WHEN @typed(:again, bigint) IS NULL THEN NULL ELSE storage_key END,
    error = CASE WHEN due_at IS NULL THEN error ELSE 'result_gone' END,
    sweep_at = :again, due_at = NULL, {VOID}
WHERE job_id = :job_id AND idx = :idx
"""
_VOID = f"""
UPDATE results SET {VOID} WHERE due_at IS NOT NULL AND lease_owner IS NOT NULL
RETURNING idx
"""
# What our copies held goes at once; the files themselves when the sweep comes by, which is now. A result that was ever
# claimed may have a file that no row knows.
_ERASE = f"""
UPDATE results SET stored = FALSE, source_url = '', error = :error, due_at = NULL, {VOID}, sweep_at = CASE WHEN storage_key IS NULL AND lease_epoch = 0 THEN NULL ELSE @typed(:now, bigint) END
WHERE job_id = :job_id
"""


async def erase(tx: Tx, job_ids: Sequence[str]) -> None:
    """Let go of the results of erased jobs; see `jobs.erase`."""
    tx.write(_ERASE, [{"job_id": job_id, "now": tx.now_ms, "error": ERASED} for job_id in job_ids])


@dataclass(slots=True)
class Results:
    """The handlers of this package's commands."""

    tracker: Tracker
    place: str | None = None  # of the storage, whose name rows keep with their keys

    def register(self, writer: Writer) -> None:
        """Tell the writer."""
        writer.handle(ClaimCaptures, self.claim)
        writer.handle(RecordCopy, self.copied)
        writer.handle(RecordMiss, self.missed)
        writer.handle(MarkSwept, self.swept)
        writer.handle(DropInputs, self.drop_inputs)
        writer.handle(VoidCaptures, self.void)

    async def claim(self, tx: Tx, commands: Sequence[ClaimCaptures]) -> list[list[Capture] | Exception]:
        """See `ClaimCaptures`."""
        [command] = commands
        found = await _claimable(tx, command)
        until = _LEASED.claim(tx, found, command.owner, command.lease_ms)
        return [[_capture(row, until) for row in found]]

    async def copied(self, tx: Tx, commands: Sequence[RecordCopy]) -> list[bool | Exception]:
        """See `RecordCopy`: the row, and the event, in one transaction."""
        rows = await _rows_of(tx, (command.job_id for command in commands))
        answers: list[bool | Exception] = []
        updates: list[Params] = []
        facts: list[ResultHappened] = []
        for command in commands:
            row = rows.get((command.job_id, command.index))
            if row is None or not _held(row, command.epoch) or row["expires_at"] <= tx.now_ms:
                answers.append(False)
                continue
            row |= {
                "stored": True,
                "due_at": None,
                "source_url": command.source_url,
                "content_type": command.content_type,
                "size_bytes": command.size_bytes,
                "sha256": command.sha256,
                "width": command.width,
                "height": command.height,
                "error": None,
            }
            updates.append({**_names(command), **row, "storage_key": command.storage_key, "storage_place": self.place})
            facts.append(_fact("result.stored", row, rows))
            answers.append(True)
        tx.write(_COPY, updates, expect=len(updates))
        await self._tell(tx, facts)
        return answers

    async def missed(self, tx: Tx, commands: Sequence[RecordMiss]) -> list[bool | Exception]:
        """See `RecordMiss`; what is given up is noted on the job's timeline."""
        rows = await _rows_of(tx, (command.job_id for command in commands))
        answers: list[bool | Exception] = []
        updates: list[Params] = []
        facts: list[ResultHappened] = []
        for command in commands:
            row = rows.get((command.job_id, command.index))
            if row is None or not _held(row, command.epoch):
                answers.append(False)
                continue
            row |= {"due_at": command.due_at, "error": command.error}
            updates.append(
                {
                    **_names(command),
                    "due_at": command.due_at,
                    "error": command.error,
                    "tries": command.tries,
                    "dead_tries": command.dead_tries,
                    "refreshed": command.refreshed,
                    "source_url": command.source_url,
                }
            )
            if command.due_at is None:
                facts.append(_fact("result.lost", row, rows))
            answers.append(True)
        tx.write(_MISS, updates, expect=len(updates))
        await self._tell(tx, facts)
        return answers

    async def swept(self, tx: Tx, commands: Sequence[MarkSwept]) -> list[Exception | None]:
        """See `MarkSwept`; an event for what was there, once: the row's `sweep_at` is the guard."""
        rows = await _rows_of(tx, (command.job_id for command in commands))
        facts: list[ResultHappened] = []
        for command in commands:
            row = rows.get((command.job_id, command.index))
            if row is None or row["sweep_at"] is None or (not command.gone and row["sweep_at"] >= row["expires_at"]):
                continue
            was_stored = bool(row["stored"])
            if command.gone and row["due_at"] is not None:  # it was never had
                row |= {"due_at": None, "error": GONE}
                facts.append(_fact("result.lost", row, rows))
            next_at = command.again_at if command.gone else row["expires_at"]
            row |= {"sweep_at": next_at, "stored": was_stored and not command.gone}
            names = {"job_id": command.job_id, "idx": command.index}
            if command.gone:
                tx.write(_GONE, [names | {"again": command.again_at}], expect=1)
            else:
                tx.write(_WARNED, [names], expect=1)
            if was_stored:
                facts.append(_fact("result.expired" if command.gone else "result.expiring", row, rows))
        await self._tell(tx, facts)
        return [None for _ in commands]

    async def drop_inputs(self, tx: Tx, commands: Sequence[DropInputs]) -> list[Exception | None]:
        """See `DropInputs`."""
        tx.write(
            "DELETE FROM inputs WHERE job_id = :job_id AND sweep_at IS NOT NULL",
            [{"job_id": job_id} for command in commands for job_id in command.job_ids],
        )
        tx.write(
            "UPDATE inputs SET sweep_at = :again WHERE job_id = :job_id AND sweep_at IS NOT NULL",
            [{"job_id": job_id, "again": command.again_at} for command in commands for job_id in command.others],
        )
        return [None for _ in commands]

    async def void(self, tx: Tx, commands: Sequence[VoidCaptures]) -> list[int | Exception]:
        """See `VoidCaptures`."""
        return [len(await tx.rows(_VOID, {})) for _ in commands]

    async def _tell(self, tx: Tx, facts: Sequence[ResultHappened]) -> None:
        if facts:
            await self.tracker.apply(tx, facts)


async def _claimable(tx: Tx, command: ClaimCaptures) -> list[Row]:
    """What is due, of each host only so much as may wait: else one slow host's files would stand before all others'."""
    waiting = Counter(dict(command.waiting))
    picked: dict[tuple[str, int], Row] = {}
    for _look in range(_LOOKS):
        full = json_set({host for host, count in waiting.items() if host and count >= command.per_host})
        found = await tx.rows(_CLAIM, {"now": tx.now_ms, "count": command.count, "full": full})
        before = len(picked)
        for row in found:
            host, name = host_of(row["start"]), (row["job_id"], row["idx"])
            if name in picked or len(picked) >= command.count or (host and waiting[host] >= command.per_host):
                continue
            waiting[host] += 1
            picked[name] = row
        if len(found) < command.count or len(picked) in {before, command.count}:
            break
    return list(picked.values())


def _capture(row: Row, lease_until: int) -> Capture:
    return Capture(
        job_id=row["job_id"],
        index=row["idx"],
        url=row["url"],
        provider=row["provider"],
        operation=row["operation"],
        task_id=row["provider_task_id"],
        poll_url=row["poll_url"],
        expires_at=row["expires_at"],
        link_dies_at=row["link_dies_at"],
        epoch=row["lease_epoch"] + 1,
        lease_until=lease_until,
        tries=row["tries"],
        dead_tries=row["dead_tries"],
        refreshed=bool(row["refreshed"]),
        host=host_of(row["start"]),
    )


_Rows = dict[tuple[str, int], dict[str, Any]]


async def _rows_of(tx: Tx, job_ids: Iterable[str]) -> _Rows:
    """All results of these jobs, in order; changed here as the commands are decided."""
    found = await tx.rows(_OF_JOBS, {"ids": json_set(set(job_ids))})
    return {(row["job_id"], row["idx"]): dict(row) for row in found}


def _held(row: Row, epoch: int) -> bool:
    return row["lease_epoch"] == epoch and row["due_at"] is not None


def _names(command: RecordCopy | RecordMiss) -> dict[str, Any]:
    return {"job_id": command.job_id, "idx": command.index, "epoch": command.epoch}


def _fact(event_type: Any, row: Row, rows: _Rows) -> ResultHappened:
    mine = tuple(ResultRow.of(each) for (job_id, _), each in rows.items() if job_id == row["job_id"])
    return ResultHappened(row["job_id"], event_type, ResultRow.of(row), mine)
