"""What came of a request, for its lane and for the origin that it went to.

A lane of its own goes by everything that comes back. A lane that many callback_urls of an origin share goes by what the
whole origin does: only requests that found nobody open its breaker, any answer from whatever path closes it, and what
one path asks for (429, `Retry-After`) slows no other down. Must not know the store: deliveries are due by their schedule.
"""

from __future__ import annotations

from typing import Final

from service.deliveries.classify import Tried
from service.deliveries.lanes.lane_names import IN_FLIGHT, NEW_IN_FLIGHT, is_shared, shared_lanes
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending

PROMPT_MS: Final = 1_000  # destinations that answer later are served after those that do not


class Outcomes:
    """Tells lanes and origins of requests that ended."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def report(self, sending: Sending, tried: Tried, duration_ms: int) -> bool | None:
        """A request ended.

        Args:
            sending: What was sent.
            tried: What came of it.
            duration_ms: How long it took.

        Returns:
            Whether the breaker of its lane opened (True) or closed (False) by it; None: it is as it was.
        """
        lane_id, breakers = sending.lane, self._lanes.breakers
        if tried.delivered and breakers.is_empty and self._lanes.origins.goes_well(lane_id):
            # Nearly every request: there is nothing to tell an origin where nothing fails.
            self._lanes.heard(sending, delivered=True, prompt=duration_ms < PROMPT_MS)
            return None
        if sending.url is not None:
            self._lanes.origins.tried(sending.account_id, sending.url, delivered=tried.delivered)
        was_open = breakers.is_open(lane_id)
        prompt = tried.delivered and duration_ms < PROMPT_MS
        if sending.url is not None and is_shared(lane_id):
            self._lanes.heard(sending, delivered=not tried.is_unreachable, prompt=prompt)
        else:
            if tried.slow_s:
                self._lanes.slow_down(lane_id, tried.slow_s)
            if sending.url is not None:
                self._lanes.limit(lane_id, IN_FLIGHT if tried.delivered else NEW_IN_FLIGHT)
            self._lanes.heard(sending, delivered=tried.delivered, prompt=prompt, retry_after_s=tried.retry_after_s)
        is_open = breakers.is_open(lane_id)
        if sending.url is not None:
            self._report_origin(sending, tried)
        return None if is_open == was_open else is_open

    def _report_origin(self, sending: Sending, tried: Tried) -> None:
        lanes, account_id, lane_id = self._lanes, sending.account_id, sending.lane
        if tried.is_unreachable:
            lanes.origins.unreachable(lane_id)
            return
        for shared in shared_lanes(lane_id):
            was_open = lanes.breakers.is_open(shared)
            if shared != lane_id and lanes.breakers.succeeded(shared, IN_FLIGHT):
                lanes.catch_up(account_id, shared)
            elif was_open:
                lanes.try_now(shared)
        for path in lanes.origins.reached(lane_id):
            lanes.catch_up(account_id, path)
