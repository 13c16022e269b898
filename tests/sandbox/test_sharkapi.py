"""The sharkapi dialect, held against sharkapi-image.txt; the expectations are written out from it."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.conftest import Open, WatchedClock

URL = "/api/v1/image"
CAT = {"prompt": "A great white shark in bioluminescent deep ocean", "variant": "1k"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STARTED = "2026-11-18T11:06:40Z"  # where a virtual clock begins


def picture(image_format: str, padding: int = 0) -> str:
    """A small picture in base64, with as many bytes behind it as wished."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, image_format)
    return base64.b64encode(out.getvalue() + bytes(padding)).decode()


async def test_submit_answers_202_as_documented(start: Open) -> None:
    """The five fields of "Response", and a relative URL to poll at."""
    place = await start(speed=1.0, clock=WatchedClock())

    status, body = await place.to("sharkapi").post(CAT, URL)

    assert status == 202
    assert UUID.fullmatch(body["job_id"])
    assert body == {
        "job_id": body["job_id"],
        "status": "queued",
        "poll_url": f"/api/v1/jobs/{body['job_id']}",
        "price_usd": 0.03,
        "created_at": STARTED,
    }


async def test_poll_walks_to_the_image(start: Open) -> None:
    """Queued, processing, completed; the image's URL and the cost come at the end."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    shark = place.to("sharkapi")
    _, made = await shark.post(CAT, URL)
    [task] = place.server.tasks
    times = {"queued_at": STARTED, "started_at": None, "completed_at": None}

    assert await shark.get(made["poll_url"]) == (200, {"job_id": task.id, "status": "queued", **times})
    await clock.pass_by(task.queue_s + 0.001)
    await place.server.until(lambda: place.server.tasks[0].state == "processing")
    assert (await shark.get(made["poll_url"]))[1]["status"] == "processing"
    await clock.pass_by(task.work_s + 0.001)
    await place.ended()
    _, body = await shark.get(made["poll_url"])

    assert (body["status"], body["cost"]) == ("completed", "$0.03")
    assert body["image_url"] == f"{shark.url}/files/{task.id}.jpeg"
    assert STARTED < body["started_at"] < body["completed_at"]


async def test_image_is_there_in_the_variants_size(start: Open) -> None:
    """Variant "1k" is 1024×1024."""
    place = await start("instant")
    _, body = await place.to("sharkapi").post(CAT, URL)

    async with place.caller.session.get(body["image_url"]) as answer:
        assert Image.open(io.BytesIO(await answer.read())).size == (1024, 1024)


@pytest.mark.parametrize("fault", ["failed", "moderated"])
async def test_failed_and_moderated_are_states_and_cost_nothing(start: Open, fault: str) -> None:
    """As it says that "failed or moderated jobs are never charged"."""
    place = await start(f"instant,{fault}")
    shark = place.to("sharkapi")
    _, made = await shark.post(CAT, URL)

    _, body = await shark.get(made["poll_url"])

    assert (body["status"], bool(body["error"])) == (fault, True)
    assert not {"cost", "image_url"} & set(body)


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "x" * 2001}, 400, "2000"),
        ({"variant": 1}, 400, "variant"),
        ({"variant": "2k"}, 422, 'Only "1k"'),
        ({"image": "", "image_url": "https://example.com/a.jpg"}, 400, "image cannot be combined with image_url"),
        ({"image": 7}, 400, "image"),
        ({"image": "no base64!"}, 400, "base64"),
        ({"image": base64.b64encode(b"GIF89a is no JPEG").decode()}, 400, "JPEG, PNG or WebP"),
        ({"image": picture("GIF")}, 400, "JPEG, PNG or WebP"),
        ({"image": "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()}, 400, "JPEG, PNG"),
        ({"image": picture("PNG", 10 * 2**20)}, 400, "10 MB"),
        ({"image_url": "file:///etc/passwd"}, 400, "image_url"),
        ({"image_url": ["https://example.com/a.jpg"]}, 400, "image_url"),
    ],
)
async def test_bad_field_is_refused_in_the_documented_form(
    start: Open, fields: dict[str, Any], status: int, named: str
) -> None:
    """`{"error": …}`, which is what the page's own JavaScript reads."""
    place = await start()

    got, body = await place.to("sharkapi").post({**CAT, **fields}, URL)

    assert (got, set(body)) == (status, {"error"})
    assert named in body["error"]
    assert place.server.tasks == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 2000},
        {"image": picture("JPEG")},
        {"image": picture("PNG")},
        {"image": "data:image/webp;base64," + picture("WEBP")},
        {"image": picture("JPEG", 9 * 2**20)},
        {"image_url": "https://your-cdn.com/reference.jpg"},
    ],
)
async def test_everything_documented_is_taken(start: Open, fields: dict[str, str]) -> None:
    """Both ways to send an image, with and without the prefix, and the longest prompt."""
    place = await start()

    assert (await place.to("sharkapi").post({**CAT, **fields}, URL))[0] == 202


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Authorization", "", 401),
        ("Authorization", "Bearer sk_live_bad", 401),
        ("Authorization", "Bearer sk_live_poor", 402),
        ("Authorization", "Bearer sk_live_revoked", 403),
        ("Content-Type", "text/plain", 400),
    ],
)
async def test_required_headers_are_required(start: Open, header: str, value: str, status: int) -> None:
    """Both lines of "Headers", with the codes of "Errors"."""
    place = await start()
    shark = place.to("sharkapi")
    shark.headers[header] = value

    got, body = await shark.post(CAT, URL)

    assert (got, set(body)) == (status, {"error"})


@pytest.mark.parametrize(("fault", "status"), [("submit-500", 500), ("refused-submit:422", 422)])
async def test_errors_come_on_request(start: Open, fault: str, status: int) -> None:
    """A server-side error and a missing model create nothing."""
    place = await start(fault)

    got, body = await place.to("sharkapi").post(CAT, URL)

    assert (got, set(body), place.server.tasks) == (status, {"error"}, ())


async def test_unknown_job_is_a_404(start: Open) -> None:
    """A job of another provider is unknown here as well."""
    place = await start()
    foreign = await place.caller.create()

    for job_id in ("3a8f2c1d-7b4e-4f9a-b2d6-1c5e8f3a9b7d", foreign):
        assert (await place.to("sharkapi").get(f"/api/v1/jobs/{job_id}"))[0] == 404
