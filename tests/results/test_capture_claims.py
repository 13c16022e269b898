"""Fair claims of copies: accounts in turn, of each account what dies first, of each host so many; and the same in the queue in memory."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clock import VirtualClock
from service.db.leases import Leased, free
from service.db.macros import sqlite_text
from service.db.transaction import Row, Tx
from service.results import capture_claim_store
from service.results.capture_claim_store import LANES_AT_ONCE, UNKNOWN_LIFE_MS, Capture, ClaimCaptures, lane_of
from service.results.captures import AT_ONCE_PER_HOST, KEPT_PER_HOST, QUEUE_PER_HOST, Captures
from tests.fairness import ACCOUNTS, check_fair, copied, until_nothing
from tests.results.shelf import HOST, Shelf, accounts_of, shelf

HOUR_MS = 3_600_000
LIVES = st.lists(st.one_of(st.none(), st.integers(1, 2 * UNKNOWN_LIFE_MS)), max_size=10)
#: By account and host: how long the links of what is due live, and how much is not due yet.
SHELVES = st.dictionaries(
    st.tuples(ACCOUNTS, st.sampled_from(["", "a.example", "b.example", "c.example"])),
    st.tuples(LIVES, st.integers(0, 3)),
    min_size=1,
)
Filled = dict[tuple[str, str], tuple[list[int | None], int]]


@pytest.fixture
async def results(tmp_path: Path, template: Path) -> AsyncIterator[Shelf]:
    """An empty store."""
    async with shelf(Path(shutil.copy(template, tmp_path / "remora.db"))) as opened:
        yield opened


def fill(results: Shelf, filled: Filled) -> None:
    """Put it all there."""
    for (account, host), (lives, later) in filled.items():
        results.put(account, lives, host=host)
        results.put(account, [1] * later, host=host, due_in_ms=HOUR_MS)


def due(filled: Filled, place: int) -> Counter[str]:
    """How much is due, by account (0) or by host (1)."""
    found: Counter[str] = Counter()
    for names, (lives, _) in filled.items():
        found[names[place]] += len(lives)
    return +found


@settings(max_examples=100, deadline=None)
@given(filled=SHELVES, count=st.integers(1, 9))
async def test_every_account_is_served_within_a_round(template: Path, filled: Filled, count: int) -> None:
    """Arbitrary results at arbitrary hosts; of each account what dies first goes first, wherever it lies."""
    with copied(template) as path:
        async with shelf(path) as results:
            fill(results, filled)
            claims = [claim async for claim in _all(results, count)]

    check_fair(due(filled, 0), [accounts_of(claim) for claim in claims], count)
    lives: dict[str, list[int]] = {}
    for capture in (capture for claim in claims for capture in claim):
        unknown = results.now_ms - 1_000 + UNKNOWN_LIFE_MS
        lives.setdefault(accounts_of([capture])[0], []).append(capture.link_dies_at or unknown)
    assert all(dying == sorted(dying) for dying in lives.values())


async def _all(results: Shelf, count: int, per_host: int = 1_000) -> AsyncIterator[list[Capture]]:
    while taken := await results.claim(count, per_host=per_host):
        yield taken


@settings(max_examples=100, deadline=None)
@given(filled=SHELVES, per_host=st.integers(1, 4))
async def test_places_of_a_host_go_round_among_its_accounts(template: Path, filled: Filled, per_host: int) -> None:
    """Whatever its accounts have at other hosts: each host is fair by itself."""
    with copied(template) as path:
        async with shelf(path) as results:
            fill(results, filled)
            claims = [claim async for claim in _all(results, 1_000, per_host)]

    for host in set(due(filled, 1)) - {""}:
        at_host = {account: len(lives) for (account, at), (lives, _) in filled.items() if at == host and lives}
        of_host = [accounts_of([each for each in claim if each.host == host]) for claim in claims]
        check_fair(at_host, of_host, per_host)


@settings(max_examples=100, deadline=None)
@given(filled=SHELVES, count=st.integers(1, 9), per_host=st.integers(1, 4))
async def test_no_account_waits_for_ever(template: Path, filled: Filled, count: int, per_host: int) -> None:
    """Where both the claim and its hosts are narrow, each is served within a number of claims that others' backlogs do not change."""
    with copied(template) as path:
        async with shelf(path) as results:
            fill(results, filled)
            claims = [claim async for claim in _all(results, count, per_host)]

    waiting, lanes = due(filled, 0), sum(bool(lives) for lives, _ in filled.values())
    since, longest = dict.fromkeys(waiting, 0), 0
    for claim in claims:
        taken = Counter(accounts_of(claim))
        waiting.subtract(taken)
        since = {each: 0 if each in taken or not waiting[each] else claims + 1 for each, claims in since.items()}
        longest = max(longest, *since.values())
    assert not +waiting
    assert longest <= lanes * len(since)


#: Planted statements: each claims what is due, but in an order that is not fair.
UNFAIR = {
    "what dies first, unknown before all": "link_dies_at NULLS FIRST",
    "always from the first account on": "row_number() OVER (PARTITION BY lane ORDER BY link_dies_at) <> 1, lane",
}


