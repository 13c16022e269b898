"""The ticks of duties."""

from __future__ import annotations

import asyncio

from service.clock import SystemClock
from service.scheduler.duties import Duty, Ticker


async def test_duty_of_hours_runs_soon_after_a_start() -> None:
    """What is due every few hours runs the first time when it says, so that a process that lives shorter does it too."""
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    ticker = Ticker([Duty("rare", 21_600.0, run, first_s=0.01)], SystemClock())
    ticker.start()
    try:
        async with asyncio.timeout(10):
            await ran.wait()
    finally:
        await ticker.stop()
