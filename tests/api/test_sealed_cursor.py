"""Cursors into logs that all accounts share say nothing of the others, stay comparable, and never wear out."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.api.answers.cursors import cursor
from service.api.answers.sealed_cursor import FEED, SealedCursors
from service.clock import SeededRandomness
from service.db.sealing import SecretBox
from tests.api.conftest import Served, serve

OURS, THEIRS = "acc_ours", "acc_theirs"


@pytest.fixture
def cursors() -> SealedCursors:
    """Of an installation that gave numbers up to 41."""
    return SealedCursors(SecretBox(b"k" * 32, SeededRandomness(1)), plain_until=41)


def test_cursor_is_the_same_text_for_the_same_place_only(cursors: SealedCursors) -> None:
    """Also after a restart; texts of neighbours, kinds and accounts have nothing in common that could be counted."""
    again = SealedCursors(SecretBox(b"k" * 32, SeededRandomness(2)), plain_until=0)
    texts = [
        cursors.text(kind, whose, place) for kind in (FEED, "x") for whose in (OURS, THEIRS) for place in range(50)
    ]

    assert cursors.text(FEED, OURS, 7) == again.text(FEED, OURS, 7)
    assert len(set(texts)) == len(texts)
    assert {len(text) for text in texts} == {32}
    assert len({text[:4] for text in texts}) > len(texts) - 5
    assert [cursors.place(FEED, OURS, cursors.text(FEED, OURS, place)) for place in (0, 7, 2**62)] == [0, 7, 2**62]


def test_cursor_of_somebody_else_leads_nowhere(cursors: SealedCursors) -> None:
    """Nor does one of another list, another installation, or one that was changed, cut or made up."""
    text = cursors.text(FEED, OURS, 7)
    stranger = SealedCursors(SecretBox(b"x" * 32, SeededRandomness(1)), plain_until=0)
    changed = ("A" if text[0] != "A" else "B") + text[1:]

    assert cursors.place(FEED, THEIRS, text) is None
    assert cursors.place("transfer", OURS, text) is None
    assert stranger.place(FEED, OURS, text) is None
    for wrong in (changed, text[:-1], text + "A", text.lower(), "é" * 32, "=" * 32, "A" * 32, ""):
        assert cursors.place(FEED, OURS, wrong) is None


def test_number_that_was_given_is_taken_and_no_later_one(cursors: SealedCursors) -> None:
    """Cursors from before were numbers; one beyond would tell by trying where events are."""
    assert cursors.place(FEED, OURS, cursor(FEED, 41)) == 41
    assert cursors.place(FEED, OURS, cursor(FEED, 42)) is None
    assert cursors.place("transfer", OURS, cursor("transfer", 1)) is None


async def test_feed_goes_on_from_cursors_of_both_kinds(tmp_path: Path) -> None:
    """What a page gave before the upgrade, and what it gives now; at the end the cursor that was sent comes back."""
    async with serve(tmp_path) as served:
        await served.completed()
        whole = (await served.client.get("/v1/events")).json()
        await served.sql("UPDATE meta SET value = 1 WHERE key = 'feed_plain_until'")
        [first] = await served.rows("SELECT min(pos) AS pos FROM events")
    async with serve(tmp_path) as served:
        sent = await served.client.get("/v1/events", params={"cursor": whole["next_cursor"]})
        old = await served.client.get("/v1/events", params={"cursor": cursor(FEED, first["pos"])})
        tried = await served.client.get("/v1/events", params={"cursor": cursor(FEED, 2)})

    assert sent.json() == {"data": [], "next_cursor": whole["next_cursor"]}
    assert first["pos"] == 1
    assert [each["id"] for each in old.json()["data"]] == [each["id"] for each in whole["data"][1:]]
    assert (tried.status_code, tried.json()["code"]) == (410, "cursor_expired")


async def test_volume_of_others_does_not_show(served: Served) -> None:
    """Between two events of one account others do much: neither feed, stream, jobs nor books show a number that grew."""
    async with await served.account() as other:
        await served.completed()
        before = (await served.client.get("/v1/events")).json()
        for _ in range(5):
            answer = await other.post(
                "/v1/jobs",
                json={"provider": "sandbox", "operation": "generate", "input": {"prompt": "A dog"}},
                headers={"Prefer": "wait=30"},
            )
            assert answer.status_code == 200
        await served.completed()
        after = (await served.client.get("/v1/events", params={"cursor": before["next_cursor"]})).json()
        moved = (await served.client.get("/v1/account/transfers")).json()["data"]
    places = [row["pos"] for row in await served.rows("SELECT pos FROM events WHERE pos IS NOT NULL ORDER BY pos")]
    shown = {name for event in after["data"] for name in event} | {name for row in moved for name in row}

    assert places[-1] > len(before["data"]) + len(after["data"])
    assert after["data"]
    assert all(isinstance(row["id"], str) and row["id"].startswith("trf_") for row in moved)
    assert "pos" not in shown
    assert {len(each["next_cursor"]) for each in (before, after)} == {32}
