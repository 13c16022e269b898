"""Secrets at rest: bound to their place, and to one key that must fit the database."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from service.clock import SeededRandomness
from service.db.keyring import key_file, open_box
from service.db.migrate import upgrade
from service.db.sealing import SecretBox, SecretKeyWrong
from service.errors import SettingsInvalid

RANDOM = SeededRandomness(1)


def test_sealed_secret_opens_only_in_its_place_and_with_its_key() -> None:
    """Copied to another row, damaged, or with another key: it does not open."""
    box, other = SecretBox(b"k" * 32, RANDOM), SecretBox(b"x" * 32, RANDOM)
    sealed = box.seal(b"whsec", "subscriptions/sub_1/secret")

    assert box.open(sealed, "subscriptions/sub_1/secret") == b"whsec"
    assert b"whsec" not in sealed
    for opener, blob, place in (
        (box, sealed, "subscriptions/sub_2/secret"),
        (other, sealed, "subscriptions/sub_1/secret"),
        (box, sealed[:-1] + bytes([sealed[-1] ^ 1]), "subscriptions/sub_1/secret"),
        (box, b"", "subscriptions/sub_1/secret"),
    ):
        with pytest.raises(SecretKeyWrong, match="does not open"):
            opener.open(blob, place)


def database(directory: Path) -> tuple[sqlite3.Connection, Path]:
    """A new database."""
    path = directory / "remora.db"
    upgrade(path)
    return sqlite3.connect(path), path


def test_key_is_made_once_beside_the_database_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600, and the same key at the next start."""
    connection, path = database(tmp_path)
    sealed = open_box(connection, path, None, RANDOM).seal(b"s", "place")
    again = open_box(connection, path, None, RANDOM).open(sealed, "place")
    mode = stat.S_IMODE(key_file(path).stat().st_mode)
    connection.close()

    assert again == b"s"
    assert mode == 0o600


def test_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Another setting, another file, or a file that is gone: told at start, with what to do."""
    connection, path = database(tmp_path)
    open_box(connection, path, None, RANDOM)
    with pytest.raises(SettingsInvalid, match="REMORA_SECRET_KEY: is not the key"):
        open_box(connection, path, "another key of at least 32 characters", RANDOM)
    key_file(path).write_text("QUJD" * 11)
    with pytest.raises(SettingsInvalid, match="is not the key that"):
        open_box(connection, path, None, RANDOM)
    key_file(path).unlink()
    with pytest.raises(SettingsInvalid, match="is gone"):
        open_box(connection, path, None, RANDOM)
    connection.close()


def test_short_key_is_refused(tmp_path: Path) -> None:
    """Less than 256 bits is no key."""
    connection, path = database(tmp_path)
    with pytest.raises(SettingsInvalid, match="at least 32 characters"):
        open_box(connection, path, "short", RANDOM)
    connection.close()
