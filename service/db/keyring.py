"""Where the root secret comes from, and whether it fits the database."""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from service.clock import Randomness
from service.db.reader import Reader
from service.db.sealing import MIN_KEY_BYTES, SecretBox, SecretKeyWrong, parse_root
from service.errors import SettingsInvalid

CHECK: Final = "secret_key_check"  # the key in `meta`
_PLAIN = b"remora"


def key_file(database: Path) -> Path:
    """Where the root secret lies that was made for a SQLite database."""
    return database.with_name(database.name + ".secret-key")


def open_box(connection: sqlite3.Connection, database: Path, given: str | None, randomness: Randomness) -> SecretBox:
    """The box for this database, with the key of the settings or the one beside the database, made on first use.

    Raises:
        SettingsInvalid: The key does not fit the database, is too short, or its file is gone.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (CHECK,)).fetchone()
    box = SecretBox(_root(database, given, randomness, fresh=row is None), randomness)
    if row is None:
        with connection:
            connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (CHECK, check_of(box)))
        return box
    verify(box, row[0], "REMORA_SECRET_KEY" if given is not None else str(key_file(database)), str(database))
    return box


def box_of(given: str, randomness: Randomness) -> SecretBox:
    """The box of the settings' key.

    Raises:
        SettingsInvalid: The key is too short.
    """
    return SecretBox(_parsed(given), randomness)


def check_of(box: SecretBox) -> bytes:
    """What is kept in a new database, so that another key is noticed."""
    return box.seal(_PLAIN, CHECK)


def verify(box: SecretBox, check: bytes, source: str, database: str) -> None:
    """See whether a box's key is the one that a database was made with.

    Raises:
        SettingsInvalid: It is not.
    """
    try:
        box.open(bytes(check), CHECK)
    except SecretKeyWrong as error:
        msg = f"{source}: is not the key that {database} was made with; put the right one back"
        raise SettingsInvalid([msg]) from error


async def installation(reader: Reader) -> str:
    """A name of this database that no other has, not even one with the same key: its check value was sealed at random."""
    row = await reader.row("SELECT value FROM meta WHERE key = :key", {"key": CHECK})
    return "" if row is None else _name(row["value"])


def installation_of(connection: sqlite3.Connection) -> str:
    """As `installation`, of a database that was opened by hand."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (CHECK,)).fetchone()
    return "" if row is None else _name(row[0])


def _name(check: bytes) -> str:
    return hashlib.sha256(b"installation" + bytes(check)).hexdigest()[:32]


def _root(database: Path, given: str | None, randomness: Randomness, *, fresh: bool) -> bytes:
    if given is not None:
        return _parsed(given)
    path = key_file(database)
    if path.exists():
        try:
            return parse_root(path.read_text("ascii").strip())
        except (OSError, ValueError) as error:
            raise SettingsInvalid([f"{path}: is not readable as a key ({error}); put the right one back"]) from error
    if not fresh:
        msg = f"{path}: is gone, and REMORA_SECRET_KEY is not set; without the key the secrets in {database} cannot be read"
        raise SettingsInvalid([msg])
    text = base64.b64encode(randomness.bytes(MIN_KEY_BYTES)).decode()
    write_private(path, text + "\n")
    return parse_root(text)


def _parsed(given: str) -> bytes:
    try:
        return parse_root(given)
    except ValueError as error:
        raise SettingsInvalid([f"REMORA_SECRET_KEY: {error}"]) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it is never there with wider rights, not even for a moment."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o600)
        file.write(text)
        file.flush()
        os.fsync(fd)
