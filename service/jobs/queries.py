"""Reading jobs: one, its input, its results, its timeline, and what the duties look for; lists of them stand in `list_queries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Row
from service.jobs.row import SELECT_JOB, JobRow, from_row
from service.jobs.view import RESULT_COLUMNS, ResultRow
from service.schemas.job_schemas import TimelineRowView

#: Where a job stands among those that are due: since when, and its id.
Place = tuple[int, str]
START: Final[Place] = (0, "")


async def find(reader: Reader, account_id: str, job_id: str) -> JobRow | None:
    """One job of the account."""
    row = await reader.row(
        f"{SELECT_JOB} WHERE id = :id AND account_id = :account", {"id": job_id, "account": account_id}
    )
    return None if row is None else from_row(row)


async def results(reader: Reader, job_id: str) -> list[ResultRow]:
    """The results of one job, in order."""
    found = await reader.rows(f"SELECT {RESULT_COLUMNS} FROM results WHERE job_id = :id ORDER BY idx", {"id": job_id})
    return [ResultRow.of(row) for row in found]


async def results_of(reader: Reader, jobs: Sequence[JobRow]) -> dict[str, list[ResultRow]]:
    """The results of several jobs, by job."""
    wanted = [job.id for job in jobs if job.result_count]
    found: dict[str, list[ResultRow]] = {}
    if wanted:
        rows = await reader.rows(
            f"SELECT {RESULT_COLUMNS}, job_id FROM results WHERE job_id IN @set(:ids) ORDER BY job_id, idx",
            {"ids": msgspec.json.encode(wanted).decode()},
        )
        for row in rows:
            found.setdefault(row["job_id"], []).append(ResultRow.of(row))
    return found


async def kept_input(reader: Reader, job_id: str) -> Row | None:
    """An input that lies apart from its job: `body`, or `storage_key`; `size_bytes` and `sha256`."""
    return await reader.row(
        "SELECT body, storage_key, size_bytes, sha256 FROM inputs WHERE job_id = :id", {"id": job_id}
    )


async def timeline(reader: Reader, job_id: str, after_seq: int, limit: int) -> list[TimelineRowView]:
    """The job's timeline from `after_seq` on, oldest first; the caller made sure that the job is the account's."""
    rows = await reader.rows(
        "SELECT seq, at, type, source, detail FROM events WHERE job_id = :id AND seq > :after ORDER BY seq LIMIT :limit",
        {"id": job_id, "after": after_seq, "limit": limit},
    )
    return [
        {
            "seq": row["seq"],
            "at": iso(row["at"]),
            "type": row["type"],
            "source": row["source"],
            "detail": msgspec.Raw(row["detail"].encode()) if row["detail"] else {},
        }
        for row in rows
    ]


async def any_job(reader: Reader) -> bool:
    """Whether there is a job; also the question that shows that the store answers."""
    return await reader.row("SELECT 1 FROM jobs LIMIT 1") is not None


async def has_token(reader: Reader, token_hash: bytes) -> bool:
    """Whether any submission has this callback token."""
    return await reader.row("SELECT 1 FROM submissions WHERE token_hash = :hash", {"hash": token_hash}) is not None


async def past_deadline(reader: Reader, now_ms: int, after: Place, count: int) -> list[Row]:
    """Jobs whose deadline has passed, longest first: `at`, `id`. A request in flight is let out first."""
    return await reader.rows(
        # The states as the index names them, or SQLite does not see that it may use it and reads all jobs.
        "SELECT expires_at AS at, id FROM jobs WHERE (expires_at, id) > (:at, :id) AND expires_at <= :now "
        "AND status IN ('queued', 'submitting', 'submit_unknown', 'running') AND status <> 'submitting' "
        "ORDER BY expires_at, id LIMIT :count",
        {"now": now_ms, "at": after[0], "id": after[1], "count": count},
    )


async def abandoned(reader: Reader, now_ms: int, provider: str, after: Place, count: int) -> list[Row]:
    """Jobs whose submission to a provider was left in flight, with its id: their lease ran out, longest ago first."""
    return await reader.rows(
        "SELECT due_at AS at, id, submission_id FROM jobs WHERE status = 'submitting' AND provider = :provider "
        "AND (due_at, id) > (:at, :id) AND due_at <= :now ORDER BY due_at, id LIMIT :count",
        {"now": now_ms, "provider": provider, "at": after[0], "id": after[1], "count": count},
    )


async def at_providers(reader: Reader) -> list[tuple[str, str, str]]:
    """Provider, account and id of all jobs whose task is being submitted or worked on, and not overdue; see `UnfinishedTasks`."""
    rows = await reader.rows(
        # Through the index of what is active, which is small beside all jobs.
        "SELECT provider, account_id, id FROM jobs @by_index(ix_jobs_for_expiry) "
        "WHERE status IN ('queued', 'submitting', 'submit_unknown', 'running') AND status IN ('submitting', 'running') "
        "AND (NOT overdue OR overdue_at IS NOT NULL)",
    )
    return [(row["provider"], row["account_id"], row["id"]) for row in rows]


async def active_providers(reader: Reader) -> set[str]:
    """The names of the providers that jobs wait for or run at, whether their cards are there or not."""
    waiting = await _providers(reader, "status = 'queued'")
    return waiting | await _providers(reader, "due_at IS NOT NULL AND status NOT IN ('queued', 'submitting')")


async def submitting_providers(reader: Reader) -> set[str]:
    """The names of the providers to which a submission is in flight, or was left there."""
    return await _providers(reader, "status = 'submitting'")


async def _providers(reader: Reader, which: str) -> set[str]:
    """The providers of such jobs, one step of an index for each."""
    rows = await reader.rows(
        f"WITH RECURSIVE waiting(name) AS (SELECT min(provider) FROM jobs WHERE {which} UNION ALL "
        f"SELECT (SELECT min(provider) FROM jobs WHERE {which} AND provider > waiting.name) FROM waiting "
        "WHERE waiting.name IS NOT NULL) SELECT name FROM waiting WHERE name IS NOT NULL"
    )
    return {row["name"] for row in rows}


async def newly_overdue(reader: Reader, now_ms: int, after: Place, count: int) -> list[Row]:
    """Jobs that take longer than is usual and have not been noticed yet, longest first: `at`, `id`."""
    return await reader.rows(
        "SELECT overdue_at AS at, id FROM jobs WHERE (overdue_at, id) > (:at, :id) AND overdue_at <= :now "
        "ORDER BY overdue_at, id LIMIT :count",
        {"now": now_ms, "at": after[0], "id": after[1], "count": count},
    )


async def count_by_status(reader: Reader) -> dict[str, int]:
    """How many jobs are in each state, over all accounts."""
    rows = await reader.rows(
        # By account first, in the order of an index: nothing is sorted.
        "SELECT status, sum(n) AS n FROM (SELECT status, count(*) AS n FROM jobs GROUP BY account_id, status) GROUP BY status"
    )
    return {row["status"]: row["n"] for row in rows}


async def recently_finished(reader: Reader, count: int) -> list[JobRow]:
    """Those of the newest jobs whose end the provider told us, oldest first; ten times as many are looked at."""
    rows = await reader.rows(
        f"{SELECT_JOB} WHERE id > coalesce((SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET :looked), '') "
        "AND resolved_by IN ('callback', 'poll') AND status IN ('completed', 'failed') ORDER BY id DESC LIMIT :count",
        {"count": count, "looked": 10 * count},
    )
    return [from_row(row) for row in reversed(rows)]
