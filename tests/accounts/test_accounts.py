"""Accounts and their signing secrets: sealed, rotated with a grace, listed without secrets."""

from __future__ import annotations

import asyncio

import pytest

from service.accounts.accounts import RotateSecret, find, list_accounts, prefix_of
from service.accounts.secrets import new_sealed, signing_secrets
from service.db.sealing import SecretKeyWrong
from service.signing import decode_secret
from tests.accounts.conftest import Books

DAY_S = 24 * 3600


async def _rotate(books: Books, account_id: str) -> tuple[str, int]:
    secret, sealed = new_sealed(books.store.box, books.randomness, account_id)
    return secret, await books.store.writer.run(RotateSecret(account_id, sealed, prefix_of(secret)))


async def _secrets(books: Books, account_id: str) -> list[bytes]:
    return await signing_secrets(books.store.reader, books.store.box, account_id, books.clock.now_ms())


async def test_previous_secret_co_signs_for_a_day(books: Books) -> None:
    """Newest first while the grace lasts, then alone; a further rotation keeps the one before it."""
    account, _, first = await books.account()
    assert await _secrets(books, account.id) == [decode_secret(first)]
    second, until = await _rotate(books, account.id)

    assert until == books.clock.now_ms() + DAY_S * 1000
    assert await _secrets(books, account.id) == [decode_secret(second), decode_secret(first)]
    third, _ = await _rotate(books, account.id)
    assert await _secrets(books, account.id) == [decode_secret(third), decode_secret(second)]
    books.clock.advance(DAY_S)
    assert await _secrets(books, account.id) == [decode_secret(third)]


async def test_rotations_at_once_follow_each_other(books: Books) -> None:
    """Two at the same time never share a batch: the loser's secret is the winner's previous one."""
    account, _, _ = await books.account()
    rotated = await asyncio.gather(*(_rotate(books, account.id) for _ in range(4)))
    secrets = await _secrets(books, account.id)

    assert len(secrets) == 2
    assert set(secrets) <= {decode_secret(secret) for secret, _ in rotated}
    row = await find(books.store.reader, account.id, books.clock.now_ms())
    assert row is not None
    assert row.secret_prefix in {secret[:10] for secret, _ in rotated}


async def test_secret_opens_in_its_own_row_only(books: Books) -> None:
    """A sealed secret that is copied to another account does not open there."""
    mine, _, _ = await books.account("mine")
    _, sealed = new_sealed(books.store.box, books.randomness, mine.id)
    theirs, _, _ = await books.account("theirs")
    await books.store.writer.run(RotateSecret(theirs.id, sealed, "whsec_xxxx"))

    with pytest.raises(SecretKeyWrong, match=theirs.id):
        await _secrets(books, theirs.id)


async def test_unknown_account_signs_with_nothing(books: Books) -> None:
    """No secrets, and no error: its deliveries are the sender's to judge."""
    assert await _secrets(books, "acc_nothing") == []
    assert await find(books.store.reader, "acc_nothing", books.clock.now_ms()) is None


async def test_accounts_are_listed_newest_first_in_pages(books: Books) -> None:
    """Behind the cursor come the older ones."""
    made = [(await books.account(f"a{number}"))[0].id for number in range(3)]
    first = await list_accounts(books.store.reader, None, 2, books.clock.now_ms())
    rest = await list_accounts(books.store.reader, first[-1].id, 2, books.clock.now_ms())

    assert [row.id for row in first + rest] == made[::-1]
