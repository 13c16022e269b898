"""Taking jobs, looking at them, waiting for them, and deciding about them, over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import PICTURE, STUCK, Served, serve

CONTRACT_EXAMPLE = {
    "provider": "apimodels",
    "operation": "generate",
    "input": {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet", "aspect_ratio": "16:9"},
    "callback_url": "http://127.0.0.1:9/hooks/images",
    "callback_events": ["job.completed", "job.failed"],
    "metadata": {"order": "4711"},
    "tags": ["shop"],
    "expires_in_s": 604800,
}
NO_JOB = "job_01990000-0000-7000-8000-000000000000"


async def test_job_is_taken_and_shown_as_in_the_contract(served: Served) -> None:
    """202, a Location that leads to the job, and every field of the request as it was sent."""
    taken = await served.client.post("/v1/jobs", json=CONTRACT_EXAMPLE)
    shown = await served.client.get(taken.headers["location"])

    assert taken.status_code == 202
    assert taken.headers["location"] == f"/v1/jobs/{taken.json()['id']}"
    assert taken.json()["status"] == "queued"
    assert shown.status_code == 200
    job = shown.json()
    assert {name: job[name] for name in ("provider", "operation", "input", "metadata", "tags")} == {
        name: CONTRACT_EXAMPLE[name] for name in ("provider", "operation", "input", "metadata", "tags")
    }
    assert job["cost"] == {"currency": "USD", "estimated": "0.010000", "charged": None, "basis": "price_list"}
    assert (job["results"], job["error"], job["polls"], job["callbacks"]) == ([], None, 0, 0)


async def test_job_may_be_waited_for_when_it_is_taken(served: Served) -> None:
    """`Prefer: wait=N` answers 200 with the final job, and tells that it waited."""
    answer = await served.client.post("/v1/jobs", json=PICTURE, headers={"Prefer": "respond-async, wait=30"})

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job = answer.json()
    assert (job["status"], job["resolved_by"], len(job["results"])) == ("completed", "response", 1)


async def test_wait_ends_with_what_there_is(served: Served) -> None:
    """A job that does not become final in time is answered 202 as it then is; more than a minute is cut to one."""
    answer = await served.client.post("/v1/jobs", json=STUCK, headers={"Prefer": 'wait="1"'})
    nonsense = await served.client.get(answer.headers["location"], headers={"Prefer": "wait=soon"})

    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert nonsense.status_code == 200
    assert "preference-applied" not in nonsense.headers


async def test_wait_is_woken_by_the_end_of_the_job(served: Served) -> None:
    """A GET that waits is answered as soon as the job is final, here by a cancellation."""
    job = await served.take()
    waiting = asyncio.create_task(served.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=55"}))
    while not served.service._stages.waiters._waiting:  # noqa: ASYNC110 - nothing tells that somebody waits
        await asyncio.sleep(0)
    await served.client.post(f"/v1/jobs/{job['id']}/cancel")
    async with asyncio.timeout(10):
        answer = await waiting

    assert answer.json()["status"] == "cancelled"
    assert served.service._stages.waiters._waiting == {}


async def test_wait_is_let_go_when_the_service_drains(served: Served) -> None:
    """Nobody is held by a service that stops."""
    job = await served.take()
    waiting = asyncio.create_task(served.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=55"}))
    while not served.service._stages.waiters._waiting:  # noqa: ASYNC110 - nothing tells that somebody waits
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await served.service.close()
        answer = await waiting

    assert answer.status_code == 200


async def test_etag_spares_the_body_until_the_job_changes(served: Served) -> None:
    """304 for what the caller has, in all forms of the header; 200 and another tag once the job moved."""
    job = await served.take()
    url = f"/v1/jobs/{job['id']}"
    tag = (await served.client.get(url)).headers["etag"]
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = await served.client.get(url, headers={"If-None-Match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), given
    await served.client.post(f"{url}/cancel")
    other = await served.client.get(url, headers={"If-None-Match": tag})

    assert other.status_code == 200
    assert other.headers["etag"] != tag


async def test_idempotency_key_gives_the_first_answer_again(served: Served) -> None:
    """Same key and body: the same bytes and a header that says so, quoted or bare, also at the same time; one job."""
    headers = {"Idempotency-Key": "order-4711"}
    answers = await asyncio.gather(*(served.client.post("/v1/jobs", json=STUCK, headers=headers) for _ in range(5)))
    quoted = await served.client.post("/v1/jobs", json=STUCK, headers={"Idempotency-Key": '"order-4711"'})
    other = await served.client.post("/v1/jobs", json={**STUCK, "tags": ["x"]}, headers=headers)
    bad = await served.client.post("/v1/jobs", json=STUCK, headers={"Idempotency-Key": "a b"})

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in [*answers, quoted]}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 4
    assert quoted.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (bad.status_code, bad.json()["code"]) == (400, "idempotency_key_invalid")
    assert await served.count() == 1


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"provider": "nobody"}, 422, "/provider"),
        ({"provider": "sharkai"}, 422, "/provider"),  # not configured
        ({"provider": 7}, 422, "/provider"),
        ({"operation": "paint"}, 422, "/operation"),
        ({"input": {"model": "sparkpix", "prompt": 5}}, 422, "/input/prompt"),
        ({"input": []}, 422, "/input"),
        ({"callback_url": "http://10.0.0.1/hook"}, 422, "/callback_url"),
        ({"callback_url": "http://169.254.169.254/latest"}, 422, "/callback_url"),
        ({"callback_url": "ftp://backend.example/"}, 422, "/callback_url"),
        ({"callback_url": "http://no-such-host.invalid/"}, 422, "/callback_url"),
        ({"callback_events": ["job.completed"]}, 422, "/callback_events"),
        ({"metadata": {"a": 1}}, 422, "/metadata/a"),
        ({"tags": ["x" * 65]}, 422, "/tags/0"),
        ({"expires_in_s": 59}, 422, "/expires_in_s"),
        ({"expires_in_s": 10**18}, 422, "/expires_in_s"),
        ({"colour": "red"}, 422, "/colour"),
    ],
)
async def test_bad_request_names_the_field_and_stores_nothing(
    served: Served, change: dict[str, Any], status: int, pointer: str
) -> None:
    """A problem with a pointer to the field and a hint; nothing is stored."""
    answer = await served.client.post("/v1/jobs", json={**STUCK, **change})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert all(error["detail"] for error in answer.json()["errors"])
    assert await served.count() == 0


async def test_plus_of_a_zone_is_told_how_to_be_written(served: Served) -> None:
    """In a query a + is a blank, which nobody sees who pastes a time with a zone."""
    answer = await served.client.get("/v1/jobs?created_after=2026-11-21T10:00:00+01:00")

    assert answer.status_code == 400
    assert "write it as %2B, or use Z" in answer.json()["detail"]


async def test_private_callback_url_names_what_to_allow(tmp_path: Path) -> None:
    """Field, reason and a network to paste, once each; the code says it once, too."""
    async with serve(tmp_path, REMORA_EGRESS_ALLOW="") as served:
        private = await served.client.post("/v1/jobs", json=STUCK | {"callback_url": "http://127.0.0.1:9000/"})
        broken = await served.client.post("/v1/jobs", json=STUCK | {"callback_url": "backend.example/hook"})
    problem = private.json()
    [error] = problem["errors"]

    assert (private.status_code, problem["code"]) == (422, "callback_url_address_forbidden")
    assert error["pointer"] == "/callback_url"
    assert problem["detail"] == f"/callback_url: {error['detail']}"
    assert "add 127.0.0.0/8 to REMORA_EGRESS_ALLOW" in error["detail"]
    assert "callback_url" not in error["detail"]
    assert (broken.status_code, broken.json()["code"]) == (422, "callback_url_invalid")


async def test_list_is_filtered_and_paged(served: Served) -> None:
    """Newest first, every filter by itself, pages that join without gap or doubling."""
    jobs = [await served.take(tags=[f"t{n}"], metadata={"order": str(n)}) for n in range(5)]
    done = await served.completed(tags=["t9"])
    ids = [job["id"] for job in [*jobs, done]][::-1]
    pages: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = (await served.client.get("/v1/jobs", params=params)).json()
        pages += [job["id"] for job in answer["data"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break

    assert pages == ids
    for query, expected in (
        ("status=completed", [done["id"]]),
        ("status=completed,queued", ids),
        ("status=completed&status=queued", ids),
        ("provider=sandbox", [done["id"]]),
        ("operation=paint", []),
        ("tag=t3", [jobs[3]["id"]]),
        ("metadata.order=2", [jobs[2]["id"]]),
        ("provider_task_id=nope", []),
        ("created_before=2020-01-01T00:00:00Z", []),
        ("created_after=2020-01-01T00:00:00%2B01:00", ids),
    ):
        answer = (await served.client.get(f"/v1/jobs?{query}")).json()
        assert [job["id"] for job in answer["data"]] == expected, query
    assert (await served.client.get("/v1/jobs?status=completed")).json()["data"][0]["results"]


async def test_nothing_crosses_accounts(served: Served) -> None:
    """Another account's job is not there: not to look at, to cancel, to list, nor its results."""
    job = await served.completed()
    url = f"/v1/jobs/{job['id']}"
    other = await served.account()
    async with other:
        answers = [
            await other.get(url),
            await other.get(f"{url}/events"),
            await other.get(f"{url}/results/0"),
            await other.post(f"{url}/cancel"),
            await other.post(f"{url}/resubmit"),
        ]
        listed = await other.get("/v1/jobs")

    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["code"] for answer in answers} == {"not_found"}
    assert listed.json() == {"data": [], "next_cursor": None}


