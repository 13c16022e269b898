"""The first admin key: there is always one, it is the settings' while they have one, and it lies in a private file else."""

from __future__ import annotations

import stat

import pytest

from service.accounts.bootstrap import key_file
from service.accounts.keys import RevokeKey
from service.errors import Unauthenticated
from tests.accounts.conftest import Books

GIVEN = "an-operator-chose-this-key"
OTHER = "and-later-another-long-key"


async def test_empty_database_gets_a_key_in_a_private_file(books: Books) -> None:
    """Made once, mode 0600, and an admin of the account `default`; a second start makes no other."""
    first = await books.start()
    second = await books.start()
    path = key_file(books.store.path)

    assert first.text is not None
    assert path.read_text("ascii").strip() == first.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (first.path, second.path, second.text) == (path, path, None)
    assert (await books.keys.authenticate(first.text)).may("admin")
    assert len(await books.store.reader.rows("SELECT id FROM accounts WHERE name = 'default'")) == 1
    assert len(await books.store.reader.rows("SELECT id FROM keys")) == 1


async def test_settings_key_is_accepted_while_it_stands_there(books: Books) -> None:
    """Replaced: the old one is refused; put back: accepted again; no file is written."""
    for given, refused in ((GIVEN, OTHER), (OTHER, GIVEN), (GIVEN, OTHER)):
        started = await books.start(given)
        books.keys.forget(row["id"] for row in await books.store.reader.rows("SELECT id FROM keys"))

        assert (started.text, started.path) == (given, None)
        assert (await books.keys.authenticate(given)).may("admin")
        with pytest.raises(Unauthenticated):
            await books.keys.authenticate(refused)
    assert not key_file(books.store.path).exists()
    assert len(await books.store.reader.rows("SELECT id FROM accounts")) == 1


async def test_settings_key_that_is_taken_out_is_refused_and_replaced(books: Books) -> None:
    """Somebody can always administer: with no key in the settings one is made, and the settings' former one is over."""
    await books.start(GIVEN)
    started = await books.start()

    assert started.text is not None
    assert (await books.keys.authenticate(started.text)).may("admin")
    with pytest.raises(Unauthenticated):
        await books.keys.authenticate(GIVEN)


async def test_made_key_lives_on_beside_the_settings_key(books: Books) -> None:
    """Setting a key later does not lock out who has the made one."""
    made = await books.start()
    await books.start(GIVEN)

    assert made.text is not None
    assert (await books.keys.authenticate(made.text)).account_id == (await books.keys.authenticate(GIVEN)).account_id


async def test_revoked_made_key_is_followed_by_another(books: Books) -> None:
    """Who revokes it, beside an admin key of another account, gets a new one at the next start, in the file."""
    made = await books.start()
    assert made.text is not None
    await books.account("other", "admin")
    await books.store.writer.run(RevokeKey((await books.keys.authenticate(made.text)).key_id, None))
    again = await books.start()

    assert again.text not in {None, made.text}
    assert key_file(books.store.path).read_text("ascii").strip() == again.text


async def test_account_called_default_is_the_first_one(books: Books) -> None:
    """A later account of the same name is not mistaken for it."""
    await books.start(GIVEN)
    mine = (await books.keys.authenticate(GIVEN)).account_id
    books.clock.advance(1)
    await books.account("default")
    await books.start(OTHER)

    assert (await books.keys.authenticate(OTHER)).account_id == mine
