"""Recording attempts: what became of the delivery while its request was out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from service.deliveries.store import RecordAttempt
from tests.deliveries.desk import OURS, desk


def attempt(delivery_id: str, lane: str, *, delivered: bool) -> RecordAttempt:
    """An answer to the request of a delivery."""
    return RecordAttempt(
        delivery_id=delivery_id,
        account_id=OURS,
        lane=lane,
        subscription_id=lane,
        epoch=0,
        at=1,
        delivered=delivered,
        due_at=None,
        status_code=200 if delivered else 500,
        error=None,
        duration_ms=3,
        response_body=f"thanks for {delivery_id}",
    )


async def test_attempt_of_a_removed_delivery_breaks_nothing(tmp_path: Path) -> None:
    """It is dropped, whether the event arrived or not; the others of its batch are recorded in one go, each with its own."""
    async with desk(tmp_path) as at:
        lane = (await at.make())["id"]
        await at.publish()
        await at.backlog(lane, 70)
        ids = [row[0] for row in at.rows("SELECT id FROM deliveries ORDER BY id")]
        gone = ["dlv_0199a000-0000-7000-8000-00000000000a", "dlv_0199a000-0000-7000-8000-00000000000b"]
        commands = [attempt(each, lane, delivered=True) for each in [ids[0], gone[0], *ids[1:]]]
        with capture_logs() as lines:
            await asyncio.gather(
                *(at.store.writer.run(each) for each in [*commands, attempt(gone[1], lane, delivered=False)])
            )
        kept = at.rows("SELECT delivery_id, response_body FROM attempts ORDER BY delivery_id")
        states = at.rows("SELECT status, count(*) FROM deliveries GROUP BY status")

    assert [line["event"] for line in lines] == []
    assert kept == [(each, f"thanks for {each}") for each in ids]
    assert states == [("delivered", 71)]
