"""Events that were erased while they may wait in this process's memory: none of them is sent any more.

A delivery that is held goes out without asking the store again. Nobody holds one for longer than its lease.
"""

from __future__ import annotations

from collections.abc import Iterable


class Recalled:
    """The events that were erased during the length of a lease.

    Args:
        lease_ms: How long this process may hold a delivery.
    """

    def __init__(self, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        self._until: dict[str, int] = {}  # in the order in which they were erased

    def __contains__(self, event_id: str) -> bool:
        """Whether the event was erased."""
        return event_id in self._until

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._until)

    def add(self, event_ids: Iterable[str], now_ms: int) -> None:
        """These are erased, durably; those that nobody can hold any more are forgotten."""
        while self._until and (oldest := next(iter(self._until))) and self._until[oldest] < now_ms:
            del self._until[oldest]
        self._until.update(dict.fromkeys(event_ids, now_ms + self.lease_ms))
