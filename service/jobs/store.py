"""The SQL that writes jobs, submissions, results and their events. Nothing outside this package uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from service.db.transaction import Params, Tx, json_set
from service.events.feed_store import LEFT
from service.ids import Ids
from service.jobs.inputs import KeptInput
from service.jobs.row import COLUMNS, MUTABLE, SELECT_JOB, SQL_TYPES, JobRow, all_values, from_row, mutable_values
from service.jobs.state_events import StateEvent
from service.jobs.transitions.draft import Draft
from service.jobs.view import RESULT_COLUMNS, ResultRow
from service.states import FINAL
from service.usage import store as usage_store

_INSERT_JOB = f"INSERT INTO jobs ({', '.join(COLUMNS)}) @rows({', '.join(':' + name for name in COLUMNS)})"
_INSERT_SUBMISSION = """
INSERT INTO submissions (id, job_id, provider, token_hash, outcome, created_at)
@rows(:id, :job_id, :provider, :token_hash, 'in_flight', :created_at)
"""
_CLOSE_SUBMISSION = """
UPDATE submissions SET outcome = :outcome, answered_at = :answered_at, http_status = coalesce(:http_status, http_status),
    provider_task_id = coalesce(:provider_task_id, provider_task_id)
WHERE id = :id
"""
# The current submission's task id follows the job's, also where a callback brought it.
_TASK_OF_SUBMISSION = "UPDATE submissions SET provider_task_id = :provider_task_id WHERE id = :submission_id"
_INSERT_EVENT = """
INSERT INTO events (id, account_id, job_id, seq, type, source, at, detail, pos, body)
@rows(:id, :account_id, :job_id, :seq, :type, :source, :at, :detail, :pos, :body)
"""
# A row that repeats an earlier one takes its place, with a new number: the timeline stays in order and does not grow.
_REPEAT_EVENT = """
UPDATE events SET seq = :seq, at = :at, detail = :detail WHERE job_id = :job_id AND seq = (
    SELECT max(seq) FROM events WHERE job_id = :job_id AND type = :type AND seq < :seq)
"""
_INSERT_RESULT = """
INSERT INTO results (job_id, idx, source_url, expires_at, error, stored, due_at, sweep_at, lane, link_dies_at, lease_owner, lease_until, lease_epoch)
@rows(:job_id, :idx, :source_url, :expires_at, :error, FALSE, :due_at, :sweep_at, :lane, :link_dies_at, :lease_owner, :lease_until, :lease_epoch)
"""
_NOT_KEPT = dict.fromkeys(("due_at", "sweep_at", "link_dies_at", "lease_owner", "lease_until")) | {
    "lane": "",
    "lease_epoch": 0,
}

_CHARGED = MUTABLE.index("cost_charged")

_INSERT_INPUT = """
INSERT INTO inputs (job_id, sha256, size_bytes, body, storage_key, storage_place)
@rows(:job_id, :sha256, :size_bytes, :body, :storage_key, :storage_place)
"""
_IDS = "@set(:ids)"
_ERASE = (
    f"UPDATE jobs SET input = '{{}}', input_full = NULL WHERE id IN {_IDS}",
    f"DELETE FROM inputs WHERE job_id IN {_IDS} AND storage_key IS NULL",
    f"UPDATE inputs SET sweep_at = :now WHERE job_id IN {_IDS}",
    f"UPDATE callbacks SET body = @no_bytes WHERE submission_id IN (SELECT id FROM submissions WHERE job_id IN {_IDS})",
    # A number of the feed that was given once never comes again, and who has read up to it has missed nothing, also where
    # the newest event leaves the feed.
    f"""
UPDATE accounts SET feed_erased = @greatest(feed_erased, (SELECT coalesce(max(pos), 0) FROM events
    WHERE job_id IN {_IDS} AND account_id = accounts.id))
WHERE id IN (SELECT account_id FROM jobs WHERE id IN {_IDS})
""",
    f"UPDATE events SET {LEFT} WHERE job_id IN {_IDS} AND body IS NOT NULL",
)
KEYS_LIVE_MS = 2 * 24 * 3_600_000  # longer than an idempotency key lives


async def load(tx: Tx, job_ids: Iterable[str]) -> dict[str, JobRow]:
    """The jobs of a set, by id; on SQLite the writer is alone, so that reading is enough of a lock."""
    found = await tx.rows(f"{SELECT_JOB} WHERE id IN @set(:ids)", {"ids": json_set(job_ids)})
    return {job.id: job for job in map(from_row, found)}


async def load_results(tx: Tx, job_ids: Iterable[str]) -> dict[str, list[ResultRow]]:
    """The results of a set of jobs, in order."""
    found = await tx.rows(
        f"SELECT job_id, {RESULT_COLUMNS} FROM results WHERE job_id IN @set(:ids) ORDER BY job_id, idx",
        {"ids": json_set(job_ids)},
    )
    results: dict[str, list[ResultRow]] = {}
    for row in found:
        results.setdefault(row["job_id"], []).append(ResultRow.of(row))
    return results


def insert_inputs(tx: Tx, inputs: Sequence[KeptInput]) -> None:
    """Write inputs that lie apart from their jobs."""
    tx.write(
        _INSERT_INPUT,
        [
            {
                "job_id": each.job_id,
                "sha256": each.sha256,
                "size_bytes": each.size_bytes,
                "body": each.body,
                "storage_key": each.storage_key,
                "storage_place": each.storage_place,
            }
            for each in inputs
        ],
    )


def erase(tx: Tx, jobs: Sequence[JobRow], answers: Mapping[str, bytes]) -> None:
    """Take out of the store whatever holds these jobs' inputs; `answers` are the jobs as they look from now on."""
    ids = {"ids": json_set(job.id for job in jobs), "now": tx.now_ms}
    for statement in _ERASE:
        tx.write(statement, [ids])
    tx.write(
        # By the account, since keys need no index by job: they live for a day.
        "UPDATE idempotency SET answer = :answer WHERE account_id = :account_id AND job_id = :job_id",
        [
            {"answer": answers[job.id], "account_id": job.account_id, "job_id": job.id}
            for job in jobs
            if job.created_at > tx.now_ms - KEYS_LIVE_MS
        ],
    )


