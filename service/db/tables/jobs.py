"""Jobs, what was sent for them, what came back, and their files."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from service.db.tables.columns import added, added_flag, added_text, blob, json, long

_ACTIVE = "('queued', 'submitting', 'submit_unknown', 'running')"
_TO_SUBMIT = "status = 'queued'"
_TO_POLL = "due_at IS NOT NULL AND status NOT IN ('queued', 'submitting')"


class Job(SQLModel, table=True):
    """One request for one operation, tracked from acceptance to a final state; written by `jobs` only."""

    __tablename__: ClassVar[str] = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'submitting', 'submit_unknown', 'running', 'completed', 'failed', 'cancelled', 'expired')",
            name="ck_jobs_status",
        ),
        # I9: no row in an active state is without a future wake-up.
        CheckConstraint(f"status NOT IN {_ACTIVE} OR due_at IS NOT NULL", name="ck_jobs_wake_up"),
        CheckConstraint(f"(status IN {_ACTIVE}) = (finished_at IS NULL)", name="ck_jobs_finished"),
        CheckConstraint("status <> 'completed' OR result_count > 0", name="ck_jobs_completed_has_result"),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="ck_jobs_failed_has_code"),
        CheckConstraint("cost_charged IS NULL OR cost_charged >= 0", name="ck_jobs_charge"),
        Index("ix_jobs_for_list", "account_id", "id"),
        Index("ix_jobs_for_list_by_status", "account_id", "status", "id"),
        Index("ix_jobs_for_task", "provider_task_id", sqlite_where=text("provider_task_id IS NOT NULL")),
        # What is due for a provider; and, where that is more than fits, whose turn it is. The claims name the same conditions.
        Index("ix_jobs_for_submit", "provider", "due_at", sqlite_where=text(_TO_SUBMIT)),
        Index("ix_jobs_for_submit_in_turn", "provider", "account_id", "due_at", sqlite_where=text(_TO_SUBMIT)),
        Index("ix_jobs_for_poll", "provider", "due_at", sqlite_where=text(_TO_POLL)),
        Index("ix_jobs_for_poll_in_turn", "provider", "account_id", "due_at", sqlite_where=text(_TO_POLL)),
        # What a sweep ends or notices. Each goes on behind the job that it looked at last, so its order has no ties.
        Index("ix_jobs_for_abandoned", "provider", "due_at", "id", sqlite_where=text("status = 'submitting'")),
        Index("ix_jobs_for_expiry", "expires_at", "id", sqlite_where=text(f"status IN {_ACTIVE}")),
        Index("ix_jobs_for_overdue", "overdue_at", "id", sqlite_where=text("overdue_at IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    key_id: str | None = None
    provider: str
    operation: str
    model: str | None = None  # the one that the input names, for usage and exports; stays when the input is erased
    status: str
    seq: int = 1  # the number of the last row on the job's timeline, and the guard of every update
    input: str = json("{}")  # as it is shown: strings over 2 KiB as `sha256:… (n bytes)`
    input_full: str | None = long()  # as it is sent, where that differs; `kept`: it lies in `inputs`
    job_metadata: str = json("{}")
    tags: str = json("[]")
    callback_url: str | None = None
    callback_events: str | None = None
    retry_of: str | None = None
    submission_id: str | None = None  # the one that counts now
    submit_tries: int = 0
    submit_failures: int = 0  # of those, answers that say the provider itself is broken; three end the job
    refusals: str | None = (
        long()
    )  # tries in a row of which the provider took none, by verdict, as JSON: they share rows on the timeline
    provider_task_id: str | None = None
    task_confirmed: bool = True  # False: adopted from an unverified callback, a fetch has to confirm it
    provider_status: str | None = None
    poll_url: str | None = None
    cancel_url: str | None = None
    resolved_by: str | None = None
    error_code: str | None = None
    error_message: str | None = long()
    cost_estimated: int | None = None
    cost_charged: int | None = None
    cost_basis: str = "unknown"
    cost_raw: str | None = None
    cost_held: int | None = None  # what the books hold for it now
    result_count: int = 0
    moderation: str | None = long()  # what moderation made of the prompt, as JSON
    polls: int = 0
    callbacks: int = 0
    hint_at: int | None = None  # when an unverified callback asked for a fetch
    hint_tries: int = 0
    waiting: str | None = long()  # an observation that came while the submit's answer was still out
    running_at: int | None = None  # when a poll last found the task unfinished
    missing_since: int | None = None  # completed, said the provider, but without a file
    poll_failures: int = 0
    not_found_polls: int = 0  # 404s in a row
    overdue: bool = False
    overdue_at: int | None = None
    created_at: int
    submitted_at: int | None = None
    finished_at: int | None = None
    erased_at: int | None = None  # when its prompt, inputs and files went
    expires_at: int
    due_at: int | None = None
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = 0


class Label(SQLModel, table=True):
    """A tag or a pair of metadata of a job, by which lists find it; triggers write and remove it with its job."""

    __tablename__: ClassVar[str] = "labels"
    __table_args__ = ({"sqlite_with_rowid": False},)

    account_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)  # as the filter is called: `tag`, or `metadata.` and the key
    value: str = Field(primary_key=True, sa_type=Text)  # its first 64 characters
    job_id: str = Field(primary_key=True)  # no reference: the job goes first


class Submission(SQLModel, table=True):
    """One request to the provider on a job's behalf; only the SHA-256 of its callback token is kept."""

    __tablename__: ClassVar[str] = "submissions"
    __table_args__ = (
        UniqueConstraint("token_hash", name="uq_submissions_token"),
        Index("ix_submissions_for_job", "job_id"),
        Index(
            "ix_submissions_for_task", "provider", "provider_task_id", sqlite_where=text("provider_task_id IS NOT NULL")
        ),
    )

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="jobs.id")
    provider: str
    token_hash: bytes | None = blob(nullable=False)
    outcome: str = "in_flight"  # accepted, refused, rejected, not_sent, unknown, replaced
    provider_task_id: str | None = None
    http_status: int | None = None
    created_at: int
    answered_at: int | None = None


