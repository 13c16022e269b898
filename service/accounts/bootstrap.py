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

from service.accounts.accounts import prefix_of
from service.accounts.keys import KeyRow, KeyText, Scope, insert, new_key
from service.accounts.secrets import new_sealed
from service.clock import Randomness
from service.db.keyring import write_private
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.ids import Ids

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


_USABLE_ADMIN: Final = """
SELECT 1 FROM keys k JOIN accounts a ON a.id = k.account_id
WHERE a.name = :default AND k.name <> :settings_key AND k.revoked_at IS NULL AND k.expires_at IS NULL
    AND 'admin' IN @set(k.scopes)
LIMIT 1
"""
_INSERT_ACCOUNT: Final = """
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at)
@rows(:id, :name, 'active', 'none', :sealed, :prefix, :now)
"""
_REVOKE_FORMER: Final = "UPDATE keys SET revoked_at = :now WHERE name = :name AND revoked_at IS NULL AND hash <> :hash"
_REINSTATE: Final = """
UPDATE keys SET account_id = :account, name = :name, scopes = :scopes, revoked_at = NULL, expires_at = NULL
WHERE hash = :hash
"""


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
    database: Path,
    given: str | None,
) -> AdminKey:
    """See to it that somebody can administer this database; the writer runs, nobody else has the database.

    Args:
        writer: Runs the command; `register` was called.
        reader: Tells whether a key must be made.
        box: Seals the account's signing secret.
        ids: For the account and the key.
        randomness: For the key and the secret.
        database: The file beside which a made key is written.
        given: The settings' admin key.
    """
    key = KeyText(given) if given is not None else None
    path = key_file(database)
    if key is None and not await reader.rows(_USABLE_ADMIN, {"default": DEFAULT_ACCOUNT, "settings_key": SETTINGS_KEY}):
        key = new_key(randomness)
        # The file first: a key that is stored but lost would lock everybody out, one that was never stored is harmless.
        await asyncio.to_thread(write_private, path, key.text + "\n")
    account_id = ids.new("acc")
    secret, sealed = new_sealed(box, randomness, account_id)
    name = MADE_KEY if given is None else SETTINGS_KEY
    await writer.run(EnsureDefault(account_id, sealed, prefix_of(secret), ids.new("key"), key, name))
    there = await asyncio.to_thread(path.exists)
    return AdminKey(None if key is None else key.text, path if there and given is None else None)


async def handle_ensure(tx: Tx, commands: Sequence[EnsureDefault]) -> list[str | Exception]:
    """The writer's handler for `EnsureDefault`."""
    return [await _ensure(tx, command) for command in commands]


async def _ensure(tx: Tx, command: EnsureDefault) -> str:
    found = await tx.rows("SELECT id FROM accounts WHERE name = :name ORDER BY id LIMIT 1", {"name": DEFAULT_ACCOUNT})
    account_id: str = found[0]["id"] if found else command.account_id
    if not found:
        tx.write(
            _INSERT_ACCOUNT,
            [
                {
                    "id": account_id,
                    "name": DEFAULT_ACCOUNT,
                    "sealed": command.sealed,
                    "prefix": command.secret_prefix,
                    "now": tx.now_ms,
                }
            ],
        )
    kept = command.key.hash if command.key is not None and command.key_name == SETTINGS_KEY else b""
    tx.write(_REVOKE_FORMER, [{"name": SETTINGS_KEY, "hash": kept, "now": tx.now_ms}])
    if command.key is not None:
        await _accept(tx, command, command.key, account_id)
    return account_id


async def _accept(tx: Tx, command: EnsureDefault, key: KeyText, account_id: str) -> None:
    if await tx.rows("SELECT 1 FROM keys WHERE hash = :hash", {"hash": key.hash}):
        row = {"account": account_id, "name": command.key_name, "scopes": f'["{Scope.ADMIN}"]', "hash": key.hash}
        tx.write(_REINSTATE, [row], expect=1)
        return
    admin = KeyRow(command.key_id, account_id, command.key_name, key.shown, (Scope.ADMIN.value,), tx.now_ms)
    insert(tx, [(admin, key)])
