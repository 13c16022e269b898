"""A job as the store has it: every column of `jobs`, in a form that a transaction can work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from service.db.transaction import Row
from service.states import ACTIVE, FINAL, JobStatus, ResolvedBy


@dataclass(slots=True)
class JobRow:
    """A working copy of one row; see `db.tables.Job` for what the columns mean. Times are ms UTC, money micro-USD.

    The fields are made from the table by `python -m tests.generated`: reading the table itself would load SQLAlchemy, which a
    running service does without.
    """

    # <columns>
    id: str
    account_id: str
    provider: str
    operation: str
    status: JobStatus
    created_at: int
    expires_at: int
    key_id: str | None = None
    model: str | None = None
    seq: int = 1
    input: str = "{}"
    input_full: str | None = None
    job_metadata: str = "{}"
    tags: str = "[]"
    callback_url: str | None = None
    callback_events: str | None = None
    retry_of: str | None = None
    submission_id: str | None = None
    submit_tries: int = 0
    submit_failures: int = 0
    refusals: str | None = None
    provider_task_id: str | None = None
    task_confirmed: bool = True
    provider_status: str | None = None
    poll_url: str | None = None
    cancel_url: str | None = None
    resolved_by: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    cost_estimated: int | None = None
    cost_charged: int | None = None
    cost_basis: str = "unknown"
    cost_raw: str | None = None
    cost_held: int | None = None
    result_count: int = 0
    moderation: str | None = None
    polls: int = 0
    callbacks: int = 0
    hint_at: int | None = None
    hint_tries: int = 0
    waiting: str | None = None
    running_at: int | None = None
    missing_since: int | None = None
    poll_failures: int = 0
    not_found_polls: int = 0
    overdue: bool = False
    overdue_at: int | None = None
    submitted_at: int | None = None
    finished_at: int | None = None
    erased_at: int | None = None
    due_at: int | None = None
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = 0
    # </columns>

    @property
    def is_final(self) -> bool:
        """Whether nothing but a correction can happen any more."""
        return self.status in FINAL

    @property
    def is_active(self) -> bool:
        """Whether the job still has a way to go."""
        return self.status in ACTIVE


COLUMNS = tuple(field.name for field in fields(JobRow))
#: What no update changes.
WRITTEN_ONCE = frozenset(
    [
        "id",
        "account_id",
        "provider",
        "operation",
        "created_at",
        "key_id",
        "model",
        "input",
        "input_full",
        "job_metadata",
        "tags",
        "callback_url",
        "callback_events",
        "retry_of",
        "expires_at",
    ]
)
MUTABLE = tuple(name for name in COLUMNS if name not in WRITTEN_ONCE)
#: The values of the columns in `MUTABLE`, read in one go.
mutable_values: Callable[[JobRow], tuple[Any, ...]] = attrgetter(*MUTABLE)
#: The values of all columns.
all_values: Callable[[JobRow], tuple[Any, ...]] = attrgetter(*COLUMNS)
_SQL_TYPES = {"int": "bigint", "bool": "boolean"}
#: What the columns are called in `@given`.
SQL_TYPES = {field.name: _SQL_TYPES.get(str(field.type).partition(" ")[0], "text") for field in fields(JobRow)}
SELECT_JOB = "SELECT " + ", ".join(COLUMNS) + " FROM jobs"


def from_row(row: Row) -> JobRow:
    """The working copy of a row of `SELECT_JOB`, whose columns stand in the order of the fields."""
    job = JobRow(*row)  # type: ignore[arg-type]  # the columns stand in the order of the fields
    job.status = JobStatus(job.status)
    job.task_confirmed, job.overdue = bool(job.task_confirmed), bool(job.overdue)
    return job


def about(job: JobRow) -> dict[str, str]:
    """What every line of the log about a job has."""
    return {"job": job.id, "account": job.account_id, "provider": job.provider}


def duration_of(job: JobRow) -> tuple[int, int] | None:
    """The ages in ms at which a task was last seen unfinished and first seen finished; None where nothing is learned.

    Only a provider's own word teaches: not our deadline, not a caller, not a submit that was answered with the result.
    """
    if job.status not in {JobStatus.COMPLETED, JobStatus.FAILED} or job.finished_at is None or job.submitted_at is None:
        return None
    done_ms = job.finished_at - job.submitted_at
    if job.resolved_by == ResolvedBy.CALLBACK:
        return done_ms, done_ms
    if job.resolved_by == ResolvedBy.POLL:
        return (job.running_at or job.submitted_at) - job.submitted_at, done_ms
    return None