async def test_queued_job_is_cancelled_once(served: Served) -> None:
    """200 with the job, a second time too; what is final otherwise is 409."""
    job = await served.take()
    done = await served.completed()
    first = await served.client.post(f"/v1/jobs/{job['id']}/cancel")
    again = await served.client.post(f"/v1/jobs/{job['id']}/cancel", json={})
    late = await served.client.post(f"/v1/jobs/{done['id']}/cancel", json={"force": True})
    wrong = await served.client.post(f"/v1/jobs/{job['id']}/cancel", json={"force": "yes"})

    assert (first.status_code, first.json()["status"], first.json()["resolved_by"]) == (200, "cancelled", "api")
    assert again.json() == first.json()
    assert (late.status_code, late.json()["code"]) == (409, "not_cancellable")
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/force")


async def test_unknown_submit_needs_a_decision(served: Served) -> None:
    """In submit_unknown a plain cancel is 409 and says how to force it; a resubmit queues the same job again."""
    job = await served.take()
    url = f"/v1/jobs/{job['id']}"
    await served.sql(
        "UPDATE jobs SET status = 'submit_unknown', due_at = expires_at, lease_owner = NULL, lease_until = NULL, "
        "lease_epoch = lease_epoch + 1 WHERE id = :id",
        id=job["id"],
    )
    refused = await served.client.post(f"{url}/cancel")
    again = await served.client.post(f"{url}/resubmit")
    timeline = (await served.client.get(f"{url}/events")).json()["data"]

    assert refused.status_code == 409
    assert '{"force": true}' in refused.json()["detail"]
    assert (again.status_code, again.json()["id"]) == (200, job["id"])
    assert again.json()["status"] in {"queued", "submitting"}
    assert "job.resubmitted" in [row["type"] for row in timeline]


