"""What all lanes share, memory and sockets, and how it is shared out.

A lane that has nothing yet is let in before those that have something, and may use a reserve of which no account gets more than
is left for the others; beyond the first of each lane, an account has at most as much as is left for the others. Who has to wait for a socket waits in turn, and accounts take turns.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

MEMORY: Final = 40_000  # deliveries in memory; the first of each lane may go up to twice as many in all
SOCKETS: Final = 10_000  # requests at once; the first of each lane may go up to half as many again in all


class Queue:
    """Lanes that wait, each once; accounts take turns, and within an account the lanes do."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._accounts)

    def has(self, account_id: str) -> bool:
        """Whether one of the account's lanes waits."""
        return account_id in self._accounts

    def add(self, account_id: str, lane_id: str) -> None:
        """Wait behind those of the account that wait already."""
        self._accounts.setdefault(account_id, OrderedDict())[lane_id] = None

    def pop(self) -> str:
        """The lane whose turn it is."""
        account_id, lanes = next(iter(self._accounts.items()))
        lane_id, _ = lanes.popitem(last=False)
        if lanes:
            self._accounts.move_to_end(account_id)
        else:
            del self._accounts[account_id]
        return lane_id


class Shares:
    """Memory and sockets of one process."""

    def __init__(self, memory: int = MEMORY, sockets: int = SOCKETS) -> None:
        self._memory = memory
        self._sockets = sockets
        self.held = 0  # deliveries in memory
        self.out = 0  # requests
        self._held_by: Counter[str] = Counter()  # by account
        self._out_by: Counter[str] = Counter()
        self.firsts = Queue()  # lanes that have nothing out
        self.others = Queue()

    # -- memory ------------------------------------------------------------------------------------------------------

    def room(self, account_id: str, *, first: bool) -> int:
        """How many deliveries more the account may hold for a lane; `first`: it holds none yet."""
        left = self._memory - self.held - self._held_by[account_id]
        return max(
            left,
            1 if first and _may_be_first(self._memory, 2 * self._memory, self.held, self._held_by[account_id]) else 0,
        )

    def left(self) -> int:
        """How many deliveries more all accounts together may hold."""
        return max(0, self._memory - self.held)

    def hold(self, account_id: str) -> None:
        """One more in memory."""
        self.held += 1
        self._held_by[account_id] += 1

    def let_go(self, account_id: str) -> None:
        """One less."""
        self.held -= 1
        _less(self._held_by, account_id)

    # -- sockets -----------------------------------------------------------------------------------------------------

    def may_begin(self, account_id: str, *, first: bool) -> bool:
        """Whether a request may begin now; `first`: its lane has none out."""
        if first:
            return _may_be_first(self._sockets, self._sockets * 3 // 2, self.out, self._out_by[account_id])
        return self._out_by[account_id] < self._sockets - self.out

    def begin(self, account_id: str) -> None:
        """One more request."""
        self.out += 1
        self._out_by[account_id] += 1

    def end(self, account_id: str) -> None:
        """One less."""
        self.out -= 1
        _less(self._out_by, account_id)

    def wait(self, account_id: str, lane_id: str, *, first: bool) -> None:
        """The lane has something to send and no socket."""
        (self.firsts if first else self.others).add(account_id, lane_id)

    def next(self) -> str | None:
        """The lane that may begin now, of those that wait; the caller asks `may_begin` again and, if need be, waits again."""
        if self.firsts and self.out < self._sockets * 3 // 2:
            return self.firsts.pop()
        if self.others and self.out < self._sockets:
            return self.others.pop()
        return None


def _may_be_first(ordinary: int, most: int, all_of: int, own: int) -> bool:
    """The first of a lane finds a place among the ordinary ones; in the reserve no account has more than is left."""
    return all_of < ordinary or own < most - all_of


def _less(counts: Counter[str], account_id: str) -> None:
    counts[account_id] -= 1
    if counts[account_id] <= 0:
        del counts[account_id]
