"""What an operator may ask of a PostgreSQL database that is not open in this process; see `examine`.

It must not change anything.
"""

from __future__ import annotations

import asyncpg

from service.clock import Randomness
from service.db.inspection.attention import QUESTIONS, Trouble, asked
from service.db.inspection.examine import Examination
from service.db.inspection.invariants import RULES, Breach
from service.db.keyring import CHECK, box_of, verify
from service.db.macros import numbered
from service.db.migrate import newest
from service.db.postgres.pg_errors import DRIVER
from service.db.postgres.pg_migrate import current
from service.db.postgres.pg_sole import LOCK
from service.db.postgres.pg_tx import bound
from service.db.transaction import Params
from service.errors import SettingsInvalid
from service.notation import without_password

# The server lists the locks of all its databases.
_IN_USE = """
SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def examine(url: str, secret_key: str, randomness: Randomness, now_ms: int) -> Examination:
    """Look at a database without changing it, also while a service uses it.

    Raises:
        SettingsInvalid: It cannot be asked.
    """
    try:
        connection = await asyncpg.connect(url)
        try:
            # All questions are asked of one moment.
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _examined(connection, url, secret_key, randomness, now_ms)
        finally:
            await connection.close()
    except DRIVER as error:
        msg = f"REMORA_DATABASE_URL: {without_password(url)} cannot be asked: {error or type(error).__name__}"
        raise SettingsInvalid([msg]) from None


async def breaches(connection: asyncpg.Connection) -> list[Breach]:
    """Every rule that this database breaks; an empty list is health."""
    found = []
    for rule, says, question in RULES:
        rows = await connection.fetch(f"{numbered(question)[0]} LIMIT 5")
        if rows:
            found.append(Breach(rule, says, tuple(str(row[0]) for row in rows)))
    return found


async def _examined(
    connection: asyncpg.Connection, url: str, secret_key: str, randomness: Randomness, now_ms: int
) -> Examination:
    revision, wanted = await current(connection), newest()
    if revision is None:
        return Examination(exists=False)
    in_use = await connection.fetchval(_IN_USE, LOCK)
    if revision != wanted:
        return Examination(exists=True, in_use=in_use is not None, revision=revision, newest=wanted)
    check = await connection.fetchval("SELECT value FROM meta WHERE key = $1", CHECK)
    return Examination(
        exists=True,
        in_use=in_use is not None,
        revision=revision,
        newest=wanted,
        breaches=await breaches(connection),
        has_key=check is not None,
        key_problem=None if check is None else _key_problem(url, check, secret_key, randomness),
        troubles=await _troubles(connection, asked(now_ms)),
    )


def _key_problem(url: str, check: bytes, secret_key: str, randomness: Randomness) -> str | None:
    try:
        verify(box_of(secret_key, randomness), check, "REMORA_SECRET_KEY", without_password(url))
    except SettingsInvalid as error:
        return str(error)
    return None


async def _troubles(connection: asyncpg.Connection, params: Params) -> list[Trouble]:
    found = []
    for kind, question in QUESTIONS.items():
        text, names = numbered(question)
        row = await connection.fetchrow(text, *bound(names, params))
        if row is not None and row[0]:
            found.append(Trouble(kind, row[0], row[1]))
    return found
