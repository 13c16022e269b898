from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.path import Plan, Run, callbacks, ceiling, lifecycles, obvious, profiled, relay
from benchmarks.phases import Bench
from benchmarks.report import Row, aims, table
from benchmarks.targets import Plain
from benchmarks.world import World

TINY = Plan(rounds=1, most=30, most_obvious=10, lifecycles=20, warm_up=5, seconds={50: 0.4})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of a few messages that pins nothing to a core, since other tests have it too."""
    return Run(tmp_path, None, TINY, [])


@pytest.mark.parametrize(
    ("way", "most"),
    [
        (ceiling, 30),
        (relay, 30),
        (obvious, 10),
        (lambda run: callbacks(run, "trust"), 30),
        (lambda run: callbacks(run, "fetch"), 30),
    ],
    ids=["ceiling", "relay", "obvious", "trust", "fetch"],
)
async def test_callback_path_adds_up(run: Run, way: Callable[[Run], Awaitable[Row]], most: int) -> None:
    """Each callback was answered and came out once at the subscriber, in the closed loop and at a fixed rate."""
    row = await way(run)

    assert run.problems == []
    assert (row.most.rate, row.most.count) == (None, most)
    assert row.most.per_s > 0
    if 50 in row.at:  # a machine that is busy with other tests may not hold the rate
        assert (row.at[50].rate, row.at[50].count) == (50, 20)
        assert 0 < row.at[50].p50_ms <= row.at[50].p95_ms <= row.at[50].p99_ms


async def test_whole_lifecycles_add_up(run: Run) -> None:
    """Each job was taken, submitted, called back and delivered once, and the database has every row of it."""
    row = await lifecycles(run)

    assert run.problems == []
    assert row.most.count == 20
    assert row.most.cpu_us > 0


async def test_profile_shows_the_service(run: Run, tmp_path: Path) -> None:
    """The profile is of the service under load, written when it stops."""
    found = await profiled(run, "a", tmp_path / "a.prof")

    assert run.problems == []
    assert found.count == 30
    assert b"serve_callback" in (tmp_path / "a.prof").read_bytes()


async def test_events_that_do_not_come_are_told(run: Run) -> None:
    """A relay that reaches nobody has no throughput to boast of: each failure is counted."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}/hooks"
        async with World() as world, run.subject("benchmarks.relay", "--subscriber", nowhere) as subject:
            measured = await Bench(world).callbacks(Plain(subject), 3)

    assert measured.problems == (
        "3 of 3 were not answered 200 but 502",
        "of 3 events 3 never came and 0 came more than once",
    )


async def test_table_has_the_ratio_to_the_relay(run: Run) -> None:
    """Every row is judged by the relay of the same run, and an aim that is missed is called so."""
    row = await ceiling(run)
    rows = [Row("c", "(c)", row.most, {}), Row("a", "(a)", row.most, {}), Row("b", "(b)", row.most, {})]

    lines = list(table(rows))

    assert [line.split(" | ")[2] for line in lines[2:]] == ["100%", "100%", "100%"]
    assert list(aims(rows)) == [
        "holds   (a) at least half of (c): 100%",
        "holds   (b) at least a quarter of (a): 100%",
    ]
