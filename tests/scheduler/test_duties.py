"""The ticks of duties."""

from __future__ import annotations

import asyncio

from service.clock import SystemClock
from service.scheduler.duties import Duty, Ticker
from service.telemetry import Metrics


async def test_duty_of_hours_runs_soon_after_a_start() -> None:
    """What is due every few hours runs the first time when it says, so that a process that lives shorter does it too."""
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    ticker = Ticker([Duty("rare", 21_600.0, run, first_s=0.01)], SystemClock(), Metrics())
    ticker.start()
    try:
        async with asyncio.timeout(10):
            await ran.wait()
    finally:
        await ticker.stop()


async def test_duty_that_breaks_is_counted_and_runs_again() -> None:
    """An error that nobody expected ends one run of one duty, and is seen in the metrics."""
    metrics, runs, again = Metrics(), 0, asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            again.set()
        raise RuntimeError("boom")

    ticker = Ticker([Duty("frail", 0.01, run)], SystemClock(), metrics)
    ticker.start()
    try:
        async with asyncio.timeout(10):
            await again.wait()
    finally:
        await ticker.stop()

    assert b'remora_loop_failures_total{loop="frail"}' in metrics.render()[0]
