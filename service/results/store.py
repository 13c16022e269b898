"""The SQL that writes what becomes of results: copies, misses, expiry. Their claims stand in `capture_claim_store`; the job's events are the tracker's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.db.leases import RELEASED, STILL_HELD, VOID
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.jobs.track import Tracker
from service.jobs.transitions.facts import ResultHappened
from service.jobs.view import ERASED, RESULT_COLUMNS, ResultRow
from service.results import capture_claim_store
from service.results.capture_claim_store import account_of, host_of, lane_of
from service.results.retry import GONE

EXPIRING_MS: int = 24 * 3_600_000  # before the end, when it is announced


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


_OF_JOBS = f"""
SELECT job_id, {RESULT_COLUMNS}, storage_key, lease_epoch, due_at, sweep_at, lane
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
    source_url = coalesce(:source_url, source_url), lane = coalesce(:lane, lane), {RELEASED}
WHERE job_id = :job_id AND idx = :idx AND {STILL_HELD} AND due_at IS NOT NULL
"""
_WARNED = "UPDATE results SET sweep_at = expires_at WHERE job_id = :job_id AND idx = :idx"
_GONE = f"""
UPDATE results SET stored = FALSE, storage_key = CASE WHEN @typed(:again, bigint) IS NULL THEN NULL ELSE storage_key END,
    error = CASE WHEN due_at IS NULL THEN error ELSE 'result_gone' END,
    sweep_at = :again, due_at = NULL, {VOID}
WHERE job_id = :job_id AND idx = :idx
"""
# What our copies held goes at once; the files themselves when the sweep comes by, which is now. A result that was ever
# claimed may have a file that no row knows.
_ERASE = f"""
UPDATE results SET stored = FALSE, source_url = '', lane = '', error = :error, due_at = NULL, {VOID}, sweep_at = CASE WHEN storage_key IS NULL AND lease_epoch = 0 THEN NULL ELSE @typed(:now, bigint) END
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
        capture_claim_store.register(writer)
        writer.handle(RecordCopy, self.copied)
        writer.handle(RecordMiss, self.missed)
        writer.handle(MarkSwept, self.swept)
        writer.handle(DropInputs, self.drop_inputs)

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
                    "lane": _lane_behind(row, command.source_url),
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

    async def _tell(self, tx: Tx, facts: Sequence[ResultHappened]) -> None:
        if facts:
            await self.tracker.apply(tx, facts)


_Rows = dict[tuple[str, int], dict[str, Any]]


async def _rows_of(tx: Tx, job_ids: Iterable[str]) -> _Rows:
    """All results of these jobs, in order; changed here as the commands are decided."""
    found = await tx.rows(_OF_JOBS, {"ids": json_set(set(job_ids))})
    return {(row["job_id"], row["idx"]): dict(row) for row in found}


def _held(row: Row, epoch: int) -> bool:
    return row["lease_epoch"] == epoch and row["due_at"] is not None


def _lane_behind(row: Row, fresh_url: str | None) -> str | None:
    """Where a result waits with another link; None: it has no other."""
    return None if fresh_url is None else lane_of(account_of(row["lane"]), host_of(fresh_url))


def _names(command: RecordCopy | RecordMiss) -> dict[str, Any]:
    return {"job_id": command.job_id, "idx": command.index, "epoch": command.epoch}


def _fact(event_type: Any, row: Row, rows: _Rows) -> ResultHappened:
    mine = tuple(ResultRow.of(each) for (job_id, _), each in rows.items() if job_id == row["job_id"])
    return ResultHappened(row["job_id"], event_type, ResultRow.of(row), mine)
