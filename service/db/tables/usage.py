"""What ended, counted by day."""

from __future__ import annotations

from typing import ClassVar

from sqlmodel import Field, SQLModel

from service.db.tables.columns import blob


class UsageDaily(SQLModel, table=True):
    """How many jobs ended on a day, what they cost and how long they took; outlives the jobs themselves."""

    __tablename__: ClassVar[str] = "usage_daily"
    __table_args__ = ({"sqlite_with_rowid": False},)

    account_id: str = Field(primary_key=True)
    day: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # days since 1970, UTC
    tag: str = Field(primary_key=True)  # empty: all jobs, whatever their tags
    provider: str = Field(primary_key=True)
    operation: str = Field(primary_key=True)
    model: str = Field(primary_key=True)  # empty: none was named
    key_id: str = Field(primary_key=True)  # empty: taken without one
    counts: bytes | None = blob(nullable=False)  # MessagePack: by state how many, for how much, and how long they took


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
