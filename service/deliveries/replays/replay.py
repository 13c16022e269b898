"""The use cases of replays: what a caller may ask for, counting it, beginning it, and telling how far it is.

What a replay does to the store stands in `replay_store`, which events it means in `replay_queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from service.clock import Clock, iso, parse_iso
from service.db.reader import Reader
from service.db.transaction import Row
from service.db.writer import Writer
from service.deliveries.replays import replay_queries
from service.deliveries.replays.replay_queries import REPLAYABLE_TYPES, STATUSES, ReplaySelection
from service.deliveries.replays.replay_store import PENDING, AdvanceReplay, CancelReplay, StartReplay, no_replay
from service.deliveries.subscribing.changes import no_subscription
from service.errors import MAX_ERRORS, FieldError, Invalid
from service.ids import Ids

BATCH: Final = 500  # deliveries that one command queues
_FIELDS: Final = ("since", "until", "types", "status", "dry_run")
_TIMES: Final = range(253_402_300_800_000)  # milliseconds from 1970 to the end of the year 9999
_NO_TIME: Final = "must be a time with a zone, such as 2026-11-21T10:00:00Z"


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Sound fields of a replay.

    Args:
        since: The first moment, ms UTC.
        until: The moment at which the range is over; never in the future.
        types: Of events; empty: the subscription's own.
        statuses: What became of them here; empty: all but pending.
        dry_run: Only count.
    """

    since: int
    until: int
    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    dry_run: bool = False


def parse_replay(body: object, now_ms: int) -> ReplayRequest:
    """Check the body of a replay; what is null counts as left out.

    Raises:
        Invalid: With a pointer for every field at fault.
    """
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object", errors=(FieldError("", "send a JSON object"),))
    known = f"unknown field; known are {', '.join(_FIELDS)}"
    unknown = islice((name for name in body if name not in _FIELDS), MAX_ERRORS)
    errors = [FieldError(f"/{_escaped(name)}", known) for name in unknown]
    given = {name: body.get(name) for name in _FIELDS}
    if given["since"] is None:
        errors.append(FieldError("/since", f"is required: {_NO_TIME}"))
    since = _time(given["since"], "/since", errors)
    until = _time(given["until"], "/until", errors)
    until = now_ms if until is None else min(until, now_ms)
    if since is not None and since >= until:
        errors.append(FieldError("/since", "must be before until, and in the past"))
    types = _words(given["types"], "/types", REPLAYABLE_TYPES, errors)
    statuses = _words(given["status"], "/status", STATUSES, errors)
    if not isinstance(given["dry_run"], bool | None):
        errors.append(FieldError("/dry_run", "must be true or false"))
    if errors:
        raise Invalid.of(errors)
    return ReplayRequest(since or 0, until, types, statuses, bool(given["dry_run"]))


def _escaped(name: str) -> str:
    return name[:100].replace("~", "~0").replace("/", "~1")


def _time(value: Any, pointer: str, errors: list[FieldError]) -> int | None:
    if value is None:
        return None
    try:
        moment = parse_iso(value)
    except (TypeError, ValueError, OverflowError):
        errors.append(FieldError(pointer, _NO_TIME))
        return None
    if moment not in _TIMES:
        errors.append(FieldError(pointer, "must be a time from 1970 to 9999"))
        return None
    return moment


def _words(value: Any, pointer: str, choices: Sequence[str], errors: list[FieldError]) -> tuple[str, ...]:
    if value is None:
        return ()
    allowed = ", ".join(choices)
    if not isinstance(value, list) or not 1 <= len(value) <= len(choices):
        errors.append(FieldError(pointer, f"must be a list of 1 to {len(choices)} of {allowed}, or leave it out"))
        return ()
    wrong = [index for index, word in enumerate(value) if word not in choices]
    errors += [FieldError(f"{pointer}/{index}", f"must be one of {allowed}") for index in wrong]
    return () if wrong else tuple(dict.fromkeys(value))


@dataclass(frozen=True, slots=True)
class Replays:
    """Everything is answered as JSON values; NotFound for what is another account's."""

    writer: Writer
    reader: Reader
    ids: Ids
    clock: Clock

    async def start(self, account_id: str, subscription_id: str, asked: ReplayRequest) -> dict[str, Any]:
        """Begin a replay; answered with it.

        Raises:
            Conflict: The subscription is disabled, or too many replays run.
        """
        await self._wanted(account_id, subscription_id, asked)  # before anything is counted for somebody without one
        first, last = await replay_queries.span(self.reader, account_id, asked.since, asked.until)
        total = await replay_queries.total(
            self.reader, account_id, since=asked.since, until=asked.until, first_pos=first, last_pos=last
        )
        replay_id = self.ids.new("rpl")
        await self.writer.run(
            StartReplay(
                replay_id=replay_id,
                account_id=account_id,
                subscription_id=subscription_id,
                since=asked.since,
                until=asked.until,
                types=msgspec.json.encode(asked.types).decode(),
                statuses=msgspec.json.encode(asked.statuses).decode(),
                first_pos=first,
                last_pos=last,
                total=total,
            )
        )
        return await self.show(account_id, replay_id)

    async def count(self, account_id: str, subscription_id: str, asked: ReplayRequest) -> dict[str, Any]:
        """What a replay would queue now; nothing is written."""
        meant = await self._wanted(account_id, subscription_id, asked)
        first, last = await replay_queries.span(self.reader, account_id, asked.since, asked.until)
        counted = await replay_queries.count(self.reader, meant, first, last)
        return {
            "dry_run": True,
            "count": counted.total(),
            "by_status": {each: counted[each] for each in meant.statuses},
            "subscription_id": subscription_id,
            "since": iso(asked.since),
            "until": iso(asked.until),
            "types": meant.types,
            "statuses": meant.statuses,
        }

    async def show(self, account_id: str, replay_id: str) -> dict[str, Any]:
        """One replay."""
        found = await replay_queries.find_replay(self.reader, account_id, replay_id)
        if found is None:
            raise no_replay()
        return found

    async def cancel(self, account_id: str, replay_id: str) -> dict[str, Any]:
        """End a replay early; what it queued is sent.

        Raises:
            Conflict: It is done.
        """
        await self.writer.run(CancelReplay(replay_id, account_id))
        return await self.show(account_id, replay_id)

    async def _wanted(self, account_id: str, subscription_id: str, asked: ReplayRequest) -> ReplaySelection:
        row = await replay_queries.filters_of(self.reader, account_id, subscription_id)
        if row is None:
            raise no_subscription()
        return replay_queries.wanted(
            row, since=asked.since, until=asked.until, types=asked.types, statuses=asked.statuses
        )


async def next_batch(reader: Reader, claimed: Row) -> AdvanceReplay:
    """What a claimed replay does next, under the claim's epoch: a batch, or nothing where it has to wait.

    Args:
        reader: Of the store.
        claimed: The row that the claim gave.
    """
    epoch = claimed["lease_epoch"]
    most = min(BATCH, PENDING - claimed["pending"])
    if claimed["subscription"] != "enabled" or most <= 0:
        return AdvanceReplay(claimed["id"], epoch)
    meant = replay_queries.wanted(
        claimed,
        since=claimed["since"],
        until=claimed["until"],
        types=tuple(msgspec.json.decode(claimed["types"], type=list[str])),
        statuses=tuple(msgspec.json.decode(claimed["statuses"], type=list[str])),
        of="subscription_id",
    )
    look = await replay_queries.look(reader, meant, claimed["next_pos"], claimed["last_pos"], most)
    return AdvanceReplay(claimed["id"], epoch, look.found, look.looked_at, look.next_pos)
