from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from service.clock import VirtualClock
from service.egress.names import REMEMBER_S, REMEMBERED, Names, system_lookup
from service.errors import EgressNotSent


class Book:
    """Answers from a table, counts, and blocks on names that begin with `dead` until it is let go."""

    def __init__(self, answers: dict[str, Sequence[str] | OSError] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []
        self.begun = threading.Semaphore(0)  # released once for each look-up
        self.go = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        self.begun.release()
        if host.startswith("dead"):
            self.go.wait(30)
        answer = self.answers.get(host, ["192.0.2.1"])
        if isinstance(answer, OSError):
            raise answer
        return answer


async def test_names_asks_once_for_all_who_wait() -> None:
    """Many who want one name at the same time share a look-up."""
    book = Book()
    names = Names(book, VirtualClock())
    waiting = [asyncio.create_task(names.addresses("dead.test")) for _ in range(20)]
    await asyncio.sleep(0)
    book.go.set()

    assert set(await asyncio.gather(*waiting)) == {("192.0.2.1",)}
    assert book.asked == ["dead.test"]


async def test_names_remembers_for_a_while() -> None:
    """Addresses are taken for true for half a minute, then asked for again."""
    book, clock = Book(), VirtualClock()
    names = Names(book, clock)
    await names.addresses("a.test")
    clock.advance(REMEMBER_S - 1)
    await names.addresses("a.test")
    asked_before = len(book.asked)
    clock.advance(1)
    await names.addresses("a.test")

    assert asked_before == 1
    assert len(book.asked) == 2


async def test_names_forgets_the_oldest() -> None:
    """What callers make us look up does not fill the memory."""
    book = Book()
    names = Names(book, VirtualClock())
    for number in range(REMEMBERED + 1):
        names._remember(f"{number}.test", ("192.0.2.1",))
    await names.addresses("1.test")
    await names.addresses("0.test")

    assert book.asked == ["0.test"]


async def test_dead_names_do_not_block_others() -> None:
    """Dozens of names without a living name server leave the others' look-ups alone."""
    book = Book()
    names = Names(book, VirtualClock())
    dead = [asyncio.create_task(names.addresses(f"dead{number}.test")) for number in range(40)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        found = await names.addresses("living.test")
    still_waiting = [task for task in dead if not task.done()]
    book.go.set()
    await asyncio.gather(*dead)

    assert found == ("192.0.2.1",)
    assert len(still_waiting) == 40


async def test_names_waits_for_a_place_when_all_are_taken() -> None:
    """Look-ups beyond the number of threads wait for one, and are served."""
    book = Book()
    names = Names(book, VirtualClock(), threads=2)
    waiting = [asyncio.create_task(names.addresses(f"dead{number}.test")) for number in range(5)]
    for _ in range(2):
        await asyncio.to_thread(book.begun.acquire, timeout=5)
    asked_before = len(book.asked)
    book.go.set()
    await asyncio.gather(*waiting)

    assert asked_before == 2
    assert len(book.asked) == 5


async def test_names_gives_up_and_takes_a_late_answer_for_the_next() -> None:
    """Nobody waits longer than the limit; the answer that comes after it is not lost."""
    book = Book()
    names = Names(book, VirtualClock(), limit_s=0.05)
    with pytest.raises(EgressNotSent) as caught:
        await names.addresses("dead.test")
    late = names._pending["dead.test"]
    book.go.set()
    await late

    assert caught.value.reason == "dns_timeout"
    assert await names.addresses("dead.test") == ("192.0.2.1",)
    assert book.asked == ["dead.test"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "dns_not_found"),
        (socket.gaierror(socket.EAI_NODATA, "no address"), "dns_not_found"),
        (socket.gaierror(socket.EAI_AGAIN, "again"), "dns_temporary"),
        (socket.gaierror(socket.EAI_FAIL, "failed"), "dns_temporary"),
        (OSError(24, "too many open files"), "dns_temporary"),
        ([], "dns_not_found"),
    ],
)
async def test_names_tells_missing_from_unanswered(answer: Sequence[str] | OSError, reason: str) -> None:
    """A name that does not exist is another thing than name servers that do not answer; neither is remembered."""
    book = Book({"a.test": answer})
    names = Names(book, VirtualClock())
    for _ in range(2):
        with pytest.raises(EgressNotSent, match=r"a\.test") as caught:
            await names.addresses("a.test")

        assert caught.value.reason == reason
    assert len(book.asked) == 2


async def test_names_closes_while_a_thread_still_asks() -> None:
    """Shutting down does not wait for name servers."""
    book = Book()
    names = Names(book, VirtualClock())
    waiting = asyncio.create_task(names.addresses("dead.test"))
    await asyncio.to_thread(book.begun.acquire, timeout=5)
    async with asyncio.timeout(5):
        await names.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    book.go.set()


def test_system_lookup_knows_this_machine() -> None:
    """The real look-up gives plain addresses, each once."""
    found = system_lookup("localhost")

    assert found
    assert len(found) == len(set(found))
    assert set(found) <= {"127.0.0.1", "::1"}
