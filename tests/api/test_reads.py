"""What callers' reads may take: pages that nobody can read delay no key, no job and no readiness."""

from __future__ import annotations

from pathlib import Path

from service.db.sqlite.readers import PAGES, SQLiteReader
from tests.api.conftest import PICTURE, serve


async def test_pages_that_are_all_busy_delay_nothing_else(tmp_path: Path) -> None:
    """A page is a 503 with code and `Retry-After` after the deadline; a key that is new here, a job and /readyz go on."""
    async with serve(tmp_path, REMORA_READ_TIMEOUT="100ms") as served:
        pages = served.service._base.store.pages
        assert isinstance(pages, SQLiteReader)
        made = (
            await served.client.post("/v1/keys", json={"name": "new", "scopes": ["jobs:read", "jobs:write"]})
        ).json()
        taken = [await pages._idle.get() for _ in range(PAGES)]
        async with served.keyed(made["secret"]) as caller:
            page = await caller.get("/v1/jobs")
            job = await caller.post("/v1/jobs", json=PICTURE, headers={"Idempotency-Key": "one"})
            again = await caller.post("/v1/jobs", json=PICTURE, headers={"Idempotency-Key": "one"})
            ready = await served.stranger.get("/readyz")
            for connection in taken:
                pages._idle.put_nowait(connection)
            after = await caller.get("/v1/jobs")

    assert (page.status_code, page.json()["code"], page.headers["retry-after"]) == (503, "read_timeout", "5")
    assert (job.status_code, again.status_code) == (202, 202)
    assert again.headers["idempotent-replayed"] == "true"
    assert ready.status_code == 200
    assert after.status_code == 200
