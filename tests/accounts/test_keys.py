"""Keys: found by their hash, refused when revoked or expired, and kept as nothing but a hash."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from service.accounts.keys import CreateKey, KeyText, Principal, RevokeKey, find, list_keys, new_key
from service.errors import Invalid, NotFound, Unauthenticated
from tests.accounts.conftest import Books


def test_new_key_is_unguessable_and_hides_itself(books: Books) -> None:
    """43 characters of randomness behind the prefix; neither repr nor the shown part gives it away."""
    key = new_key(books.randomness)

    assert re.fullmatch(r"rmk_[A-Za-z0-9_-]{43}", key.text)
    assert key.hash == hashlib.sha256(key.text.encode()).digest()
    assert key.text not in repr(key)
    assert (key.shown, KeyText("chosen-by-a-person-1234").shown) == (key.text[:8], "chos…")


async def test_key_speaks_for_its_account(books: Books) -> None:
    """The same answer from the store and from memory; other texts are refused."""
    account, key, _ = await books.account("shop", "jobs:read", "jobs:write")
    first = await books.keys.authenticate(key.text)
    second = await books.keys.authenticate(key.text)

    assert first is second
    assert first == Principal(account.id, first.key_id, frozenset({"jobs:read", "jobs:write"}))
    assert first.may("jobs:read")
    assert not first.may("account")
    for wrong in ("", key.text[:-1], key.text + "x", key.text.lower(), "x" * 10_000, "é"):
        with pytest.raises(Unauthenticated):
            await books.keys.authenticate(wrong)


async def test_only_the_hash_is_stored(books: Books) -> None:
    """Whoever has the database has no key."""
    _, key, secret = await books.account()
    await books.keys.authenticate(key.text)
    await books.keys.close()
    stored = books.store.path.read_bytes() + books.store.path.with_name("remora.db-wal").read_bytes()

    assert key.text.encode() not in stored
    assert secret.encode() not in stored
    assert key.hash in stored


async def test_revoked_key_is_refused_from_the_commit_on(books: Books) -> None:
    """Also when it is used while the revocation is written; revoking again keeps the first time."""
    account, key, _ = await books.account()
    key_id = (await books.keys.authenticate(key.text)).key_id
    await asyncio.gather(
        books.store.writer.run(RevokeKey(key_id, account.id)), *(books.keys.authenticate(key.text) for _ in range(20))
    )
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await books.keys.authenticate(key.text)
    first = await find(books.store.reader, key_id)
    books.clock.advance(60)
    await books.store.writer.run(RevokeKey(key_id, None))

    assert first is not None
    assert await find(books.store.reader, key_id) == first


async def test_revocation_of_a_strangers_key_changes_nothing(books: Books) -> None:
    """Not found, in the same batch as good ones."""
    mine, key, _ = await books.account("mine")
    theirs, _, _ = await books.account("theirs")
    key_id = (await books.keys.authenticate(key.text)).key_id
    answers = await asyncio.gather(
        books.store.writer.run(RevokeKey(key_id, theirs.id)),
        books.store.writer.run(RevokeKey("key_nothing", mine.id)),
        return_exceptions=True,
    )

    assert [type(each) for each in answers] == [NotFound, NotFound]
    assert (await books.keys.authenticate(key.text)).account_id == mine.id


async def test_key_expires_by_the_clock(books: Books) -> None:
    """Valid until its last millisecond, also when it is remembered."""
    account, _, _ = await books.account()
    key, end = new_key(books.randomness), books.clock.now_ms() + 10_000
    await books.store.writer.run(CreateKey(books.ids.new("key"), account.id, "x", ("admin",), key, end))
    books.clock.advance(9.999)
    assert (await books.keys.authenticate(key.text)).may("anything")
    books.clock.advance(0.001)

    with pytest.raises(Unauthenticated):
        await books.keys.authenticate(key.text)


async def test_key_for_no_account_is_refused_alone(books: Books) -> None:
    """The others of the batch are made."""
    account, _, _ = await books.account()
    good, bad = (
        CreateKey(books.ids.new("key"), account_id, "x", ("jobs:read",), new_key(books.randomness))
        for account_id in (account.id, "acc_nothing")
    )
    answers = await asyncio.gather(books.store.writer.run(bad), books.store.writer.run(good), return_exceptions=True)

    assert isinstance(answers[0], Invalid)
    assert good.id in {row.id for row in await list_keys(books.store.reader, account.id, None, 10)}


async def test_use_is_noted_once_a_minute(books: Books) -> None:
    """`last_used_at` costs a write a minute at most, however often the key is used."""
    _, key, _ = await books.account()
    key_id = (await books.keys.authenticate(key.text)).key_id
    times = []
    for seconds in (0.0, 30.0, 29.9, 0.1, 60.0):
        books.clock.advance(seconds)
        await books.keys.authenticate(key.text)
        await books.keys.close()
        row = await find(books.store.reader, key_id)
        assert row is not None
        times.append(row.last_used_at)
    start = times[0]

    assert start is not None
    assert [None if each is None else each - start for each in times] == [0, 0, 0, 60_000, 120_000]


async def test_use_during_shutdown_is_not_noted_and_harms_nobody(books: Books) -> None:
    """A store that takes no more writes still lets the last callers in."""
    _, key, _ = await books.account()
    books.store.writer._closing = True
    principal = await books.keys.authenticate(key.text)
    await books.keys.close()
    books.store.writer._closing = False

    assert principal.may("jobs:read")
