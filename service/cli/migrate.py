"""`remora migrate`: brings the database up to date without starting the service.

Owns what it prints. `remora serve` does the same by itself; this is for those who want it apart from a start.
"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from service.cli.outcome import told
from service.db.inspection.examine import bring_up_to_date
from service.environment import load
from service.errors import SettingsInvalid
from service.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def migrate() -> None:
    """Bring the database up to date; the service must not be running."""
    with told():
        path = database_file(load(os.environ, Path.cwd()))
        before, after = bring_up_to_date(path)
    if before == after:
        typer.echo(f"{path} is up to date: {after}")
    else:
        typer.echo(f"{path}: {before or 'new'} → {after}")


def database_file(settings: Settings) -> Path:
    """The SQLite file of the settings.

    Raises:
        SettingsInvalid: The settings name another kind of database.
    """
    if settings.sqlite_path is None:
        raise SettingsInvalid(["REMORA_DATABASE_URL: PostgreSQL is not served by this version; use sqlite:///path"])
    return settings.sqlite_path
