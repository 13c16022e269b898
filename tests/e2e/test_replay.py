"""Replays through the whole service: the same ids and bytes once more, through kill -9, and never to somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.process import Process
from tests.e2e.rig import ADMIN_KEY, check, free_port, rig
from tests.receiver import PATIENCE_S, Receiver, verified

BEGIN = {"since": "2026-01-01T00:00:00Z"}
EVENTS = 2_500


async def until(client: httpx.AsyncClient, path: str, holds: Callable[[Any], bool]) -> Any:
    """The answer once it is as it should become."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await client.get(path)).json()
            if holds(found):
                return found
            await asyncio.sleep(0.02)


async def begin(client: httpx.AsyncClient, subscription_id: str, **body: Any) -> dict[str, Any]:
    """A replay, as it was begun."""
    answer = await client.post(f"/v1/subscriptions/{subscription_id}/replay", json=BEGIN | body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/replays/{answer.json()['id']}"
    return answer.json()  # type: ignore[no-any-return]


async def test_replayed_event_has_the_same_id_and_bytes(tmp_path: Path) -> None:
    """Three times the same event, each signed anew and verified by the second library; one delivery, three attempts."""
    async with rig(tmp_path) as at, Receiver() as standing:
        made = (await at.api.post("/v1/subscriptions", json={"url": standing.url})).json()
        await at.finished((await at.take())["id"])
        deliveries = f"/v1/deliveries?subscription={made['id']}"
        for count in (1, 2, 3):
            await standing.wait_for(count)
            [delivery] = (await until(at.api, deliveries, lambda found: found["data"][0]["status"] == "delivered"))[
                "data"
            ]
            if count < 3:
                replay = await begin(at.api, made["id"], status=["delivered"])
                done = await until(at.api, f"/v1/replays/{replay['id']}", lambda found: found["status"] == "done")
                assert (done["total"], done["looked_at"], done["queued"]) == (done["looked_at"], done["total"], 1)
        for each in standing.received:
            verified(each, made["secret"])

    assert delivery["attempt_count"] == 3
    assert len({(each.id, each.body) for each in standing.received}) == 1
    assert len(standing.received) == 3


async def test_subscription_that_came_late_gets_what_was_before_it(tmp_path: Path) -> None:
    """Only what passes its filters; a dry run says how many before."""
    async with rig(tmp_path) as at, Receiver() as late:
        shop = await at.take(tags=["shop"])
        other = await at.take("A dog", tags=["other"])
        await at.finished(shop["id"])
        await at.finished(other["id"])
        made = (await at.api.post("/v1/subscriptions", json={"url": late.url, "tags": ["shop"]})).json()
        dry = await at.api.post(f"/v1/subscriptions/{made['id']}/replay", json=BEGIN | {"dry_run": True})
        await begin(at.api, made["id"])
        [came] = await late.wait_for(1)

    assert (dry.status_code, dry.json()["count"], dry.json()["by_status"]["missing"]) == (200, 1, 1)
    assert came.job["id"] == shop["id"]
    assert len(late.received) == 1


async def test_replays_belong_to_their_account(tmp_path: Path) -> None:
    """Another account's subscription and replay are not there; what is wrong is told with a pointer; lists have pages."""
    async with rig(tmp_path) as at:
        made = (await at.api.post("/v1/subscriptions", json={"url": at.receiver.url})).json()["id"]
        begun = [(await begin(at.api, made))["id"] for _ in range(3)]
        account = (await at.api.post("/v1/accounts", json={"name": "other"})).json()
        theirs = {"Authorization": f"Bearer {account['key']['secret']}"}
        stranger = [
            await at.api.post(f"/v1/subscriptions/{made}/replay", json=BEGIN, headers=theirs),
            await at.api.get(f"/v1/replays/{begun[0]}", headers=theirs),
            await at.api.post(f"/v1/replays/{begun[0]}/cancel", headers=theirs),
            await at.api.get("/v1/replays/rpl_none"),
        ]
        empty = (await at.api.get("/v1/replays", headers=theirs)).json()
        wrong = await at.api.post(f"/v1/subscriptions/{made}/replay", json={"since": "today", "typs": []})
        first = (await at.api.get("/v1/replays", params={"limit": 2, "subscription": made})).json()
        rest = (await at.api.get("/v1/replays", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [each.status_code for each in stranger] == [404, 404, 404, 404]
    assert empty == {"data": [], "next_cursor": None}
    assert wrong.status_code == 422
    assert {each["pointer"] for each in wrong.json()["errors"]} == {"/typs", "/since"}
    assert [each["id"] for each in first["data"] + rest["data"]] == begun[::-1]


def _publish(directory: Path) -> None:
    """Events that nobody was sent, of the default account, as if the service had written them."""
    with contextlib.closing(sqlite3.connect(directory / "remora.db")) as connection:
        [[account]] = connection.execute("SELECT id FROM accounts").fetchall()
        connection.executemany(
            "INSERT INTO events (id, account_id, seq, type, source, at, pos, body) "
            "VALUES (?, ?, 0, 'subscription.disabled', 'api', 1767300000000, ?, x'7b7d')",
            [(f"evt_{number}", account, number) for number in range(1, EVENTS + 1)],
        )
        connection.commit()


async def test_replay_goes_on_after_kill_9(tmp_path: Path) -> None:
    """Killed twice in the middle: every event arrives, none is queued twice, and the replay knows how far it is."""
    process = Process(tmp_path, free_port(), {})
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    await process.start()
    await process.stop(signal.SIGTERM)
    _publish(tmp_path)
    async with Receiver() as receiver, httpx.AsyncClient(base_url=process.url, headers=headers, trust_env=False) as api:
        await process.start()
        body = {"url": receiver.url, "events": ["subscription.disabled"], "max_in_flight": 50}
        made = (await api.post("/v1/subscriptions", json=body)).json()["id"]
        replay = await begin(api, made)
        for heard in (200, 1_200):
            await receiver.wait_for(heard)
            await process.stop(signal.SIGKILL)
            await process.start()
        while len({each.id for each in receiver.received}) < EVENTS:
            await receiver.wait_for(len(receiver.received) + 1)
        done = await until(api, f"/v1/replays/{replay['id']}", lambda found: found["backlog"] == 0)
        await process.stop(signal.SIGTERM)

    assert {each.id for each in receiver.received} == {f"evt_{number}" for number in range(1, EVENTS + 1)}
    assert (done["status"], done["total"], done["queued"], done["looked_at"]) == ("done", EVENTS, EVENTS, EVENTS)
    check(tmp_path)