def insert(tx: Tx, jobs: Sequence[JobRow]) -> None:
    """Write new jobs."""
    tx.write(_INSERT_JOB, [dict(zip(COLUMNS, all_values(job), strict=True)) for job in jobs], expect=len(jobs))


@lru_cache(maxsize=256)
def _update_of(changed: tuple[str, ...]) -> str:
    """The update that writes these columns, guarded by the state and the number of the last timeline row.

    Only what changed is written: SQLite rewrites the index of every column that an UPDATE names. Because of the
    guard a decision on another version of the row changes nothing.
    """
    columns = ", ".join(f"{name} = v.new_{name}" for name in changed)
    new = "".join(f", new_{name} {SQL_TYPES[name]} = :new_{name}" for name in changed)
    return f"""UPDATE jobs SET {columns}
FROM @given(id text = :id, old_status text = :old_status, old_seq bigint = :old_seq{new}) AS v
WHERE jobs.id = v.id AND jobs.status = v.old_status AND jobs.seq = v.old_seq"""


def _changes(draft: Draft) -> tuple[tuple[str, ...], Params]:
    after = mutable_values(draft.job)
    row: dict[str, Any] = {"id": draft.job.id, "old_status": draft.was, "old_seq": draft.was_seq}
    changed: list[str] = []
    for name, old, new in zip(MUTABLE, draft.before, after, strict=True):
        if new != old:
            changed.append(name)
            row["new_" + name] = new
    return tuple(changed), row


def update(tx: Tx, drafts: Sequence[Draft]) -> None:
    """Write what was decided; GuardFailed when a row is not the one it was decided on."""
    alike: dict[tuple[str, ...], list[Params]] = {}
    for draft in drafts:
        changed, row = _changes(draft)
        if changed:
            alike.setdefault(changed, []).append(row)
    for changed, rows in alike.items():
        tx.write(_update_of(changed), rows, expect=len(rows))
    tx.write(_INSERT_SUBMISSION, [draft.new_submission for draft in drafts if draft.new_submission])
    tx.write(_CLOSE_SUBMISSION, [closed for draft in drafts for closed in draft.submissions])
    adopted = [
        {"provider_task_id": draft.job.provider_task_id, "submission_id": draft.job.submission_id}
        for draft in drafts
        if draft.adopted
    ]
    tx.write(_TASK_OF_SUBMISSION, adopted)
    booked_later = [(draft.job.account_id, draft.job.id) for draft in drafts if _booked_later(draft)]
    usage_store.recount(tx, booked_later)
    tx.write(
        _INSERT_RESULT,
        [
            {
                "job_id": draft.job.id,
                "idx": result.idx,
                "source_url": result.source_url,
                "expires_at": result.expires_at,
                "error": result.error,
                **(_NOT_KEPT if result.keeping is None else result.keeping.columns()),
            }
            for draft in drafts
            for result in draft.results
        ],
    )


def _booked_later(draft: Draft) -> bool:
    """Whether a cost or an end was booked for a job that had ended before, which no event of the feed tells."""
    if draft.was not in FINAL:
        return False
    if draft.job.status is not draft.was:
        return draft.job.erased_at is not None
    return bool(draft.job.cost_charged != draft.before[_CHARGED])


def insert_events(tx: Tx, drafts: Sequence[Draft], ids: Ids) -> list[StateEvent]:
    """Write the timeline; returns the events that are sent, in feed order."""
    rows: list[Params] = []
    repeated: list[Params] = []
    events: list[StateEvent] = []
    for draft in drafts:
        for noted in draft.notes:
            if noted.repeats:
                repeated.append(
                    {
                        "job_id": draft.job.id,
                        "type": noted.type,
                        "seq": noted.seq,
                        "at": draft.now_ms,
                        "detail": noted.detail,
                    }
                )
                continue
            event_id = ids.new("evt")
            rows.append(
                {
                    "id": event_id,
                    "account_id": draft.job.account_id,
                    "job_id": draft.job.id,
                    "seq": noted.seq,
                    "type": noted.type,
                    "source": noted.source,
                    "at": draft.now_ms,
                    "detail": noted.detail,
                    "pos": None if noted.body is None else tx.number(),
                    "body": noted.body,
                }
            )
            if noted.body is not None:
                expire_at = min((result.expires_at for result in draft.results), default=draft.told_expires_at)
                events.append(
                    StateEvent(event_id, noted.type, noted.seq, draft.now_ms, noted.body, draft.job, expire_at)
                )
    tx.write(_INSERT_EVENT, rows)
    tx.write(_REPEAT_EVENT, repeated)
    return events
