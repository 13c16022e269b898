"""The sockets that all lanes share, and how they are shared out; the same is done with memory in `held_bytes`.

A lane that has nothing yet is let in before those that have something, and may use a reserve of which no account gets more than
is left for the others; beyond the first of each lane, an account has at most as much as is left for the others. Who has to wait for a socket waits in turn, and accounts take turns.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from service.deliveries.lanes.held_bytes import less, may_be_first

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
    """The sockets of one process."""

    def __init__(self, sockets: int = SOCKETS) -> None:
        self._sockets = sockets
        self.out = 0  # requests
        self._out_by: Counter[str] = Counter()  # by account
        self.firsts = Queue()  # lanes that have nothing out
        self.others = Queue()

    def may_begin(self, account_id: str, *, first: bool) -> bool:
        """Whether a request may begin now; `first`: its lane has none out."""
        if first:
            return may_be_first(self._sockets, self._sockets * 3 // 2, self.out, self._out_by[account_id])
        return self._out_by[account_id] < self._sockets - self.out

    def begin(self, account_id: str) -> None:
        """One more request."""
        self.out += 1
        self._out_by[account_id] += 1

    def end(self, account_id: str) -> None:
        """One less."""
        self.out -= 1
        less(self._out_by, account_id)

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
