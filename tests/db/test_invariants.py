"""Every rule of `db/inspection/invariants.py` can fail: each is broken here by hand and seen."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from service.db.inspection.invariants import RULES, breaches
from service.db.migrate import upgrade

SOUND = """
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, previous_secret, previous_secret_until, created_at) VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', NULL, NULL, 0);
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, previous_secret, previous_secret_until, created_at) VALUES ('acc_2', 'b', 'active', 'none', x'00', 'whsec_', NULL, NULL, 0);
INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, submit_failures,
    task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls, overdue, created_at, expires_at, finished_at,
    lease_epoch, callback_url, submission_id, cost_charged)
VALUES ('job_1', 'acc_1', 'p', 'o', 'completed', 2, '{}', '{}', '[]', 1, 0, 1, 'unknown', 1, 0, 1, 0, 0, 0, 0, 1, 9, 5, 1, 'https://x',
    'sbm_1', 10);
INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, submit_failures,
    task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls, overdue, created_at, expires_at, due_at,
    lease_epoch) VALUES ('job_2', 'acc_1', 'p', 'o', 'running', 1, '{}', '{}', '[]', 1, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 1, 9, 8, 1);
INSERT INTO submissions (id, job_id, provider, token_hash, outcome, created_at) VALUES ('sbm_1', 'job_1', 'p', x'01', 'accepted', 1);
INSERT INTO submissions (id, job_id, provider, token_hash, outcome, created_at) VALUES ('sbm_0', 'job_1', 'p', x'02', 'refused', 1);
INSERT INTO results (job_id, idx, source_url, stored, expires_at) VALUES ('job_1', 0, 'https://f', 0, 9);
INSERT INTO events (id, account_id, job_id, seq, type, source, at) VALUES ('evt_1', 'acc_1', 'job_1', 1, 'job.queued', 'api', 1);
INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body)
    VALUES ('evt_2', 'acc_1', 'job_1', 2, 'job.completed', 'poll', 5, 1, x'7b7d');
INSERT INTO events (id, account_id, job_id, seq, type, source, at) VALUES ('evt_3', 'acc_1', 'job_2', 1, 'job.queued', 'api', 1);
INSERT INTO deliveries (id, event_id, account_id, job_id, type, lane, url, status, attempt_count, schedule_base, created_at, finished_at,
    lease_epoch) VALUES ('dlv_1', 'evt_2', 'acc_1', 'job_1', 'job.completed', 'l', 'https://x', 'delivered', 1, 0, 5, 6, 1);
INSERT INTO attempts (delivery_id, at, status_code, duration_ms) VALUES ('dlv_1', 6, 200, 1);
INSERT INTO transfers (account_id, job_id, kind, debit, credit, amount, at) VALUES
    ('acc_1', NULL, 'credit', 'funding', 'available', 100, 1), ('acc_1', NULL, 'debit', 'available', 'funding', 20, 1),
    ('acc_1', 'job_1', 'hold', 'available', 'held', 7, 1), ('acc_1', 'job_1', 'charge', 'held', 'spent', 6, 5),
    ('acc_1', 'job_1', 'excess', 'available', 'spent', 4, 5), ('acc_1', 'job_1', 'release', 'held', 'available', 1, 5),
    ('acc_1', 'job_2', 'hold', 'available', 'held', 3, 1);
