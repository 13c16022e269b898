"""Subscriptions as the hot path sees them: filters, limits and addresses, in memory, read from the store when they are first asked for.

The writer of this process is the only one who changes subscriptions, so that what is kept here stays true until a
command changes it. It must not know what a command does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import count
from typing import Final

import msgspec

from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Row, Tx
from service.states import FINAL_EVENT_TYPES
from service.subscriptions import queries
from service.subscriptions.sealed import Pair, Sealed
from service.subscriptions.snapshots import MAX_OUTDATED, PER_KNOWN, Destination, Snapshot

MAX_OPENED: Final = 4_096  # secrets, keys and headers that are kept in the clear; one takes up to 80 KB
MAX_KNOWN: Final = 64 << 20  # bytes of all subscriptions that are known, roughly
ROWS_AT_ONCE: Final = 500  # that are made ready before others have their turn: some 4 ms


def effective_events(stored: Sequence[str]) -> tuple[str, ...]:
    """The event types that a subscription gets: what it names, or the final ones."""
    return tuple(stored) or FINAL_EVENT_TYPES


class DestinationCache:
    """The latest snapshot of each account that was asked for.

    The fan-out needs all of an account, which are read once; the sender needs one, which is read alone. A change makes
    one of them outdated, never its neighbours. Accounts that were not asked for the longest make room.

    Args:
        box: Opens what is sealed.
        most_outdated: Subscriptions of an account that are read one by one; beyond, all are read.
        limit: Bytes, roughly; the account that was asked for last is kept whatever it takes.
    """

    def __init__(self, box: SecretBox, *, most_outdated: int = MAX_OUTDATED, limit: int = MAX_KNOWN) -> None:
        self._opens = lru_cache(MAX_OPENED)(box.open)
        self._most_outdated = most_outdated
        self._limit = limit
        self._grown = 0  # bytes since all was counted
        self._versions = count(1)
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()  # those that were not asked for the longest first

    def count(self) -> int:
        """Accounts that are known."""
        return len(self._snapshots)

    async def of(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, Snapshot]:
        """The subscriptions of each account, all of them, as this transaction sees them."""
        # Held here until the end: an account that is forgotten meanwhile is still whole for this transaction.
        held = {each: self._snapshot(each) for each in account_ids}
        if missing := {each for each, snapshot in held.items() if not snapshot.whole}:
            held |= await self._load(tx, missing)
        outdated = {one: each for each, snapshot in held.items() for one in snapshot.outdated}
        if outdated:
            rows = {row["id"]: row for row in await queries.these(tx, outdated)}
            found: defaultdict[str, dict[str, Destination | None]] = defaultdict(dict)
            for subscription_id in sorted(outdated):
                row = rows.get(subscription_id)
                found[outdated[subscription_id]][subscription_id] = None if row is None else self._destination(row)
            held |= {each: held[each].read(of_account) for each, of_account in found.items()}
            self._snapshots.update({each: held[each] for each in found})
        self._make_room()
        return held

    async def find(self, reader: Reader, account_id: str, subscription_id: str) -> Destination | None:
        """One enabled subscription of the account as it is committed; None if it was disabled or deleted."""
        asked = self._snapshot(account_id)
        if asked.settled(subscription_id):
            found = asked.known.get(subscription_id)
        else:
            row = await queries.one(reader, account_id, subscription_id)
            found = None if row is None else self._destination(row)
            latest = self._snapshot(account_id)
            if latest.version == asked.version and subscription_id not in latest.changing:
                self._snapshots[account_id] = latest.read({subscription_id: found})
                self._make_room()
        return found if found is not None and found.enabled else None

    def changing(self, tx: Tx, account_id: str, subscription_ids: Iterable[str]) -> None:
        """These are outdated now, when the transaction is committed, and when it is rolled back.

        Now, since what follows in the transaction must see the change; at its end, since the transaction may have brought
        in what never came to be. In between, readers are given what is committed, and keep none of it.
        """
        changed = frozenset(subscription_ids)
        self._snapshots[account_id] = self._outdated(account_id, changed).begun(changed)

        def ended() -> None:
            self._snapshots[account_id] = self._outdated(account_id, changed).ended(changed)

        tx.after_commit(ended)
        tx.on_rollback(ended)

    def _outdated(self, account_id: str, changed: frozenset[str]) -> Snapshot:
        return self._snapshot(account_id).outdate(changed, next(self._versions), most=self._most_outdated)

    def _snapshot(self, account_id: str) -> Snapshot:
        """The latest one; nothing is known of an account that was not asked for lately."""
        snapshot = self._snapshots.get(account_id)
        if snapshot is None:
            snapshot = self._snapshots[account_id] = Snapshot(next(self._versions))
            self._grown += PER_KNOWN
        else:
            self._snapshots.move_to_end(account_id)
        return snapshot

    def _make_room(self) -> None:
        """Forget accounts, but none that is being changed; once an eighth of what is allowed has come since."""
        if self._grown * 8 < self._limit:
            return
        self._grown = 0
        total = sum(snapshot.size for snapshot in self._snapshots.values())
        for account_id, snapshot in list(self._snapshots.items())[:-1]:
            if total <= self._limit:
                return
            if not snapshot.changing:
                total -= snapshot.size
                del self._snapshots[account_id]

    async def _load(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, Snapshot]:
        loaded: dict[str, dict[str, Destination]] = {each: {} for each in account_ids}
        rows = await queries.of_accounts(tx, account_ids)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            for row in rows[start : start + ROWS_AT_ONCE]:
                loaded[row["account_id"]][row["id"]] = self._destination(row)
            await asyncio.sleep(0)
        made = {each: self._snapshot(each).read_whole(known) for each, known in loaded.items()}
        self._snapshots.update(made)
        return made

    def _destination(self, row: Row) -> Destination:
        until, keyed = row["previous_secret_until"], "v1a" in _texts(row["signatures"])
        made = Destination(
            id=row["id"],
            account_id=row["account_id"],
            url=row["url"],
            events=_events(row["events"]),
            providers=_texts(row["providers"]),
            operations=_texts(row["operations"]),
            tags=_texts(row["tags"]),
            max_in_flight=row["max_in_flight"],
            rate_per_s=row["rate_per_s"],
            schedule_s=None
            if row["schedule"] is None
            else msgspec.json.decode(row["schedule"], type=tuple[float, ...]),
            sealed=Sealed(
                subscription_id=row["id"],
                opens=self._opens,
                secrets=Pair(row["secret"], row["previous_secret"], until),
                keys=Pair(row["signing_key"], row["previous_signing_key"], until) if keyed else Pair(),
                own_headers=row["headers"],
            ),
            stop_at_expiry=bool(row["stop_at_expiry"]),
            enabled=row["status"] == "enabled",
        )
        self._grown += made.size
        return made


# Thousands of subscriptions have the same few lists.
@lru_cache(4_096)
def _texts(stored: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(stored, type=list[str]))


@lru_cache(4_096)
def _events(stored: str) -> frozenset[str]:
    return frozenset(effective_events(msgspec.json.decode(stored, type=list[str])))
