"""The rules that must hold (design 4), as questions to a database: every row found is a breach.

Tests ask them of any database at any moment between two transactions, and `remora doctor` of a running one's backup.
I1 in full, I3, I4 and I11 speak of time and of the world outside; what a database can show of them is asked here.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from service.db.macros import sqlite_text

_FINAL = "('completed', 'failed', 'cancelled', 'expired')"

#: (number, what it says, the question)
RULES: tuple[tuple[str, str, str], ...] = (
    (
        "I1",
        "a final state is reached once, and corrected at most once, from expired",
        (
            f"SELECT job_id FROM events WHERE type IN ('job.completed', 'job.failed', 'job.cancelled', 'job.expired') "
            "GROUP BY job_id HAVING count(*) > 2 OR (count(*) = 2 AND count(*) FILTER (WHERE type = 'job.expired') <> 1) "
            f"UNION ALL SELECT id FROM jobs j WHERE status IN {_FINAL} "
            "AND NOT EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id AND e.type = 'job.' || j.status)"
        ),
    ),
    (
        "I2",
        "a final state has its event, and the event one delivery for the job's own destination",
        (
            "SELECT e.id FROM events e JOIN jobs j ON j.id = e.job_id WHERE j.callback_url IS NOT NULL AND e.body IS NOT NULL "
            "AND (e.type IN @set(j.callback_events) OR (j.callback_events IS NULL "
            "AND e.type IN ('job.completed', 'job.failed', 'job.cancelled', 'job.expired'))) "
            "AND (SELECT count(*) FROM deliveries d WHERE d.event_id = e.id AND d.subscription_id IS NULL) <> 1"
        ),
    ),
    (
        "I2",
        "no destination has an event twice",
        "SELECT event_id FROM deliveries WHERE subscription_id IS NOT NULL GROUP BY event_id, subscription_id HAVING count(*) > 1",
    ),
    (
        "I3",
        "a delivery is pending with a due time, or ended with an end",
        "SELECT id FROM deliveries WHERE (status = 'pending') <> (due_at IS NOT NULL) OR (status = 'pending') <> (finished_at IS NULL)",
    ),
    (
        "I3",
        "a pending delivery is held, or its lane will wake",
        (
            "SELECT d.id FROM deliveries d LEFT JOIN lanes l ON l.id = d.lane WHERE d.status = 'pending' AND d.lease_owner IS NULL "
            "AND (l.next_due_at IS NULL OR l.next_due_at > @greatest(d.due_at, coalesce(l.rests_until, 0)))"
        ),
    ),
    (
        "I4",
        "a remembered answer belongs to a job",
        "SELECT key FROM idempotency WHERE job_id NOT IN (SELECT id FROM jobs)",
    ),
    (
        "I5",
        "a further submission only where the earlier one provably did not take effect, or an operator decided",
        (
            "SELECT job_id FROM submissions WHERE outcome NOT IN ('refused', 'not_sent', 'replaced') "
            "GROUP BY job_id HAVING count(*) > 1"
        ),
    ),
    (
        "I6",
        "only completions are charged",
        (
            "SELECT id FROM jobs j WHERE cost_charged > 0 AND status <> 'completed' "
            "AND NOT EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id AND e.type = 'job.conflict')"
        ),
    ),
    (
        "I6",
        "an account has what its transfers add up to",
        (
            "SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, "
            "sum(CASE WHEN credit IN ('available', 'held') THEN amount ELSE 0 END) "
            "- sum(CASE WHEN debit IN ('available', 'held') THEN amount ELSE 0 END) AS balance, "
            "sum(CASE 'held' WHEN credit THEN amount WHEN debit THEN -amount ELSE 0 END) AS held "
            "FROM transfers GROUP BY account_id) t ON t.account_id = a.id "
            "WHERE a.balance <> coalesce(t.balance, 0) OR a.held <> coalesce(t.held, 0) OR a.held < 0"
        ),
    ),
    (
        "I6",
        "what is held for a job is what its transfers say, and nothing once it is final",
        (
            f"SELECT id FROM jobs j WHERE (cost_held IS NOT NULL AND (cost_held <= 0 OR status IN {_FINAL})) OR coalesce(cost_held, 0) <> "
            "(SELECT coalesce(sum(CASE 'held' WHEN credit THEN amount WHEN debit THEN -amount END), 0) FROM transfers t WHERE t.job_id = j.id)"
        ),
    ),
    (
        "I6",
        "a job that was taken since there are books was charged what it cost",
        (
            "SELECT id FROM jobs j WHERE created_at > (SELECT @number_in(value) FROM meta WHERE key = 'books_since') "
            "AND coalesce(cost_charged, 0) <> (SELECT coalesce(sum(amount), 0) FROM transfers t WHERE t.job_id = j.id AND t.credit = 'spent')"
        ),
    ),
    (
        "I7",
        "an event in the feed has its bytes, and one that left has none",
        "SELECT id FROM events WHERE (pos IS NOT NULL AND body IS NULL) OR (left_pos IS NOT NULL AND body IS NOT NULL)",
    ),
    (
        "feed",
        "an event that is sent has its number",
        "SELECT id FROM events WHERE body IS NOT NULL AND pos IS NULL",
    ),
    (
        "feed",
        "the number of what left is given to no other event, and its account remembers how far it was",
        (
            "SELECT e.id FROM events e JOIN accounts a ON a.id = e.account_id WHERE e.left_pos IS NOT NULL "
            "AND (e.left_pos > @greatest(a.feed_floor, a.feed_erased) OR EXISTS (SELECT 1 FROM events o WHERE o.pos = e.left_pos)) "
            "UNION ALL SELECT min(id) FROM events WHERE left_pos IS NOT NULL GROUP BY left_pos HAVING count(*) > 1"
        ),
    ),
    (
        "I8",
        "a lease has an owner and an end",
        "SELECT id FROM jobs WHERE (lease_owner IS NULL) <> (lease_until IS NULL)",
    ),
    (
        "I9",
        "an active job has a wake-up, not after its deadline",
        f"SELECT id FROM jobs WHERE status NOT IN {_FINAL} AND (due_at IS NULL OR (status IN ('running', 'submit_unknown') AND due_at > expires_at))",
    ),
    (
        "I9",
        "a result that waits for its copy is in a lane of its account",
        (
            "SELECT r.job_id FROM results r JOIN jobs j ON j.id = r.job_id WHERE r.due_at IS NOT NULL "
            "AND substr(r.lane, 1, length(j.account_id) + 1) <> j.account_id || ' '"
        ),
    ),
    (
        "I10",
        "nothing crosses accounts",
        (
            "SELECT d.id FROM deliveries d JOIN events e ON e.id = d.event_id LEFT JOIN subscriptions s ON s.id = d.subscription_id "
            "WHERE d.account_id <> e.account_id OR (s.id IS NOT NULL AND s.account_id <> d.account_id) "
            "UNION ALL SELECT e.id FROM events e JOIN jobs j ON j.id = e.job_id WHERE e.account_id <> j.account_id"
        ),
    ),
    (
        "labels",
        "a job is found by its own tags, and no label belongs to another account's job or to none",
        (
            "SELECT l.job_id FROM labels l LEFT JOIN jobs j ON j.id = l.job_id AND j.account_id = l.account_id WHERE j.id IS NULL "
            "UNION ALL SELECT j.id FROM jobs j WHERE EXISTS (SELECT 1 FROM @set(j.tags) tag WHERE NOT EXISTS (SELECT 1 "
            "FROM labels l WHERE l.account_id = j.account_id AND l.name = 'tag' AND l.value = tag.value AND l.job_id = j.id))"
        ),
    ),
    (
        "I11",
        "what is delivered was generated: a completed job has its results, and they come from a submission that was made",
        (
            "SELECT id FROM jobs j WHERE status = 'completed' AND ((SELECT count(*) FROM results r WHERE r.job_id = j.id) <> j.result_count "
            "OR NOT EXISTS (SELECT 1 FROM submissions s WHERE s.job_id = j.id AND s.id = j.submission_id))"
        ),
    ),
    (
        "I11",
        "every delivered delivery has an attempt, unless retention removed those of its hour",
        (
            "SELECT id FROM deliveries d WHERE status = 'delivered' AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id) "
            "AND finished_at >= 3600000 + coalesce((SELECT @number_in(value) FROM meta WHERE key = 'attempts_kept_since'), -3600000)"
        ),
    ),
    (
        "I11",
        "a result that is stored has its file and what is told of it, and nothing of it is due",
        (
            "SELECT job_id FROM results WHERE (stored AND (storage_key IS NULL OR sha256 IS NULL OR content_type IS NULL "
            "OR size_bytes IS NULL OR due_at IS NOT NULL OR sweep_at IS NULL)) OR (lease_owner IS NOT NULL AND due_at IS NULL)"
        ),
    ),
    (
        "seq",
        "the timeline ends at the job's own number and has no number twice",
        "SELECT id FROM jobs j WHERE seq <> (SELECT max(seq) FROM events e WHERE e.job_id = j.id)",
    ),
)


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that does not hold, with some of the rows that break it."""

    rule: str
    says: str
    rows: tuple[str, ...]


def breaches(connection: sqlite3.Connection) -> list[Breach]:
    """Every rule that this database breaks; an empty list is health."""
    found: list[Breach] = []
    for rule, says, question in RULES:
        rows = connection.execute(sqlite_text(question)).fetchmany(5)
        if rows:
            found.append(Breach(rule, says, tuple(str(row[0]) for row in rows)))
    integrity = connection.execute("PRAGMA integrity_check(5)").fetchall()
    if [row[0] for row in integrity] != ["ok"]:
        found.append(
            Breach("I12", "the database's own integrity check passes", tuple(str(row[0]) for row in integrity))
        )
    orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(5)
    if orphans:
        found.append(Breach("I12", "every reference leads somewhere", tuple(str(tuple(row)) for row in orphans)))
    return found