async def test_failed_job_is_done_again_as_a_new_one(served: Served) -> None:
    """201 with a new job that names the old one; a completed job is not done again."""
    job = await served.take(metadata={"order": "1"})
    await served.sql(
        "UPDATE jobs SET status = 'expired', finished_at = :now, due_at = NULL, overdue_at = NULL, lease_owner = NULL, "
        "lease_until = NULL, lease_epoch = lease_epoch + 1 WHERE id = :id",
        id=job["id"],
        now=served.service.clock.now_ms(),
    )
    again = await served.client.post(f"/v1/jobs/{job['id']}/resubmit")
    done = await served.completed()
    refused = await served.client.post(f"/v1/jobs/{done['id']}/resubmit")

    assert again.status_code == 201
    assert again.headers["location"] == f"/v1/jobs/{again.json()['id']}"
    assert (again.json()["retry_of"], again.json()["metadata"]) == (job["id"], {"order": "1"})
    assert again.json()["id"] != job["id"]
    assert (refused.status_code, refused.json()["code"]) == (409, "not_resubmittable")


async def test_job_is_not_done_again_with_an_input_that_its_card_does_not_take(served: Served) -> None:
    """The card may have changed since: 422 with the field, and nothing is taken."""
    job = await served.take()
    await served.sql(
        "UPDATE jobs SET status = 'expired', finished_at = created_at, due_at = NULL, overdue_at = NULL, lease_owner = NULL, "
        "lease_until = NULL, lease_epoch = lease_epoch + 1, input = '{}', input_full = NULL"
    )
    refused = await served.client.post(f"/v1/jobs/{job['id']}/resubmit")

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid"), refused.text
    assert "/input/prompt" in [error["pointer"] for error in refused.json()["errors"]]
    assert len(await served.rows("SELECT id FROM jobs")) == 1


