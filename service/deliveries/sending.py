"""A delivery in this process's hands. Nothing but shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sending:
    """One delivery that this process holds: what is to be sent where, and the lease under which."""

    delivery_id: str
    event_id: str
    account_id: str
    lane: str
    body: bytes
    event_at: int
    epoch: int
    lease_until: int  # ms UTC: what has not begun well before is somebody else's
    url: str | None  # a one-off's own; a subscription's is looked up when it is sent
    subscription_id: str | None
    failed_before: int  # failed attempts that count for the schedule
    max_in_flight: int
    rate_per_s: float | None = None
    due_at: int = 0  # ms UTC; in the future where the lane catches up
    since: int = 0  # ms UTC: when the schedule began
    give_up_at: int | None = None  # ms UTC: nothing is sent after this moment
    urgent: bool = False  # somebody waits for it: it goes before everything else, whatever the lane's state
