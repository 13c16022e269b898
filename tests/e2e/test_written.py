"""A job's way writes a bounded number of bytes, and its prompt once for each place where it must be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.e2e.rig import CAT, Rig, rig
from tests.e2e.written import lifecycles

KIB = 1_024


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Rig]:
    """The whole machine with one subscription; what is written once is written."""
    async with rig(tmp_path) as made:
        await made.api.post("/v1/subscriptions", json={"url": made.receiver.url})
        await lifecycles(made, CAT["prompt"])
        yield made


async def test_lifecycle_writes_a_bounded_log(running: Rig) -> None:
    """From acceptance to two deliveries, one job at a time: some hundred and twenty pages, and a row for each thing told."""
    short = await lifecycles(running, "x" * 100)
    usual = await lifecycles(running, "y " * 1_000)

    assert short.log < 300 * KIB, short.by_table
    assert usual.log < 320 * KIB, usual.by_table
    assert short.growth < 20 * KIB, short.by_table
    assert usual.growth < 30 * KIB, usual.by_table


async def test_large_prompt_is_written_once(running: Rig) -> None:
    """Events and answers show its digest: the log and the database grow by little more than its own bytes."""
    size = 256 * KIB
    short = await lifecycles(running, "x" * 100, jobs=5)
    large = await lifecycles(running, "z" * size, jobs=5)

    assert large.log - short.log < 1.3 * size, large.by_table
    assert large.growth - short.growth < 1.2 * size, large.by_table
