"""Claiming replays that are to go on: accounts take turns, and of each account its subscriptions.

It owns the statements and the leases; what a replay does stands in `replay_store`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from service.db.leases import TAKEN, VOID
from service.db.transaction import Row, Tx, json_set
from service.db.writer import Command, Writer

PENDING: Final = 1_000  # deliveries in a lane, above which a replay waits: what is live never waits behind more

# Each subscription's oldest replay. Accounts take turns, from behind the one that was served last; of each, the subscription
# goes first whose replay went on longest ago. A lease is on all replays of a subscription,
# and the claim raises the epoch of all: a holder whose lease has lapsed can write nothing any more.
_DUE: Final = """
SELECT id, subscription_id FROM (
    SELECT min(id) AS id, account_id, subscription_id,
        row_number() OVER (PARTITION BY account_id ORDER BY min(due_at), subscription_id) AS turn
    FROM replays @by_index(ix_replays_for_claim) WHERE status = 'running' GROUP BY account_id, subscription_id
    HAVING min(due_at) <= :now AND max(coalesce(lease_until, 0)) <= :now
) AS due ORDER BY turn, account_id <= :after, account_id LIMIT :count
"""
_LEASE: Final = f"""
UPDATE replays SET {TAKEN}
WHERE status = 'running' AND subscription_id IN @set(:subscriptions)
"""
#: A claimed replay, with the filters and the backlog of its subscription.
CLAIMED: Final = """
SELECT r.id, r.account_id, r.subscription_id, r.since, r.until, r.types, r.statuses, r.next_pos, r.last_pos, r.lease_epoch,
    s.status AS subscription, s.events, s.providers, s.operations, s.tags, (
    SELECT count(*) FROM (SELECT 1 FROM deliveries d WHERE d.lane = r.subscription_id AND d.status = 'pending' LIMIT :most)
    ) AS pending
FROM replays r LEFT JOIN subscriptions s ON s.id = r.subscription_id AND s.account_id = r.account_id
WHERE r.status = 'running' AND r.id = :id
"""


@dataclass(frozen=True, slots=True)
class ClaimReplays(Command[list[Row]]):
    """Claim replays that want to go on, one of a subscription; each row tells the subscription's filters and backlog too.

    Args:
        owner: Who goes on with them.
        lease_ms: For how long they are the owner's.
        count: So many at most.
        after: The account behind which the next turn begins: that of the last row of the claim before.
    """

    owner: str
    lease_ms: int
    count: int
    after: str = ""

    def lock(self) -> Hashable | None:
        """Each claim must see what the one before took."""
        return "claim"


async def handle_claims(tx: Tx, commands: Sequence[ClaimReplays]) -> list[list[Row] | Exception]:
    """The writer's handler for `ClaimReplays`."""
    [command] = commands
    due = await tx.rows(_DUE, {"now": tx.now_ms, "count": command.count, "after": command.after})
    if not due:
        return [[]]
    subscriptions = json_set(row["subscription_id"] for row in due)
    until = tx.now_ms + command.lease_ms
    tx.write(_LEASE, [{"owner": command.owner, "until": until, "subscriptions": subscriptions}])
    return [await tx.rows_each(CLAIMED, [{"id": row["id"], "most": PENDING} for row in due])]


@dataclass(frozen=True, slots=True)
class VoidReplayLeases(Command[None]):
    """At start on SQLite every lease is void."""


async def handle_void(tx: Tx, commands: Sequence[VoidReplayLeases]) -> list[Exception | None]:
    """The writer's handler for `VoidReplayLeases`."""
    tx.write(
        f"UPDATE replays SET {VOID} WHERE status = 'running' AND lease_owner IS NOT NULL",
        [{}],
    )
    return [None for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ClaimReplays, handle_claims)
    writer.handle(VoidReplayLeases, handle_void)
