"""Kinds of columns that occur again and again."""

from __future__ import annotations

from sqlalchemy import LargeBinary, Text, false, text
from sqlmodel import Field


def blob(*, nullable: bool = True, unique: bool = False) -> bytes | None:
    """Bytes."""
    return Field(default=None, sa_type=LargeBinary, nullable=nullable, unique=unique)  # type: ignore[no-any-return]


def json(default: str) -> str:
    """JSON, or another text without a limit that is never NULL."""
    return Field(default=default, sa_type=Text, nullable=False)  # type: ignore[no-any-return]


def long() -> str | None:
    """A text without a limit."""
    return Field(default=None, sa_type=Text, nullable=True)  # type: ignore[no-any-return]


def added(default: int) -> int:
    """A column that came later and must not be NULL: the rows that were there before need a value from the engine."""
    return Field(default=default, nullable=False, sa_column_kwargs={"server_default": text(str(default))})  # type: ignore[no-any-return]


def added_flag() -> bool:
    """A truth value that came later; the rows that were there before have false."""
    return Field(default=False, nullable=False, sa_column_kwargs={"server_default": false()})  # type: ignore[no-any-return]


def added_text() -> str:
    """A text without a limit that came later; the rows that were there before have an empty one."""
    return Field(default="", sa_type=Text, nullable=False, sa_column_kwargs={"server_default": text("''")})  # type: ignore[no-any-return]
