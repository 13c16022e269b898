"""Snapshots of an account's subscriptions: whatever happens, what is seen is what is committed, and what somebody holds stays as it is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.db.transaction import Tx
from service.errors import NotFound
from service.schemas.subscription_schemas import SubscriptionChangeRequest
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.sealed import Pair, Sealed
from service.subscriptions.snapshots import MAX_ALONE, Destination, Snapshot
from tests.deliveries.desk import OURS, THEIRS, Desk, desk

NAMES = st.sampled_from(["sub_a", "sub_b", "sub_c", "sub_d"])


def destination(name: str, *, enabled: bool = True) -> Destination:
    """One that wants everything."""
    sealed = Sealed(subscription_id=name, opens=lambda *_: b"", secrets=Pair(), keys=Pair(), own_headers=None)
    nothing: frozenset[str] = frozenset()
    return Destination(
        name, OURS, "https://a.example/", nothing, nothing, nothing, nothing, 1, None, None, sealed, enabled=enabled
    )


def image(snapshot: Snapshot) -> dict[str, Any]:
    """All that a snapshot says, copied."""
    said = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    return said | {
        "known": dict(snapshot.known),
        "enabled": list(snapshot.enabled.all),
        "disabled": list(snapshot.disabled.all),
    }


STEPS: list[st.SearchStrategy[Callable[[Snapshot], Snapshot]]] = [
    st.builds(
        lambda names, most: lambda one: one.outdate(names, one.version + 1, most=most),
        st.sets(NAMES),
        st.integers(0, 3),
    ),
    st.builds(lambda names: lambda one: one.begun(names), st.sets(NAMES)),
    st.builds(lambda names: lambda one: one.ended(names), st.sets(NAMES)),
    st.builds(
        lambda found: (
            lambda one: one.read({name: destination(name) if there else None for name, there in found.items()})
        ),
        st.dictionaries(NAMES, st.booleans(), max_size=4),
    ),
    st.builds(
        lambda found: lambda one: one.read_whole({name: destination(name, enabled=on) for name, on in found.items()}),
        st.dictionaries(NAMES, st.booleans(), max_size=4),
    ),
]


@given(steps=st.lists(st.one_of(STEPS), max_size=12))
def test_snapshot_that_is_held_stays_as_it_is(steps: list[Callable[[Snapshot], Snapshot]]) -> None:
    """Every step gives another one, and what is settled is known, or known not to be there."""
    held = [Snapshot(1)]
    images = [image(held[0])]
    for step in steps:
        held.append(step(held[-1]))
        images.append(image(held[-1]))

    assert [image(each) for each in held] == images
    for each in held:
        assert not each.outdated or each.whole
        assert all(each.whole or name in each.known for name in ("sub_a", "sub_b") if each.settled(name))
        assert not any(each.settled(name) for name in each.outdated | each.changing)


def test_subscriptions_that_are_read_alone_are_bounded() -> None:
    """The latest stay."""
    snapshot = Snapshot(1)
    for number in range(MAX_ALONE + 10):
        snapshot = snapshot.read({f"sub_{number}": destination(f"sub_{number}")})

    assert len(snapshot.known) == MAX_ALONE
    assert f"sub_{MAX_ALONE + 9}" in snapshot.known
    assert "sub_0" not in snapshot.known


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["make", "change", "enable", "disable", "delete", "broken", "publish", "look", "find", "forget"]
        ),
        st.integers(0, 3),
        st.sampled_from([OURS, THEIRS]),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, most_outdated=st.integers(0, 2))
async def test_what_is_seen_is_what_is_committed(operations: list[tuple[str, int, str]], most_outdated: int) -> None:
    """Arbitrary histories of changes, rolled back ones among them, of look-ups, and of accounts that are forgotten in between."""
    with tempfile.TemporaryDirectory() as directory:
        async with desk(Path(directory)) as at:
            at.cache._most_outdated = most_outdated
            made: list[str] = []
            for name, number, account in operations:
                with contextlib.suppress(NotFound):  # another account's, or deleted
                    await _apply(at, made, name, number, account)
                for owner in (OURS, THEIRS):
                    await _check(at, owner, made)


class NotTold(DestinationCache):
    """Planted: what changes stays as it was read."""

    def changing(self, tx: Tx, account_id: str, subscription_ids: Iterable[str]) -> None: ...


async def test_cache_that_is_not_told_of_changes_is_seen(tmp_path: Path) -> None:
    """Else the check would mean nothing."""
    async with desk(tmp_path, caching=NotTold) as at:
        made: list[str] = []
        await _apply(at, made, "make", 0, OURS)
        await _check(at, OURS, made)
        await _apply(at, made, "change", 1, OURS)
        with pytest.raises(AssertionError):
            await _check(at, OURS, made)


async def _apply(at: Desk, made: list[str], name: str, number: int, account: str) -> None:
    one = made[number % len(made)] if made else "sub_none"
    match name:
        case "make":
            made.append((await at.make(account))["id"])
        case "change":
            change = SubscriptionChangeRequest.read({"url": f"https://shop{number}.example/"})
            await at.subscribe.update(account, one, change)
        case "enable":
            await at.subscribe.enable(account, one)
        case "disable":
            await at.subscribe.disable(account, one, "a reason")
        case "delete":
            await at.subscribe.delete(account, one)
        case "broken":
            with contextlib.suppress(RuntimeError):
                await at.publish(account_id=account, fail=True)
        case "publish":
            await at.publish(account_id=account)
        case "look":
            await at.look(account)
        case "find":
            await at.cache.find(at.store.reader, account, one)
        case "forget":
            at.cache._grown, at.cache._limit = 1 << 40, 1
            at.cache._make_room()
            at.cache._limit = 1 << 40


async def _check(at: Desk, account: str, made: list[str]) -> None:
    sql = "SELECT id, url FROM subscriptions WHERE account_id = ? AND status = 'enabled' ORDER BY id"
    there = dict(at.rows(sql, account))
    for one in made:
        found = await at.cache.find(at.store.reader, account, one)
        assert (found.url if found else None) == there.get(one)
    assert {each.id: each.url for each in await at.look(account)} == there
