"""`remora serve`: the service as a process.

Owns what is printed at start and how the process ends. It must not know how the service works.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import structlog
import typer

from service.api.handover import inherited, start_anew
from service.app import Service
from service.cli.cards import read_providers, refusals
from service.cli.lines import folded, terminal_width
from service.cli.main import BEGAN
from service.cli.outcome import Refused, told
from service.db.examine import refuse_unreadable
from service.environment import load
from service.errors import EgressRefused
from service.providers.registry import Provider
from service.settings import Settings
from service.telemetry import configure_logging

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_log = structlog.get_logger(__name__)


@app.command()
def serve() -> None:
    """Run the service until it is told to stop (SIGTERM, Ctrl-C); it finishes what it is doing first."""
    with told():
        settings = load(os.environ, Path.cwd())
        configure_logging(settings.log_format, settings.log_level, sys.stderr)
        if settings.sqlite_path is not None:
            refuse_unreadable(settings.sqlite_path)
        status, listening = asyncio.run(_serve(settings, inherited(os.environ)))
        if listening is not None:
            start_anew(listening)
    raise typer.Exit(status)


async def _serve(settings: Settings, listening: socket.socket | None) -> tuple[int, socket.socket | None]:
    """Serve to the end; returns the exit status, and the socket for a successor."""
    try:
        service = await Service.open(settings, listening=listening)
    except OSError as error:
        raise cannot_listen(settings, error) from error
    try:
        service.stopping.catch_signals(_check)
        await service.listen()
        providers = read_providers(settings)
        for line in _introduction(service, settings, providers, await refusals(settings, providers)):
            typer.echo(line)
        sys.stdout.flush()
        _log.info(
            "started",
            url=service.url,
            version=version("remora"),
            took_s=round(time.monotonic() - BEGAN, 2),
            drain_s=service.stopping.drain_s,
        )
        return await service.wait(), service.successor_socket()
    finally:
        await service.close()


def _check() -> None:
    """Raise what would keep a successor from starting."""
    read_providers(load(os.environ, Path.cwd()))


def cannot_listen(settings: Settings, error: OSError) -> Refused:
    """Why the address cannot be had, and which setting changes it."""
    where = f"{settings.host} port {settings.port}"
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)
    return Refused(f"cannot listen on {where}: {reason}; set REMORA_PORT (or REMORA_HOST) to one that is free")


def _introduction(
    service: Service, settings: Settings, providers: list[Provider], refused: Mapping[str, EgressRefused]
) -> list[str]:
    told = [
        ("API documents", f"{service.url}/schema"),
        ("new database" if service.new_database else "database", str(settings.sqlite_path)),
    ]
    if service.admin_key_path is not None:
        made = service.admin_key is not None
        says = f"made just now, in {service.admin_key_path} (only its owner can read it)"
        told.append(("admin key", says if made else f"in {service.admin_key_path}"))
    told += [("providers" if place == 0 else "", _shown(each)) for place, each in enumerate(providers)]
    if settings.public_url is not None:
        told.append(("callbacks to", f"{settings.public_url}/callbacks/…"))
    told.append(("stops within", f"{service.stopping.drain_s:g} s, once nothing is out at providers (REMORA_DRAIN)"))
    width = terminal_width()
    lines = [f"Remora {version('remora')} listens on {service.url} (Ctrl-C ends it)", ""]
    for about, says in told:
        lines += folded(f"  {about:13}  ", says, width)
    for warning in _warnings(settings, refused):
        lines += ["", *folded("  ", warning, width)]
    return [*lines, ""]


def _warnings(settings: Settings, refused: Mapping[str, EgressRefused]) -> Iterator[str]:
    """What an operator should not find out by waiting for an event."""
    for name, error in refused.items():
        yield f"OUT OF REACH: {name} will get no request: {error}"
    if settings.public_url is None:
        yield (
            "POLLING ONLY: REMORA_PUBLIC_URL is not set, so no provider can call back and every job is found by "
            "polling. Set it to the https:// address under which the internet reaches this service."
        )


def _shown(provider: Provider) -> str:
    if provider.configured:
        return f"✓ {provider.name} ({', '.join(provider.card.operations)})"
    return f"– {provider.name}: not configured, {provider.reason}"