@pytest.mark.parametrize("order", UNFAIR)
async def test_unfair_statement_is_seen(results: Shelf, order: str) -> None:
    """Else the check would mean nothing."""

    async def planted(tx: Tx, commands: Sequence[ClaimCaptures]) -> list[list[Capture] | Exception]:
        [command] = commands
        sql = f"SELECT * FROM results WHERE due_at <= :now AND {free()} ORDER BY {UNFAIR[order]} LIMIT :count"
        found = await tx.rows(sql, {"now": tx.now_ms, "count": command.count})
        Leased("results", ("job_id", "idx")).claim(tx, found, command.owner, command.lease_ms)
        return [[_capture(row) for row in found]]

    results.queue.writer.handle(ClaimCaptures, planted)
    waiting = {"acc_a": 30, "acc_b": 30, "acc_c": 1}
    for number, (account, count) in enumerate(waiting.items()):
        results.put(account, [1_000 * (number + 1)] * count)

    async def claim() -> list[str]:
        return accounts_of(await results.claim(1))

    with pytest.raises(AssertionError, match=r"acc_[bc] waits for more than a round"):
        check_fair(waiting, await until_nothing(claim), 1)


def _capture(row: Row) -> Capture:
    return _to_fetch(row["lane"], row["idx"], row["link_dies_at"])


def _to_fetch(lane: str, number: int, dies_at: int | None) -> Capture:
    return Capture("job_1", number, lane, "https://cdn.example/a", "p", "o", None, None, 9, dies_at, 1, 9_000_000)


async def test_flood_of_one_account_holds_up_no_other(results: Shelf) -> None:
    """Twenty thousand copies are due that die sooner, at the same host: another account's only one is in the first claim."""
    results.put("acc_big", [1_000] * 20_000)
    results.put("acc_small", [None])
    claimed = await results.claim(16, per_host=64, waiting=((HOST, 48),))

    assert Counter(accounts_of(claimed)) == {"acc_big": 15, "acc_small": 1}


async def test_link_of_unknown_life_is_behind_one_that_dies_sooner(results: Shelf) -> None:
    """It counts as one that dies ten minutes after it fell due."""
    results.put("acc_1", [None, 60_000, 2 * UNKNOWN_LIFE_MS])
    claimed = [capture.link_dies_at for capture in await results.claim(3)]

    assert claimed == [results.now_ms + 60_000, None, results.now_ms + 2 * UNKNOWN_LIFE_MS]


async def test_more_lanes_than_are_looked_at_come_in_turn(results: Shelf) -> None:
    """The next claim goes on behind them, and then begins again."""
    for number in range(LANES_AT_ONCE + 50):
        results.put(f"acc_{number:04}", [None] * 2)
    claims = [set(accounts_of(await results.claim(LANES_AT_ONCE))) for _ in range(2)]

    assert len(claims[0] | claims[1]) == LANES_AT_ONCE + 50


async def test_a_claim_is_bounded_work(results: Shelf) -> None:
    """The lanes are skipped through, and each is read in the order of the index: nothing is scanned or sorted."""
    names = dict.fromkeys(("now", "after", "until", "lane", "count"), 1)
    plans = [
        [row["detail"] for row in results.queue.raw.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", names)]
        for sql in (capture_claim_store._LANES, *capture_claim_store._OF_LANE)
    ]
    lines = [line for plan in plans for line in plan]

    assert [line for line in lines if "B-TREE" in line or (line.startswith("SCAN") and "waiting" not in line)] == []
    assert "(lane=? AND link_dies_at>?)" in plans[1][0]
    assert "(lane=? AND link_dies_at=? AND due_at>? AND due_at<?)" in plans[2][0]


async def test_full_host_costs_a_claim_nothing(results: Shelf) -> None:
    """What is due at a host whose places are taken is passed over as a whole: a hundred times as much, the same work."""
    found = []
    for count in (100, 10_000):
        results.put("acc_big", [1_000] * count)
        results.put("acc_small", [2_000] * 10, host="other.example")
        found.append(await results.steps(10, per_host=64, waiting=((HOST, 64),)))

    assert found[1] <= 1.2 * found[0]


@pytest.mark.parametrize("accounts", [1, 20])
async def test_many_hosts_cost_a_claim_no_more_where_more_is_due(results: Shelf, accounts: int) -> None:
    """At four hundred hosts: ten times as much at each, the same work."""
    found = []
    for count in (4, 40):
        for number in range(400):
            results.put(f"acc_{number % accounts:02}", [1_000 + number] * count, host=f"h{number}.example")
        found.append(await results.steps(256, per_host=64, waiting=()))

    assert found[1] <= 1.2 * found[0]


class Fetches:
    """The queue in memory, with files that come when the test lets them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Semaphore(0)
        self.captures = Captures(self._work, VirtualClock(), "me", lambda _provider: None)

    async def _work(self, capture: Capture) -> bool:
        self.begun.append(capture.lane.partition(" ")[0])
        await self.gate.acquire()
        return True


async def test_queue_in_memory_goes_round_too() -> None:
    """Sixty files of one account that die sooner, and of a host with four places: another account's begins with the next place."""
    fetches = Fetches()
    for number in range(QUEUE_PER_HOST - KEPT_PER_HOST):
        fetches.captures.take(_to_fetch(lane_of("acc_big", HOST), number, 1_000 + number))
    for number in range(3):
        fetches.captures.take(_to_fetch(lane_of("acc_small", HOST), number, 9_000_000 + number))
    for _ in range(1_000):
        fetches.gate.release()
    await fetches.captures.settle()

    assert fetches.begun[: AT_ONCE_PER_HOST + 6] == ["acc_big"] * AT_ONCE_PER_HOST + ["acc_small", "acc_big"] * 3
