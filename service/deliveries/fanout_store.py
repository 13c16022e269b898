"""What a fan-out has left for later: destinations of an event whose deliveries are still to be written, in parts.

It must not know how a delivery is written; `fanout` does that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from service.db.reader import Reader
from service.db.transaction import Row, Tx, json_set
from service.db.writer import Command, Writer

_LEAVE: Final = """
INSERT INTO fanouts (event_id, place, account_id, subscription_ids, results_expire_at)
@rows(:event, :place, :account, :subscriptions, :results_expire_at)
"""
_NEXT: Final = """
SELECT f.event_id, f.place, f.account_id, f.subscription_ids, f.results_expire_at, e.job_id, e.type, e.at, e.body
FROM fanouts f JOIN events e ON e.id = f.event_id ORDER BY f.event_id, f.place LIMIT 1
"""
_HAD: Final = """
SELECT subscription_id FROM deliveries
WHERE event_id = :event AND subscription_id IN @set(:ids)
"""
_REMOVE: Final = "DELETE FROM fanouts WHERE event_id = :event AND place = :place"
_ANY: Final = "SELECT 1 FROM fanouts LIMIT 1"


@dataclass(frozen=True, slots=True)
class WriteFanoutPart(Command[bool]):
    """Write the deliveries of the part that waits longest; answered with whether there was one."""

    def lock(self) -> Hashable | None:
        """One a transaction."""
        return "part"


class FanoutsDuty:
    """Writes what was left, a part at a time, so that others come in between."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def run_once(self) -> None:
        """Until nothing is left."""
        if await self._reader.row(_ANY) is None:
            return
        while await self._writer.run(WriteFanoutPart()):
            pass


def leave(
    tx: Tx,
    event_id: str,
    account_id: str,
    subscription_ids: Sequence[str],
    results_expire_at: int | None,
    *,
    part: int,
) -> None:
    """Leave these destinations of an event for later, in their order and in parts of so many."""
    tx.write(
        _LEAVE,
        [
            {
                "event": event_id,
                "place": start // part,
                "account": account_id,
                "subscriptions": msgspec.json.encode(subscription_ids[start : start + part]).decode(),
                "results_expire_at": results_expire_at,
            }
            for start in range(0, len(subscription_ids), part)
        ],
    )


async def take(tx: Tx) -> Row | None:
    """The part that waits longest, with its event; it is removed. None: nothing waits."""
    found = await tx.rows(_NEXT, {})
    if not found:
        return None
    [row] = found
    tx.write(_REMOVE, [{"event": row["event_id"], "place": row["place"]}], expect=1)
    return row


async def had(tx: Tx, event_id: str, subscription_ids: Sequence[str]) -> set[str]:
    """Which of these have the event already."""
    found = await tx.rows(_HAD, {"event": event_id, "ids": json_set(subscription_ids)})
    return {row["subscription_id"] for row in found}
