"""What is known of subscriptions is bounded, whatever number of accounts there are, and never older than what is committed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.subscriptions.destinations import DestinationCache
from service.subscriptions.snapshots import PER_KNOWN
from tests.deliveries.desk import OURS, THEIRS, Desk, desk

ACCOUNTS = 400
LIMIT = 40 * 2 * PER_KNOWN  # forty accounts with one subscription each


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """A store without network, and four hundred further accounts, each with a copy of our subscription."""
    async with desk(tmp_path) as opened:
        made = await opened.make()
        with contextlib.closing(sqlite3.connect(opened.store.path)) as connection:
            for table, key in (("accounts", "id"), ("subscriptions", "account_id")):
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                chosen = {"id": f"'{table}-' || n.value", key: "'accounts-' || n.value"} | (
                    {"id": "'subscriptions-' || n.value"} if table == "subscriptions" else {}
                )
                columns = ", ".join(chosen.get(name, f"t.{name}") for name in names)
                where = f"t.id = '{OURS if table == 'accounts' else made['id']}'"
                numbers = f"(WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < {ACCOUNTS - 1}) SELECT value FROM n) n"
                connection.execute(f"INSERT INTO {table} SELECT {columns} FROM {table} t, {numbers} WHERE {where}")
            connection.commit()
        opened.cache = DestinationCache(opened.store.box, limit=LIMIT)
        yield opened


async def test_accounts_that_were_not_asked_for_the_longest_are_forgotten(at: Desk) -> None:
    """Four hundred are asked for and forty or so stay; the account that is asked for all the time is among them."""
    for number in range(ACCOUNTS):
        await at.look(f"accounts-{number}")
        reads = at.cache.count()
        await at.look(OURS)
        assert reads <= at.cache.count() <= reads + 1

    assert 20 <= at.cache.count() <= 60
    assert OURS in at.cache._snapshots


async def test_forgotten_account_is_read_again(at: Desk) -> None:
    """Nothing is missed for having been forgotten."""
    for number in (*range(ACCOUNTS), 0):
        assert [each.id for each in await at.look(f"accounts-{number}")] == [f"subscriptions-{number}"]


async def test_looking_up_single_subscriptions_is_bounded_too(at: Desk) -> None:
    """The sender asks for one at a time, without a transaction."""
    for number in range(ACCOUNTS):
        found = await at.cache.find(at.store.reader, f"accounts-{number}", f"subscriptions-{number}")
        assert found is not None
    for number in range(ACCOUNTS):
        assert await at.cache.find(at.store.reader, f"made-up-{number}", "sub_x") is None

    assert at.cache.count() <= 100


async def test_account_larger_than_the_limit_is_served(at: Desk) -> None:
    """The one that was asked for last is always kept."""
    at.cache = DestinationCache(at.store.box, limit=1)
    for _ in range(2):
        assert len(await at.look(OURS)) == 1
        assert await at.look(THEIRS) == []
    assert at.cache.count() == 1
