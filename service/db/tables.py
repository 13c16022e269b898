"""The whole data model on one page. Nothing but shape: no queries, no behaviour.

Times are integer milliseconds UTC (`*_at`), money is integer micro-USD, JSON is text made by msgspec.
SQLModel does not validate tables; validation happens at the edge, and CHECK constraints repeat the invariants here.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

_ACTIVE = "('queued', 'submitting', 'submit_unknown', 'running')"


def _blob(*, nullable: bool = True, unique: bool = False) -> bytes | None:
    return Field(default=None, sa_type=LargeBinary, nullable=nullable, unique=unique)  # type: ignore[no-any-return]


def _json(default: str) -> str:
    return Field(default=default, sa_type=Text, nullable=False)  # type: ignore[no-any-return]


def _long() -> str | None:
    return Field(default=None, sa_type=Text, nullable=True)  # type: ignore[no-any-return]


def _added(default: int) -> int:
    """A column that came later and must not be NULL: the rows that were there before need a value from the engine."""
    return Field(default=default, nullable=False, sa_column_kwargs={"server_default": text(str(default))})  # type: ignore[no-any-return]


class Meta(SQLModel, table=True):
    """Facts about the database itself, such as the check value of the secret key."""

    __tablename__: ClassVar[str] = "meta"

    key: str = Field(primary_key=True)
    value: bytes | None = _blob(nullable=False)


class Account(SQLModel, table=True):
    """Who owns keys, jobs and subscriptions; nothing crosses accounts."""

    __tablename__: ClassVar[str] = "accounts"

    id: str = Field(primary_key=True)
    name: str
    status: str = "active"
    limit_kind: str = "none"
    secret: bytes | None = _blob(nullable=False)  # the default signing secret, sealed
    secret_prefix: str
    previous_secret: bytes | None = _blob()  # co-signs until previous_secret_until
    previous_secret_until: int | None = None
    created_at: int
    feed_floor: int = _added(0)  # the highest `events.pos` of this account that retention removed
    # What the books (`transfers`) add up to, kept here so that taking a job adds nothing up; micro-USD.
    balance: int = _added(0)  # credits less charges
    held: int = _added(0)  # of it, for jobs that are under way
    budget: int | None = None  # of a month, where the limit is `monthly`
    month: int = _added(0)  # yyyymm, UTC: the one that `month_spent` counts
    month_spent: int = _added(0)


class Key(SQLModel, table=True):
    """An API key; only its SHA-256 is kept."""

    __tablename__: ClassVar[str] = "keys"
    __table_args__ = (Index("ix_keys_for_list", "account_id", "id"),)

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    name: str
    prefix: str
    hash: bytes | None = _blob(nullable=False, unique=True)
    scopes: str = _json("[]")
    created_at: int
    last_used_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None


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
        Index("ix_jobs_for_submit", "provider", "account_id", "due_at", sqlite_where=text("status = 'queued'")),
        Index("ix_jobs_for_poll", "due_at", sqlite_where=text("due_at IS NOT NULL AND status <> 'queued'")),
        Index("ix_jobs_for_expiry", "expires_at", sqlite_where=text(f"status IN {_ACTIVE}")),
        Index("ix_jobs_for_overdue", "overdue_at", sqlite_where=text("overdue_at IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    key_id: str | None = None
    provider: str
    operation: str
    model: str | None = None  # the one that the input names, for usage and exports; stays when the input is erased
    status: str
    seq: int = 1  # the number of the last row on the job's timeline, and the guard of every update
    input: str = _json("{}")  # as it is shown: strings over 2 KiB as `sha256:… (n bytes)`
    input_full: str | None = _long()  # as it is sent, where that differs; `kept`: it lies in `inputs`
    job_metadata: str = _json("{}")
    tags: str = _json("[]")
    callback_url: str | None = None
    callback_events: str | None = None
    retry_of: str | None = None
    submission_id: str | None = None  # the one that counts now
    submit_tries: int = 0
    submit_failures: int = 0  # of those, answers that say the provider itself is broken; three end the job
    provider_task_id: str | None = None
    task_confirmed: bool = True  # False: adopted from an unverified callback, a fetch has to confirm it
    provider_status: str | None = None
    poll_url: str | None = None
    cancel_url: str | None = None
    resolved_by: str | None = None
    error_code: str | None = None
    error_message: str | None = _long()
    cost_estimated: int | None = None
    cost_charged: int | None = None
    cost_basis: str = "unknown"
    cost_raw: str | None = None
    cost_held: int | None = None  # what the books hold for it now
    result_count: int = 0
    moderation: str | None = _long()  # what moderation made of the prompt, as JSON
    polls: int = 0
    callbacks: int = 0
    hint_at: int | None = None  # when an unverified callback asked for a fetch
    hint_tries: int = 0
    waiting: str | None = _long()  # an observation that came while the submit's answer was still out
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
    token_hash: bytes | None = _blob(nullable=False)
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
    body: bytes | None = _blob(nullable=False)
    body_hash: bytes | None = _blob(nullable=False)
    content_type: str | None = None
    copies: int = 1


class Result(SQLModel, table=True):
    """One file that a job produced."""

    __tablename__: ClassVar[str] = "results"
    __table_args__ = (
        # What dies first is fetched first; where nobody knows (NULL) before all others.
        Index("ix_results_for_capture", "link_dies_at", "due_at", sqlite_where=text("due_at IS NOT NULL")),
        Index("ix_results_for_sweep", "sweep_at", sqlite_where=text("sweep_at IS NOT NULL")),
    )

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    idx: int = Field(primary_key=True)
    source_url: str = _json("")
    content_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    stored: bool = False
    expires_at: int
    width: int | None = None
    height: int | None = None
    storage_key: str | None = None  # where our copy lies
    error: str | None = None  # why there is no copy (any more), in a word
    tries: int = _added(0)  # to fetch it
    dead_tries: int = _added(0)  # of those in a row, answers that say the link is dead
    refreshed: int = _added(0)  # 1: the provider was asked for a fresh link
    link_dies_at: int | None = None  # as far as the provider's document says it
    due_at: int | None = None  # when it is to be fetched; none: it is stored, or given up
    sweep_at: int | None = None  # when its expiry is to be announced, or our copy to go
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = _added(0)


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
    body: bytes | None = _blob()  # here, or …
    storage_key: str | None = None  # … there
    sweep_at: int | None = None  # erased: when the file is to go


class Event(SQLModel, table=True):
    """A row of a job's timeline; those with a `pos` are events that are sent, their body is what is signed."""

    __tablename__: ClassVar[str] = "events"
    __table_args__ = (
        Index("ix_events_for_timeline", "job_id", "seq", unique=True),
        Index("ix_events_for_feed", "pos", unique=True, sqlite_where=text("pos IS NOT NULL")),
        Index("ix_events_for_account_feed", "account_id", "pos", sqlite_where=text("pos IS NOT NULL")),
        CheckConstraint("(pos IS NULL) = (body IS NULL)", name="ck_events_body"),
    )

    id: str = Field(primary_key=True)
    account_id: str
    job_id: str | None = None
    seq: int
    type: str
    source: str
    at: int
    detail: str | None = _long()
    pos: int | None = None
    body: bytes | None = _blob()


