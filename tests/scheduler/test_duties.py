"""The ticks of duties."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from service.clock import SystemClock, VirtualClock
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


async def test_missed_ticks_are_not_listed() -> None:
    """As after a step ahead: a duty whose tick is a month ago runs once, and nobody walks through what it missed."""
    runs, begun = 0, asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        begun.set()

    ticker = Ticker([Duty("often", 0.5, run, first_s=0.4)], SystemClock(), Metrics())
    ticker.start()
    try:
        started_s = time.thread_time()
        ticker._scheduler.modify_job("often", next_run_time=datetime.now(UTC) - timedelta(days=30))
        await asyncio.wait_for(begun.wait(), 10)

        assert time.thread_time() - started_s < 2  # processor seconds; listing five million ticks takes twenty
        assert runs == 1
        assert ticker._scheduler.get_job("often").next_run_time > datetime.now(UTC) - timedelta(seconds=10)
    finally:
        await ticker.stop()


@pytest.mark.parametrize("step_s", [-3_600, 3_600, -315_360_000])
async def test_stepped_wall_clock_stops_no_duty(step_s: int) -> None:
    """As after a step back: APScheduler waits for a time that is far off, the watchdog times it anew, and one line tells."""
    begun = asyncio.Event()

    async def run() -> None:
        begun.set()

    clock = VirtualClock()
    ticker = Ticker([Duty("often", 0.5, run), Duty("rare", 21_600.0, run, first_s=60.0)], clock, Metrics())
    ticker.start()
    try:
        for job in ticker._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))
        clock.step(step_s)
        clock.advance(1)
        with capture_logs() as lines:
            ticker.look()
        await asyncio.wait_for(begun.wait(), 10)
        rare = ticker._scheduler.get_job("rare").next_run_time - datetime.now(UTC)
    finally:
        await ticker.stop()

    assert [(line["event"], line["by_s"], line["offset_s"]) for line in lines] == [("clock_stepped", step_s, step_s)]
    assert timedelta(seconds=40) < rare <= timedelta(seconds=60)


async def test_clock_that_nobody_touched_tells_nothing() -> None:
    """The watchdog is silent while ticks and clocks go as they should."""

    async def run() -> None:
        pass

    ticker = Ticker([Duty("often", 600.0, run)], SystemClock(), Metrics())
    with capture_logs() as lines:
        ticker.look()

    assert lines == []
