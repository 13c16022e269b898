"""The account `default` and its admin key, which exist before anybody can ask for them.

The settings' admin key is accepted while it stands there, and no longer: one that was replaced or taken out is revoked at
the next start. Without one a key is made, once, and written to a file that only its owner can read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service.accounts import store
from service.accounts.accounts import prefix_of
from service.accounts.keys import KeyRow, KeyText, insert, new_key
from service.accounts.secrets import new_sealed
from service.clock import Randomness
from service.db.keyring import write_private
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.ids import Ids
from service.schemas.words import Scope

DEFAULT_ACCOUNT: Final = "default"
SETTINGS_KEY: Final = "REMORA_ADMIN_KEY"  # the name of the settings' key; callers cannot give it to theirs
MADE_KEY: Final = "admin"  # the name of the key that is made when the settings have none


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The admin key after a start.

    Args:
        text: In the clear where it is known: from the settings, or made just now.
        path: The file it was written to, if one was made, now or earlier.
    """

    text: str | None = field(repr=False)
    path: Path | None


@dataclass(frozen=True, slots=True)
class EnsureDefault(Command[str]):
    """See to the default account and its admin key; answered with the account's id.

    Args:
        account_id: The account's id if it has to be made, with its sealed secret.
        key_id: The key's id if it has to be made.
        key: The settings' key, or one that was made; None: there is one already.
        key_name: `SETTINGS_KEY` or `MADE_KEY`.
    """

    account_id: str
    sealed: bytes = field(repr=False)
    secret_prefix: str
    key_id: str
    key: KeyText | None
    key_name: str


def key_file(database: Path) -> Path:
    """Where the admin key lies that was made for a database."""
    return database.with_name(database.name + ".admin-key")


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(EnsureDefault, handle_ensure)


async def ensure_default(
    *,
    writer: Writer,
    reader: Reader,
    box: SecretBox,
    ids: Ids,
    randomness: Randomness,
    database: Path | None,
    given: str | None,
) -> AdminKey:
    """See to it that somebody can administer this database; the writer runs, nobody else has the database.

    Args:
        writer: Runs the command; `register` was called.
        reader: Tells whether a key must be made.
        box: Seals the account's signing secret.
        ids: For the account and the key.
        randomness: For the key and the secret.
        database: The file beside which a made key is written; None: a key is given.
        given: The settings' admin key.
    """
    key = KeyText(given) if given is not None else None
    path = None if database is None else key_file(database)
    if path is not None and key is None and not await store.has_usable_admin(reader, DEFAULT_ACCOUNT, SETTINGS_KEY):
        key = new_key(randomness)
        # The file first: a key that is stored but lost would lock everybody out, one that was never stored is harmless.
        await asyncio.to_thread(write_private, path, key.text + "\n")
    account_id = ids.new("acc")
    secret, sealed = new_sealed(box, randomness, account_id)
    name = MADE_KEY if given is None else SETTINGS_KEY
    await writer.run(EnsureDefault(account_id, sealed, prefix_of(secret), ids.new("key"), key, name))
    there = path is not None and await asyncio.to_thread(path.exists)
    return AdminKey(None if key is None else key.text, path if there and given is None else None)


async def handle_ensure(tx: Tx, commands: Sequence[EnsureDefault]) -> list[str | Exception]:
    """The writer's handler for `EnsureDefault`."""
    return [await _ensure(tx, command) for command in commands]


async def _ensure(tx: Tx, command: EnsureDefault) -> str:
    found = await store.account_named(tx, DEFAULT_ACCOUNT)
    account_id = found or command.account_id
    if found is None:
        store.insert_unlimited(
            tx,
            {
                "id": account_id,
                "name": DEFAULT_ACCOUNT,
                "sealed": command.sealed,
                "prefix": command.secret_prefix,
                "now": tx.now_ms,
            },
        )
    kept = command.key.hash if command.key is not None and command.key_name == SETTINGS_KEY else b""
    store.revoke_named(tx, SETTINGS_KEY, but=kept)
    if command.key is not None:
        await _accept(tx, command, command.key, account_id)
    return account_id


async def _accept(tx: Tx, command: EnsureDefault, key: KeyText, account_id: str) -> None:
    if await store.has_key(tx, key.hash):
        row = {"account": account_id, "name": command.key_name, "scopes": f'["{Scope.ADMIN}"]', "hash": key.hash}
        store.reinstate_key(tx, row)
        return
    admin = KeyRow(command.key_id, account_id, command.key_name, key.shown, (Scope.ADMIN.value,), tx.now_ms)
    insert(tx, [(admin, key)])
