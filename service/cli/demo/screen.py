"""How the demo is shown: a table that lives on a terminal, plain lines in a pipe.

Owns colours, columns and words. It must not know where the rows come from.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from service.cli.demo.board import Board, BoardRow
from service.cli.demo.subscriber import Arrival
from service.clock import Clock, iso

FRAME_S: Final = 1 / 15
WIDE: Final = 119  # columns from which the table also shows operation and state
_BAR_WIDTH: Final = 14
_GAP: Final = "  "  # between the columns of an event's line
_INDENT: Final = " " * 14  # of what goes on below: behind the time
_STYLES: Final = {
    "queued": "dim",
    "submitting": "yellow",
    "submit_unknown": "yellow",
    "running": "cyan",
    "completed": "green",
    "failed": "magenta",
}


class Screen(Protocol):
    """What the demo tells its spectators."""

    def say(self, text: str = "", style: str = "") -> None:
        """A line; on a terminal it is folded between words."""

    def quote(self, text: str) -> None:
        """A line to copy, which is never folded."""

    def arrival(self, row: BoardRow | None, arrival: Arrival, latency_ms: int) -> None:
        """An event came."""

    def following(self, board: Board) -> contextlib.AbstractAsyncContextManager[None]:
        """Show the board while it changes."""


class PlainScreen:
    """One line for each event, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str = "", style: str = "") -> None:
        """See `Screen`."""
        self._console.print(Text(text), soft_wrap=True)

    def quote(self, text: str) -> None:
        """See `Screen`."""
        self.say(text)

    def arrival(self, row: BoardRow | None, arrival: Arrival, latency_ms: int) -> None:
        """See `Screen`."""
        self.say(event_line(row, arrival, latency_ms).plain)

    @contextlib.asynccontextmanager
    async def following(self, board: Board) -> AsyncIterator[None]:
        """See `Screen`; the lines are printed as the events come."""
        yield


class LiveScreen:
    """A table that is drawn anew while the jobs move.

    Args:
        typical_s: How long a job takes here, for its bar.
    """

    def __init__(self, console: Console, clock: Clock, typical_s: float) -> None:
        self._console = console
        self._clock = clock
        self._typical_s = typical_s
        self._spinner = Spinner("dots", style="cyan")
        self._live = False

    def say(self, text: str = "", style: str = "") -> None:
        """See `Screen`."""
        self._console.print(Text(text, style))

    def quote(self, text: str) -> None:
        """See `Screen`."""
        self._console.print(Text(text), soft_wrap=True)

    def arrival(self, row: BoardRow | None, arrival: Arrival, latency_ms: int) -> None:
        """See `Screen`; the table has its row, a later job has a line."""
        if not self._live:
            self._console.print(event_line(row, arrival, latency_ms, self._console.width), soft_wrap=True)

    @contextlib.asynccontextmanager
    async def following(self, board: Board) -> AsyncIterator[None]:
        """See `Screen`."""
        self._live = True
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as live:

            def draw() -> None:
                live.update(self.table(board), refresh=True)

            drawing = asyncio.create_task(_every_frame(self._clock, draw), name="demo-screen")
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
                draw()
                self._live = False

    def table(self, board: Board) -> RenderableType:
        """The board as it stands."""
        wide = self._console.width >= WIDE
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", width=1)
        table.add_column("job", no_wrap=True, width=22)
        if wide:
            table.add_column("operation", no_wrap=True, style="dim")
            table.add_column("state", no_wrap=True, width=17)
        table.add_column("what happened", no_wrap=True, width=33)
        table.add_column("latency", no_wrap=True, justify="right", width=8)
        table.add_column("signed", no_wrap=True, width=6, justify="center")
        for row in board.rows:
            table.add_row(*self._cells(row, wide=wide))
        return Group(table, Text(), self._summary(board))

    def _cells(self, row: BoardRow, *, wide: bool) -> list[RenderableType]:
        middle = [Text(f"{row.errand.provider}/{row.errand.operation}"), _state(row)] if wide else []
        return [
            self._mark(row),
            Text(row.errand.title, "bold" if row.final else ""),
            *middle,
            self._progress(row, wide=wide),
            Text("" if row.latency_ms is None else f"{row.latency_ms:,} ms"),
            _signature(row),
        ]

    def _mark(self, row: BoardRow) -> RenderableType:
        if row.final is None and not row.distrusted:
            return self._spinner if row.job_id else Text("·", "dim")
        return Text("✗", "bold red") if row.fault else Text("✓", "bold green")

    def _progress(self, row: BoardRow, *, wide: bool) -> RenderableType:
        if row.final is not None:
            return Text(row.story, _STYLES.get(row.status, ""))
        share = min(0.97, (self._clock.monotonic() - row.began) / self._typical_s)
        bar = ProgressBar(total=1, completed=share if row.job_id else 0, width=_BAR_WIDTH)
        if wide:
            return bar
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(bar, _state(row))
        return line

    def _summary(self, board: Board) -> RenderableType:
        arrived = sum(row.final is not None for row in board.rows)
        bar = ProgressBar(total=len(board.rows), completed=arrived, width=22)
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row("", bar, Text(f"{arrived} of {len(board.rows)} jobs ended with their event"))
        return line


def event_line(row: BoardRow | None, arrival: Arrival, latency_ms: int, width: int | None = None) -> Text:
    """One event on one line: when, what, for which job, how fast, whether it can be believed, and what it shows.

    Args:
        row: The job's; None for one that the demo did not send.
        arrival: The event.
        latency_ms: Since the provider was finished.
        width: Columns of the terminal, on which the line goes on below where it is too long; None: it never does.
    """
    job = arrival.job
    title = row.errand.title if row else job.id
    story = row.story if row and row.final is arrival else f"{job.provider}/{job.operation}"
    return _flowed(
        [
            Text((iso(arrival.at_ms) or "")[11:23], "dim"),
            Text(f"{arrival.type:<18}", _STYLES.get(job.status, "")),
            Text(f"{title:<22}"),
            Text(f"{latency_ms:>6,} ms"),
            Text("signature ✓", "green") if arrival.verified else Text("signature ✗", "bold red"),
            Text(story),
        ],
        width,
    )


def _flowed(columns: list[Text], width: int | None) -> Text:
    """Columns side by side; what has no room goes on below, since a terminal would break it in the middle of a word."""
    line = Text()
    used = 0
    for column in columns:
        if used and width is not None and used + len(_GAP) + column.cell_len > width:
            line.append(f"\n{_INDENT}")
            used = len(_INDENT)
        elif used:
            line.append(_GAP)
            used += len(_GAP)
        line.append_text(column)
        used += column.cell_len
    return line


def _state(row: BoardRow) -> Text:
    """Our word, and the provider's where it has another."""
    state = Text(row.status, _STYLES.get(row.status, ""))
    return state.append(f" · {row.provider_status}", "dim") if row.provider_status not in {None, row.status} else state


def _signature(row: BoardRow) -> Text:
    if row.distrusted:
        return Text("✗", "bold red")
    return Text("✓", "green") if row.final else Text("")  # what does not verify never becomes the final one


async def _every_frame(clock: Clock, draw: Callable[[], None]) -> None:
    while True:
        draw()
        await clock.sleep(FRAME_S)
