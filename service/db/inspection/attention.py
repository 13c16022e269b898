"""What waits for an operator, asked of a database that a service may be using.

Owns the questions. It must not know what is said of the answers.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.db.macros import sqlite_text
from service.db.transaction import Params

DAY_MS: Final = 86_400_000  # milliseconds
TRIED_OFTEN: Final = 5  # failures in a row open a destination's breaker


class TroubleKind(StrEnum):
    """What kind of trouble."""

    SUBMIT_UNKNOWN = "submit_unknown"  # jobs that perhaps were paid for
    DEAD = "dead"  # deliveries that were given up within a day
    FAILING = "failing"  # destinations whose deliveries were tried often and still wait
    DISABLED = "disabled"  # subscriptions that were disabled for their failures
    REFUSED = "refused"  # jobs that failed within a day since a provider wants another key, or money
    LOST = "lost"  # results without a copy that have not expired
    AHEAD = "ahead"  # ms by which the newest job is ahead of the clock


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of it: how much there is, and an example to begin with."""

    kind: TroubleKind
    count: int
    example: str


QUESTIONS: Final = {
    TroubleKind.SUBMIT_UNKNOWN: "SELECT count(*), min(id) FROM jobs WHERE status = 'submit_unknown'",
    TroubleKind.REFUSED: (
        "SELECT count(*), max(provider || ' (' || error_code || ')') FROM jobs "
        "WHERE status = 'failed' AND error_code IN ('provider_auth', 'provider_funds') AND finished_at > @typed(:now, bigint) - :day"
    ),
    TroubleKind.DEAD: "SELECT count(*), max(id) FROM deliveries WHERE status = 'dead' AND finished_at > @typed(:now, bigint) - :day",
    TroubleKind.FAILING: (
        "SELECT count(DISTINCT lane), max(id) FROM deliveries WHERE status = 'pending' AND attempt_count >= :often"
    ),
    TroubleKind.DISABLED: (
        "SELECT count(*), max(id || ' (' || disabled_reason || ')') FROM subscriptions "
        "WHERE status = 'disabled' AND disabled_reason IS NOT NULL"
    ),
    TroubleKind.LOST: (
        "SELECT count(*), max(job_id || ' (' || error || ')') FROM results "
        "WHERE NOT stored AND due_at IS NULL AND expires_at > :now AND error IS NOT NULL AND error <> 'erased'"
    ),
    TroubleKind.AHEAD: "SELECT @greatest(0, created_at - :now), id FROM jobs ORDER BY id DESC LIMIT 1",
}


def asked(now_ms: int) -> Params:
    """The parameters of all questions."""
    return {"now": now_ms, "day": DAY_MS, "often": TRIED_OFTEN}


def troubles(connection: sqlite3.Connection, now_ms: int) -> list[Trouble]:
    """Everything that waits for somebody; an empty list is a quiet night."""
    found: list[Trouble] = []
    for kind, question in QUESTIONS.items():
        row = connection.execute(sqlite_text(question), asked(now_ms)).fetchone()
        if row is not None and row[0]:
            found.append(Trouble(kind, row[0], row[1]))
    return found
