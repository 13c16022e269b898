"""No request holds the event loop for long: what is large or has many faults is cut short, or done beside the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks.holds import Watched, Worst, measure, worst

MOST_MS = 50.0  # of processor time, in one round of the loop
#: The hardest of each kind; `python -m benchmarks.holds` measures all of them.
HARDEST = (
    "job: image URLs, 10 MB",
    "job: image URLs, 1,000",
    "job: unknown names",
    "job: unknown long input names",
    "job: backslashes",
    "job: brackets",
    "job: half a pair",
    "job: data URL",
    "job: image field",
    "job: 4 KiB texts",
    "job: callback_events",
    "job: metadata",
    "subscription: many headers",
    "PATCH /v1/subscriptions/sub…00000000: unknown names",
    "POST /v1/subscriptions/sub…0/replay: unknown names",
    "POST /v1/accounts…accounts: unknown names",
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A service whose loop is watched."""
    with Watched(tmp_path_factory.mktemp("holds")) as running:
        measure(running, [Worst("first", "/v1/jobs", lambda: b"{}")])  # what is made once
        yield running


@pytest.mark.parametrize("name", HARDEST)
def test_hard_request_does_not_hold_the_loop(watched: Watched, name: str) -> None:
    """It costs 50 ms of the loop's processor at most, from its first byte until it is answered and submitted."""
    [asked] = [each for each in worst() if each.name == name]

    [held] = measure(watched, [asked], times=2)

    assert held.status in {202, 400, 404, 413, 422}
    assert held.held_ms < MOST_MS


def test_watched_loop_sees_a_hold(watched: Watched) -> None:
    """The measure itself: work on the loop is seen, whoever does it."""

    async def hold() -> None:
        until = time.thread_time() + 2 * MOST_MS / 1000
        while time.thread_time() < until:
            pass

    with watched.reset():
        watched.run(hold())

    assert watched.loop.held * 1000 > MOST_MS