class Callback(SQLModel, table=True):
    """What a provider sent to a callback URL, once for every distinct body."""

    __tablename__: ClassVar[str] = "callbacks"
    __table_args__ = (UniqueConstraint("submission_id", "body_hash", name="uq_callbacks_body"),)

    id: int | None = Field(default=None, primary_key=True)
    submission_id: str = Field(foreign_key="submissions.id")
    received_at: int
    body: bytes | None = blob(nullable=False)
    body_hash: bytes | None = blob(nullable=False)
    content_type: str | None = None
    copies: int = 1


class Result(SQLModel, table=True):
    """One file that a job produced."""

    __tablename__: ClassVar[str] = "results"
    __table_args__ = (
        # Of a lane, what dies first; and what nobody knows that of (NULL), by how long it has been due.
        Index("ix_results_for_capture", "lane", "link_dies_at", "due_at", sqlite_where=text("due_at IS NOT NULL")),
        Index("ix_results_for_sweep", "sweep_at", sqlite_where=text("sweep_at IS NOT NULL")),
    )

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    idx: int = Field(primary_key=True)
    source_url: str = json("")
    content_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    stored: bool = False
    expires_at: int
    width: int | None = None
    height: int | None = None
    storage_key: str | None = None  # where our copy lies …
    storage_place: str | None = None  # … in which storage; none: in the one of the setting, from before this was kept
    error: str | None = None  # why there is no copy (any more), in a word
    tries: int = added(0)  # to fetch it
    dead_tries: int = added(0)  # of those in a row, answers that say the link is dead
    refreshed: bool = added_flag()  # whether the provider was asked for a fresh link
    link_dies_at: int | None = None  # as far as the provider's document says it
    due_at: int | None = None  # when it is to be fetched; none: it is stored, or given up
    lane: str = added_text()  # account and host, in which it waits to be fetched
    sweep_at: int | None = None  # when its expiry is to be announced, or our copy to go
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = added(0)


class Input(SQLModel, table=True):
    """A job's input as it was sent, where it is too large for the job's row."""

    __tablename__: ClassVar[str] = "inputs"
    __table_args__ = (
        CheckConstraint("(body IS NULL) <> (storage_key IS NULL)", name="ck_inputs_place"),
        Index("ix_inputs_for_sweep", "sweep_at", sqlite_where=text("sweep_at IS NOT NULL")),
    )

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    sha256: str
    size_bytes: int
    body: bytes | None = blob()  # here, or …
    storage_key: str | None = None  # … there
    storage_place: str | None = None  # as in `results`
    sweep_at: int | None = None  # erased: when the file is to go
