"""The sharkapi-v1 dialect, held against sharkapi-generate.txt; the expectations are written out from it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.conftest import Open

URL = "/v1/generate"
SHARK = {"mode": "2k", "prompt": "Deep ocean shark, cinematic, 8K"}


@pytest.mark.parametrize(("mode", "cost"), [("1k", "$0.01"), ("2k", "$0.02")])
async def test_submit_answers_200_as_documented(start: Open, mode: str, cost: str) -> None:
    """The four fields of "Response", with the price of the mode."""
    place = await start(speed=1.0)

    status, body = await place.to("sharkapi-v1").post({**SHARK, "mode": mode}, URL)

    job_id = body["job_id"]
    assert job_id.startswith("job_")
    assert (status, body) == (
        200,
        {"job_id": job_id, "status": "queued", "estimated_cost": cost, "poll_url": f"/v1/jobs/{job_id}"},
    )


@pytest.mark.parametrize(("mode", "side", "cost"), [("1k", 1024, "$0.01"), ("2k", 2048, "$0.02")])
async def test_poll_ends_with_the_image_and_its_cost(start: Open, mode: str, side: int, cost: str) -> None:
    """Poll "until complete": the older word; the size is the mode's."""
    place = await start()
    shark = place.to("sharkapi-v1")
    _, made = await shark.post({**SHARK, "mode": mode}, URL)
    await place.ended()

    _, body = await shark.get(made["poll_url"])
    async with place.caller.session.get(body.pop("image_url")) as answer:
        size = Image.open(io.BytesIO(await answer.read())).size

    assert body == {"job_id": made["job_id"], "status": "complete", "cost": cost}
    assert size == (side, side)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"prompt": None}, "prompt"), ({"prompt": 1}, "prompt"), ({"mode": "4k"}, "mode"), ({"mode": 2}, "mode")],
)
async def test_bad_field_is_a_400(start: Open, fields: dict[str, Any], named: str) -> None:
    """The two named fields are held to what the page shows; the body is the vendor's current one."""
    place = await start()

    status, body = await place.to("sharkapi-v1").post({**SHARK, **fields}, URL)

    assert (status, set(body)) == (400, {"error"})
    assert named in body["error"]


@pytest.mark.parametrize("fault", ["failed", "moderated"])
async def test_failed_and_moderated_cost_nothing(start: Open, fault: str) -> None:
    """It is "only charged on successful jobs"."""
    place = await start(f"instant,{fault}")
    shark = place.to("sharkapi-v1")
    _, made = await shark.post(SHARK, URL)

    _, body = await shark.get(made["poll_url"])

    assert (body["status"], set(body)) == (fault, {"job_id", "status", "error"})


async def test_generations_of_the_api_do_not_know_each_others_jobs(start: Open) -> None:
    """Two hosts in life, two sets of jobs here."""
    place = await start()
    _, made = await place.to("sharkapi-v1").post(SHARK, URL)

    assert (await place.to("sharkapi").get(f"/api/v1/jobs/{made['job_id']}"))[0] == 404
    assert (await place.to("sharkapi-v1").get(f"/v1/jobs/{made['job_id']}"))[0] == 200
