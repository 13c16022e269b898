"""Long pages: whose turn it is, how long others get to breathe, and what becomes of those who wait too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.api.answers.pages import PART_S, PIECE, REST, LongPages
from service.clock import VirtualClock
from service.errors import Unavailable

LONG = PIECE + 1


class RecordingClock(VirtualClock):
    """Time that passes while it is worked; sleeps are over at once, and written down."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        self.slept.append(round(seconds, 6))
        await asyncio.sleep(0)


class StuckClock(RecordingClock):
    """Whoever rests does so until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await self.goes_on.wait()


def _pages(clock: RecordingClock | None = None, *, hurry: bool = False, wait_s: float = 30) -> LongPages:
    return LongPages(clock or RecordingClock(), lambda: hurry, wait_s)


def _taking(clock: RecordingClock, seconds: float) -> Callable[[int], int]:
    def view(entry: int) -> int:
        clock.advance(seconds)
        return entry

    return view


async def test_long_page_is_whole_and_in_order() -> None:
    """Whatever pieces it is made in."""
    pages, entries = _pages(), list(range(3 * PIECE + 5))
    async with pages.turn("a", len(entries)) as began:
        made = await pages.encoded(entries, lambda each: {"n": each}, began)

    assert [bytes(each) for each in made] == [b'{"n":%d}' % each for each in entries]


async def test_account_reads_one_long_page_at_a_time_and_short_ones_beside_it() -> None:
    """A page that is no longer than a piece waits for nobody, and nobody waits for what another account reads."""
    pages = _pages()
    async with pages.turn("a", LONG):
        waits = asyncio.create_task(_order(pages, "a", []))
        await asyncio.sleep(0)
        async with pages.turn("a", PIECE), pages.turn("b", LONG) as began:
            assert await pages.encoded([1], str, began)
            assert await pages.encoded(range(LONG), str, began)
            assert not waits.done()
    await waits


async def test_pieces_of_two_pages_do_not_mix() -> None:
    """One page is made at a time, and then the next one, of whichever account."""
    pages, order = _pages(), list[str]()
    await asyncio.gather(*(_order(pages, account, order) for account in "ab"))

    assert order == ["a"] * LONG + ["b"] * LONG


async def test_accounts_take_turns() -> None:
    """However many pages one of them asks for."""
    pages, order = _pages(), list[str]()
    await asyncio.gather(*(_order(pages, account, order) for account in "aaab"))

    assert order == ["a"] * LONG + ["b"] * LONG + ["a"] * 2 * LONG


async def _order(pages: LongPages, account: str, order: list[str]) -> None:
    async with pages.turn(account, LONG) as began:
        await asyncio.sleep(0)  # it is read
        await pages.encoded(range(LONG), lambda _: order.append(account), began)


@pytest.mark.parametrize(("waiting", "times"), [(1, 1), (3, 3), (REST, REST), (3 * REST, REST)])
async def test_page_rests_while_others_wait_and_only_then(waiting: int, times: int) -> None:
    """The rest is as long as the part before it took for each that waits, the reading among them, up to a bound."""
    clock = RecordingClock()
    pages = _pages(clock)
    async with pages.turn("a", LONG) as began:
        clock.advance(0.005)  # it is read
        await pages.encoded(range(LONG), _taking(clock, 0.0), began)
    assert clock.slept == [0, 0]

    clock.slept.clear()
    async with pages.turn("a", LONG) as began:
        clock.advance(0.005)
        others = [asyncio.create_task(_order(pages, "b", [])) for _ in range(waiting)]
        await asyncio.sleep(0)
        await pages.encoded(range(LONG), _taking(clock, 0.002), began)
    await asyncio.gather(*others)
    # What takes longer than it should, counts as much as it should.
    assert clock.slept[:2] == [pytest.approx(times * 0.005, rel=1e-3), pytest.approx(times * PART_S)]


async def test_nobody_rests_while_the_service_stops() -> None:
    """Those who wait are to be answered before the end."""
    clock = RecordingClock()
    pages = _pages(clock, hurry=True)
    async with pages.turn("a", LONG) as began:
        other = asyncio.create_task(_order(pages, "b", []))
        await asyncio.sleep(0)
        await pages.encoded(range(LONG), _taking(clock, 0.001), began)
    await other

    assert set(clock.slept) == {0}


async def test_whose_turn_does_not_come_is_told_and_leaves_no_turn_behind() -> None:
    """Whether it waited to read, for its own account, or to be made, for another."""
    clock, order = StuckClock(), list[str]()
    pages = _pages(clock, wait_s=0.01)
    first = asyncio.create_task(_order(pages, "a", order))
    for found in await asyncio.gather(*(_order(pages, each, order) for each in "ab"), return_exceptions=True):
        assert isinstance(found, Unavailable)
        assert (found.code, found.retry_after_s) == ("busy", 1)
    clock.goes_on.set()
    await first
    for each in "ab":
        await _order(pages, each, order)

    assert order == ["a"] * 2 * LONG + ["b"] * LONG


async def test_whoever_is_cut_off_leaves_no_turn_behind() -> None:
    """Also in the middle of its page."""
    pages, order = _pages(), list[str]()

    async def stuck() -> None:
        async with pages.turn("a", LONG):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(stuck()) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _order(pages, "a", order)

    assert order == ["a"] * LONG
