"""API keys: made, looked up, revoked. Only the SHA-256 of a key is kept, and no key ever reaches a log or an error.

Owns who a key speaks for and what it may do. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog

from service.accounts import store
from service.clock import Clock, Randomness, iso
from service.db.reader import Reader
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.errors import Conflict, FieldError, Invalid, NotFound, StoreUnavailable, Unauthenticated
from service.schemas.account_schemas import KeyView
from service.schemas.words import Scope

KEY_PREFIX: Final = "rmk_"
KEY_BYTES: Final = 32  # of randomness: 43 characters behind the prefix
MAX_KEY: Final = 512  # characters; an operator may choose an admin key longer than ours
SHOWN_CHARS: Final = 8  # of a key, in lists
TOUCH_EVERY_MS: Final = 60_000  # how exact `last_used_at` is
MAX_CACHED: Final = 10_000  # keys
MAX_KEYS: Final = 1_000  # of an account, unless the settings say otherwise

_log = structlog.get_logger(__name__)


#: What the first key of an account may do: all that concerns its own account.
ACCOUNT_SCOPES: Final = frozenset(Scope) - {Scope.ADMIN}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    account_id: str
    key_id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key has the scope; an admin key has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key in the clear, on its way to its owner, who sees it once."""

    text: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """What is kept of it."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def shown(self) -> str:
        """The beginning, by which its owner tells it from others; less of one that was chosen by a person."""
        return self.text[:SHOWN_CHARS] if self.text.startswith(KEY_PREFIX) else f"{self.text[:4]}…"


def new_key(randomness: Randomness) -> KeyText:
    """A key that nobody can guess."""
    return KeyText(KEY_PREFIX + base64.urlsafe_b64encode(randomness.bytes(KEY_BYTES)).rstrip(b"=").decode())


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored."""

    id: str
    account_id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
    last_used_at: int | None = None
    revoked_at: int | None = None


def key_view(row: KeyRow) -> KeyView:
    """A key as it is shown, without the secret."""
    return {
        "id": row.id,
        "name": row.name,
        "account_id": row.account_id,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "created_at": iso(row.created_at),
        "last_used_at": iso(row.last_used_at),
        "expires_at": iso(row.expires_at),
        "revoked_at": iso(row.revoked_at),
    }


@dataclass(frozen=True, slots=True)
class CreateKey(Command[KeyRow]):
    """Store a key for an account; answered with it as it is stored."""

    id: str
    account_id: str
    name: str
    scopes: tuple[str, ...]
    key: KeyText
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class RevokeKey(Command[None]):
    """End a key at once; `account_id` None: of whichever account, for an admin."""

    key_id: str
    account_id: str | None

    def lock(self) -> Hashable | None:
        """A second revocation finds the first one's time and leaves it."""
        return self.key_id


@dataclass(frozen=True, slots=True)
class TouchKey(Command[None]):
    """Note that a key was used."""

    key_id: str
    at: int


def insert(tx: Tx, rows: Sequence[tuple[KeyRow, KeyText]]) -> None:
    """Write new keys; for handlers that make one within their own transaction."""
    store.insert_keys(
        tx,
        [
            {
                "id": row.id,
                "account_id": row.account_id,
                "name": row.name,
                "prefix": row.prefix,
                "hash": key.hash,
                "scopes": msgspec.json.encode(row.scopes).decode(),
                "created_at": row.created_at,
                "expires_at": row.expires_at,
            }
            for row, key in rows
        ],
    )


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    hash: bytes
    expires_at: int | None
    touched_at: int


