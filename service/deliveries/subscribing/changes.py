"""What the writer does with commands on subscriptions: which rows change, what becomes of their deliveries, and who is told.

Nothing here seals, checks a URL or shows a subscription; the commands bring everything in the form in which it is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from service.clock import iso
from service.db.transaction import Params, Row, Tx
from service.db.writer import Writer
from service.deliveries.fanout import Outgoing
from service.deliveries.lanes.lane_names import origin_lane
from service.deliveries.log_lines import shown_url
from service.deliveries.subscribing import store
from service.errors import Conflict, NotFound
from service.ids import Ids
from service.states import Source
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.subscription_commands import (
    CreateSubscription,
    DeleteSubscription,
    DisableSubscription,
    EnableSubscription,
    Ping,
    RotateSubscriptionSecret,
    SubscriptionCommand,
    UpdateSubscription,
)

_log = structlog.get_logger(__name__)

MENDING: Final = frozenset({"url", "headers"})  # a change of these may end a destination's trouble
MAX_SUBSCRIPTIONS: Final = 1_000  # of an account, unless the settings say otherwise: each event is held against all


@dataclass(frozen=True, slots=True)
class Changes:
    """The handlers of the commands in `destinations`.

    Args:
        cache: Told which subscriptions a command changes.
        add: `Fanout.add`: writes the deliveries of events, in the same transaction.
        ids: For the events that tell of a change.
        limit: The most subscriptions that an account may have.
        renewed: Told, once it is committed, that a destination was changed or enabled: what is known of it is outdated.
        forgotten: The same of one that was disabled or deleted: nothing needs to be known of it.
    """

    cache: DestinationCache
    add: Callable[[Tx, Sequence[Outgoing]], Awaitable[None]]
    ids: Ids
    limit: int = MAX_SUBSCRIPTIONS
    renewed: Callable[[str], None] = lambda _lane: None
    forgotten: Callable[[str], None] = lambda _lane: None

    def register(self, writer: Writer) -> None:
        """Name the handlers."""
        writer.handle(CreateSubscription, self.create)
        writer.handle(UpdateSubscription, self.update)
        writer.handle(DeleteSubscription, self.delete)
        writer.handle(EnableSubscription, self.enable)
        writer.handle(DisableSubscription, self.disable)
        writer.handle(RotateSubscriptionSecret, self.rotate)
        writer.handle(Ping, self.ping)

    async def create(self, tx: Tx, commands: Sequence[CreateSubscription]) -> list[Exception | None]:
        """Store new subscriptions; one lock an account, so that counting before is enough."""
        accounts = {command.account_id for command in commands}
        counts = await store.counts(tx, accounts)
        answers: list[Exception | None] = []
        rows: list[Params] = []
        for command in commands:
            if counts.get(command.account_id, 0) >= self.limit:
                answers.append(_too_many(self.limit))
                continue
            answers.append(None)
            given = {"id": command.subscription_id, "account_id": command.account_id, "now": tx.now_ms}
            sealed = {"secret": command.sealed_secret, "signing_key": command.sealed_seed}
            rows.append({**command.columns, **given, **sealed})
        store.insert(tx, rows)
        for command in commands:
            self.cache.changing(tx, command.account_id, [command.subscription_id])
        return answers

    async def update(self, tx: Tx, commands: Sequence[UpdateSubscription]) -> list[Exception | None]:
        """Change some columns of each."""
        rows = await self._found(tx, commands)
        for command in commands:
            named = [name for name in store.FIELDS if name in command.columns]
            if command.subscription_id in rows and named:
                old = rows[command.subscription_id]["url"]
                new = command.columns.get("url", old)
                elsewhere = "headers" not in command.columns and origin_lane("", new) != origin_lane("", old)
                row = {name: command.columns[name] for name in named} | {"id": command.subscription_id}
                store.update(tx, named, row, untried=new != old, unnamed=elsewhere)
                if command.sealed_seed is not None:
                    store.add_key(tx, command.subscription_id, command.sealed_seed)
        mended = [each.subscription_id for each in commands if not MENDING.isdisjoint(each.columns)]
        failing = [each for each in mended if each in rows and rows[each]["failing_since"] is not None]
        _tell(tx, self.renewed, failing)
        return _answers(commands, rows)

    async def delete(self, tx: Tx, commands: Sequence[DeleteSubscription]) -> list[Exception | None]:
        """Forget them; what was not sent yet is kept as `skipped`."""
        rows = await self._found(tx, commands)
        store.delete(tx, rows)
        store.skip(tx, rows, "subscription_deleted")
        _tell(tx, self.forgotten, rows)
        return _answers(commands, rows)

    async def enable(self, tx: Tx, commands: Sequence[EnableSubscription]) -> list[Exception | None]:
        """Let them have events again."""
        rows = await self._found(tx, commands)
        store.enable(tx, rows)
        _tell(tx, self.renewed, rows)
        return _answers(commands, rows)

    async def disable(self, tx: Tx, commands: Sequence[DisableSubscription]) -> list[Exception | None]:
        """Stop sending to them, keep what was not sent as `skipped`, and tell the accounts' other subscriptions."""
        rows = await self._found(tx, commands)
        news = [command for command in commands if _is_to_be_disabled(rows.get(command.subscription_id), command)]
        ended = [each.subscription_id for each in news]
        store.disable(tx, [{"id": each.subscription_id, "reason": each.reason} for each in news])
        store.skip(tx, ended, "subscription_disabled")
        _tell(tx, self.forgotten, ended)
        _say(tx, news, rows)
        told = [
            _event(
                tx,
                self.ids.new("evt"),
                command.account_id,
                "subscription.disabled",
                source=Source.DELIVERY,
                subscription=_shown(rows[command.subscription_id])
                | {"status": "disabled", "disabled_reason": command.reason},
            )
            for command in news
        ]
        if told:
            await self.add(tx, told)
        return [None for _ in commands]

    async def rotate(self, tx: Tx, commands: Sequence[RotateSubscriptionSecret]) -> list[Exception | None]:
        """Replace secrets and keys."""
        rows = await self._found(tx, commands)
        replaced = [
            {
                "id": command.subscription_id,
                "secret": command.sealed_secret,
                "signing_key": command.sealed_seed,
                "grace_ms": command.grace_ms,
                "now": tx.now_ms,
            }
            for command in commands
            if command.subscription_id in rows
        ]
        store.rotate(tx, replaced)
        return _answers(commands, rows)

    async def ping(self, tx: Tx, commands: Sequence[Ping]) -> list[Exception | None]:
        """Write a `ping` for each, which goes to no other subscription."""
        rows = await self._find(tx, commands)
        answers = _answers(commands, rows)
        sent: list[Outgoing] = []
        for position, command in enumerate(commands):
            row = rows.get(command.subscription_id)
            if row is None:
                continue
            if not _is_enabled(row):
                answers[position] = _is_disabled(command.subscription_id)
                continue
            sent.append(
                _event(
                    tx,
                    command.event_id,
                    command.account_id,
                    "ping",
                    source=Source.API,
                    subscription=_shown(row),
                    only=command.subscription_id,
                )
            )
        if sent:
            await self.add(tx, sent)
        return answers

    async def _found(self, tx: Tx, commands: Sequence[SubscriptionCommand]) -> dict[str, Row]:
        """The rows that the commands may change; they are read anew from now on."""
        rows = await self._find(tx, commands)
        for row in rows.values():
            self.cache.changing(tx, row["account_id"], [row["id"]])
        return rows

    async def _find(self, tx: Tx, commands: Sequence[SubscriptionCommand]) -> dict[str, Row]:
        asked = {command.subscription_id: command.account_id for command in commands}
        found = await store.find(tx, asked)
        return {row["id"]: row for row in found if row["account_id"] == asked[row["id"]]}


