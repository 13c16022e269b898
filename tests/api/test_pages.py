"""Long pages: whose turn it is, how long others get to breathe, and what becomes of those who wait too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.api.pages import PIECE, REST, LongPages
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
    async with pages.turn("a", len(entries)):
        made = await pages.encoded(entries, lambda each: {"n": each})

    assert [bytes(each) for each in made] == [b'{"n":%d}' % each for each in entries]


async def test_one_long_page_at_a_time_and_short_ones_beside_it() -> None:
    """A page that is no longer than a piece waits for nobody."""
    pages = _pages()
    async with pages.turn("a", LONG):
        waits = asyncio.create_task(_order(pages, "b", []))
        await asyncio.sleep(0)
        async with pages.turn("c", PIECE):
            assert not waits.done()
    await waits


async def test_accounts_take_turns() -> None:
    """However many pages one of them asks for."""
    pages, order = _pages(), list[str]()
    async with pages.turn("x", LONG):
        tasks = [asyncio.create_task(_order(pages, account, order)) for account in "aaab"]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert order == ["a", "b", "a", "a"]


async def _order(pages: LongPages, account: str, order: list[str]) -> None:
    async with pages.turn(account, LONG):
        order.append(account)


@pytest.mark.parametrize(("waiting", "times"), [(1, 1), (3, 3), (REST, REST), (3 * REST, REST)])
async def test_page_rests_while_others_wait_and_only_then(waiting: int, times: int) -> None:
    """The rest is as long as the part before it took for each that waits, the reading among them, up to a bound."""
    clock = RecordingClock()
    pages = _pages(clock)
    async with pages.turn("a", LONG):
        clock.advance(0.5)  # it is read
        await pages.encoded(range(LONG), _taking(clock, 0.001))
    assert clock.slept == [0, 0]

    clock.slept.clear()
    async with pages.turn("a", LONG):
        clock.advance(0.5)
        others = [asyncio.create_task(_order(pages, "b", [])) for _ in range(waiting)]
        await asyncio.sleep(0)
        await pages.encoded(range(LONG), _taking(clock, 0.001))
    await asyncio.gather(*others)
    assert clock.slept == [pytest.approx(times * 0.5), pytest.approx(times * PIECE * 0.001)]


async def test_nobody_rests_while_the_service_stops() -> None:
    """Those who wait are to be answered before the end."""
    clock = RecordingClock()
    pages = _pages(clock, hurry=True)
    async with pages.turn("a", LONG):
        other = asyncio.create_task(_order(pages, "b", []))
        await asyncio.sleep(0)
        await pages.encoded(range(LONG), _taking(clock, 0.001))
    await other

    assert clock.slept == [0, 0]


async def test_whose_turn_does_not_come_is_told_and_leaves_no_turn_behind() -> None:
    """Whether it waited for its own account's turn or for that of another."""
    pages, order = _pages(wait_s=0.01), list[str]()
    async with pages.turn("a", LONG):
        waiting = [_order(pages, account, order) for account in "ab"]
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, Unavailable)
            assert (found.code, found.retry_after_s) == ("busy", 1)
    await _order(pages, "a", order)
    await _order(pages, "b", order)

    assert order == ["a", "b"]


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

    assert order == ["a"]
