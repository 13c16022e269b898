"""Memory for what is large: request bodies while they are read, and answers while they are sent.

Each kind has one bound for the whole process. It must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Final

from litestar.types import Scope, Send

from service.api.listening.connection import UNSENT_BYTES, abort_connection
from service.errors import Unavailable

FREE_BYTES: Final = 16 * 1024  # of each body, so that a small one always passes
WAIT_S: Final = 10.0  # for room; the rest of the body waits in the network, and its deadlines go on
RETRY_AFTER_S: Final = 1  # told to those who found no room
_HELD: Final = "body_memory"  # where the scope's state keeps what a request holds


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request whose body is not read on until there is room for it."""

    scope: Scope
    count: int
    granted: asyncio.Future[None]


class Bodies:
    """The bytes of all request bodies that are being read. No account has more than half, nor have all callbacks together.

    Args:
        size: Bytes; each body has `FREE_BYTES` beside them.
        wait_s: How long a body may wait for room.
    """

    def __init__(self, size: int, wait_s: float = WAIT_S) -> None:
        self._size = size
        self._share = size // 2
        self._wait_s = wait_s
        self._by_owner: Counter[str] = Counter()
        self._held = 0
        self._waiting: dict[str, deque[_Waiting]] = {}  # by owner, in the order of their turns

    async def wait_for(self, scope: Scope, owner: str, count: int) -> None:
        """Take up room until the request ends, in turn, once there is so much.

        Raises:
            Unavailable: There was none for too long.
        """
        waiting = _Waiting(scope, count, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(owner, deque()).append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(self._wait_s):
                await waiting.granted
        except TimeoutError as error:
            raise _busy() from error
        finally:
            if waiting.granted.cancelled():
                self._grant()  # what is smaller may have waited behind it

    def hold(self, scope: Scope, owner: str, count: int) -> None:
        """Take up room at once, until the request ends.

        Raises:
            Unavailable: There is none.
        """
        if not self._fits(owner, count):
            raise _busy()
        self._take(scope, owner, count)

    def give_back(self, scope: Scope) -> None:
        """What a request holds, if anything."""
        held = scope["state"].pop(_HELD, None)
        if held is None:
            return
        owner, count = held
        self._held -= count
        self._by_owner[owner] -= count
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        self._grant()

    def _fits(self, owner: str, count: int) -> bool:
        return self._by_owner[owner] + count <= self._share and self._held + count <= self._size

    def _take(self, scope: Scope, owner: str, count: int) -> None:
        self._by_owner[owner] += count
        self._held += count
        scope["state"].setdefault(_HELD, [owner, 0])[1] += count

    def _grant(self) -> None:
        """Let in who waits: the owners in turn, of each the longest; who is kept by its own share is in nobody's way."""
        turns = deque(self._waiting)
        while turns:
            owner = turns.popleft()
            queue = self._waiting[owner]
            while queue and queue[0].granted.done():  # it has given up
                queue.popleft()
            if not queue:
                del self._waiting[owner]
            elif self._fits(owner, queue[0].count):
                first = queue.popleft()
                self._take(first.scope, owner, first.count)
                first.granted.set_result(None)
                self._waiting[owner] = self._waiting.pop(owner)  # the next turn is somebody else's
                turns.append(owner)
            elif self._by_owner[owner] + queue[0].count <= self._share:
                return

    @property
    def held(self) -> int:
        """Bytes that are taken up."""
        return self._held


class AnswerBuffers:
    """Large answers on their way, in pieces, so that a client that does not read holds a piece and not a copy of everything.

    Beyond the bound the connection goes whose client has taken nothing for longest.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._stalest: OrderedDict[object, tuple[int, Scope]] = OrderedDict()

    async def send(self, scope: Scope, send: Send, message: Any) -> None:
        """Send a body, or a part of one, that is larger than a piece."""
        body, more = memoryview(message["body"]), message.get("more_body", False)
        me = object()
        self._stalest[me] = len(body), scope
        self._held += len(body)
        while self._held > self._size and len(self._stalest) > 1:
            self._forget(next(iter(self._stalest)), cut=True)
        try:
            for at in range(0, len(body), UNSENT_BYTES):
                end = at + UNSENT_BYTES
                part: Any = {"type": message["type"], "body": body[at:end], "more_body": more or end < len(body)}
                await send(part)
                if me in self._stalest:
                    self._stalest.move_to_end(me)
        finally:
            self._forget(me)

    def _forget(self, one: object, *, cut: bool = False) -> None:
        if one in self._stalest:
            size, scope = self._stalest.pop(one)
            self._held -= size
            if cut:
                abort_connection(scope)


def _busy() -> Unavailable:
    return Unavailable(
        "other large bodies are being read; send this one again", code="busy", retry_after_s=RETRY_AFTER_S
    )
