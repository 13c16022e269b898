"""The log of events: read in pages without gaps, bounded whatever is asked, and followed live without a lost wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.db.transaction import Params, Row
from service.errors import TooManyRequests
from service.events.feed import Hub
from service.events.feed_queries import Edges, FeedFilter, FeedPage, position_of, read_edges, read_page
from tests.deliveries.desk import OURS, THEIRS
from tests.deliveries.eventlog import CountingReader, EventLog, event_log

ALL = FeedFilter()
PATIENCE_S = 10.0


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    """An empty log."""
    async with event_log(tmp_path) as opened:
        yield opened


async def read(log: EventLog, after: int, wanted: FeedFilter = ALL, **bounds: int) -> FeedPage:
    """A page of ours."""
    limits = {"limit": 100, "max_bytes": 1_000_000} | bounds
    return await read_page(log.desk.store.reader, OURS, after, wanted, **limits)


def ids(page: FeedPage) -> list[str]:
    """The events of a page."""
    return [entry.id for entry in page.entries]


async def test_pages_have_every_event_once_and_in_order(log: EventLog) -> None:
    """Page for page, as they were committed, and nothing of another account between them."""
    for _ in range(4):
        await log.append(3)
        await log.append(2, account_id=THEIRS)
    found, after = [], 0
    while (page := await read(log, after, limit=5)).entries:
        assert len(page.entries) <= 5
        found += ids(page)
        after = page.position

    assert found == log.ids(OURS)
    assert len(found) == 12
    assert page.position == after == 18  # the last of ours; behind it are two of theirs


async def test_event_is_in_the_feed_once_it_has_its_number(log: EventLog) -> None:
    """Until then no page has it and no cursor passes it; then it stands behind what was numbered before, and is missed by nobody."""
    await log.append()
    await log.append(numbered=False)
    await log.append()
    early = await read(log, 0)
    waiting = log.desk.rows("SELECT id FROM events WHERE pos IS NULL")
    await log.number()
    late = await read(log, early.position)

    assert [entry.pos for entry in early.entries] == [1, 2]
    assert early.is_last
    assert early.edges == Edges(floor=0, newest=2, top=2)
    assert [(entry.pos, entry.id) for entry in late.entries] == [(3, waiting[0][0])]
    assert late.is_last


async def test_event_is_sent_before_it_has_its_number(log: EventLog) -> None:
    """Sending follows the transaction; only the feed waits for numbers."""
    made = await log.desk.make()
    sent = await log.desk.publish(numbered=False)
    early = await read(log, 0)
    await log.number()

    assert sent == [made["id"]]
    assert early.entries == ()
    assert ids(await read(log, 0)) == [log.desk.sent[0].event_id]


async def test_same_position_gives_the_same_page(log: EventLog) -> None:
    """Also after more was published."""
    await log.append(4)
    first = await read(log, 1, limit=2)
    await log.append(4)

    assert await read(log, 1, limit=2) == FeedPage(1, first.entries, 3, (await read_edges(log.desk.store.reader, OURS)))


async def test_filter_that_rarely_matches_looks_at_a_bounded_number(log: EventLog) -> None:
    """The page is empty and moves on; page for page everything that passes is found."""
    await log.append(5)
    await log.append(event_type="ping")
    await log.append(5)
    pings = FeedFilter(types=("ping",))
    pages = [await read(log, 0, pings, scan=4)]
    while not pages[-1].is_last:
        pages.append(await read(log, pages[-1].position, pings, scan=4))

    assert [page.position for page in pages] == [4, 8, 11]
    assert [len(page.entries) for page in pages] == [0, 1, 0]


async def test_page_that_is_full_begins_again_behind_its_last_event(log: EventLog) -> None:
    """With a filter, too: what was looked at behind the last event that fitted is looked at again."""
    for _ in range(4):
        await log.append(event_type="ping")
        await log.append()
    page = await read(log, 0, FeedFilter(types=("ping",)), limit=2)

    assert [entry.pos for entry in page.entries] == [1, 3]
    assert page.position == 3


async def test_page_of_large_events_ends_early(log: EventLog) -> None:
    """By the bytes of the bodies; one event comes whatever its size, so that nobody is stuck."""
    await log.append(6, size=1_000)
    page = await read(log, 0, max_bytes=2_500)
    alone = await read(log, 0, max_bytes=1)

    assert [entry.pos for entry in page.entries] == [1, 2, 3]
    assert page.position == 3
    assert [entry.pos for entry in alone.entries] == [1]


async def test_position_behind_the_retention_is_lost(log: EventLog) -> None:
    """The oldest usable one is the floor itself; an empty log goes on from there."""
    await log.append(6)
    await log.remove(4)

    assert (await read(log, 3)).is_lost
    assert not (await read(log, 4)).is_lost
    assert (await read(log, 4)).edges.floor == 4
    assert [entry.pos for entry in (await read(log, 0)).entries] == [5, 6]
    await log.remove(6)
    assert (await read(log, 6)).position == 6
    assert not (await read(log, 6)).is_lost
    assert (await read(log, 0)).position == 6


async def test_position_ahead_of_the_log_is_lost(log: EventLog) -> None:
    """As after a restore from a backup: else events would pass unseen until the log has caught up."""
    await log.append(3)
    await log.append(5, account_id=THEIRS)

    assert not (await read(log, 3)).is_lost
    assert (await read(log, 4)).is_lost


async def test_event_of_another_account_has_no_position(log: EventLog) -> None:
    """Nor one that retention removed."""
    await log.append(2)
    await log.append(account_id=THEIRS)
    reader, ours = log.desk.store.reader, log.ids(OURS)
    await log.remove(1)

    assert await position_of(reader, OURS, ours[1]) == 2
    assert await position_of(reader, OURS, ours[0]) is None
    assert await position_of(reader, OURS, log.ids(THEIRS)[0]) is None


async def test_fanout_wakes_followers_of_the_account_after_the_commit(log: EventLog) -> None:
    """Nobody else is woken, and nobody by what came to nothing."""
    with log.hub.follow(OURS) as ours, log.hub.follow(THEIRS) as theirs:
        heard, unheard = ours.changed, theirs.changed
        with pytest.raises(RuntimeError):
            await log.desk.publish(account_id=OURS, fail=True)

        assert not heard.done()
        await log.desk.publish(account_id=OURS)
        assert heard.done()
        assert not unheard.done()
        assert len((await ours.page(log.desk.store.reader, 0, ALL)).entries) == 1


async def test_followers_at_the_same_place_share_a_read(log: EventLog) -> None:
    """A hundred streams of an account cost the store as much as one; a new event is read anew."""
    await log.append(3)
    reader = CountingReader(log)
    with log.hub.follow(OURS) as follower:
        pages = await asyncio.gather(*(follower.page(reader, 0, ALL) for _ in range(100)))
        before = reader.reads
        await log.append()
        newer = await asyncio.gather(*(follower.page(reader, 0, ALL) for _ in range(100)))

    assert before == 1
    assert {len(page.entries) for page in pages} == {3}
    assert reader.reads == 2
    assert {len(page.entries) for page in newer} == {4}


class HeldReader(CountingReader):
    """Gives an answer only when told, as a busy store does."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.has_read, self.go_on = asyncio.Event(), asyncio.Event()

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read, and keep what was found for a while."""
        found = await super().rows(sql, params)
        self.has_read.set()
        await self.go_on.wait()
        return found


async def test_follower_never_takes_a_read_from_before_its_wake(log: EventLog) -> None:
    """Woken while another's read is under way, it reads again instead of missing the event for good."""
    reader = HeldReader(log)
    with log.hub.follow(OURS) as follower:
        early = asyncio.create_task(follower.page(reader, 0, ALL))
        await asyncio.wait_for(reader.has_read.wait(), PATIENCE_S)
        await log.append()
        late = asyncio.create_task(follower.page(reader, 0, ALL))
        reader.go_on.set()

        assert (await early).entries == ()
        assert len((await late).entries) == 1


async def test_follower_that_leaves_while_reading_holds_up_nobody(log: EventLog) -> None:
    """A client goes at any moment; whoever waits for the same read gets it."""
    reader = HeldReader(log)
    await log.append()
    with log.hub.follow(OURS) as follower:
        leaving = asyncio.create_task(follower.page(reader, 0, ALL))
        await asyncio.wait_for(reader.has_read.wait(), PATIENCE_S)
        staying = asyncio.create_task(follower.page(reader, 0, ALL))
        leaving.cancel()
        reader.go_on.set()

        assert len((await asyncio.wait_for(staying, PATIENCE_S)).entries) == 1


async def test_followers_are_limited_by_account_and_in_all() -> None:
    """The refusal says when to come back, and a place that is left is free at once."""
    hub = Hub(limit=3, limit_per_account=2)
    with hub.follow(OURS), hub.follow(OURS):
        with pytest.raises(TooManyRequests, match="2 streams of this account"), hub.follow(OURS):
            pass
        with hub.follow(THEIRS), pytest.raises(TooManyRequests, match="3 streams are open") as refused, hub.follow("x"):
            pass
        with hub.follow(THEIRS):
            assert hub.count == 3

    assert refused.value.retry_after_s == 10
    assert hub.count == 0
