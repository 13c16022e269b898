"""When a capture is tried again, and when it is given up; written out by hand."""

from __future__ import annotations

import pytest

from service.clock import SeededRandomness
from service.results.retry import Missed, Next, after, counted

NOW = 1_000_000_000
DAY = 86_400_000


def then(missed: Missed, tries: int = 1, dead: int = 0, ends: int = NOW + 7 * DAY) -> Next:
    return after(missed, tries, dead, NOW, ends, SeededRandomness(1))


@pytest.mark.parametrize(
    ("tries", "wait_s"), [(1, 5), (2, 30), (3, 120), (4, 600), (5, 1800), (6, 3600), (7, 3600), (90, 3600)]
)
def test_waits_grow_to_an_hour(tries: int, wait_s: int) -> None:
    """5 s, 30 s, 2 m, 10 m, 30 m, 1 h, and then hourly, each spread by a fifth."""
    due = then(Missed("timeout"), tries).due_at

    assert due is not None
    assert 0.8 * wait_s <= (due - NOW) / 1000 <= 1.2 * wait_s


@pytest.mark.parametrize(
    ("missed", "tries", "dead", "error"),
    [
        (Missed("too_large"), 1, 0, "too_large"),
        (Missed("address_forbidden"), 1, 0, "address_forbidden"),
        (Missed("wrong_type"), 9, 3, None),
        (Missed("wrong_type"), 9, 4, "wrong_type"),
        (Missed("http_404", dead=True), 9, 3, None),
        (Missed("http_404", dead=True), 9, 4, "result_gone"),
        (Missed("http_410", dead=True), 2, 2, "result_gone"),
        (Missed("http_500"), 99, 0, None),
        (Missed("storage_unavailable"), 99, 0, None),
    ],
)
def test_what_stays_wrong_is_given_up(missed: Missed, tries: int, dead: int, error: str | None) -> None:
    """Some words end it at once, some when they repeat, a dead link after a few looks; an outage never."""
    found = then(missed, tries, dead)

    assert found.error == error
    assert (found.due_at is None) == (error is not None)


def test_only_what_comes_in_a_row_adds_up() -> None:
    """Outages between two wrong files begin anew; our own storage says nothing about the host, and counts as nothing."""
    tries, refused = 0, 0
    seen = []
    for reason in ("wrong_type", "storage_unavailable", "truncated", "http_500", "wrong_type", "storage_unavailable"):
        tries, refused = counted(Missed(reason), tries, refused)
        seen.append((tries, refused))

    assert seen == [(1, 1), (1, 1), (2, 2), (3, 0), (4, 1), (4, 1)]
    assert counted(Missed("http_404", dead=True), 4, 1) == (5, 2)


@pytest.mark.parametrize("tries", [0, 1, 40])
def test_storage_is_tried_again_soon(tries: int) -> None:
    """However often the host failed before, our own storage is looked at again within seconds."""
    due = then(Missed("storage_unavailable"), tries).due_at

    assert due is not None
    assert 12 <= (due - NOW) / 1000 <= 18


def test_retry_after_is_honoured_up_to_an_hour() -> None:
    """What the host asks for, within reason."""
    assert then(Missed("http_429", retry_after_s=900)).due_at == NOW + 900_000
    assert then(Missed("http_429", retry_after_s=90_000)).due_at == NOW + 3_600_000


def test_last_try_is_made_before_the_link_dies() -> None:
    """Five seconds before its end once more, and then it is gone."""
    assert then(Missed("timeout"), 5, ends=NOW + 60_000) == Next(NOW + 55_000)
    assert then(Missed("timeout"), 6, ends=NOW + 4_000) == Next(None, "result_gone")
    assert then(Missed("storage_unavailable"), 6, ends=NOW + 1_000) == Next(None, "storage_unavailable")