def _answers(commands: Sequence[SubscriptionCommand], rows: dict[str, Row]) -> list[Exception | None]:
    return [None if command.subscription_id in rows else no_subscription() for command in commands]


def no_subscription() -> NotFound:
    """There is none of that id, or it is another account's."""
    return NotFound("there is no such subscription; ids look like sub_0199… and are given by POST /v1/subscriptions")


def _is_disabled(subscription_id: str) -> Conflict:
    return Conflict(
        f"the subscription is disabled; enable it first with POST /v1/subscriptions/{subscription_id}/enable",
        code="subscription_disabled",
    )


def _too_many(limit: int) -> Conflict:
    return Conflict(
        f"the account has {limit} subscriptions, which is the most; delete one first",
        code="too_many_subscriptions",
    )


def _tell(tx: Tx, whom: Callable[[str], None], subscription_ids: Iterable[str]) -> None:
    for each in subscription_ids:
        tx.after_commit(partial(whom, each))


def _say(tx: Tx, disabled: Iterable[DisableSubscription], rows: dict[str, Row]) -> None:
    """For operators, where it is our decision and not the account's own."""
    for each in disabled:
        if each.url is not None or each.failing_ms is not None:
            told = {
                "subscription": each.subscription_id,
                "account": each.account_id,
                "url": shown_url(rows[each.subscription_id]["url"]),
                "reason": each.reason,
            }
            tx.after_commit(partial(_log.warning, "subscription_disabled", **told))


def _is_enabled(row: Row | None) -> bool:
    return row is not None and row["status"] == "enabled"


def _is_to_be_disabled(row: Row | None, command: DisableSubscription) -> bool:
    """Whether what made somebody ask for it is still so."""
    if row is None or not _is_enabled(row) or (command.url is not None and command.url != row["url"]):
        return False
    if command.failing_ms is None:
        return True
    return row["failing_since"] is not None and row["last_failure_at"] - row["failing_since"] >= command.failing_ms


def _shown(row: Row) -> dict[str, Any]:
    return {"id": row["id"], "url": row["url"], "description": row["description"], "status": row["status"]}


def _event(
    tx: Tx,
    event_id: str,
    account_id: str,
    event_type: str,
    *,
    source: Source,
    subscription: dict[str, Any],
    only: str | None = None,
) -> Outgoing:
    """Write an event about a subscription; it belongs to no job, and its `seq` is 0."""
    data = {"seq": 0, "subscription": subscription}
    body = msgspec.json.encode({"type": event_type, "timestamp": iso(tx.now_ms), "data": data})
    row = {
        "id": event_id,
        "account_id": account_id,
        "type": event_type,
        "source": source.value,
        "at": tx.now_ms,
        "pos": tx.number(),
        "body": body,
    }
    store.insert_event(tx, row)
    return Outgoing(
        event_id=event_id,
        account_id=account_id,
        job_id=None,
        type=event_type,
        at=tx.now_ms,
        body=body,
        only_subscription=only,
    )
