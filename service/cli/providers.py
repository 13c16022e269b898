"""`remora providers`: which cards are in force, and whether a card is right.

Owns the commands' words. It must not know how cards are read or tried; nothing here reaches a provider.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.cli.cards import read_providers
from service.cli.outcome import NOT_WELL, told
from service.cli.printing import folded, terminal_width
from service.clock import SystemClock
from service.environment import load
from service.errors import CardInvalid
from service.providers.card.card import Card
from service.providers.card.loading import locate
from service.providers.registry import Provider, read_card
from service.providers.rehearsal import rehearse

app = typer.Typer(
    add_completion=False, help="Show the provider cards in force, or check one.", invoke_without_command=True
)


@app.callback()
def providers(context: typer.Context) -> None:
    """Show the provider cards in force, as the settings of this directory have them."""
    if context.invoked_subcommand is not None:
        return
    with told():
        found = read_providers(load(os.environ, Path.cwd()))
    table = Table("provider", "operations", "learns by", "ready", box=None, pad_edge=False)
    for provider in found:
        for row in _rows(provider):
            table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)
    for provider in found:
        if provider.reason is not None:  # below the table, where the name of a setting has room
            typer.echo("\n".join(["", *folded(f"{provider.name}: ", provider.reason, terminal_width())]))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Cards to check, YAML.", show_default=False)],
) -> None:
    """Check cards and try the examples inside them; nothing is sent to anybody."""
    wrong = 0
    for file in files:
        lines, card = checked(file)
        wrong += len(lines)
        for line in lines:
            typer.echo(line, err=True)
        if card is not None and not lines:
            typer.echo(_praise(file, card))
    if wrong:
        raise typer.Exit(NOT_WELL)


def checked(file: Path) -> tuple[list[str], Card | None]:
    """Everything that is wrong with a card, as lines `FILE:LINE: field: reason`; and the card, if it is one."""
    try:
        text = file.read_text("utf-8")
        card = read_card(text, str(file))
    except CardInvalid as error:
        return str(error).splitlines(), None
    except OSError as error:
        return [f"{file}:1: card: cannot be read: {error.strerror}"], None
    except UnicodeDecodeError:
        return [f"{file}:1: card: is no UTF-8 text"], None
    lines = []
    for difference in asyncio.run(rehearse(card, SystemClock())):
        line, path = locate(text, difference.place)
        lines.append(f"{file}:{line}: {path}: {difference.reason}")
    return lines, card


def _praise(file: Path, card: Card) -> str:
    count = len(card.examples)
    tried = "has no examples to try" if not count else f"{count} example{'s' * (count > 1)} tried"
    return f"{file}: {card.name}: {', '.join(card.operations)}: is right; {tried}"


def _rows(provider: Provider) -> Iterator[tuple[str, str, str, str]]:
    """A row for each operation; name and state stand in the first only."""
    name, ready = provider.name, "no" if provider.reason else "yes"
    for operation in provider.card.operations:
        if provider.wants_callback(operation):
            learns_by = "callback"
        else:
            learns_by = "poll" if provider.can_poll(operation) else "response"
        yield name, operation, learns_by + (", can cancel" if provider.can_cancel(operation) else ""), ready
        name, ready = "", ""
