"""The provider without a network: draws a picture in this process and answers with the finished file at once.

For trying things out and for tests of everything behind a provider. For one prompt it draws what the sandbox that is spoken to
over HTTP draws. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Final

from service.clock import Clock
from service.providers.client import CancelOutcome, CancelVerdict, PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Money, Observation, Seen

SIDE: Final = 1024  # pixels, where the input says nothing


class DrawingDialect:
    """Draws what it is asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """See `Dialect`; the drawing takes some milliseconds of a core and gets a thread, so that nobody waits for it."""
        began = self._clock.monotonic()
        picture = await asyncio.to_thread(_drawn, given)
        observation = Observation(
            seen=Seen.COMPLETED,
            provider_status="completed",
            urls=(f"data:image/png;base64,{base64.b64encode(picture).decode()}",),
            cost=Money(0, "price_list"),
            finished_at_ms=self._clock.now_ms(),
        )
        duration_ms = round((self._clock.monotonic() - began) * 1000)
        return SubmitOutcome(Verdict.ACCEPTED, observation, duration_ms=duration_ms)

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """See `Dialect`; there is never a task to ask for."""
        return PollOutcome(PollVerdict.NOT_FOUND, message="pictures are finished when they are asked for")

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        """See `Dialect`; there is never a task to cancel."""
        return CancelOutcome(CancelVerdict.NOT_FOUND, message="pictures are finished when they are asked for")

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """See `Dialect`; nobody calls back."""
        return Observation(seen=None)


def _drawn(given: Mapping[str, object]) -> bytes:
    """The picture as PNG; a side that is not given follows from the aspect ratio, else the picture is a square."""
    from service.picture import SIZES, draw  # noqa: PLC0415 - with Pillow 40 ms of every start, also where nothing is drawn

    from_ratio = SIZES.get(str(given.get("aspect_ratio")), (SIDE, SIDE))
    sides = (given.get("width"), given.get("height"))
    width, height = (side if isinstance(side, int) else usual for side, usual in zip(sides, from_ratio, strict=True))
    return draw(str(given.get("prompt", "")), width, height, image_format="png")
