"""The command line: every command under its name.

Owns names and order of the commands. It must not know what they do: each group of them is one module.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from service.cli.demo.command import demo
from service.cli.doctor import doctor
from service.cli.migrate import migrate
from service.cli.providers import app as providers
from service.cli.sandbox import EPILOG, sandbox
from service.cli.serve import serve

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # they print local variables, and so keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(f"remora {version('remora')}")
        raise typer.Exit


@app.callback()
def remora(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rides along with image-generation APIs so that nobody polls: one job in, one signed event out."""


app.command()(serve)
app.command()(demo)
app.command(epilog=EPILOG)(sandbox)
app.command()(migrate)
app.command()(doctor)
app.add_typer(providers, name="providers")
