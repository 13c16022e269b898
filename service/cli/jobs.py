"""`remora jobs`: what a running service knows of its jobs, asked over HTTP with a key.

Owns the commands' words. It must not know how jobs are kept.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal
from urllib.parse import urlencode

import msgspec
import typer

from service.cli.api_client import ServiceClient, connected
from service.cli.outcome import Refused, told
from service.environment import load
from service.errors import EgressError, RemoraError
from service.printable import one_line
from service.settings import Settings

ROWS: Final = 200  # asked for at a time: each answer is whole or asked for again, and none is large
TRIES: Final = 3  # of one answer
PAUSE_S: Final = 1.0  # between them

app = typer.Typer(add_completion=False, help="Get the history of jobs out of a running service.", no_args_is_help=True)


@app.callback()
def jobs() -> None:
    """Get the history of jobs out of a running service."""


@app.command()
def export(
    *,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="CSV, or JSON Lines.")] = "csv",
    output: Annotated[Path | None, typer.Option(help="The file to write; standard output without it.")] = None,
    status: Annotated[str, typer.Option(help="States, with commas between them.")] = "",
    provider: Annotated[str, typer.Option(help="Of this provider only.")] = "",
    tag: Annotated[str, typer.Option(help="With this tag only.")] = "",
    created_after: Annotated[str, typer.Option(help="A time such as 2026-11-21T10:00:00Z.")] = "",
    created_before: Annotated[str, typer.Option(help="A time; jobs from then on are left out.")] = "",
) -> None:
    """Write every job of the key's account, oldest first; REMORA_URL and REMORA_API_KEY say where and with which key.

    On the service's own machine its admin key is found.
    """
    narrowed = {
        "status": status,
        "provider": provider,
        "tag": tag,
        "created_after": created_after,
        "created_before": created_before,
    }
    asked = {"format": form} | {name: value for name, value in narrowed.items() if value}
    with told():
        settings = load(os.environ, Path.cwd())
        if output is None:
            asyncio.run(_export(settings, asked, _Terminal() if sys.stdout.isatty() else sys.stdout.buffer))
            return
        part = output.with_name(output.name + ".part")  # a file under its own name is whole
        try:
            with part.open("wb") as file:
                _fill(part, file, _export(settings, asked, file))
            part.replace(output)
        except OSError as error:
            raise Refused(f"{output} cannot be written: {error.strerror}") from error


def _fill(part: Path, file: BinaryIO, work: Coroutine[None, None, None]) -> None:
    """Do the work; where it fails before anything was written, nothing stays behind."""
    try:
        asyncio.run(work)
    except (RemoraError, KeyboardInterrupt):
        if not file.tell():
            part.unlink(missing_ok=True)
        raise


class _Terminal:
    """Standard output where somebody reads it: a prompt must not move the cursor. A file and a pipe get what was stored."""

    def write(self, rows: bytes) -> None:
        """Whole rows, and so whole characters."""
        sys.stdout.write(one_line(rows.decode(), keep="\r\n"))

    def flush(self) -> None:
        """See `BinaryIO`."""
        sys.stdout.flush()


async def _export(settings: Settings, asked: dict[str, str], file: BinaryIO | _Terminal) -> None:
    async with connected(settings) as client:
        async for part in parts(client, asked):
            file.write(part)
    file.flush()


async def parts(client: ServiceClient, asked: dict[str, str]) -> AsyncIterator[bytes]:
    """The file in parts, each of them whole rows.

    Raises:
        Refused: The service said no; what came before is not the whole file.
        EgressError: It could not be asked, three times in a row.
    """
    after: str | None = None
    while True:
        given = asked | {"limit": str(ROWS)} | ({} if after is None else {"after": after})
        text = await _patiently(client, f"/v1/jobs/export?{urlencode(given)}")
        head, body = _parted(text) if asked["format"] == "csv" else (b"", text)
        yield head + body if after is None else body
        ids = _ids(text, asked["format"])
        if len(ids) < ROWS:
            return
        after = ids[-1]


async def _patiently(client: ServiceClient, path: str) -> bytes:
    for left in range(TRIES - 1, -1, -1):
        try:
            return await client.read(path)
        except EgressError:
            if not left:
                raise
        await asyncio.sleep(PAUSE_S)
    raise AssertionError  # the loop ends by returning or raising


def _parted(text: bytes) -> tuple[bytes, bytes]:
    """The line with the names, and the rest."""
    head, end, body = text.partition(b"\r\n")
    return head + end, body


def _ids(text: bytes, form: str) -> list[str]:
    if form == "csv":
        return [row[0] for row in csv.reader(io.StringIO(text.decode(), newline=""))][1:]
    return [msgspec.json.decode(line)["id"] for line in text.splitlines()]
