"""Accounts, their keys, and the books."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from service.db.tables.columns import added, blob, json


class Meta(SQLModel, table=True):
    """Facts about the database itself, such as the check value of the secret key."""

    __tablename__: ClassVar[str] = "meta"

    key: str = Field(primary_key=True)
    value: bytes | None = blob(nullable=False)


class Account(SQLModel, table=True):
    """Who owns keys, jobs and subscriptions; nothing crosses accounts."""

    __tablename__: ClassVar[str] = "accounts"

    id: str = Field(primary_key=True)
    name: str
    status: str = "active"
    limit_kind: str = "none"
    secret: bytes | None = blob(nullable=False)  # the default signing secret, sealed
    secret_prefix: str
    previous_secret: bytes | None = blob()  # co-signs until previous_secret_until
    previous_secret_until: int | None = None
    created_at: int
    feed_floor: int = added(0)  # the highest `events.pos` of this account that retention removed
    feed_erased: int = added(0)  # the highest one that erasing a job took out of the feed
    # What the books (`transfers`) add up to, kept here so that taking a job adds nothing up; micro-USD.
    balance: int = added(0)  # credits less charges
    held: int = added(0)  # of it, for jobs that are under way
    budget: int | None = None  # of a month, where the limit is `monthly`
    month: int = added(0)  # yyyymm, UTC: the one that `month_spent` counts
    month_spent: int = added(0)


class Key(SQLModel, table=True):
    """An API key; only its SHA-256 is kept."""

    __tablename__: ClassVar[str] = "keys"
    __table_args__ = (Index("ix_keys_for_list", "account_id", "id"),)

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="accounts.id")
    name: str
    prefix: str
    hash: bytes | None = blob(nullable=False, unique=True)
    scopes: str = json("[]")
    created_at: int
    last_used_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None


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


class Idempotency(SQLModel, table=True):
    """The first answer to a keyed request, kept for a day."""

    __tablename__: ClassVar[str] = "idempotency"
    __table_args__ = (Index("ix_idempotency_for_cleaning", "expires_at"),)

    account_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_hash: bytes | None = blob(nullable=False)
    job_id: str
    answer: bytes | None = blob(nullable=False)
    expires_at: int
