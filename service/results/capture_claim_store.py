"""Claiming results that are due to be copied: accounts in turn, hosts with so many places each, and what dies first before the rest.

What is due waits in lanes, one for each account and host, so that a claim looks at so much of each and passes over none. It
owns the statements and whose turn it is in this process; it must not know how a file is fetched.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

from service.db.leases import VOID, Leased, free
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer

LANES_AT_ONCE: Final = 500  # looked at in one claim; the next one goes on behind them
CANDIDATES: Final = 8  # rows that a claim reads first, as a multiple of what it may take
MORE: Final = 4  # times as many are read next, where that left places
REMEMBERED: Final = 10_000  # lanes and accounts of which it is known when they were served last
UNKNOWN_LIFE_MS: Final = 600_000  # where no document says how long a link lives: the shortest that is known of any
LONG_URL: Final = 16_384  # a longer one (a picture in a data: URL) is read when its turn comes, not kept in memory
_HOST_CHARS: Final = 300  # of a URL, in which its host ends
_AFTER_HOST: Final = re.compile(r"[/?#]")


@dataclass(frozen=True, slots=True)
class Capture:
    """A result that this process is to fetch; `url` is empty where it is too long to wait in memory."""

    job_id: str
    index: int
    lane: str
    url: str
    provider: str
    operation: str
    task_id: str | None
    poll_url: str | None
    expires_at: int
    link_dies_at: int | None
    epoch: int
    lease_until: int
    tries: int = 0  # failures of the host's
    dead_tries: int = 0  # of those, in a row at the end, so many refused the file: a dead link, or a wrong file
    refreshed: bool = False

    @property
    def host(self) -> str:
        """As `host_of`, also where the URL is too long."""
        return _host_of_lane(self.lane)


def host_of(url: str) -> str:
    """Where a file is fetched from, so that one slow host is told from others; empty for a `data:` URL."""
    host = _AFTER_HOST.split(url[:_HOST_CHARS].partition("://")[2], maxsplit=1)[0]
    return host.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")  # ASCII letters only


def lane_of(account_id: str, host: str) -> str:
    """Where a result waits: with those of its account at its host."""
    return f"{account_id} {host}"


def account_of(lane: str) -> str:
    """Whose results wait there."""
    return lane.partition(" ")[0]


def _host_of_lane(lane: str) -> str:
    return lane.partition(" ")[2]


@dataclass(frozen=True, slots=True)
class ClaimCaptures(Command[list[Capture]]):
    """Claim results to fetch, accounts in turn; of each host no more than `per_host` with what waits."""

    owner: str
    lease_ms: int
    count: int
    per_host: int
    waiting: tuple[tuple[str, int], ...] = ()  # hosts with what this process has in its queue

    def lock(self) -> Hashable | None:
        """Two claims never share a batch: each must see what the other took."""
        return "claim"


@dataclass(frozen=True, slots=True)
class VoidCaptures(Command[int]):
    """Every lease is void when a process starts: on SQLite nobody else can hold one."""


_COLUMNS: Final = f"""
r.job_id, r.idx, r.lane, CASE WHEN length(r.source_url) > {LONG_URL} THEN '' ELSE r.source_url END AS url, j.provider,
    j.operation, j.provider_task_id, j.poll_url, r.expires_at, r.link_dies_at, r.due_at, r.lease_epoch, r.tries, r.dead_tries,
    r.refreshed
"""
_WAITS: Final = "r.due_at IS NOT NULL"  # as the index says it
_FREE: Final = f"r.due_at <= :now AND {free('r')}"
# In one lane: what is known to die, by when; and what nobody knows that of, by how long it has been due. Both as the index has it.
_KNOWN: Final = f"{_WAITS} AND r.link_dies_at IS NOT NULL AND {_FREE}"
_UNKNOWN: Final = f"{_WAITS} AND r.link_dies_at IS NULL AND {_FREE}"
_OF_LANE: Final = tuple(
    f"""
