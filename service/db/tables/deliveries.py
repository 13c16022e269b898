"""Events, where they go, and how that went."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from service.db.tables.columns import added_flag, blob, json, long


class Event(SQLModel, table=True):
    """A row of a job's timeline; those that have a body are events that are sent, the body is what is signed.

    | `pos` | `body` | `left_pos` | |
    |---|---|---|---|
    | – | – | – | only on the timeline; or removed before it had a number |
    | – | yes | – | sent, but has no number yet; on SQLite never seen, since numbers are given in the transaction |
    | yes | yes | – | in the feed |
    | – | – | yes | left the feed: its job was erased, or it is older than is kept |
    """

    __tablename__: ClassVar[str] = "events"
    __table_args__ = (
        Index("ix_events_for_timeline", "job_id", "seq", unique=True),
        Index("ix_events_for_feed", "pos", unique=True, sqlite_where=text("pos IS NOT NULL")),
        Index("ix_events_for_account_feed", "account_id", "pos", sqlite_where=text("pos IS NOT NULL")),
        CheckConstraint("pos IS NULL OR body IS NOT NULL", name="ck_events_body"),
        CheckConstraint("left_pos IS NULL OR body IS NULL", name="ck_events_left"),
    )

    id: str = Field(primary_key=True)
    account_id: str
    job_id: str | None = None
    seq: int
    type: str
    source: str
    at: int
    detail: str | None = long()
    pos: int | None = None  # its number: the order of the feed
    body: bytes | None = blob()
    left_pos: int | None = None  # the number that it had in the feed


class Subscription(SQLModel, table=True):
    """A standing destination with filters."""

    __tablename__: ClassVar[str] = "subscriptions"
    __table_args__ = (
        Index("ix_subscriptions_for_list", "account_id", "id"),
        Index("ix_subscriptions_for_disabling", "failing_since", sqlite_where=text("failing_since IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    url: str = json("")
    description: str = ""
    events: str = json("[]")
    providers: str = json("[]")
    operations: str = json("[]")
    tags: str = json("[]")
    headers: bytes | None = blob()  # sealed: headers often carry secrets
    rate_per_s: float | None = None
    max_in_flight: int = 10
    schedule: str | None = None
    signatures: str = json('["v1"]')
    status: str = "enabled"
    disabled_reason: str | None = None
    secret: bytes | None = blob(nullable=False)
    previous_secret: bytes | None = blob()
    previous_secret_until: int | None = None
    signing_key: bytes | None = blob()  # the Ed25519 seed of v1a, sealed; rotated together with the secret
    previous_signing_key: bytes | None = blob()
    stop_at_expiry: bool = added_flag()  # whether nothing is sent after the event's results have expired
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
    url: str | None = long()  # a one-off destination's own; a subscription's is read when sending
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


class FanoutPart(SQLModel, table=True):
    """Destinations of an event whose deliveries are still to be written; it goes with its event."""

    __tablename__: ClassVar[str] = "fanouts"

    event_id: str = Field(primary_key=True, foreign_key="events.id", ondelete="CASCADE")
    place: int = Field(primary_key=True)  # among the parts of the event
    account_id: str
    subscription_ids: str = json("[]")
    results_expire_at: int | None = None  # ms UTC: the first of the results that the event speaks of


class Attempt(SQLModel, table=True):
    """One HTTP request of a delivery."""

    __tablename__: ClassVar[str] = "attempts"
    __table_args__ = (Index("ix_attempts_for_delivery", "delivery_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    delivery_id: str = Field(foreign_key="deliveries.id")
    at: int
    status_code: int | None = None
    error: str | None = None
    error_class: str | None = None  # a word for what went wrong: dns_not_found, tls_failed, timeout, http_5xx …
    duration_ms: int  # in total; of it:
    dns_ms: int | None = None  # these three only where a connection was made for the request
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None  # from the request's beginning to the answer's head
    sent: str | None = long()  # which signatures and which headers of the subscription went along, without values
    response_body: str | None = long()


class Replay(SQLModel, table=True):
    """A range of events that is sent to one subscription again, in batches."""

    __tablename__: ClassVar[str] = "replays"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'done', 'cancelled')", name="ck_replays_status"),
        CheckConstraint("(status = 'running') = (due_at IS NOT NULL)", name="ck_replays_wake_up"),
        Index("ix_replays_for_list", "account_id", "id"),
        Index("ix_replays_for_subscription", "account_id", "subscription_id", "id"),
        Index("ix_replays_for_claim", "due_at", sqlite_where=text("status = 'running'")),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    subscription_id: str
    since: int
    until: int
    types: str = json("[]")  # empty: the subscription's own
    statuses: str = json("[]")  # empty: all but pending
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
    __table_args__ = (
        Index("ix_lanes_for_claim", "next_due_at", sqlite_where=text("next_due_at IS NOT NULL")),
        Index("ix_lanes_for_turns", "account_id", "next_due_at", sqlite_where=text("next_due_at IS NOT NULL")),
    )

    id: str = Field(
        primary_key=True
    )  # the subscription's id, or account, origin and digest of the path of a callback_url
    account_id: str
    next_due_at: int | None = None  # not before `rests_until`
    rests_until: int | None = None  # its destination keeps failing and is left alone until then
