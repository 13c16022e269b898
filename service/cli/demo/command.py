"""`remora demo`: sends the jobs, shows what comes of them, and judges it.

Owns the course of the demo and its exit status. It must not know how things are shown.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from service.cli.demo.board import PLACE, Board, BoardRow
from service.cli.demo.screen import LiveScreen, PlainScreen, Screen
from service.cli.demo.script import Errand, plan
from service.cli.demo.world import LONGEST_S, World, open_world
from service.cli.outcome import NOT_WELL, told
from service.clock import SystemClock
from service.states import FINAL_EVENT_TYPES
from service.telemetry import configure_logging

PATIENCE_S: Final = 12.0  # for all events; the slowest takes about five
KEPT_LOOKS: Final = 20  # at the copies of the results …
KEPT_LOOK_S: Final = 0.1  # … so many seconds apart
BROKEN_OFF: Final = 130  # as a shell says it of a command that a signal ended
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_EVENTS: Final = ("job.running", "job.submit_unknown", *FINAL_EVENT_TYPES)


app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when every event has arrived; status 0 only if each came exactly once.")
    ] = False,
) -> None:
    """See the whole machine at work: service, provider and subscriber on this machine, no key, no network."""
    directory = Path(tempfile.mkdtemp(prefix="remora-demo-"))
    log = directory / "remora.log"
    status = NOT_WELL
    try:
        with log.open("w", encoding="utf-8") as stream, told():
            configure_logging("json", "info", stream)
            status = asyncio.run(_run(directory, once=once))
    finally:
        if status == NOT_WELL:
            typer.echo(f"What the service logged: {log}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if not once or status == BROKEN_OFF:
        typer.echo("The demo has ended; its database and its log are removed.")
    raise typer.Exit(status)


async def _run(directory: Path, *, once: bool) -> int:
    """The demo until its end or a signal; the exit status."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    for number in _SIGNALS:
        loop.add_signal_handler(number, this.cancel if this else loop.stop)
    try:
        faults = await _demo(directory, once=once)
    except asyncio.CancelledError:
        return BROKEN_OFF
    return NOT_WELL if faults else 0


async def _demo(directory: Path, *, once: bool) -> list[str]:
    """The whole demo; a line for everything that was not as it should be."""
    clock = SystemClock()
    console = Console(highlight=False)
    screen: Screen = LiveScreen(console, clock, LONGEST_S) if console.is_terminal else PlainScreen(console)
    async with open_world(directory, clock) as world:
        errands = plan(await _operations(world))
        board = Board(errands, clock, world.finished_ms, screen.arrival)
        world.subscriber.tell(board.arrived)
        _introduce(screen, world, None if once else directory / "remora.log")
        async with screen.following(board):
            began = clock.monotonic()
            for place, errand in enumerate(errands):
                await _send(world, place, errand, board.rows[place])
            await board.until_all_arrived(PATIENCE_S)
            took_s = clock.monotonic() - began
            await _until_all_called_back(world, board)
            kept, results = await _kept(world)
        if not once:
            _conclude(screen, board.faults(), len(errands), took_s)
            _tell_kept(screen, kept, results)
            _invite(screen, world, board)
            for number in _SIGNALS:  # from here on they are the service's, which drains
                asyncio.get_running_loop().remove_signal_handler(number)
            world.service.stopping.catch_signals()
            await world.service.wait()
    if once:  # judged after the end, when nothing more can arrive
        _conclude(screen, board.faults(), len(errands), took_s)
        _tell_kept(screen, kept, results)
    return board.faults()


async def _operations(world: World) -> list[tuple[str, str]]:
    """Every operation of every provider that is configured."""
    answer = await world.client.get("/v1/providers")
    return [
        (provider["name"], operation)
        for provider in answer["data"]
        if provider["configured"]
        for operation in provider["operations"]
    ]


