"""What the demo concludes from the events that it gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.cli.demo.board import PLACE, Board, BoardRow
from service.cli.demo.script import DOCUMENTED, Errand, plan
from service.cli.demo.subscriber import Arrival, ErrorSeen, JobSeen
from service.clock import SystemClock, VirtualClock, iso
from service.egress.door import Door
from service.providers.registry import Registry

NOW_MS = 1_795_000_000_000
ERRAND = Errand("Cat", "apimodels", "generate", {}, lesson="callback confirmed")


def board(errand: Errand = ERRAND, finished_ms: int | None = NOW_MS - 40) -> Board:
    return Board([errand], VirtualClock(NOW_MS), lambda _: finished_ms, lambda *_: None)


def arrival(event_type: str = "job.completed", **changes: Any) -> Arrival:
    job = JobSeen(
        id="job_1",
        provider="apimodels",
        operation="generate",
        status=event_type.removeprefix("job."),
        resolved_by="callback",
        provider_task_id="cl1",
        metadata={PLACE: "0"},
    )
    timestamp = iso(NOW_MS - 5) or ""
    return replace(Arrival("evt_1", event_type, timestamp, NOW_MS, verified=True, job=job), **changes)


def only_row(given: Board) -> BoardRow:
    return given.rows[0]


def test_board_is_content_with_one_verified_event() -> None:
    """Its lesson is shown, and the time since the provider was finished."""
    given = board()
    given.arrived(arrival("job.running", event_id="evt_0"))
    given.arrived(arrival())

    assert given.faults() == []
    assert only_row(given).story == "callback confirmed"
    assert only_row(given).latency_ms == 40


def test_board_measures_from_the_event_where_the_provider_tells_no_time() -> None:
    """A provider in the process has no task to ask for."""
    given = board(finished_ms=None)
    given.arrived(arrival())

    assert only_row(given).latency_ms == 5


@pytest.mark.parametrize(
    ("arrivals", "fault"),
    [
        ([], "did not arrive"),
        ([arrival("job.running")], "last seen: running"),
        ([arrival(), arrival()], "more than once"),
        ([arrival(), arrival(event_id="evt_2")], "more than once"),
        ([arrival(verified=False)], "signature"),
        ([arrival(), arrival(event_id="evt_2", verified=False)], "signature"),
        ([arrival("job.failed")], "job.completed was expected, job.failed came"),
    ],
)
def test_board_finds_what_is_wrong(arrivals: list[Arrival], fault: str) -> None:
    """Missing, repeated, unsigned and unexpected events each make the demo fail, by name of the job."""
    given = board()
    for each in arrivals:
        given.arrived(each)

    [line] = given.faults()
    assert line.startswith("Cat")
    assert fault in line


def test_board_tells_what_happened_instead_of_the_lesson() -> None:
    """A job that ended otherwise than meant is not explained away."""
    given = board()
    other = arrival()
    job = JobSeen("job_1", "apimodels", "generate", "completed", resolved_by="poll", metadata={PLACE: "0"})
    given.arrived(replace(other, job=job))
    failed = board()
    job = JobSeen(
        "job_1",
        "apimodels",
        "generate",
        "failed",
        resolved_by="poll",
        metadata={PLACE: "0"},
        error=ErrorSeen("expired"),
    )
    failed.arrived(arrival("job.failed", job=job))

    assert only_row(given).story == "completed, told by poll"
    assert only_row(failed).story == "failed, told by poll (expired)"


@pytest.mark.parametrize("metadata", [{}, {PLACE: "7"}, {PLACE: "-1"}, {PLACE: "²"}, {PLACE: "x"}])
def test_board_leaves_foreign_jobs_alone(metadata: dict[str, str]) -> None:
    """A job that a spectator sent has no row, whatever its metadata."""
    heard: list[BoardRow | None] = []
    given = Board([ERRAND], VirtualClock(NOW_MS), lambda _: None, lambda row, *_: heard.append(row))
    job = JobSeen("job_9", "sandbox", "generate", "completed", metadata=metadata)
    given.arrived(arrival(job=job))

    assert heard == [None]
    assert only_row(given).final is None


async def test_board_waits_no_longer_than_it_is_told() -> None:
    """An event that never comes does not hold the demo up."""
    given = board()
    await given.until_all_arrived(timeout_s=0.01)

    assert only_row(given).final is None


def test_plan_has_a_documented_body_for_every_built_in_operation() -> None:
    """The demo sends one job through every operation, whichever cards are there, and every body fits its schema."""
    clock = SystemClock()
    providers = Registry.load({}, None, Door(allow=(), clock=clock), clock).all()
    operations = [(provider.name, name) for provider in providers for name in provider.card.operations]
    errands = plan(operations)

    assert set(DOCUMENTED) == set(operations)
    assert {(each.provider, each.operation) for each in errands} == set(operations)
    for each in errands:
        provider = next(one for one in providers if one.name == each.provider)
        assert provider.validate(each.operation, each.input) == [], each.title


def test_plan_sends_the_body_that_the_document_shows() -> None:
    """Word for word, see the document's code example."""
    assert plan([("apimodels", "generate")])[0].input == {
        "model": "sparkpix",
        "prompt": "A cute cat wearing a space helmet, digital art",
        "aspect_ratio": "16:9",
    }
