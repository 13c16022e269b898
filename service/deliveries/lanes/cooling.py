"""Lanes that are idle and kept, since they may start nothing before a moment.

Subscriptions are counted; the callback_urls of jobs are not, each may be another path that asks for a day. So those are
kept up to a number, and the first to come is dropped: whatever comes for it next is sent, and told anew to wait. Must not
know what a lane holds.
"""

from __future__ import annotations

from typing import Final

from service.deliveries.lanes.lane_names import is_one_off

PATHS: Final = 1_024  # lanes of callback_urls: each costs the event loop 9 µs twice a second


class Cooling:
    """The ids of those lanes."""

    def __init__(self) -> None:
        self._standing: set[str] = set()
        self._paths: dict[str, None] = {}  # the first to come is first

    def add(self, lane_id: str) -> str | None:
        """Keep a lane; the one that gives way to it, if there is one."""
        if not is_one_off(lane_id):
            self._standing.add(lane_id)
            return None
        self._paths[lane_id] = None
        if len(self._paths) <= PATHS:
            return None
        first = next(iter(self._paths))
        del self._paths[first]
        return first

    def take(self) -> list[str]:
        """All of them, which are kept no longer, in the order in which they came."""
        taken = [*self._standing, *self._paths]
        self._standing.clear()
        self._paths.clear()
        return taken