SELECT {_COLUMNS} FROM results r JOIN jobs j ON j.id = r.job_id
WHERE r.lane = :lane AND {which} ORDER BY {order} LIMIT :count @skip_locked(r)
"""
    for which, order in ((_KNOWN, "r.link_dies_at"), (_UNKNOWN, "r.due_at"))
)
# Lanes in which something waits, and whether any of it is due: the index is skipped through, one step a lane.
_LANES: Final = f"""
WITH RECURSIVE waiting (lane, step) AS (
    SELECT min(r.lane), 1 FROM results r WHERE {_WAITS} AND r.lane > :after AND r.lane <= :until
    UNION ALL
    SELECT (SELECT min(r.lane) FROM results r WHERE {_WAITS} AND r.lane > waiting.lane AND r.lane <= :until), step + 1
    FROM waiting WHERE waiting.lane IS NOT NULL AND step < {LANES_AT_ONCE}
)
SELECT lane, EXISTS (SELECT 1 FROM results r WHERE r.lane = waiting.lane AND {_UNKNOWN})
    OR EXISTS (SELECT 1 FROM results r WHERE r.lane = waiting.lane AND {_KNOWN}) AS is_due
FROM waiting WHERE lane IS NOT NULL
"""
_LEASED: Final = Leased("results", ("job_id", "idx"), "due_at IS NOT NULL")
_VOID: Final = f"""
UPDATE results SET {VOID} WHERE due_at IS NOT NULL AND lease_owner IS NOT NULL
RETURNING idx
"""


@dataclass(slots=True)
class CaptureClaims:
    """The handlers, and which lanes and accounts were served when: who waits longest comes first."""

    _served: dict[str, int] = field(default_factory=dict)
    _number: int = 0  # of this claim
    _after: str = ""  # the lane behind which the next look begins

    async def claim(self, tx: Tx, commands: Sequence[ClaimCaptures]) -> list[list[Capture] | Exception]:
        """The writer's handler for `ClaimCaptures`."""
        [command] = commands
        self._number += 1
        found = await self._claimable(tx, command)
        self._remember(found)
        until = _LEASED.claim(tx, found, command.owner, command.lease_ms)
        return [[_capture(row, until) for row in found]]

    async def _claimable(self, tx: Tx, command: ClaimCaptures) -> list[Row]:
        """What is taken: of each lane a little is read at first, and more of those that have more where places are left."""
        places = _Places(command)
        lanes = [lane for lane in await self._due_lanes(tx) if places.at(_host_of_lane(lane)) > 0]
        accounts = {account_of(lane) for lane in lanes}
        share = -(-command.count // max(1, len(accounts)))  # of an account; and so many are read of each lane:
        each = max(1, min(share, CANDIDATES * command.count // max(1, len(lanes))))
        taken: dict[tuple[str, int], Row] = {}
        while lanes and len(taken) < command.count:
            lines = await _lines(tx, lanes, each)
            free_ones = {lane: [row for row in line if _name(row) not in taken] for lane, line in lines.items()}
            for row in self._in_turn(free_ones, places, share)[: command.count - len(taken)]:
                taken[_name(row)] = row
                places.take(_host_of_lane(row["lane"]))
            left = {
                lane
                for lane, line in lines.items()
                if len(line) == each or not all(_name(row) in taken for row in line)
            }
            lanes = [lane for lane in lanes if lane in left and places.at(_host_of_lane(lane)) > 0]
            share, each = share * MORE, each * MORE
        return list(taken.values())

    async def _due_lanes(self, tx: Tx) -> list[str]:
        """Lanes with something due: those behind where the last look ended, then from the beginning."""
        asked = {"now": tx.now_ms}
        found = await tx.rows(_LANES, asked | {"after": self._after, "until": "~"})  # ids have no letter above
        if self._after and len(found) < LANES_AT_ONCE:
            found += await tx.rows(_LANES, asked | {"after": "", "until": self._after})
        self._after = found[-1]["lane"] if len(found) >= LANES_AT_ONCE else ""
        return [row["lane"] for row in found if row["is_due"]]

    def _in_turn(self, lines: dict[str, list[Row]], places: _Places, share: int) -> list[Row]:
        """What accounts want next, less what finds no place at its host, with the accounts in turn."""
        by_account: dict[str, list[Row]] = {}
        for lane, line in lines.items():
            by_account.setdefault(account_of(lane), []).extend(line)
        by_host: dict[str, dict[str, list[Row]]] = {}
        for rows in by_account.values():
            # No more than was read of each of its lanes, unless it has a great many: behind that another may have what dies sooner.
            for row in sorted(rows, key=_dies_at)[:share]:
                lane = row["lane"]
                by_host.setdefault(_host_of_lane(lane), {}).setdefault(lane, []).append(row)
        placed: dict[str, list[Row]] = {}
        for host, wanted in by_host.items():
            for row in _round(wanted[lane] for lane in sorted(wanted, key=self._since))[: places.at(host)]:
                placed.setdefault(account_of(row["lane"]), []).append(row)
        accounts = sorted(placed, key=lambda account: self._served.get(account, 0))
        return _round(sorted(placed[account], key=_dies_at) for account in accounts)

    def _since(self, lane: str) -> tuple[int, int]:
        """When a lane was served last, and then its account: who has waited longest comes first."""
        return self._served.get(lane, 0), self._served.get(account_of(lane), 0)

    def _remember(self, served: Sequence[Row]) -> None:
        if len(self._served) > REMEMBERED:
            self._served.clear()
        for row in served:
            self._served[row["lane"]] = self._served[account_of(row["lane"])] = self._number


class _Places:
    """How many more each host may be asked for; what has no host (a `data:` URL) asks none."""

    def __init__(self, command: ClaimCaptures) -> None:
        self._per_host = command.per_host
        self._waiting = Counter(dict(command.waiting))

    def at(self, host: str) -> int:
        """Free ones of a host."""
        return self._per_host - self._waiting[host] if host else sys.maxsize

    def take(self, host: str) -> None:
        """One is taken."""
        self._waiting[host] += 1


async def _lines(tx: Tx, lanes: Sequence[str], count: int) -> dict[str, list[Row]]:
    """So many of each lane, what dies first before the rest."""
    asked = [{"lane": lane, "now": tx.now_ms, "count": count} for lane in lanes]
    found: dict[str, list[Row]] = {lane: [] for lane in lanes}
    for sql in _OF_LANE:
        for row in await tx.rows_each(sql, asked):
            found[row["lane"]].append(row)
    return {lane: sorted(rows, key=_dies_at)[:count] for lane, rows in found.items()}


def _round(lines: Iterable[Sequence[Row]]) -> list[Row]:
    """The first of each line, then the second of each, and so on."""
    return [row for one_of_each in zip_longest(*lines) for row in one_of_each if row is not None]


def _dies_at(row: Row) -> int:
    dies_at: int | None = row["link_dies_at"]
    return row["due_at"] + UNKNOWN_LIFE_MS if dies_at is None else dies_at


def _name(row: Row) -> tuple[str, int]:
    return row["job_id"], row["idx"]


def _capture(row: Row, lease_until: int) -> Capture:
    return Capture(
        job_id=row["job_id"],
        index=row["idx"],
        lane=row["lane"],
        url=row["url"],
        provider=row["provider"],
        operation=row["operation"],
        task_id=row["provider_task_id"],
        poll_url=row["poll_url"],
        expires_at=row["expires_at"],
        link_dies_at=row["link_dies_at"],
        epoch=row["lease_epoch"] + 1,
        lease_until=lease_until,
        tries=row["tries"],
        dead_tries=row["dead_tries"],
        refreshed=bool(row["refreshed"]),
    )


async def handle_void(tx: Tx, commands: Sequence[VoidCaptures]) -> list[int | Exception]:
    """The writer's handler for `VoidCaptures`."""
    return [len(await tx.rows(_VOID, {})) for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ClaimCaptures, CaptureClaims().claim)
    writer.handle(VoidCaptures, handle_void)
