"""`remora migrate`: brings the database up to date without starting the service.

Owns what it prints. `remora serve` does the same by itself; this is for those who want it apart from a start.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import typer

from service.cli.outcome import told
from service.db.inspection.examine import bring_up_to_date
from service.environment import load

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def migrate() -> None:
    """Bring the database up to date; the service must not be running."""
    with told():
        settings = load(os.environ, Path.cwd())
        if settings.sqlite_path is not None:
            before, after = bring_up_to_date(settings.sqlite_path)
        else:
            from service.db.postgres.pg_opening import bring_up_to_date as on_server  # noqa: PLC0415 - as in `app`

            before, after = asyncio.run(on_server(settings.database_url))
    if before == after:
        typer.echo(f"{settings.database_shown} is up to date: {after}")
    else:
        typer.echo(f"{settings.database_shown}: {before or 'new'} → {after}")