class Keys:
    """Knows whom a key speaks for. One for a process: what it remembers is dropped when a key is revoked here."""

    def __init__(self, reader: Reader, writer: Writer, clock: Clock, *, limit: int = MAX_KEYS) -> None:
        self._limit = limit  # keys of an account that are in force; as many that have ended are kept beside them
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._generation = 0  # of revocations: a row read before one must not be remembered after it
        self._touching: set[asyncio.Task[None]] = set()
        writer.handle(CreateKey, self.handle_create)
        writer.handle(RevokeKey, self.handle_revoke)
        writer.handle(TouchKey, self.handle_touch)

    async def authenticate(self, text: str) -> Principal:
        """Whom the key speaks for.

        Raises:
            Unauthenticated: There is no such key, or it is revoked or expired.
        """
        if not 0 < len(text) <= MAX_KEY:
            raise _not_valid("unknown")
        digest = KeyText(text).hash
        known = self._known.get(digest) or await self._load(digest)
        now_ms = self._clock.now_ms()
        # The index found the row by its hash, which tells nothing of the key. This comparison takes the same time for every hash.
        if known is None or not hmac.compare_digest(known.hash, digest):
            raise _not_valid("unknown")
        if known.expires_at is not None and known.expires_at <= now_ms:
            self._known.pop(digest, None)
            raise _not_valid("expired")
        if now_ms - known.touched_at >= TOUCH_EVERY_MS:
            self._touch(digest, known, now_ms)
        return known.principal

    async def _load(self, digest: bytes) -> _Known | None:
        generation = self._generation
        row = await store.find_by_hash(self._reader, digest)
        if row is None:
            return None
        if row["revoked_at"] is not None:
            raise _not_valid("revoked")
        if row["account"] != "active":
            raise _not_valid("its account is closed")
        principal = Principal(row["account_id"], row["id"], frozenset(msgspec.json.decode(row["scopes"])))
        known = _Known(principal, bytes(row["hash"]), row["expires_at"], row["last_used_at"] or 0)
        if generation == self._generation:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[digest] = known
        return known

    def _touch(self, digest: bytes, known: _Known, now_ms: int) -> None:
        if digest in self._known:
            self._known[digest] = replace(known, touched_at=now_ms)
        task = asyncio.create_task(self._note_use(TouchKey(known.principal.key_id, now_ms)), name="touch-key")
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _note_use(self, command: TouchKey) -> None:
        try:
            await self._writer.run(command)
        except StoreUnavailable:
            _log.debug("key_use_not_noted", key_id=command.key_id)  # the next use tries again

    async def close(self) -> None:
        """Let the notes that are under way be written; before the writer closes."""
        await asyncio.gather(*self._touching)

    async def handle_create(self, tx: Tx, commands: Sequence[CreateKey]) -> list[KeyRow | Exception]:
        """The writer's handler for `CreateKey`."""
        in_force = await store.keys_in_force(tx, {command.account_id for command in commands})
        answers: list[KeyRow | Exception] = []
        made: list[tuple[KeyRow, KeyText]] = []
        for each in commands:
            if each.account_id not in in_force:
                answers.append(_no_account())
            elif in_force[each.account_id] >= self._limit:
                answers.append(_too_many(self._limit))
            else:
                in_force[each.account_id] += 1
                row = KeyRow(
                    each.id, each.account_id, each.name, each.key.shown, each.scopes, tx.now_ms, each.expires_at
                )
                answers.append(row)
                made.append((row, each.key))
        insert(tx, made)
        store.forget_ended_keys(tx, in_force, kept=self._limit)
        return answers

    async def handle_revoke(self, tx: Tx, commands: Sequence[RevokeKey]) -> list[Exception | None]:
        """The writer's handler for `RevokeKey`: each sees what the ones before it in the set have ended."""
        found = {row["id"]: row for row in await store.key_owners(tx, {command.key_id for command in commands})}
        admins: dict[str, bool] = {}  # the admin keys in force, and whether they last
        if any(row["admin"] for row in found.values()):
            admins = await store.admin_keys(tx)
        answers: list[Exception | None] = []
        revoked: list[str] = []
        for command in commands:
            row = found.get(command.key_id)
            if row is None or command.account_id not in {None, row["account_id"]}:
                answers.append(NotFound("there is no such key"))
                continue
            lasts = admins.pop(command.key_id, None)
            if lasts is not None and not any(other or not lasts for other in admins.values()):
                admins[command.key_id] = lasts
                answers.append(_last_admin())
                continue
            revoked.append(command.key_id)
            answers.append(None)
        store.revoke_keys(tx, revoked)
        tx.after_commit(lambda: self.forget(revoked))
        return answers

    async def handle_touch(self, tx: Tx, commands: Sequence[TouchKey]) -> list[Exception | None]:
        """The writer's handler for `TouchKey`."""
        store.touch_keys(tx, [{"id": command.key_id, "at": command.at} for command in commands])
        return [None for _ in commands]

    def forget(self, key_ids: Iterable[str]) -> None:
        """Stop knowing keys; called after the commit that changed them and before anybody is told of it."""
        gone = set(key_ids)
        self._generation += 1
        self._known = {digest: known for digest, known in self._known.items() if known.principal.key_id not in gone}


def _not_valid(reason: str) -> Unauthenticated:
    """Told to the caller, too: only who has the whole key learns that there was one."""
    return Unauthenticated(f"the key is not valid: {reason}; send Authorization: Bearer rmk_…")


def _no_account() -> Invalid:
    detail = "there is no account with this id"
    return Invalid(detail, code="unknown_account", errors=(FieldError("/account_id", detail),))


def _too_many(limit: int) -> Conflict:
    return Conflict(
        f"the account has {limit} keys in force, which is the most; revoke one that is not used any more",
        code="too_many_keys",
    )


def _last_admin() -> Conflict:
    return Conflict(
        "without this key nobody could administer the service for good; first make another one with the scope admin that "
        "does not expire (POST /v1/keys)",
        code="last_admin_key",
    )


async def find(reader: Reader, key_id: str) -> KeyRow | None:
    """One key, of whichever account."""
    row = await store.find_key(reader, key_id)
    return None if row is None else _from_row(row)


async def list_keys(reader: Reader, account_id: str, before_id: str | None, limit: int) -> list[KeyRow]:
    """The account's keys, newest first; revoked ones too."""
    return [_from_row(row) for row in await store.list_keys(reader, account_id, before_id, limit)]


def _from_row(row: Row) -> KeyRow:
    columns = dict(row)
    return KeyRow(scopes=tuple(msgspec.json.decode(columns.pop("scopes"))), **columns)
