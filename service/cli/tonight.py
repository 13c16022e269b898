"""The part of `remora doctor` for the night: what waits for somebody, the machine's room, and the service that runs.

Owns these checks and their words; each names the command or the call that mends it or shows more. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from service.cli.api_client import ServiceClient, key_to_use, opened
from service.cli.findings import Finding, Mark
from service.cli.outcome import Refused
from service.db.inspection.attention import Trouble, TroubleKind
from service.errors import EgressError
from service.settings import Settings

LITTLE_BYTES: Final = 1 << 30
LITTLE_SHARE: Final = 0.1  # of a disk
NOTHING_BYTES: Final = 64 << 20  # less is as good as full: one large result fills it
ASK_S: Final = 5.0  # for the service to answer
AHEAD_MS: Final = 60_000  # that a clock may be wrong

_WORDS: Final = {
    TroubleKind.SUBMIT_UNKNOWN: (
        "jobs",
        (
            "{count} in submit_unknown, {example} the oldest: perhaps paid for, and never sent again by themselves; `remora jobs "
            "export --status submit_unknown` lists them, POST /v1/jobs/{{id}}/resubmit or …/cancel with force decides"
        ),
    ),
    TroubleKind.REFUSED: (
        "provider",
        (
            "{count} jobs failed in the last 24 hours because a provider does not take our key, or wants money: {example}; "
            "every further one will, until REMORA_PROVIDERS__…__API_KEY is right or the account there is topped up"
        ),
    ),
    TroubleKind.DEAD: (
        "deliveries",
        (
            "{count} were given up in the last 24 hours, {example} the last; GET /v1/deliveries?status=dead lists them with what "
            "was answered, POST /v1/deliveries/{{id}}/retry sends one again, POST /v1/subscriptions/{{id}}/replay all"
        ),
    ),
    TroubleKind.FAILING: (
        "deliveries",
        (
            "{count} destinations fail again and again, and their events wait, {example} among them; GET "
            "/v1/deliveries/{{id}} tells what they answer, and they are tried until they are dead"
        ),
    ),
    TroubleKind.DISABLED: (
        "deliveries",
        (
            "{count} subscriptions are disabled, {example} the last; mend the destination, then POST "
            "/v1/subscriptions/{{id}}/enable, and …/replay for what was skipped"
        ),
    ),
    TroubleKind.LOST: (
        "results",
        (
            "{count} have no copy, {example} among them; the log says result_lost with the reason, and their links lead to the "
            "provider's file while that lasts"
        ),
    ),
}


def waiting(troubles: Sequence[Trouble]) -> Iterator[Finding]:
    """What the database says that waits for somebody."""
    told = False
    for each in troubles:
        if each.kind in _WORDS:
            about, says = _WORDS[each.kind]
            yield Finding(Mark.HINT, about, says.format(count=each.count, example=each.example))
            told = True
        elif each.count > AHEAD_MS:
            says = f"the newest job is {each.count // 1000} s ahead of this machine's clock; was it set back? See `timedatectl`"
            yield Finding(Mark.WRONG, "clock", says)
    if not told:
        yield Finding(Mark.FINE, "work", "no job waits for a decision, and nothing was given up in the last 24 hours")


def machine(settings: Settings, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> Iterator[Finding]:
    """Whether the disks of the database and of the copies have room, and the log of the database is small."""
    path = settings.sqlite_path
    if path is None:
        return
    yield from _room("the database", path if path.exists() else path.parent, statvfs)
    storage = settings.storage_url or ""
    if storage.startswith("file:"):
        place = Path(storage.removeprefix("file:"))
        if place.is_dir() and place.stat().st_dev != path.parent.stat().st_dev:
            yield from _room("the copies of results", place, statvfs)
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > settings.wal_max:
        says = (
            f"{log} has {_mib(size)}, more than REMORA_WAL_MAX ({_mib(settings.wal_max)}): a program reads the database "
            f"for long, and holds it back; `fuser {path}` names it"
        )
        yield Finding(Mark.HINT, "disk", says)


def _room(what: str, path: Path, statvfs: Callable[[Path], os.statvfs_result]) -> Iterator[Finding]:
    place = path if path.is_dir() else path.parent
    if not place.is_dir():
        return  # told as a wrong setting
    if not os.access(path, os.W_OK) or not os.access(place, os.W_OK | os.X_OK):
        yield Finding(Mark.WRONG, "disk", f"{path}, of {what}, cannot be written; `ls -ld {place}` and `mount` say why")
        return
    disk = statvfs(place)
    free, share = disk.f_bavail * disk.f_frsize, disk.f_bavail / max(1, disk.f_blocks)
    shown = f"{_mib(free)} ({share:.0%}) free for {what} at {place}"
    if free < NOTHING_BYTES or (disk.f_files and not disk.f_favail):
        why = "no room" if free < NOTHING_BYTES else "no inode"
        says = f"{why}, {shown}: callers are answered 503; make room, or shorten REMORA_RETENTION and REMORA_RESULT_TTL"
        yield Finding(Mark.WRONG, "disk", says)
    elif free < LITTLE_BYTES or share < LITTLE_SHARE:
        yield Finding(Mark.HINT, "disk", f"only {shown}; `du -sh {place}/*` says what needs it")
    else:
        yield Finding(Mark.FINE, "disk", shown)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


def running(settings: Settings) -> Iterator[Finding]:
    """What the service that has the database says of itself: it alone knows which breakers are open."""
    try:
        ready, metrics = asyncio.run(_asked(settings))
    except TimeoutError:
        yield Finding(Mark.WRONG, "service", f"{settings.url} does not answer within {ASK_S:g} s, if it is the service")
        return
    except (Refused, EgressError) as error:
        says = f"{settings.url} does not say that it is ready: {error}"
        if isinstance(error, EgressError):
            says += ". REMORA_URL says where the service is"
        yield Finding(Mark.WRONG, "service", says)
        return
    yield Finding(Mark.FINE, "service", f"{settings.url} is ready")
    for name, each in (ready.get("providers_down") or {}).items():
        says = f"{name} is down since {each.get('since')}, and its jobs wait: {each.get('error')}; GET /v1/providers/{name} has more"
        yield Finding(Mark.HINT, "provider", says)
    for name, seconds in (ready.get("providers_paused") or {}).items():
        says = f"{name} asked for a pause and gets no job for {seconds:.0f} s; GET /v1/providers/{name} has more"
        yield Finding(Mark.HINT, "provider", says)
    if metrics is None:
        yield Finding(Mark.HINT, "service", "/metrics needs a key: set REMORA_API_KEY to be told of open breakers")
    elif lanes := sum(float(found[1]) for found in re.finditer(rb"^remora_lanes_open (\S+)$", metrics, re.MULTILINE)):
        says = f"destinations that keep failing and are tried only now and then: {lanes:.0f}; see destination_down in the log"
        yield Finding(Mark.HINT, "deliveries", says)


async def _asked(settings: Settings) -> tuple[dict[str, Any], bytes | None]:
    """What `/readyz` and `/metrics` answer; None for the latter where it wants another key."""
    async with asyncio.timeout(ASK_S), opened() as door:
        client = ServiceClient(door, settings.url, key_to_use(settings) or "none")
        ready = await client.get("/readyz")
        if not isinstance(ready, dict):
            raise Refused("its answer is not Remora's")
        try:
            return ready, await client.read("/metrics")
        except Refused:
            return ready, None
