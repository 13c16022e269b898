"""The log lines about deliveries and destinations: sparing, and with no more of a URL than an operator may see.

Of a URL they name origin and path; query, fragment and user are left out, and a part of the path that looks like a token is
cut, since many receivers (Slack, Discord) know their callers by the path alone. Must not know why a line is said.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from service.clock import Clock, iso
from service.deliveries.classify import Tried
from service.deliveries.lanes.lane_breaker import LaneBreakers
from service.deliveries.lanes.lane_names import is_shared
from service.deliveries.lanes.queue import Sending
from service.telemetry import MASK, SparingLog

MAX_CHARS: Final = 300  # of a URL
KEPT: Final = 4  # characters of what looks like a token, as of a key

#: Long, and no plain word: letters and digits mixed, or capitals inside.
_TOKEN: Final = re.compile(r"(?=[^/]*[0-9A-Z])[\w.~%+=:@!$&'()*,;-]{16,}")


def shown_url(url: str) -> str:
    """Origin and path of a URL, without what may be a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return MASK
    place = f"[{host}]" if ":" in host else host
    path = "/".join(_shown(each) for each in parts.path.split("/"))
    return f"{parts.scheme}://{place}{f':{port}' if port else ''}{path}"[:MAX_CHARS]


def _shown(segment: str) -> str:
    return segment[:KEPT] + MASK if _TOKEN.fullmatch(segment) else segment


class Lines:
    """What the sender says; one for a process.

    Args:
        name: The logger's.
        clock: For moments that lines name.
        count: How many deliveries wait in a lane.
    """

    def __init__(self, name: str, clock: Clock, count: Callable[[str], Awaitable[int]]) -> None:
        self._lines = SparingLog(name, clock)
        self._clock = clock
        self._count = count

    def failed(self, sending: Sending, tried: Tried, url: str, *, dead: bool) -> None:
        """An attempt failed; `dead`: it was the last."""
        self._lines.say(
            "warning" if dead else "info",
            "delivery_dead" if dead else "delivery_failed",
            delivery=sending.delivery_id,
            job=sending.job_id,
            type=sending.event_type,
            attempt=sending.attempts + 1,
            subscription=sending.subscription_id,
            url=shown_url(url),
            status=tried.status_code,
            error_class=tried.error_class,
            error=tried.error,
        )

    async def turned(self, sending: Sending, tried: Tried, url: str, breakers: LaneBreakers, *, down: bool) -> None:
        """The breaker of the delivery's lane opened, or closed again; `url` is where it was sent."""
        told: dict[str, object] = {}
        if down:
            wait_s = breakers.state(sending.lane).probe_in_s or 0.0
            told = {"error_class": tried.error_class, "until": iso(self._clock.now_ms() + round(1000 * wait_s))}
            if self._lines.has_room():  # else it is kept back, and needs no counting
                told["waiting"] = await self._count(sending.lane)
        shown = shown_url(url)
        self._lines.say(
            "warning" if down else "info",
            "destination_down" if down else "destination_back",
            subscription=sending.subscription_id,
            # What the paths of an origin share is no single path's.
            url="/".join(shown.split("/")[:3]) if is_shared(sending.lane) else shown,
            job=sending.job_id,
            delivery=sending.delivery_id,
            type=sending.event_type,
            attempt=sending.attempts + 1,
            **told,
        )
