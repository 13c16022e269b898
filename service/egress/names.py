"""Which addresses a name has: look-ups in threads of our own, one at a time for each name, remembered for a while.

Does not judge: the gate does. The event loop's default threads are not used, since a dozen names whose name servers are
dead would hold all of them, and everybody else's look-ups with them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from service.clock import Clock
from service.errors import EgressNotSent

#: Blocks until it has the addresses of a name; raises OSError (`socket.gaierror` tells what kind).
Lookup = Callable[[str], Sequence[str]]

LIMIT_S = 5.0  # how long anybody waits for a look-up
THREADS = 64  # look-ups at the same time
REMEMBER_S = 30.0  # how long addresses are taken for true
REMEMBERED = 4096  # names

#: What the system says where a name, or an address of it, does not exist; EAI_NODATA is not on every system.
_NOT_FOUND = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME), socket.EAI_ADDRFAMILY}

NOT_FOUND = "dns_not_found"
_MESSAGES = {
    NOT_FOUND: "{host} does not exist: check the spelling, or publish the name",
    "dns_temporary": "{host} could not be looked up: its name servers gave no answer",
    "dns_timeout": "{host} could not be looked up: its name servers took too long",
}


def system_lookup(host: str) -> Sequence[str]:
    """Ask the operating system; all addresses, also of a family this machine cannot reach: they are judged too."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class _Found:
    addresses: tuple[str, ...]
    reason: str | None = None  # why there are none


class Names:
    """Looks up names.

    Args:
        lookup: Runs in a thread.
        limit_s: See `LIMIT_S`; the thread is left to itself after that, and keeps its place until it is through.
        threads: See `THREADS`; further look-ups wait.
    """

    def __init__(self, lookup: Lookup, clock: Clock, *, limit_s: float = LIMIT_S, threads: int = THREADS) -> None:
        self._lookup = lookup
        self._clock = clock
        self._limit_s = limit_s
        self._places = asyncio.Semaphore(threads)
        self._known: OrderedDict[str, tuple[tuple[str, ...], float]] = OrderedDict()
        self._pending: dict[str, asyncio.Task[_Found]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """All addresses of a name, at least one.

        Raises:
            EgressNotSent: `dns_not_found`, `dns_temporary` or `dns_timeout`.
        """
        known = self._known.get(host)
        if known is not None and self._clock.monotonic() < known[1]:
            return known[0]
        found = await self._wait(self._pending.get(host) or self._begin(host))
        if found.reason is not None:
            raise EgressNotSent(found.reason, _MESSAGES[found.reason].format(host=host))
        return found.addresses

    async def close(self) -> None:
        """Wait for nobody: threads that are still asking end with the process at the latest."""
        tasks = list(self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, task: asyncio.Task[_Found]) -> _Found:
        try:
            async with asyncio.timeout(self._limit_s):
                # Who gives up must not take the answer away from the others who wait for it.
                return await asyncio.shield(task)
        except TimeoutError:
            return _Found((), "dns_timeout")

    def _begin(self, host: str) -> asyncio.Task[_Found]:
        task = self._pending[host] = asyncio.create_task(self._find(host), name="egress look-up")
        task.add_done_callback(lambda _: self._pending.pop(host, None))
        return task

    async def _find(self, host: str) -> _Found:
        async with self._places:
            try:
                addresses = await asyncio.wrap_future(self._in_thread(host))
            except socket.gaierror as error:
                return _Found((), NOT_FOUND if error.errno in _NOT_FOUND else "dns_temporary")
            except OSError:
                return _Found((), "dns_temporary")
            except ValueError:  # the name cannot be encoded
                return _Found((), NOT_FOUND)
        if not addresses:
            return _Found((), NOT_FOUND)
        self._remember(host, addresses)
        return _Found(addresses)

    def _in_thread(self, host: str) -> Future[tuple[str, ...]]:
        outcome: Future[tuple[str, ...]] = Future()
        # From here on it cannot be cancelled, so that the thread always finds it open.
        outcome.set_running_or_notify_cancel()

        def ask() -> None:
            try:
                outcome.set_result(tuple(self._lookup(host)))
            except (OSError, ValueError) as error:
                outcome.set_exception(error)

        # A pool's threads are joined when the interpreter ends, and one dead name would hold that up for half a minute.
        threading.Thread(target=ask, name="egress look-up", daemon=True).start()
        return outcome

    def _remember(self, host: str, addresses: tuple[str, ...]) -> None:
        self._known[host] = (addresses, self._clock.monotonic() + REMEMBER_S)
        self._known.move_to_end(host)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
