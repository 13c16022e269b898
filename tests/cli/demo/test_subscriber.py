"""The demo's subscriber believes only what is signed with its secret."""

from __future__ import annotations

import json
import time

import aiohttp
import pytest

from service.cli.demo.subscriber import Arrival, Subscriber
from service.clock import SystemClock
from service.signing import signature_headers

SECRET = b"a secret of thirty-two bytes....."
EVENT = {
    "type": "job.completed",
    "timestamp": "2026-11-21T10:00:00.000Z",
    "data": {"seq": 4, "job": {"id": "job_1", "provider": "sandbox", "operation": "generate", "status": "completed"}},
}


async def post(body: bytes, headers: dict[str, str]) -> tuple[int, list[Arrival]]:
    """What it answers, and what it tells its listener."""
    heard: list[Arrival] = []
    subscriber = Subscriber(SystemClock())
    subscriber.trust(SECRET)
    subscriber.tell(heard.append)
    await subscriber.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(subscriber.url, data=body, headers=headers) as answer,
        ):
            return answer.status, heard
    finally:
        await subscriber.stop()


async def test_subscriber_takes_what_is_signed() -> None:
    """204, and the job is read."""
    body = json.dumps(EVENT).encode()
    status, [arrival] = await post(body, signature_headers([SECRET], "evt_1", int(time.time()), body))

    assert (status, arrival.verified, arrival.event_id, arrival.job.id) == (204, True, "evt_1", "job_1")


@pytest.mark.parametrize("headers", [{}, signature_headers([b"x" * 32], "evt_1", int(time.time()), b"other")])
async def test_subscriber_distrusts_what_is_not(headers: dict[str, str]) -> None:
    """401, and the arrival is marked, so that the demo fails."""
    status, [arrival] = await post(json.dumps(EVENT).encode(), headers)

    assert (status, arrival.verified) == (401, False)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type": "x"}', b"\xff"])
async def test_subscriber_refuses_what_is_no_event(body: bytes) -> None:
    """400, and nobody is told."""
    status, heard = await post(body, {})

    assert (status, heard) == (400, [])
