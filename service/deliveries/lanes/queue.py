"""A delivery in this process's hands, and a destination's queue of them. Hardly more than shape."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum


@dataclass(frozen=True, slots=True)
class Sending:
    """One delivery that this process holds: what is to be sent where, and the lease under which."""

    delivery_id: str
    event_id: str
    account_id: str
    lane: str
    body: bytes  # one object for all deliveries of the event
    event_at: int
    epoch: int
    lease_until: int  # ms UTC: what has not begun well before is somebody else's
    url: str | None  # a one-off's own; a subscription's is looked up when it is sent
    subscription_id: str | None
    failed_before: int  # failed attempts that count for the schedule
    max_in_flight: int
    job_id: str | None = None
    event_type: str = ""
    attempts: int = 0  # that were made before
    rate_per_s: float | None = None
    due_at: int = 0  # ms UTC; in the future where the lane catches up
    since: int = 0  # ms UTC: when the schedule began
    give_up_at: int | None = None  # ms UTC: nothing is sent after this moment
    urgent: bool = False  # somebody waits for it: it goes before everything else, whatever the lane's state


class Stage(IntEnum):
    """How far a delivery is that this process holds."""

    RESERVED = 0  # its lease is not committed yet
    QUEUED = 1
    OUT = 2  # its request is out
    RECORDING = 3  # answered, and about to be recorded


@dataclass(slots=True, eq=False)
class LanePlace:
    """The place of one delivery that is held; see `places`. `stage` is None once it was given back."""

    sending: Sending
    lane: Lane
    stage: Stage | None


@dataclass(slots=True)
class Lane:
    """One destination's queue."""

    account_id: str
    max_in_flight: int
    rate_per_s: float | None
    queue: deque[LanePlace] = field(default_factory=deque)
    stages: list[int] = field(default_factory=lambda: [0] * len(Stage))  # how many are in each; see `places`
    backlog: bool = False  # the store has more
    changed: int = 0  # when more became due in the store; see `Lanes.stamp`
    catch_up_to: int | None = None  # ms UTC: what failed before then and waits for its turn is due now
    slow_until: float = 0.0  # monotonic seconds
    next_start: float = 0.0  # monotonic seconds, where a rate limits
    timer: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are out."""
        return self.stages[Stage.OUT]

    @property
    def load(self) -> int:
        """Deliveries in memory, in whatever stage."""
        return sum(self.stages)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to come back to."""
        return self.load == 0 and self.timer is None and not self.backlog

    def stop_timer(self) -> None:
        """Wait for no moment any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
