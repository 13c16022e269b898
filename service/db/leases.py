"""Leases: who works on a row, until when, and how often that changed. Every statement that touches one is made from these parts.

A table of work has `lease_owner`, `lease_until` (ms UTC) and `lease_epoch`. Claiming a row raises its epoch, and its holder
writes only while the epoch is still that of the claim: a holder that is late changes nothing. What is due, in which order, and whose
turn it is, is each table's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.db.transaction import Params, Row, Tx

#: For `UPDATE … SET`: the row is claimed, by `:owner` until `:until`.
TAKEN: Final = "lease_owner = :owner, lease_until = :until, lease_epoch = lease_epoch + 1"
#: The holder is done with it.
RELEASED: Final = "lease_owner = NULL, lease_until = NULL"
#: It is taken away: whatever its holder still brings comes too late.
VOID: Final = f"{RELEASED}, lease_epoch = lease_epoch + 1"
#: For `WHERE`: the one who asks holds it, by the epoch of the claim.
STILL_HELD: Final = "lease_epoch = :epoch"
#: For `WHERE`: somebody held it for too long at `:now`.
LAPSED: Final = "lease_until <= :now"


def free(table: str = "") -> str:
    """For `WHERE`: nobody holds the row at `:now`; of a table that is named so in the statement."""
    until = f"{table}.lease_until" if table else "lease_until"
    return f"({until} IS NULL OR {until} <= :now)"


@dataclass(frozen=True, slots=True)
class Leased:
    """A table of work.

    Args:
        table: Its name.
        key: The columns that name a row.
        alive: What must be true of a row that somebody may hold; empty: nothing.
    """

    table: str
    key: tuple[str, ...]
    alive: str = ""

    def claim(self, tx: Tx, rows: Sequence[Row | Params], owner: str, lease_ms: int) -> int:
        """Claim rows as they were read; returns until when. The transaction fails if one is not as it was read.

        Args:
            tx: In which they were read.
            rows: With the key and `lease_epoch`.
            owner: Who works on them.
            lease_ms: For how long.
        """
        until = tx.now_ms + lease_ms
        taken = [self._named(row) | {"owner": owner, "until": until, "epoch": row["lease_epoch"]} for row in rows]
        tx.write(self._update(TAKEN), taken, expect=len(taken))
        return until

    def release(self, tx: Tx, held: Sequence[Params]) -> None:
        """Take rows away from their holder, who asks for it; those that somebody else has by now stay his.

        Args:
            tx: Of the command.
            held: The key, and `epoch` of the claim.
        """
        tx.write(self._update(VOID), held)

    def _update(self, change: str) -> str:
        conditions = [*(f"{name} = :{name}" for name in self.key), *([self.alive] if self.alive else []), STILL_HELD]
        return f"UPDATE {self.table} SET {change} WHERE {' AND '.join(conditions)}"

    def _named(self, row: Row | Params) -> dict[str, Any]:
        return {name: row[name] for name in self.key}
