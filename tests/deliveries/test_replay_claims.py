"""Fair claims of replays: accounts in turn, and of each its subscriptions in turn, however many of them replay."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clock import SeededRandomness, VirtualClock
from service.db.sqlite.inline_store import InlineConnection
from service.db.transaction import Row, Tx
from service.deliveries.replays import replay_store
from service.deliveries.replays.replay_claim_store import ClaimReplays
from service.deliveries.replays.replay_store import AdvanceReplay
from service.ids import Ids
from tests.fairness import BACKLOGS, check_fair, copied, until_nothing
from tests.workers.backlog import Queue

HOUR_MS = 3_600_000
_SUBSCRIPTION = """
INSERT INTO subscriptions (id, account_id, url, description, events, providers, operations, tags, max_in_flight, signatures, status,
    secret, created_at) VALUES (:id, :account, 'https://x', '', '[]', '[]', '[]', '[]', 1, '[]', 'enabled', x'00', 0)
"""
_REPLAY = """
INSERT INTO replays (id, account_id, subscription_id, since, until, types, statuses, status, next_pos, last_pos, looked_at,
    queued, total, created_at, due_at, lease_epoch)
VALUES ('rpl_' || :id, :account, :id, 0, 9, '[]', '[]', 'running', 1, 1000, 0, 0, 9, 0, :due_at, 0)
"""


class Replaying:
    """A store with replays that run, and the claims of one process."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._after = ""
        replay_store.register(queue.writer, Ids(queue.clock, SeededRandomness(1)), lambda _lane: None)

    def put(self, account: str, count: int, *, ago_ms: int = 1_000, name: str = "") -> None:
        """A replay for each of so many subscriptions."""
        self.queue.put(account, 0)
        due_at = self.queue.clock.now_ms() - ago_ms
        for number in range(count):
            row = {"id": f"{account}-{name}{number:04}", "account": account, "due_at": due_at}
            self.queue.raw.execute(_SUBSCRIPTION, row)
            self.queue.raw.execute(_REPLAY, row)

    async def claim(self, count: int) -> list[Row]:
        """Claim so many, from where the last claim ended."""
        claimed = await self.queue.writer.run(ClaimReplays("me", 60_000, count, self._after))
        if claimed:
            self._after = claimed[-1]["account_id"]
        return claimed

    async def go_on(self, claimed: Sequence[Row]) -> None:
        """A batch of each, in which nothing is found, and more is left to look at."""
        for row in claimed:
            await self.queue.writer.run(AdvanceReplay(row["id"], row["lease_epoch"], looked_at=1, next_pos=2))


@asynccontextmanager
async def replaying(path: Path) -> AsyncIterator[Replaying]:
    """Over a store that is up to date."""
    queue = Queue(InlineConnection(path), VirtualClock())
    try:
        yield Replaying(queue)
    finally:
        await queue.writer.close()


def accounts_of(rows: Sequence[Row]) -> list[str]:
    """Whose they are."""
    return [row["account_id"] for row in rows]


async def claims_of(replays: Replaying, count: int) -> list[Sequence[str]]:
    """Claim until nothing is due."""

    async def claim() -> list[str]:
        return accounts_of(await replays.claim(count))

    return await until_nothing(claim)


@settings(max_examples=60, deadline=None)
@given(backlogs=BACKLOGS, count=st.integers(1, 7), data=st.data())
async def test_every_account_is_served_within_a_round(
    template: Path, backlogs: dict[str, tuple[int, int]], count: int, data: st.DataObject
) -> None:
    """Arbitrary numbers of subscriptions that replay, beside such as have to wait."""
    with copied(template) as path:
        async with replaying(path) as replays:
            for account, (due, later) in backlogs.items():
                replays.put(account, due, ago_ms=data.draw(st.integers(20, 1_000_000)))
                replays.put(account, later, ago_ms=-HOUR_MS, name="later")
            claims = await claims_of(replays, count)

    check_fair({account: due for account, (due, _) in backlogs.items() if due}, claims, count)


async def test_a_thousand_subscriptions_have_the_turns_of_one_account(tmp_path: Path, template: Path) -> None:
    """Replays that go on and on: eight accounts with a hundred each have no more turns than two with one each."""
    async with replaying(Path(shutil.copy(template, tmp_path / "remora.db"))) as replays:
        for number in range(8):
            replays.put(f"acc_big{number}", 100, ago_ms=9_000)
        replays.put("acc_small", 1)
        replays.put("acc_tiny", 1)
        served: list[str] = []
        for _ in range(10):
            claimed = await replays.claim(8)
            served += accounts_of(claimed)
            await replays.go_on(claimed)
            replays.queue.clock.advance(1)

    assert {account: served.count(account) for account in sorted(set(served))} == (
        {f"acc_big{number}": 8 for number in range(8)} | {"acc_small": 8, "acc_tiny": 8}
    )


async def test_subscriptions_of_an_account_take_turns(tmp_path: Path, template: Path) -> None:
    """The one whose replay went on longest ago is next."""
    async with replaying(Path(shutil.copy(template, tmp_path / "remora.db"))) as replays:
        replays.put("acc_1", 5)
        served = []
        for _ in range(10):
            claimed = await replays.claim(1)
            served += [row["subscription_id"] for row in claimed]
            await replays.go_on(claimed)
            replays.queue.clock.advance(1)

    assert served[:5] == served[5:] == [f"acc_1-{number:04}" for number in range(5)]


#: Planted statements: each claims what is due, but in an order that is not fair.
UNFAIR = {
    "by subscription": "due_at, account_id",
    "always from the first account on": "row_number() OVER (PARTITION BY account_id ORDER BY due_at) <> 1, account_id",
}


@pytest.mark.parametrize("order", UNFAIR)
async def test_unfair_statement_is_seen(tmp_path: Path, template: Path, order: str) -> None:
    """Else the check would mean nothing."""

    async def planted(tx: Tx, commands: Sequence[ClaimReplays]) -> list[list[Row] | Exception]:
        [command] = commands
        sql = (
            f"SELECT * FROM replays WHERE due_at <= :now AND lease_owner IS NULL ORDER BY {UNFAIR[order]} LIMIT :count"
        )
        found = await tx.rows(sql, {"now": tx.now_ms, "count": command.count})
        leased = "UPDATE replays SET lease_owner = 'me', lease_until = 9000000000000 WHERE id = :id"
        tx.write(leased, [{"id": row["id"]} for row in found])
        return [found]

    running: Mapping[str, int] = {"acc_a": 30, "acc_b": 30, "acc_c": 1}
    async with replaying(Path(shutil.copy(template, tmp_path / "remora.db"))) as replays:
        replays.queue.writer.handle(ClaimReplays, planted)
        for number, (account, count) in enumerate(running.items()):
            replays.put(account, count, ago_ms=9_000 - number)
        claims = await claims_of(replays, 1)

    with pytest.raises(AssertionError, match=r"acc_[bc] waits for more than a round"):
        check_fair(running, claims, 1)
