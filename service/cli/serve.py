"""`remora serve`: the service as a process.

Owns what is printed at start and how the process ends. It must not know how the service works.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import structlog
import typer

from service.api.listening.handover import inherited, start_anew
from service.app import Service, is_wildcard
from service.cli.cards import refusals
from service.cli.crashes import log_crashes
from service.cli.main import BEGAN
from service.cli.outcome import Refused, told
from service.cli.printing import folded, terminal_width
from service.cli.successor import check_start
from service.db.inspection.examine import refuse_unreadable
from service.environment import load, log_format
from service.errors import EgressRefused
from service.printable import one_line
from service.providers.registry import Provider
from service.runner import runner
from service.settings import Settings
from service.telemetry import configure_logging, is_json

_log = structlog.get_logger(__name__)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def serve() -> None:
    """Run the service until it is told to stop (SIGTERM, Ctrl-C); it finishes what it is doing first."""
    form = log_format(os.environ, Path.cwd())
    configure_logging(form, "info", sys.stderr)
    log_crashes()
    machine = is_json(form, terminal=sys.stderr.isatty())
    with told(in_log=machine):
        settings = load(os.environ, Path.cwd())
        configure_logging(settings.log_format, settings.log_level, sys.stderr)
        if settings.sqlite_path is not None:
            refuse_unreadable(settings.sqlite_path)
        told_by_log = machine and not sys.stdout.isatty()
        with runner() as running:
            check = partial(check_start, os.environ, Path.cwd(), settings.sqlite_path)
            status, listening = running.run(_serve(settings, inherited(os.environ), check, machine=told_by_log))
        if listening is not None:
            start_anew(listening)
    raise typer.Exit(status)


async def _serve(
    settings: Settings, listening: socket.socket | None, check: Callable[[], None], *, machine: bool
) -> tuple[int, socket.socket | None]:
    """Serve to the end; returns the exit status, and the socket for a successor.

    Args:
        settings: Of this process.
        listening: The socket of a predecessor or of systemd.
        check: Raises what would keep a successor from starting.
        machine: What is told at the start is told by lines of the log.
    """
    try:
        service = await Service.open(settings, listening=listening)
    except OSError as error:
        raise cannot_listen(settings, error) from error
    try:
        service.stopping.catch_signals(check)
        await service.listen()
        providers = service.registry.all()
        refused = await refusals(settings, providers)
        if machine:
            _log_introduction(service, settings, providers, refused)
        else:
            typer.echo("\n".join(_introduction(service, settings, providers, refused)))
            sys.stdout.flush()
        _log.info(
            "started",
            url=service.url,
            version=version("remora"),
            took_s=round(time.monotonic() - BEGAN, 2),
            drain_s=service.stopping.drain_s,
        )
        status = await service.wait()
        kept = service.successor_socket()
    finally:
        await service.close()
    if kept is not None and not service.stopping.restarts:  # a signal that came at the very end makes it a stop
        kept.close()
        kept = None
    return status, kept


def cannot_listen(settings: Settings, error: OSError) -> Refused:
    """Why the address cannot be had, and which setting changes it."""
    where = f"{settings.host} port {settings.port}"
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)
    return Refused(f"cannot listen on {where}: {reason}; set REMORA_PORT (or REMORA_HOST) to one that is free")


def _introduction(
    service: Service, settings: Settings, providers: list[Provider], refused: Mapping[str, EgressRefused]
) -> list[str]:
    told = [
        ("API documents", f"{service.base_url}/schema"),
        ("new database" if service.new_database else "database", settings.database_shown),
    ]
    if service.admin_key_path is not None:
        made = service.admin_key is not None
        says = f"made just now, in {service.admin_key_path} (only its owner can read it)"
        told.append(("admin key", says if made else f"in {service.admin_key_path}"))
    told += [("providers" if place == 0 else "", _shown(each)) for place, each in enumerate(providers)]
    if settings.public_url is not None:
        told.append(("callbacks to", f"{settings.public_url}/callbacks/…"))
    told.append(
        ("a stop takes", f"up to {service.stopping.drain_s:g} s while jobs are out at providers (REMORA_DRAIN)")
    )
    width = terminal_width()
    lines = [f"Remora {version('remora')} listens on {service.url} (Ctrl-C ends it)", ""]
    for about, says in told:
        lines += folded(f"  {about:13}  ", one_line(says), width)
    for warning in _warnings(service, settings, providers, refused):
        lines += ["", *folded("  ", f"{warning.head}: {warning.says}", width)]
    return [*lines, ""]


def _log_introduction(
    service: Service, settings: Settings, providers: list[Provider], refused: Mapping[str, EgressRefused]
) -> None:
    """The same as lines of the log."""
    _log.info(
        "listening",
        url=service.url,
        version=version("remora"),
        database=settings.database_shown,
        database_is_new=service.new_database,
        admin_key_file=service.admin_key_path and str(service.admin_key_path),
        admin_key_is_new=service.admin_key is not None,
        providers=[each.name for each in providers if each.configured],
        public_url=settings.public_url,
    )
    for warning in _warnings(service, settings, providers, refused):
        getattr(_log, warning.level)(warning.event, reason=warning.says, **warning.fields)


@dataclass(frozen=True, slots=True)
class _Warning:
    """What an operator should not find out by waiting for an event: for a person under a head, for a log under an event."""

    event: str
    head: str
    says: str
    level: Literal["info", "warning"] = "warning"
    fields: Mapping[str, str] = field(default_factory=dict)


def _warnings(
    service: Service, settings: Settings, providers: list[Provider], refused: Mapping[str, EgressRefused]
) -> Iterator[_Warning]:
    for name, error in refused.items():
        says = f"{name} will get no request: {error}"
        yield _Warning("provider_out_of_reach", "OUT OF REACH", says, fields={"provider": name})
    if settings.public_url is not None:
        return
    if is_wildcard(settings.host):
        says = (
            f"links to results in events lead to {service.base_url}, which is this machine only. Set REMORA_PUBLIC_URL "
            "to the address under which others reach this service."
        )
        yield _Warning("links_lead_to_localhost", "LINKS", says)
    if any(each.configured and any(map(each.wants_callback, each.card.operations)) for each in providers):
        says = (
            "REMORA_PUBLIC_URL is not set, so no provider can call back and every job is found by "
            "polling. Set it to the https:// address under which the internet reaches this service."
        )
        yield _Warning("polling_only", "POLLING ONLY", says)
    else:
        says = (
            "no provider that calls back is configured. One that does needs its key, and REMORA_PUBLIC_URL; "
            "without the latter its jobs are found by polling."
        )
        yield _Warning("no_callbacks_wanted", "So far", says, "info")


def _shown(provider: Provider) -> str:
    if provider.configured:
        return f"✓ {provider.name} ({', '.join(provider.card.operations)})"
    return f"– {provider.name}: not configured, {provider.reason}"