async def _send(world: World, place: int, errand: Errand, row: BoardRow) -> None:
    body = {
        "provider": errand.provider,
        "operation": errand.operation,
        "input": errand.input,
        "callback_url": world.subscriber.url,
        "callback_events": _EVENTS,
        "metadata": {PLACE: str(place)},
        "tags": ["demo"],
    }
    job = await world.client.post("/v1/jobs", body)
    row.job_id = job["id"]


async def _until_all_called_back(world: World, board: Board) -> None:
    """Wait for the callbacks that come after the end of their job, such as the second of two."""
    ids = {row.final.job.provider_task_id: row.errand.callbacks for row in board.rows if row.final}

    def answered() -> bool:
        sent = [each.task_id for each in world.sandbox.callbacks if each.status is not None]
        return all(sent.count(task_id) >= count for task_id, count in ids.items() if task_id)

    try:
        await world.sandbox.until(answered, timeout_s=2.0)
    except TimeoutError:
        return  # then nothing came that could have made a second event


async def _kept(world: World) -> tuple[int, int]:
    """How many of all results have their copy, after a moment for the last of them."""
    for _ in range(KEPT_LOOKS):
        jobs = (await world.client.get("/v1/jobs?limit=200"))["data"]
        stored = [result["stored"] for job in jobs for result in job["results"]]
        if all(stored):
            break
        await asyncio.sleep(KEPT_LOOK_S)
    return sum(stored), len(stored)


def _tell_kept(screen: Screen, kept: int, results: int) -> None:
    whole = kept == results
    says = f"{'✓' if whole else '·'} {kept} of {results} pictures are copied; their links last, whatever the provider deletes."
    screen.say(says, "bold green" if whole else "dim")


def _introduce(screen: Screen, world: World, log: Path | None) -> None:
    screen.say()
    screen.say("Remora: one job in, one signed event out, and nobody polls.", "bold")
    screen.say(f"  service     {world.service.url}    API documents at /schema", "dim")
    screen.say(f"  provider    {world.sandbox.base_url}    a sandbox that misbehaves on request", "dim")
    screen.say(f"  subscriber  {world.subscriber.url}    checks every signature", "dim")
    if log is not None:
        screen.say(f"  log         {log}    removed at the end", "dim")
    screen.say()


def _conclude(screen: Screen, faults: list[str], count: int, took_s: float) -> None:
    screen.say()
    if not faults:
        says = f"✓ All {count} jobs ended with exactly one event, every signature verified, in {took_s:.1f} s."
        screen.say(says, "bold green")
    for fault in faults:
        screen.say(f"✗ {fault}", "bold red")


def _invite(screen: Screen, world: World, board: Board) -> None:
    """Lines to copy, short enough for 80 columns: a terminal that wraps a line may break it when it is copied."""
    url = world.service.url
    links = [row.final.job.results[0].url for row in board.rows if row.final and row.final.job.results]
    screen.say()
    screen.say("It stays up until Ctrl-C. To paste into another terminal:", "bold")
    for title, lines in (
        ("the address and the key", [f"URL={url}", f"KEY='Authorization: Bearer {world.key}'"]),
        (
            "send a job; its event shows up here",
            [
                "JOB=$(curl -s $URL/v1/jobs -H \"$KEY\" -H 'Content-Type: application/json' -d '{",
                '  "provider": "apimodels",',
                '  "input": {"model": "sparkpix", "prompt": "An owl with a lantern"},',
                f'  "callback_url": "{world.subscriber.url}"',
                "}' | cut -d '\"' -f 4); echo $JOB",
            ],
        ),
        ("look at it as soon as it is finished", ['curl -s $URL/v1/jobs/$JOB -H "$KEY" -H "Prefer: wait=20"']),
        ("the latest jobs", ['curl -s "$URL/v1/jobs?limit=3" -H "$KEY"']),
        ("one of the pictures", [f"curl -sLo picture.jpeg {link.replace(url, '$URL')}" for link in links[:1]]),
    ):
        screen.say()
        screen.say(f"# {title}", "dim")
        for line in lines:
            screen.quote(line)
    screen.say()
    sys.stdout.flush()
