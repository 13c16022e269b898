"""Keys: found by their hash, refused when revoked or expired, and kept as nothing but a hash."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from service.accounts.keys import CreateKey, Keys, KeyText, Principal, RevokeKey, find, list_keys, new_key
from service.errors import Conflict, Invalid, NotFound, Unauthenticated
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


def _limited(books: Books, limit: int) -> None:
    """The store's handlers as those of a service that allows so many keys."""
    Keys(books.store.reader, books.store.writer, books.clock, limit=limit)


async def _make(books: Books, account_id: str, *scopes: str, lives_ms: int | None = None) -> str:
    expires_at = None if lives_ms is None else books.clock.now_ms() + lives_ms
    command = CreateKey(books.ids.new("key"), account_id, "x", scopes, new_key(books.randomness), expires_at)
    return (await books.store.writer.run(command)).id


async def test_account_has_so_many_keys_in_force(books: Books) -> None:
    """Of several that are made at once only as many as fit; those that were revoked or have expired leave room."""
    _limited(books, 4)
    account, _, _ = await books.account()
    other, _, _ = await books.account("other")
    answers = await asyncio.gather(
        *(_make(books, account.id, lives_ms=1_000) for _ in range(5)), return_exceptions=True
    )
    refused = [each for each in answers if isinstance(each, Conflict)]
    made = [each for each in answers if isinstance(each, str)]

    assert (len(made), [each.code for each in refused]) == (3, ["too_many_keys"] * 2)
    assert "4 keys in force" in refused[0].detail
    await _make(books, other.id)
    await books.store.writer.run(RevokeKey(made[0], account.id))
    await _make(books, account.id)
    with pytest.raises(Conflict):
        await _make(books, account.id)
    books.clock.advance(1)
    assert await _make(books, account.id)


async def test_keys_that_ended_do_not_pile_up(books: Books) -> None:
    """Making and revoking without end leaves the last few to be looked at, and every key in force."""
    _limited(books, 3)
    account, first, _ = await books.account()
    for _ in range(10):
        last = await _make(books, account.id)
        await books.store.writer.run(RevokeKey(last, account.id))
    kept = await list_keys(books.store.reader, account.id, None, 50)

    assert len(kept) == 1 + 3 + 1
    assert kept[0].id == last
    assert (await books.keys.authenticate(first.text)).account_id == account.id


async def _revoked(books: Books, *key_ids: str) -> list[str]:
    """What became of revocations that are sent at once: fine, or the code of the refusal."""
    answers = await asyncio.gather(
        *(books.store.writer.run(RevokeKey(each, None)) for each in key_ids), return_exceptions=True
    )
    return [each.code if isinstance(each, Conflict) else "fine" for each in answers]


async def test_last_admin_key_stays(books: Books) -> None:
    """Of two that are revoked at once the second is refused; keys without the scope do not count, and go."""
    account, _, _ = await books.account()
    plain, one, two = [await _make(books, account.id, scope) for scope in ("account", "admin", "admin")]

    assert await _revoked(books, one, plain, two) == ["fine", "fine", "last_admin_key"]
    assert await _revoked(books, one) == ["fine"]  # again, which changes nothing
    assert await _revoked(books, two) == ["last_admin_key"]
    three = await _make(books, account.id, "admin", "account")
    assert await _revoked(books, two) == ["fine"]
    assert await _revoked(books, three) == ["last_admin_key"]


async def test_admin_key_that_expires_is_none_to_rely_on(books: Books) -> None:
    """A lasting one is only given up for another lasting one; of those that expire the last one in force stays, too."""
    account, _, _ = await books.account()
    lasting = await _make(books, account.id, "admin")
    short, long = [await _make(books, account.id, "admin", lives_ms=each) for each in (1_000, 1_000_000)]

    assert await _revoked(books, lasting) == ["last_admin_key"]
    assert await _revoked(books, short) == ["fine"]
    other, _, _ = await books.account("other")
    there = await _make(books, other.id, "admin")
    assert await _revoked(books, lasting) == ["fine"]
    books.clock.advance(1_000)
    assert await _revoked(books, long) == ["fine"]  # which has expired
    assert await _revoked(books, there) == ["last_admin_key"]
