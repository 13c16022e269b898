"""`remora doctor`: looks at everything that a start needs and that waits for somebody, changes nothing, and says what to do.

Owns the checks of settings, database, cards and network and their words; `tonight` has the others. It must not know how
things are looked at.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text

from service.app import is_wildcard
from service.cli.cards import read_providers, refusals
from service.cli.findings import Finding, Mark
from service.cli.outcome import NOT_WELL
from service.cli.printing import folded, terminal_width
from service.cli.tonight import machine, running, waiting
from service.clock import SystemClock, SystemRandomness
from service.db.inspection.examine import Examination, examine
from service.db.migrate import unknown
from service.egress.door import Door
from service.egress.names import NOT_FOUND
from service.environment import load
from service.errors import CardInvalid, SettingsInvalid
from service.moderation.moderators import installed, moderators
from service.printable import one_line
from service.settings import Settings

_WIDE_V4 = 8  # bits of a prefix; a shorter one allows more than any private range has
_WIDE_V6 = 7


_STYLES = {Mark.FINE: "green", Mark.UNUSED: "dim", Mark.HINT: "yellow", Mark.WRONG: "bold red"}


app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def doctor() -> None:
    """Check settings, database, keys, cards and network settings without starting anything."""
    console = Console(highlight=False, soft_wrap=True)
    width = terminal_width()
    wrong = 0
    for finding in findings(os.environ, Path.cwd()):
        wrong += finding.mark is Mark.WRONG
        first, *others = folded(f"{finding.about:<10} ", one_line(finding.says), None if width is None else width - 2)
        console.print(Text.assemble((f"{finding.mark} ", _STYLES[finding.mark]), first))
        for line in others:
            console.print(Text(f"  {line}"))
        sys.stdout.flush()  # in a pipe, too, a line is there when its check is through
    if wrong:
        raise typer.Exit(NOT_WELL)


def findings(environ: Mapping[str, str], directory: Path) -> Iterator[Finding]:
    """Everything there is to say about a start with this environment in this directory."""
    try:
        settings = load(environ, directory)
    except SettingsInvalid as error:
        yield from (Finding(Mark.WRONG, "settings", problem) for problem in error.problems)
        return
    yield Finding(Mark.FINE, "settings", "are understood")
    in_use = yield from _database(settings)
    yield from machine(settings)
    if in_use:
        yield from running(settings)
    yield from _port(settings, in_use=in_use)
    yield from _cards(settings)
    yield _egress(settings)
    yield from _moderation(settings)
    yield _public_url(settings)


def _database(settings: Settings) -> Generator[Finding, None, bool]:
    secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
    try:
        seen = _examined(settings, secret_key)
    except SettingsInvalid as error:
        yield from (Finding(Mark.WRONG, "database", problem) for problem in error.problems)
        return False
    if not seen.exists:
        yield Finding(Mark.FINE, "database", f"{settings.database_shown} is not there yet; the first start makes it")
        return False
    yield from _revision(settings.database_shown, seen)
    return seen.in_use


def _examined(settings: Settings, secret_key: str | None) -> Examination:
    now_ms = SystemClock().now_ms()
    if settings.sqlite_path is not None:
        return examine(settings.sqlite_path, secret_key, SystemRandomness(), now_ms)
    from service.db.postgres import pg_examine  # noqa: PLC0415 - as in `app`

    return asyncio.run(pg_examine.examine(settings.database_url, secret_key or "", SystemRandomness(), now_ms))


def _revision(path: str, seen: Examination) -> Iterator[Finding]:
    if (newer := unknown(seen.revision)) is not None:
        yield Finding(Mark.WRONG, "database", newer)
        return
    if seen.revision != seen.newest:
        says = f"{path} is at {seen.revision or 'nothing'}, wanted is {seen.newest}; run remora migrate, or just remora serve"
        yield Finding(Mark.HINT, "database", says)
        return
    used = ", in use by a running service" if seen.in_use else ""
    if not seen.breaches:
        yield Finding(Mark.FINE, "database", f"{path} is sound and up to date ({seen.revision}){used}")
    for breach in seen.breaches:
        says = f"{breach.rule} does not hold: {breach.says}; see {', '.join(breach.rows)}"
        yield Finding(Mark.WRONG, "database", f"{says}; restore a backup, or report it")
    if seen.key_problem is not None:
        yield Finding(Mark.WRONG, "secret key", seen.key_problem)
    elif seen.has_key:
        yield Finding(Mark.FINE, "secret key", "fits the database")
    else:
        yield Finding(Mark.FINE, "secret key", "the database has none yet; the first start settles it")
    yield from waiting(seen.troubles)


def _port(settings: Settings, *, in_use: bool) -> Iterator[Finding]:
    """A running service has the port itself, so there is nothing to try."""
    if in_use or settings.port == 0:
        return
    where = f"{settings.host} port {settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
            probe.listen()
        except OSError as error:
            reason = f"{where}: {error.strerror}; set REMORA_PORT (or REMORA_HOST) to one that is free"
            yield Finding(Mark.WRONG, "listening", reason)
            return
    yield Finding(Mark.FINE, "listening", f"{where} is free")


def _cards(settings: Settings) -> Iterator[Finding]:
    try:
        providers = read_providers(settings)
    except CardInvalid as error:
        yield from (Finding(Mark.WRONG, "cards", line) for line in str(error).splitlines())
        return
    except SettingsInvalid as error:
        yield from (Finding(Mark.WRONG, "cards", problem) for problem in error.problems)
        return
    refused = asyncio.run(refusals(settings, providers))
    for each in providers:
        if each.name in refused:
            why = refused[each.name]
            mark = Mark.HINT if why.reason == NOT_FOUND else Mark.WRONG  # perhaps only this machine is offline
            yield Finding(mark, "provider", f"{each.name} will get no request: {why}")
        elif each.configured:
            yield Finding(Mark.FINE, "provider", f"{each.name}: {', '.join(each.card.operations)}")
        else:
            yield Finding(Mark.UNUSED, "provider", f"{each.name} is not configured: {each.reason}")


def _egress(settings: Settings) -> Finding:
    allowed = settings.egress_allow
    wide = [net for net in allowed if net.prefixlen < (_WIDE_V4 if net.version == 4 else _WIDE_V6)]
    if wide:
        says = f"REMORA_EGRESS_ALLOW has {wide[0]}, which is wider than any private network; name the ones you need"
        return Finding(Mark.HINT, "egress", says)
    if allowed:
        return Finding(Mark.FINE, "egress", f"public addresses, and {', '.join(map(str, allowed))}")
    return Finding(
        Mark.FINE,
        "egress",
        "public addresses only; subscribers in private networks need REMORA_EGRESS_ALLOW, "
        "those on this machine REMORA_EGRESS_ALLOW=127.0.0.0/8",
    )


def _moderation(settings: Settings) -> Iterator[Finding]:
    """Who judges inputs; the words of a list are read, a moderator elsewhere is not asked."""
    clock = SystemClock()
    try:
        found = moderators(settings, Door(allow=settings.egress_allow, clock=clock), clock, installed())  # not started
    except SettingsInvalid as error:
        yield from (Finding(Mark.WRONG, "moderation", problem) for problem in error.problems)
        return
    if found:
        silence = "wait for it" if settings.moderation_fail == "closed" else "go on without it"
        names = ", ".join(moderator.name for moderator in found)
        yield Finding(Mark.FINE, "moderation", f"by {names}; where one is silent, jobs {silence}")


def _public_url(settings: Settings) -> Finding:
    url = settings.public_url
    if url is None:
        says = "REMORA_PUBLIC_URL is not set: polling only; set it to the https:// address that providers reach"
        if is_wildcard(settings.host):
            says += ". Links to results in events lead to localhost until then"
        return Finding(Mark.HINT, "public URL", says)
    parts = urlsplit(url)
    if not _is_public(parts.hostname or ""):
        says = f"{url} is a private address: providers on the internet cannot call it; polling finds every job all the same"
        return Finding(Mark.HINT, "public URL", says)
    if parts.scheme != "https":
        return Finding(
            Mark.HINT,
            "public URL",
            f"{url} is not encrypted: anybody on the way can read callback addresses and forge callbacks; use https",
        )
    return Finding(Mark.FINE, "public URL", f"{url} (whether the internet reaches it shows at the first callback)")


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return host != "localhost" and "." in host
