"""A store that takes no writes for a moment, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.db.transaction import Tx
from service.errors import StoreUnavailable
from service.jobs.track import Track
from service.jobs.transitions.facts import SubmitBegun
from tests.simulation.crowd import TASK_S, crowd

TIMES = 5


async def test_submission_goes_on_as_soon_as_the_store_takes_it(tmp_path: Path) -> None:
    """A job of which nothing was sent yet does not wait for the end of its lease, ten minutes later; it is sent once."""
    refused = 0
    async with crowd(tmp_path, {"good": "well"}) as at:

        async def full(tx: Tx, commands: Sequence[Track]) -> list[Any]:
            nonlocal refused
            if refused == TIMES or not any(isinstance(each.fact, SubmitBegun) for each in commands):
                return await at.stages.tracker.handle(tx, commands)
            refused += 1
            return [StoreUnavailable("the disk is full") for _ in commands]

        at.base.store.writer.handle(Track, full)
        jobs = await at.take(await at.tenant(), "good")
        await at.run(TASK_S + 10)
        [took] = at.seconds(jobs)
        submissions = at.raw.execute("SELECT count(*) FROM submissions").fetchone()[0]

    assert refused == TIMES
    assert took < TASK_S + 8
    assert submissions == 1
