"""Liveness, readiness, metrics, providers, and what every exchange has in common."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.api.conftest import STUCK, Served, serve
from tests.receiver import PATIENCE_S


async def test_health_needs_no_key(served: Served) -> None:
    """200 for GET and HEAD while the process runs and can work."""
    for path in ("/healthz", "/readyz"):
        answers = [await served.stranger.get(path), await served.stranger.head(path)]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].headers["cache-control"] == "no-store"
        assert answers[1].content == b""


async def test_service_that_cannot_work_is_not_ready(served: Served) -> None:
    """503 with the reasons, a time to come back, and as a problem; the process is alive all the same."""
    served.service.stopping.ask("a test")
    ready = await served.stranger.get("/readyz")
    alive = await served.stranger.get("/healthz")

    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert "stopping" in ready.json()["detail"]
    assert int(ready.headers["retry-after"]) > 0
    assert alive.status_code == 200


async def test_strangers_lock_is_one_prompt_refusal(tmp_path: Path) -> None:
    """An operator's shell holds the database: all who wait get 503 and a time to come back, and work goes on by itself."""
    async with serve(tmp_path, REMORA_BUSY_TIMEOUT="100ms") as served:
        with closing(sqlite3.connect(tmp_path / "remora.db", isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            refused = await asyncio.gather(*(served.client.post("/v1/jobs", json=STUCK) for _ in range(20)))
            unready = await served.stranger.get("/readyz")
            listed = await served.client.get("/v1/jobs")
            shell.execute("ROLLBACK")
        taken = await served.client.post("/v1/jobs", json=STUCK)
        async with asyncio.timeout(PATIENCE_S):
            while (await served.stranger.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - it tries every two seconds
                await asyncio.sleep(0.1)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "store_unavailable")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert unready.status_code == 503
    assert "locked" in unready.json()["detail"]
    assert listed.json()["data"] == []
    assert taken.status_code == 202


async def test_store_that_failed_is_told_with_its_reason(served: Served) -> None:
    """Why, and which file; the process ends after it."""
    path = served.service.settings.sqlite_path
    assert path is not None
    path.rename(path.with_name("moved.db"))
    ready = await served.stranger.get("/readyz")

    assert ready.status_code == 503
    assert "moved, deleted or replaced" in ready.json()["detail"]


async def test_log_of_the_database_is_a_metric(served: Served) -> None:
    """Its size in bytes."""
    duties = {duty.name: duty for duty in served.service._stages.duties}
    await duties["log-keeper"].run_once()  # which cuts it after a start
    await served.take()
    await duties["log-keeper"].run_once()
    metrics = (await served.stranger.get("/metrics")).text
    [size] = re.findall(r"^remora_database_log_bytes (\S+)$", metrics, re.MULTILINE)

    assert float(size) > 0


async def test_paused_provider_is_told_wherever_operators_look(served: Served) -> None:
    """It makes nobody unready, but an alarm must see it: its jobs wait. Here it is paused for a day."""
    job = await served.take()
    ready = (await served.stranger.get("/readyz")).json()
    [shown] = [
        each for each in (await served.client.get("/v1/providers")).json()["data"] if each["name"] == "apimodels"
    ]
    metrics = (await served.stranger.get("/metrics")).text

    assert job["status"] == "queued"
    assert 86_000 < ready["providers_paused"]["apimodels"] <= 86_400
    assert 86_000 < shown["health"]["paused_for_s"] <= 86_400
    assert shown["load"] == {"tasks": 0, "submits": 0, "polls": 0}
    assert 'remora_provider_paused_seconds{provider="apimodels"}' in metrics
    assert 'remora_provider_tasks{provider="apimodels"} 0.0' in metrics


async def test_metrics_count_jobs_and_requests_by_route(served: Served) -> None:
    """Prometheus text; routes by their template, so that no id and no token makes a series of its own."""
    job = await served.take()
    await served.client.get(f"/v1/jobs/{job['id']}")
    await served.stranger.get("/no/such/path")
    await served.stranger.post("/callbacks/some-token/below")
    await served.stranger.request("PROPFIND", "/healthz")
    answer = await served.stranger.get("/metrics")
    requests = [line for line in answer.text.splitlines() if line.startswith("remora_http_requests_total")]

    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert 'remora_jobs{status="queued"} 1.0' in answer.text
    assert any('route="/v1/jobs/{job_id}"' in line and 'status="200"' in line for line in requests)
    assert any('route="/callbacks/{token}"' in line and 'status="404"' in line for line in requests)
    assert any('route="(none)"' in line for line in requests)
    assert any('method="other"' in line for line in requests)
    assert job["id"] not in answer.text
    assert "some-token" not in answer.text
    assert "PROPFIND" not in answer.text
    assert "/no/such" not in answer.text


@pytest.mark.parametrize("given", ["abc-123", "a" * 64, "9f:8.7_6"])
async def test_request_id_is_given_back(served: Served, given: str) -> None:
    """The caller's own id comes back, on errors too."""
    answers = [
        await served.stranger.get("/healthz", headers={"Request-Id": given}),
        await served.stranger.get("/nowhere", headers={"Request-Id": given}),
        await served.stranger.post("/callbacks/x", headers={"Request-Id": given}),
    ]

    assert {answer.headers["request-id"] for answer in answers} == {given}


@pytest.mark.parametrize("given", [None, "", "a" * 65, "a b", "a\tb", "<script>"])
async def test_request_id_is_made_where_there_is_none(served: Served, given: str | None) -> None:
    """Each exchange has one; what is no id is not repeated."""
    headers = {} if given is None else {"Request-Id": given}
    ids = {(await served.stranger.get("/healthz", headers=headers)).headers["request-id"] for _ in range(3)}

    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in ids)


async def test_every_answer_forbids_sniffing(served: Served) -> None:
    """Whoever answers: routes, the router, the guard, the map of errors."""
    job = await served.completed()
    answers = [
        await served.stranger.get("/healthz"),
        await served.stranger.get("/nowhere"),
        await served.stranger.get("/v1/jobs"),
        await served.client.post("/v1/jobs", json={}),
        await served.client.get(f"/v1/jobs/{job['id']}"),
        await served.client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": "*"}),
        await served.client.options("/v1/jobs"),
        await served.stranger.get("/callbacks/x"),
        await served.stranger.get("/schema"),
    ]

    assert {answer.headers.get("x-content-type-options") for answer in answers} == {"nosniff"}
    assert all("request-id" in answer.headers for answer in answers)


async def test_json_ends_its_line(served: Served) -> None:
    """So that a shell's prompt does not stand behind an answer; the length counts it."""
    answers = [
        await served.client.post("/v1/jobs", json=STUCK),
        await served.client.post("/v1/jobs", json={}),
        await served.client.get("/v1/jobs"),
        await served.stranger.get("/readyz"),
        await served.stranger.get("/nowhere"),
        await served.stranger.get("/schema"),
    ]

    assert all(answer.content.endswith(b"}\n") for answer in answers)
    assert all(int(answer.headers["content-length"]) == len(answer.content) for answer in answers)


async def test_root_leads_to_the_description(served: Served) -> None:
    """A browser gets the page, a machine the address of the document, neither of them needs a key."""
    browser = await served.stranger.get("/", headers={"Accept": "text/html,*/*"})
    machine = await served.stranger.get("/")

    assert (browser.status_code, browser.headers["location"]) == (302, "/schema")
    assert machine.json()["schema"] == "/schema"
    assert browser.headers["vary"] == machine.headers["vary"] == "Accept"


async def test_log_has_no_query_and_no_secret(
    served: Served, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Paths without their query, and result links as their template."""
    caplog.set_level(logging.DEBUG)  # what went well is told at this level only
    job = await served.completed()
    token = job["results"][0]["url"].rpartition("/")[2]
    await served.client.get("/v1/jobs?tag=very-private")
    await served.stranger.get(f"/r/{token}")
    await served.stranger.get(f"/r/{token}/more")
    out = "".join(capsys.readouterr())

    assert "/v1/jobs" in out
    assert "very-private" not in out
    assert token not in out
    assert "rmk_an-admin-key" not in out


async def test_providers_are_listed_with_what_they_take(served: Served) -> None:
    """Cards in force with schemas, prices, limits, and why one is not configured."""
    listed = (await served.client.get("/v1/providers")).json()
    by_name = {provider["name"]: provider for provider in listed["data"]}
    one = (await served.client.get("/v1/providers/apimodels")).json()
    missing = await served.client.get("/v1/providers/nobody")
    pauses_s = [provider["health"].pop("paused_for_s") for provider in (by_name["apimodels"], one)]  # time goes on

    assert listed["next_cursor"] is None
    assert one == by_name["apimodels"]
    assert 0 < pauses_s[1] <= pauses_s[0]
    assert (one["configured"], one["reason"]) == (True, None)
    generate = one["operations"]["generate"]
    assert generate["input_schema"]["type"] == "object"
    assert "prompt" in generate["input_schema"]["required"]
    assert generate["callback"] is True
    assert generate["learns_by"] == "callback"
    assert generate["price"]["rows"][-1]["amount"] == "0.010000"
    assert by_name["sandbox"]["configured"] is True
    assert by_name["sandbox"]["operations"]["generate"]["learns_by"] == "response"
    assert "sk-test" not in str(listed)
    assert missing.status_code == 404
    assert "apimodels" in missing.json()["detail"]


async def test_provider_without_a_key_says_what_to_set(tmp_path: Path) -> None:
    """Listed as not configured, with the variable's name; a job for it is refused with the same words."""
    async with serve(tmp_path, REMORA_PROVIDERS__APIMODELS__API_KEY="") as served:
        shown = (await served.client.get("/v1/providers/apimodels")).json()
        refused = await served.client.post("/v1/jobs", json=STUCK)

    assert shown["configured"] is False
    assert "REMORA_PROVIDERS__APIMODELS__API_KEY" in shown["reason"]
    assert (refused.status_code, refused.json()["code"]) == (422, "provider_not_configured")
    assert "REMORA_PROVIDERS__APIMODELS__API_KEY" in refused.json()["detail"]
