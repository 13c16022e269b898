"""How the demo looks: at any width, and in a pipe."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from service.cli.demo.board import PLACE, Board
from service.cli.demo.screen import LiveScreen, PlainScreen, _signature, event_line
from service.cli.demo.script import plan
from service.cli.demo.subscriber import Arrival, JobSeen
from service.clock import VirtualClock, iso

NOW_MS = 1_795_000_000_000


def arrival(place: int, resolved_by: str, event: str = "job.completed") -> Arrival:
    status = event.removeprefix("job.")
    job = JobSeen(
        f"job_{place}", "apimodels", "generate", status, resolved_by=resolved_by, metadata={PLACE: str(place)}
    )
    return Arrival(f"evt_{place}", event, iso(NOW_MS) or "", NOW_MS, verified=True, job=job)


def finished_board(clock: VirtualClock) -> Board:
    errands = plan([("apimodels", "generate"), ("sandbox", "generate")])
    board = Board(errands, clock, lambda _: NOW_MS - 1_234, lambda *_: None)
    for place, errand in enumerate(errands):
        board.arrived(arrival(place, errand.resolved_by, errand.event))
    return board


@pytest.mark.parametrize("width", [80, 120, 200])
def test_table_fits_every_terminal(width: int) -> None:
    """Nothing is cut and nothing is wrapped, from 80 columns on."""
    clock = VirtualClock(NOW_MS)
    text = StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    board = finished_board(clock)
    console.print(LiveScreen(console, clock, 3.0).table(board))

    lines = text.getvalue().splitlines()
    assert len(lines) == len(board.rows) + 3  # the head, an empty line, the summary
    assert max(map(len, lines)) <= width
    assert "…" not in text.getvalue()
    assert all(row.errand.lesson in text.getvalue() for row in board.rows)
    assert "1,234 ms" in text.getvalue()
    assert "9 of 9" in lines[-1]


def test_table_shows_what_is_on_its_way() -> None:
    """A job without its event has its state, and the provider's own word where it is another."""
    clock = VirtualClock(NOW_MS)
    board = Board(plan([("apimodels", "generate")]), clock, lambda _: None, lambda *_: None)
    job = JobSeen("job_0", "apimodels", "generate", "running", provider_status="pending", metadata={PLACE: "0"})
    board.arrived(Arrival("evt_1", "job.running", iso(NOW_MS) or "", NOW_MS, verified=True, job=job))
    text = StringIO()
    console = Console(file=text, width=80, force_terminal=True, color_system=None)
    console.print(LiveScreen(console, clock, 3.0).table(board))

    assert "running · pending" in text.getvalue()
    assert "0 of 8" in text.getvalue()


def test_signature_is_ticked_when_the_final_event_verified() -> None:
    """Not before: an earlier event's says nothing of the one that counts."""
    board = Board(plan([("apimodels", "generate")]), VirtualClock(NOW_MS), lambda _: NOW_MS, lambda *_: None)
    job = JobSeen("job_0", "apimodels", "generate", "running", metadata={PLACE: "0"})
    board.arrived(Arrival("evt_1", "job.running", iso(NOW_MS) or "", NOW_MS, verified=True, job=job))
    before = _signature(board.rows[0]).plain
    board.arrived(arrival(0, "callback"))

    assert (before, _signature(board.rows[0]).plain) == ("", "✓")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_line_of_an_event_fits_the_terminal(width: int) -> None:
    """A job that came from elsewhere shows its id; what has no room stands below, and no word is broken."""
    job = JobSeen("job_01990000-0000-7000-8000-000000000000", "apimodels", "generate", "completed")
    came = Arrival("evt_1", "job.submit_unknown", iso(NOW_MS) or "", NOW_MS, verified=True, job=job)
    lines = event_line(None, came, 123_456, width).plain.split("\n")

    assert all(len(line.rstrip()) <= width for line in lines[1:])
    assert len(lines[0].rstrip()) <= max(width, 74)  # time, event and id belong together
    assert " ".join(" ".join(lines).split()) == (
        f"{(iso(NOW_MS) or '')[11:23]} job.submit_unknown {job.id} 123,456 ms signature ✓ apimodels/generate"
    )


def test_pipe_gets_one_plain_line_an_event() -> None:
    """When, what, for which job, how fast, whether it is signed, and what it shows; no colour and no cursor."""
    text = StringIO()
    screen = PlainScreen(Console(file=text, width=40, highlight=False))
    board = Board(plan([("apimodels", "generate")]), VirtualClock(NOW_MS), lambda _: NOW_MS - 7, screen.arrival)
    board.arrived(arrival(3, "poll"))

    [line] = text.getvalue().splitlines()
    assert line.split(maxsplit=2)[1] == "job.completed"
    assert "7 ms  signature ✓  callback lost → found by polling" in line
    assert "\x1b" not in line