async def test_timeline_is_told_oldest_first_in_pages(served: Served) -> None:
    """Every row once, in the order of `seq`, over as many pages as it takes."""
    job = await served.completed()
    url = f"/v1/jobs/{job['id']}/events"
    whole = (await served.client.get(url)).json()
    first = (await served.client.get(url, params={"limit": 1})).json()
    rest = (await served.client.get(url, params={"cursor": first["next_cursor"]})).json()

    assert whole["next_cursor"] is None
    assert (whole["data"][0]["type"], whole["data"][-1]["type"]) == ("job.queued", "job.completed")
    assert [row["seq"] for row in whole["data"]] == sorted(row["seq"] for row in whole["data"])
    assert first["data"] + rest["data"] == whole["data"]


async def test_result_is_reached_by_a_short_lived_link(served: Served) -> None:
    """302 to a link that works without a key; there is no second result, and none of an expired one."""
    job = await served.completed()
    url = f"/v1/jobs/{job['id']}/results"
    answer = await served.client.get(f"{url}/0")
    picture = await served.stranger.get(answer.headers["location"])
    missing = [await served.client.get(f"{url}/{index}") for index in ("1", "99999", "-1", "0x0", "9" * 400)]
    await served.sql("UPDATE results SET expires_at = 1")
    gone = await served.client.get(f"{url}/0")

    assert answer.status_code == 302
    assert answer.headers["location"] != job["results"][0]["url"]
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert [each.status_code for each in missing] == [404] * 5
    assert (gone.status_code, gone.json()["code"]) == (410, "result_expired")


@pytest.mark.parametrize(
    "job_id", [NO_JOB, "job_1", "x", "job_" + "9" * 3000, "evt_01990000-0000-7000-8000-000000000000"]
)
async def test_unknown_job_is_not_found(served: Served, job_id: str) -> None:
    """404 for every question about what is no job, or not even an id."""
    url = f"/v1/jobs/{job_id}"
    answers: list[httpx.Response] = [
        await served.client.get(url),
        await served.client.get(url, headers={"Prefer": "wait=30"}),
        await served.client.get(f"{url}/events"),
        await served.client.get(f"{url}/results/0"),
        await served.client.post(f"{url}/cancel"),
        await served.client.post(f"{url}/resubmit"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
