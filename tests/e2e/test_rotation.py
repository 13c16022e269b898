"""What an owner changes of a destination is in force for the very next request: secrets, address, headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import Rig, rig
from tests.receiver import Received, Receiver, verified


async def _next(remora: Rig, receiver: Receiver) -> Received:
    """The next request that a new job brings about, and the job's state is final then."""
    before = len(receiver.received)
    await remora.finished((await remora.take())["id"])
    return (await receiver.wait_for(before + 1))[before]


async def _subscribed(remora: Rig, receiver: Receiver, **fields: Any) -> dict[str, Any]:
    answer = await remora.api.post(
        "/v1/subscriptions", json={"url": receiver.url, "events": ["job.completed"]} | fields
    )
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_rotated_account_secret_signs_the_next_event(tmp_path: Path) -> None:
    """Events just went out with the old secret; those after the 200 verify with the new one, again and again."""
    async with rig(tmp_path) as remora:
        for _ in range(3):
            secret = await remora.secret()
            received = await _next(remora, remora.receiver)

            assert verified(received, secret)["type"] == "job.completed"


async def test_rotated_subscription_secret_signs_the_next_event(tmp_path: Path) -> None:
    """With no grace the old secret signs nothing any more."""
    async with rig(tmp_path) as remora, Receiver() as standing:
        made = await _subscribed(remora, standing)
        first = await _next(remora, standing)
        answer = await remora.api.post(f"/v1/subscriptions/{made['id']}/rotate-secret", json={"grace_s": 0})
        second = await _next(remora, standing)

        assert verified(first, made["secret"])["type"] == "job.completed"
        assert verified(second, answer.json()["secret"])["type"] == "job.completed"
        with pytest.raises(Exception, match="No matching signature"):
            verified(second, made["secret"])


async def test_changed_address_and_headers_are_in_force_for_the_next_event(tmp_path: Path) -> None:
    """The old address gets nothing, the new one gets the new headers."""
    async with rig(tmp_path) as remora, Receiver() as old, Receiver() as new:
        made = await _subscribed(remora, old, headers={"X-Token": "old"})
        first = await _next(remora, old)
        path = f"/v1/subscriptions/{made['id']}"
        await remora.api.patch(path, json={"url": new.url, "headers": {"X-Token": "new"}})
        second = await _next(remora, new)

    assert (first.headers["X-Token"], second.headers["X-Token"]) == ("old", "new")
    assert len(old.received) == 1
