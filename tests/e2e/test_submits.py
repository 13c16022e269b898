"""Submitting: refused is tried again, cut is never sent twice, and a callback or an operator heals what is unknown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.e2e.rig import rig


async def test_cut_submit_is_healed_by_its_callback_and_never_sent_twice(tmp_path: Path) -> None:
    """The answer was lost but the task exists: the callback's token names the submission, the fetch confirms it."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:cut-submit]", callback_events=["job.submit_unknown", "job.completed"])
        received = await remora.receiver.wait_for(2)
        job = await remora.finished(taken["id"])

    assert [each.type for each in received] == ["job.submit_unknown", "job.completed"]
    assert (job["status"], job["resolved_by"]) == ("completed", "callback")
    assert remora.submits() == 1


async def test_cut_submit_that_never_arrived_waits_for_an_operator(tmp_path: Path) -> None:
    """Nothing heals it: it stays submit_unknown, cannot be cancelled without force, and a resubmit completes it."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:cut-submit-lost=1]")
        unknown = await remora.until(taken["id"], "submit_unknown")
        refused = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel")
        submits = remora.submits()
        resubmitted = await remora.api.post(f"/v1/jobs/{taken['id']}/resubmit")
        again = await remora.until(taken["id"], "submit_unknown", "completed")

    assert unknown["error"] is None
    assert refused.status_code == 409
    assert refused.json()["code"] == "not_cancellable"
    assert submits == 1
    assert resubmitted.status_code == 200
    assert again["status"] in {"submit_unknown", "completed"}


@pytest.mark.parametrize(
    ("fault", "cause", "word"),
    [("cut-submit-lost", "connection_cut", "cut the connection"), ("submit-500", "http_500", "answered 500")],
)
async def test_log_says_why_nobody_knows(fault: str, cause: str, word: str, tmp_path: Path) -> None:
    """The line and the timeline name the cause; the line has job, account and provider, too."""
    async with rig(tmp_path) as remora:
        with capture_logs() as lines:
            taken = await remora.take(f"a cat [fault:{fault}]")
            await remora.until(taken["id"], "submit_unknown")
        [row] = [row for row in await remora.timeline(taken["id"]) if row["type"] == "job.submit_unknown"]

    [line] = [line for line in lines if line["event"] == "job_submit_unknown"]
    assert (line["job"], line["provider"], line["code"]) == (taken["id"], "apimodels", cause)
    assert line["account"].startswith("acc_")
    assert word in line["reason"]
    assert row["detail"]["cause"] == cause


async def test_unknown_submit_is_given_up_with_force_only(tmp_path: Path) -> None:
    """{"force": true} cancels it."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:cut-submit-lost]")
        await remora.until(taken["id"], "submit_unknown")
        answer = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel", json={"force": True})
        await remora.receiver.wait_for(1)

    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert remora.submits() == 1


async def test_refused_submit_is_tried_again(tmp_path: Path) -> None:
    """429 is provably without effect: sent again after a while, and then it completes."""
    async with rig(tmp_path, faults="refused-submit:429=1") as remora:
        taken = await remora.take()
        job = await remora.finished(taken["id"])
        timeline = await remora.timeline(taken["id"])

    assert job["status"] == "completed"
    assert remora.submits() == 2
    assert "submit.refused" in [row["type"] for row in timeline]


async def test_rejected_submit_fails_with_the_providers_words(tmp_path: Path) -> None:
    """401 is final: the operator's key is wrong."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:refused-submit:401]")
        job = await remora.finished(taken["id"])

    assert (job["status"], job["error"]["code"]) == ("failed", "provider_auth")
    assert remora.submits() == 1


async def test_instant_answer_completes_without_callback_or_poll(tmp_path: Path) -> None:
    """A submit that answers `completed` is final."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:instant] [fault:lost-callback]")
        job = await remora.finished(taken["id"])

    assert (job["status"], job["resolved_by"], job["polls"]) == ("completed", "response", 0)


async def test_provider_that_is_down_keeps_jobs_queued(tmp_path: Path) -> None:
    """Connection refused is provably not sent: the job waits in the queue, and can be cancelled there."""
    async with rig(tmp_path) as remora:
        await remora.sandbox.stop()
        taken = await remora.take()
        async with asyncio.timeout(10):
            while "submit.not_sent" not in [row["type"] for row in await remora.timeline(taken["id"])]:  # noqa: ASYNC110 - the API is what is asked, as a caller would
                await asyncio.sleep(0.02)
        job = await remora.job(taken["id"])
        cancelled = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel")

    assert job["status"] in {"queued", "submitting"}
    assert cancelled.status_code in {200, 409}


async def test_failing_polls_do_not_fail_a_job(tmp_path: Path) -> None:
    """The poller's trouble is not the job's."""
    async with rig(tmp_path, REMORA_PROVIDERS__APIMODELS__FALLBACK_AFTER="1s") as remora:
        taken = await remora.take("a cat [fault:lost-callback] [fault:failing-polls:2]")
        job = await remora.finished(taken["id"])

    assert job["status"] == "completed"
    assert job["polls"] >= 3


async def test_sandbox_card_needs_neither_key_nor_network(tmp_path: Path) -> None:
    """The sandbox provider draws a picture, and the result link serves it."""
    async with rig(tmp_path) as remora:
        taken = await remora.take(provider="sandbox", input={"prompt": "a lighthouse at night"})
        job = await remora.finished(taken["id"])
        picture = await remora.api.get(job["results"][0]["url"])

    assert job["status"] == "completed"
    assert picture.status_code == 200
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


async def test_result_link_leads_to_the_providers_file(tmp_path: Path) -> None:
    """/r/{token} works without a key and redirects; a forged one is 404."""
    async with rig(tmp_path) as remora:
        taken = await remora.take()
        job = await remora.finished(taken["id"])
        link = job["results"][0]["url"]
        found = await remora.api.get(link, headers={"Authorization": ""})
        forged = await remora.api.get(link[:-2] + ("AA" if not link.endswith("AA") else "BB"))
        file = await remora.api.get(found.headers["location"])

    assert found.status_code == 302
    assert found.headers["location"].startswith(remora.sandbox.base_url)
    assert file.content.startswith(b"\xff\xd8")
    assert forged.status_code == 404


async def test_wait_that_runs_out_is_answered_with_the_job_as_it_is_now(tmp_path: Path) -> None:
    """Who waited three seconds is not told what was true before them."""
    async with rig(tmp_path) as remora:
        body = {"provider": "apimodels", "input": {"model": "sparkpix", "prompt": "a cat [fault:stuck]"}}
        answer = await remora.api.post("/v1/jobs", json=body, headers={"Prefer": "wait=2"})

    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert answer.json()["provider_task_id"]
