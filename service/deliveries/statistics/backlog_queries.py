"""Counting what waits to be sent, by destination. Bounded: a backlog of millions is not counted to its end.

A subscription's lane has its id, and the index for claims holds what is pending in the order in which it falls due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.db.reader import Reader
from service.db.transaction import json_set

COUNTED: Final = 10_000  # of one destination
COUNTED_OF_ALL: Final = 1_000_000  # deliveries that are counted before a backlog is "at least"
LANES_LOOKED_AT: Final = 20_000  # lanes in one count
WORST: Final = 50  # destinations that have figures of their own in the metrics

_OF_LANES: Final = """
SELECT asked.value AS lane,
    (SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE lane = asked.value AND status = 'pending' LIMIT :counted)) AS pending,
    (SELECT due_at FROM deliveries WHERE lane = asked.value AND status = 'pending' ORDER BY due_at LIMIT 1) AS due_at
FROM @set(:lanes) asked
"""
_COUNT: Final = """
SELECT count(*) AS pending FROM (SELECT 1 FROM deliveries WHERE status = 'pending' LIMIT :counted)
"""
# Walks from lane to lane instead of over all that is pending: some destination may have a million of them.
_WORST: Final = """
WITH RECURSIVE each_lane (lane, step) AS (
    SELECT min(lane), 1 FROM deliveries WHERE status = 'pending'
    UNION ALL
    SELECT (SELECT min(lane) FROM deliveries WHERE status = 'pending' AND lane > each_lane.lane), step + 1 FROM each_lane
    WHERE lane IS NOT NULL AND step < :lanes
), waiting AS MATERIALIZED (
    SELECT each_lane.lane,
        (SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE lane = each_lane.lane AND status = 'pending' LIMIT :counted)) AS pending,
        (SELECT due_at FROM deliveries WHERE lane = each_lane.lane AND status = 'pending' ORDER BY due_at LIMIT 1) AS due_at
    FROM each_lane WHERE each_lane.lane IS NOT NULL
)
SELECT lane, pending, due_at, min(due_at) OVER () AS oldest FROM waiting ORDER BY pending DESC, due_at LIMIT :worst
"""


@dataclass(frozen=True, slots=True)
class WaitingDeliveries:
    """What waits for one destination; `pending` is at most `COUNTED`."""

    lane: str
    pending: int = 0
    due_at: int | None = None  # when the next one falls due, or fell

    def overdue_since(self, now_ms: int) -> int | None:
        """When the oldest of those that are due fell due; None if nothing is due."""
        return self.due_at if self.due_at is not None and self.due_at <= now_ms else None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for all destinations together; `pending` is at most `COUNTED_OF_ALL`."""

    pending: int
    due_at: int | None
    worst: tuple[WaitingDeliveries, ...]  # those with the most


async def waiting(reader: Reader, lanes: Sequence[str]) -> dict[str, WaitingDeliveries]:
    """What waits for each of these destinations."""
    rows = await reader.rows(_OF_LANES, {"lanes": json_set(lanes), "counted": COUNTED}) if lanes else []
    return {row["lane"]: WaitingDeliveries(row["lane"], row["pending"], row["due_at"]) for row in rows}


async def backlog(reader: Reader) -> Backlog:
    """What waits for all destinations; measured: 0.1 s with a million deliveries in a hundred lanes."""
    counted = await reader.row(_COUNT, {"counted": COUNTED_OF_ALL})
    rows = await reader.rows(_WORST, {"lanes": LANES_LOOKED_AT, "counted": COUNTED, "worst": WORST})
    worst = tuple(WaitingDeliveries(row["lane"], row["pending"], row["due_at"]) for row in rows)
    return Backlog(counted["pending"] if counted else 0, rows[0]["oldest"] if rows else None, worst)