class Subscription(SQLModel, table=True):
    """A standing destination with filters."""

    __tablename__: ClassVar[str] = "subscriptions"
    __table_args__ = (
        Index("ix_subscriptions_for_list", "account_id", "id"),
        Index("ix_subscriptions_for_disabling", "failing_since", sqlite_where=text("failing_since IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    url: str = _json("")
    description: str = ""
    events: str = _json("[]")
    providers: str = _json("[]")
    operations: str = _json("[]")
    tags: str = _json("[]")
    headers: bytes | None = _blob()  # sealed: headers often carry secrets
    rate_per_s: float | None = None
    max_in_flight: int = 10
    schedule: str | None = None
    signatures: str = _json('["v1"]')
    status: str = "enabled"
    disabled_reason: str | None = None
    secret: bytes | None = _blob(nullable=False)
    previous_secret: bytes | None = _blob()
    previous_secret_until: int | None = None
    signing_key: bytes | None = _blob()  # the Ed25519 seed of v1a, sealed; rotated together with the secret
    previous_signing_key: bytes | None = _blob()
    stop_at_expiry: int = _added(0)  # 1: nothing is sent after the event's results have expired
    last_success_at: int | None = None
    last_failure_at: int | None = None
    failing_since: int | None = None  # the first failure after the last success
    created_at: int


class Delivery(SQLModel, table=True):
    """One event for one destination."""

    __tablename__: ClassVar[str] = "deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'dead', 'skipped')", name="ck_deliveries_status"),
        # I9 again: what is pending has a time at which it is due.
        CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="ck_deliveries_wake_up"),
        Index("ix_deliveries_for_claim", "lane", "due_at", sqlite_where=text("status = 'pending'")),
        Index("ix_deliveries_for_rescue", "lease_until", sqlite_where=text("lease_until IS NOT NULL")),
        Index("ix_deliveries_for_list", "account_id", "id"),
        # Most are delivered in the end; a list of those finds them in the index above.
        Index(
            "ix_deliveries_for_list_by_status",
            "account_id",
            "status",
            "id",
            sqlite_where=text("status <> 'delivered'"),
        ),
        Index("ix_deliveries_for_event", "event_id"),
        Index("ix_deliveries_for_job", "job_id"),
        Index(
            "ix_deliveries_for_subscription", "subscription_id", "id", sqlite_where=text("subscription_id IS NOT NULL")
        ),
    )

    id: str = Field(primary_key=True)
    event_id: str = Field(foreign_key="events.id")
    account_id: str
    job_id: str | None = None
    type: str
    subscription_id: str | None = None
    lane: str
    url: str | None = _long()  # a one-off destination's own; a subscription's is read when sending
    status: str = "pending"
    attempt_count: int = 0
    schedule_base: int = 0  # attempts that do not count for the schedule: before a retry, and probes ahead of time
    reason: str | None = None  # why it ended other than delivered, in a word
    created_at: int
    retried_at: int | None = None  # when it was last sent again by hand or by a replay; the schedule counts from there
    attempted_at: int | None = None  # when the last attempt began that failed
    give_up_at: int | None = None  # nothing is sent after this moment
    finished_at: int | None = None
    due_at: int | None = None
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = 0