UPDATE accounts SET balance = 70, held = 3 WHERE id = 'acc_1';
UPDATE jobs SET cost_held = 3 WHERE id = 'job_2';
"""

GONE_FAR = "UPDATE accounts SET feed_floor = 9"


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    """A small sound database, whose CHECKs are off so that it can be broken."""
    path = tmp_path / "remora.db"
    upgrade(path)
    connection = sqlite3.connect(path)
    connection.executescript(SOUND)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    return connection


def test_sound_database_has_no_breach(connection: sqlite3.Connection) -> None:
    """Nothing is cried over that is as it should be."""
    found = breaches(connection)
    connection.close()

    assert found == []


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("I1", "UPDATE events SET type = 'job.failed' WHERE id = 'evt_2'"),
        (
            "I1",
            (
                "INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body) "
                "VALUES ('evt_9', 'acc_1', 'job_1', 3, 'job.failed', 'poll', 5, 2, x'00')"
            ),
        ),
        ("I2", "DELETE FROM deliveries"),
        (
            "I2",
            (
                "INSERT INTO deliveries (id, event_id, account_id, job_id, type, subscription_id, lane, url, status, attempt_count, schedule_base, created_at, finished_at, due_at, lease_owner, lease_until, lease_epoch) "
                "SELECT 'dlv_2', event_id, account_id, job_id, type, subscription_id, lane, url, status, attempt_count, "
                "schedule_base, created_at, finished_at, due_at, lease_owner, lease_until, lease_epoch FROM deliveries"
            ),
        ),
        ("I3", "UPDATE deliveries SET status = 'pending'"),
        ("I3", "UPDATE deliveries SET status = 'pending', finished_at = NULL, due_at = 5"),
        ("I4", "INSERT INTO idempotency VALUES ('acc_1', 'k', x'00', 'job_9', x'00', 9)"),
        ("I5", "UPDATE submissions SET outcome = 'unknown' WHERE id = 'sbm_0'"),
        ("I6", "UPDATE jobs SET cost_charged = 5 WHERE id = 'job_2'"),
        ("I6", "UPDATE accounts SET balance = 69 WHERE id = 'acc_1'"),
        ("I6", "UPDATE accounts SET held = 4 WHERE id = 'acc_1'"),
        ("I6", "UPDATE accounts SET balance = 1 WHERE id = 'acc_2'"),
        ("I6", "UPDATE jobs SET cost_held = NULL WHERE id = 'job_2'"),
        ("I6", "UPDATE jobs SET cost_held = 1 WHERE id = 'job_1'"),
        ("I6", "UPDATE jobs SET cost_charged = 11 WHERE id = 'job_1'"),
        (
            "I6",
            (
                "INSERT INTO transfers (account_id, job_id, kind, debit, credit, amount, at) "
                "VALUES ('acc_1', 'job_1', 'late', 'available', 'spent', 10, 9)"
            ),
        ),
        ("I7", "UPDATE events SET body = NULL"),
        ("I7", "UPDATE events SET left_pos = pos"),
        ("feed", "UPDATE events SET pos = NULL"),
        ("feed", "UPDATE events SET left_pos = 1 WHERE id = 'evt_1'"),  # number 1 is another event's
        ("feed", "UPDATE events SET left_pos = 2 WHERE id = 'evt_1'"),  # no account knows of a number 2
        ("feed", f"{GONE_FAR}; UPDATE events SET left_pos = 2 WHERE body IS NULL"),  # two had it
        ("I8", "UPDATE jobs SET lease_owner = 'me'"),
        ("I9", "UPDATE jobs SET due_at = NULL WHERE id = 'job_2'"),
        ("I9", "UPDATE jobs SET due_at = 10 WHERE id = 'job_2'"),
        ("I9", "UPDATE results SET due_at = 8"),
        ("I9", "UPDATE results SET due_at = 8, lane = 'acc_2 f'"),
        ("I10", "UPDATE deliveries SET account_id = 'acc_2'"),
        ("I10", "UPDATE events SET account_id = 'acc_2' WHERE id = 'evt_3'"),
        ("labels", "INSERT INTO labels VALUES ('acc_2', 'tag', 't', 'job_1')"),
        ("labels", "INSERT INTO labels VALUES ('acc_1', 'tag', 't', 'job_9')"),
        ("labels", """UPDATE jobs SET tags = '["unknown"]' WHERE id = 'job_1'"""),
        ("I11", "DELETE FROM results"),
        ("I11", "UPDATE jobs SET submission_id = 'sbm_9' WHERE id = 'job_1'"),
        ("I11", "UPDATE results SET stored = 1"),
        ("I11", "UPDATE results SET lease_owner = 'me'"),
        ("I11", "DELETE FROM attempts"),
        ("I12", "INSERT INTO attempts (delivery_id, at, duration_ms) VALUES ('dlv_9', 1, 1)"),
        ("seq", "UPDATE jobs SET seq = 7 WHERE id = 'job_1'"),
    ],
)
def test_breach_is_seen(connection: sqlite3.Connection, rule: str, statement: str) -> None:
    """One planted fault for every rule."""
    connection.executescript(statement)
    found = {breach.rule for breach in breaches(connection)}
    connection.close()

    assert rule in found


def test_every_rule_has_a_planted_fault() -> None:
    """A rule that is added here needs its fault above."""
    planted = {mark.args[1][index][0] for mark in test_breach_is_seen.pytestmark for index in range(len(mark.args[1]))}  # type: ignore[attr-defined]

    assert {rule for rule, _, _ in RULES} <= planted
