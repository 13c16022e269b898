"""The edges of a real process: connections that do everything wrong, and a healthy client beside them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.edges import measure


async def test_healthy_client_is_served_beside_connections_that_do_everything_wrong(tmp_path: Path) -> None:
    """A hundred of them of every kind: each healthy request is answered, memory stays bounded, and a SIGTERM ends it in time.

    The benchmark of the same name judges times too, with two thousand.
    """
    found = await measure(tmp_path, 100, 3.0)

    assert found.problems(judge_times=False) == []
    assert found.connections > 50
    assert len(found.beside.jobs_ms) == len(found.beside.callbacks_ms) == 75
