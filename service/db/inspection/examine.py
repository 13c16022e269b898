"""What an operator may ask of a database that is not open in this process: is it sound, and is it up to date.

Owns the questions of `remora doctor` and the work of `remora migrate`. It must not change anything when it only asks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.clock import Randomness
from service.db.inspection.attention import Trouble, troubles
from service.db.inspection.invariants import Breach, breaches
from service.db.keyring import installation_of, open_box
from service.db.migrate import newest, upgrade
from service.db.opening import hold, lost, no_directory, not_writable
from service.db.sqlite.file_lock import in_use
from service.db.sqlite.sqlite_engine import BUSY_TIMEOUT_MS
from service.db.sqlite.sqlite_errors import remedy
from service.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Args:
        exists: Whether there is a database at all; where there is none, the rest says nothing.
        in_use: Whether a service has it open.
        revision: What it was last brought up to; None for a file that Remora never opened.
        newest: What this version of Remora wants.
        breaches: The rules that it breaks; not asked of an old revision.
        has_key: Whether it was ever opened with a secret key; without, the first start decides on one.
        key_problem: Why its secrets cannot be read; None where they can.
        troubles: What waits for somebody; not asked of an old revision.
    """

    exists: bool
    in_use: bool = False
    revision: str | None = None
    newest: str | None = None
    breaches: list[Breach] = field(default_factory=list)
    has_key: bool = False
    key_problem: str | None = None
    troubles: list[Trouble] = field(default_factory=list)


def examine(path: Path, secret_key: str | None, randomness: Randomness, now_ms: int) -> Examination:
    """Look at a database without changing it, also while a service uses it.

    Raises:
        SettingsInvalid: It cannot be made, or not be read.
    """
    if not path.exists():
        _check_place(path)
        return Examination(exists=False)
    path = path.resolve()  # the secret key lies beside the file itself, not beside a link to it
    try:
        used = in_use(path)
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as raw:
            raw.row_factory = sqlite3.Row
            raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            raw.execute("BEGIN")  # all questions are asked of one moment
            found = _examined(raw, path, secret_key, randomness, in_use=used)
            return found if found.revision != found.newest else replace(found, troubles=troubles(raw, now_ms))
    except OSError as error:
        raise SettingsInvalid([not_writable(path, error.strerror or "")]) from error
    except sqlite3.DatabaseError as error:
        raise SettingsInvalid([_unreadable(path, error)]) from error


def refuse_unreadable(path: Path) -> None:
    """Say so before a start if the file is no database; quick, whatever its size.

    Raises:
        SettingsInvalid: It is none.
    """
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as raw:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise SettingsInvalid([_unreadable(path, error)]) from error


def installation_at(path: Path, secret_key: str | None, randomness: Randomness) -> str:
    """The name of a database that a service may be using, if it could be opened with this key.

    Raises:
        SettingsInvalid: It could not.
    """
    refuse_unreadable(path)
    path = path.resolve()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as raw:
            open_box(raw, path, secret_key, randomness)
            return installation_of(raw)
    except sqlite3.Error as error:
        raise SettingsInvalid([_unreadable(path, error)]) from error


def bring_up_to_date(path: Path) -> tuple[str | None, str | None]:
    """Apply the migrations that a database lacks; made where there is none.

    Returns:
        The revision before and after.

    Raises:
        StoreUnavailable: A service has it open.
        SettingsInvalid: It cannot be written, or is no database of ours.
    """
    with _held(path):
        try:
            return upgrade(path)
        except sqlite3.DatabaseError as error:
            raise SettingsInvalid([_unreadable(path, error)]) from error


def _examined(
    raw: sqlite3.Connection, path: Path, secret_key: str | None, randomness: Randomness, *, in_use: bool
) -> Examination:
    tables = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = raw.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
    revision, wanted = row[0] if row else None, newest()
    if revision != wanted:
        return Examination(exists=True, in_use=in_use, revision=revision, newest=wanted)
    has_key = raw.execute("SELECT 1 FROM meta WHERE key = 'secret_key_check'").fetchone() is not None
    return Examination(
        exists=True,
        in_use=in_use,
        revision=revision,
        newest=wanted,
        breaches=breaches(raw),
        has_key=has_key,
        # Opening the box of a database that has no key yet would make one.
        key_problem=_key_problem(raw, path, secret_key, randomness) if has_key else None,
    )


def _key_problem(raw: sqlite3.Connection, path: Path, secret_key: str | None, randomness: Randomness) -> str | None:
    try:
        open_box(raw, path, secret_key, randomness)
    except SettingsInvalid as error:
        return str(error)
    return None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = hold(path)
    try:
        lock.make()
        yield
    finally:
        lock.release()


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise SettingsInvalid([no_directory(path)])
    if (missing := lost(path)) is not None:
        raise SettingsInvalid([missing])
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsInvalid([not_writable(path, f"{path.parent} is read-only for it")])


def _unreadable(path: Path, error: BaseException) -> str:
    return f"REMORA_DATABASE_URL: {path} cannot be read as a database ({error}); {remedy(error)}"