class Attempt(SQLModel, table=True):
    """One HTTP request of a delivery."""

    __tablename__: ClassVar[str] = "attempts"
    __table_args__ = (Index("ix_attempts_for_delivery", "delivery_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    delivery_id: str = Field(foreign_key="deliveries.id")
    at: int
    status_code: int | None = None
    error: str | None = None
    error_class: str | None = None  # a word for what went wrong: name_not_found, tls_failed, timeout, http_5xx …
    duration_ms: int  # in total; of it:
    dns_ms: int | None = None  # these three only where a connection was made for the request
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None  # from the request's beginning to the answer's head
    sent: str | None = _long()  # which signatures and which headers of the subscription went along, without values
    response_body: str | None = _long()


class Replay(SQLModel, table=True):
    """A range of events that is sent to one subscription again, in batches."""

    __tablename__: ClassVar[str] = "replays"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'done', 'cancelled')", name="ck_replays_status"),
        CheckConstraint("(status = 'running') = (due_at IS NOT NULL)", name="ck_replays_wake_up"),
        Index("ix_replays_for_list", "account_id", "id"),
        Index("ix_replays_for_claim", "due_at", sqlite_where=text("status = 'running'")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    subscription_id: str
    since: int
    until: int
    types: str = _json("[]")  # empty: the subscription's own
    statuses: str = _json("[]")  # empty: all but pending
    status: str = "running"
    reason: str | None = None
    next_pos: int  # the next `events.pos` to look at
    last_pos: int  # the last one
    looked_at: int = 0  # events
    queued: int = 0  # of those, how many were queued again
    total: int = 0  # events in the range, counted when it began
    created_at: int
    finished_at: int | None = None
    due_at: int | None = None
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = 0


class Lane(SQLModel, table=True):
    """A destination's queue: when something in it is due that nobody holds."""

    __tablename__: ClassVar[str] = "lanes"
    __table_args__ = (Index("ix_lanes_for_claim", "next_due_at", sqlite_where=text("next_due_at IS NOT NULL")),)

    id: str = Field(primary_key=True)  # the subscription's id, or account and origin of a one-off
    account_id: str
    next_due_at: int | None = None


class Idempotency(SQLModel, table=True):
    """The first answer to a keyed request, kept for a day."""

    __tablename__: ClassVar[str] = "idempotency"
    __table_args__ = (Index("ix_idempotency_for_cleaning", "expires_at"),)

    account_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_hash: bytes | None = _blob(nullable=False)
    job_id: str
    answer: bytes | None = _blob(nullable=False)
    expires_at: int


_MOVES = (
    "credit:funding:available",
    "debit:available:funding",
    "hold:available:held",
    "release:held:available",
    "charge:held:spent",
    "excess:available:spent",
    "late:available:spent",
)


class Transfer(SQLModel, table=True):
    """Money moved from one book of an account to another; outlives the job that it was for."""

    __tablename__: ClassVar[str] = "transfers"
    __table_args__ = (
        # I6: what one row takes from a book it gives to another, so that all books together are always zero.
        CheckConstraint("amount > 0", name="ck_transfers_amount"),
        CheckConstraint(f"kind || ':' || debit || ':' || credit IN {_MOVES}", name="ck_transfers_move"),
        CheckConstraint("(kind IN ('credit', 'debit')) = (job_id IS NULL)", name="ck_transfers_job"),
        # A job is held for once, charged once, and let go once.
        Index("ix_transfers_for_job", "job_id", "kind", unique=True, sqlite_where=text("job_id IS NOT NULL")),
        Index("ix_transfers_for_account", "account_id", "id"),
        Index("ix_transfers_for_key", "account_id", "key", unique=True, sqlite_where=text("key IS NOT NULL")),
    )

    id: int | None = Field(default=None, primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    job_id: str | None = None  # no reference: the job may go first
    seq: int | None = None  # the row of the job's timeline that it goes with
    kind: str
    debit: str  # the book that gives
    credit: str  # the book that takes
    amount: int
    at: int
    basis: str | None = None  # whose figure it is
    reason: str | None = None  # an operator's words
    actor: str | None = None  # the key that asked for it
    key: str | None = None  # its Idempotency-Key


class UsageDaily(SQLModel, table=True):
    """How many jobs ended on one day in one way, what they cost and how long they took; outlives the jobs themselves."""

    __tablename__: ClassVar[str] = "usage_daily"
    __table_args__ = ({"sqlite_with_rowid": False},)

    account_id: str = Field(primary_key=True)
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # days since 1970, UTC
    tag: str = Field(primary_key=True)  # empty: all jobs, whatever their tags
    provider: str = Field(primary_key=True)
    operation: str = Field(primary_key=True)
    model: str = Field(primary_key=True)  # empty: none was named
    key_id: str = Field(primary_key=True)  # empty: taken without one
    status: str = Field(primary_key=True)
    jobs: int
    charged: int
    durations: bytes | None = _blob(nullable=False)  # a histogram


class UsageCounted(SQLModel, table=True):
    """As what a job was counted in `usage_daily`, so that it can be counted anew."""

    __tablename__: ClassVar[str] = "usage_counted"
    __table_args__ = ({"sqlite_with_rowid": False},)

    job_id: str = Field(primary_key=True)  # no reference: the job may go first
    day: int
    status: str
    charged: int
    duration_ms: int


class UsageRecount(SQLModel, table=True):
    """A job to be counted anew although no event in the feed says so."""

    __tablename__: ClassVar[str] = "usage_recounts"

    n: int | None = Field(default=None, primary_key=True)
    account_id: str
    job_id: str


class UsageProgress(SQLModel, table=True):
    """How far counting has come; one row."""

    __tablename__: ClassVar[str] = "usage_progress"

    id: int | None = Field(default=None, primary_key=True)
    pos: int  # the last `events.pos` that was counted
