"""Results last: our copies are made beside the events, served under the same link, and let go at their end."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import httpx

from service.results.storage import MARKER
from service.settings import provider_variable
from tests.e2e.rig import CAT, Rig, rig
from tests.egress.raw import Peer, serving
from tests.receiver import PATIENCE_S, Received
from tests.results.files import picture


def of_type(event_type: str) -> Any:
    return lambda received: isinstance(received, Received) and received.type == event_type


async def kept(machine: Rig, job_id: str) -> dict[str, Any]:
    """The job once every result has its copy."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job = await machine.job(job_id)
            if job["status"] == "completed" and all(each["stored"] for each in job["results"]):
                return job
            await asyncio.sleep(0.02)


async def test_result_is_kept_and_its_link_stays(tmp_path: Path) -> None:
    """The link of the final event serves our copy later; one `result.stored` tells what it is."""
    async with rig(tmp_path) as machine:
        taken = await machine.take(callback_events=["job.completed", "result.stored"])
        [final] = await machine.receiver.wait_for(1, of=of_type("job.completed"))
        [stored] = await machine.receiver.wait_for(1, of=of_type("result.stored"))
        job = await kept(machine, taken["id"])
        url = final.job["results"][0]["url"]
        before = len(machine.sandbox.requests)
        async with httpx.AsyncClient(trust_env=False) as stranger:
            copy = await stranger.get(url)

    told = stored.event["data"]["result"]
    assert copy.status_code == 200
    assert told["sha256"] == hashlib.sha256(copy.content).hexdigest() == job["results"][0]["sha256"]
    assert told["size_bytes"] == len(copy.content)
    assert told["url"] == url
    assert (told["stored"], told["content_type"]) == (True, copy.headers["content-type"])
    assert told["width"] > 0
    assert told["height"] > 0
    assert "source_url" not in told
    assert stored.event["data"]["seq"] > final.event["data"]["seq"]
    assert [each for each in machine.sandbox.requests[before:] if "/files/" in each.path] == []


async def test_erased_job_keeps_its_row_and_nothing_of_its_prompt(tmp_path: Path) -> None:
    """Prompt, reference picture, files, callbacks, events and answers go; the row, its timeline and its cost stay."""
    secret = "a secret prompt " + "x" * 3_000
    async with rig(tmp_path) as machine:
        early = await machine.take(secret, headers={"Idempotency-Key": "k1"})
        refused = await machine.api.delete(f"/v1/jobs/{early['id']}")
        job = await kept(machine, early["id"])
        [final] = await machine.receiver.wait_for(1, of=of_type("job.completed"))
        first = await machine.api.delete(f"/v1/jobs/{early['id']}")
        again = await machine.api.delete(f"/v1/jobs/{early['id']}")
        erased = await machine.job(early["id"])
        replayed = await machine.api.post(
            "/v1/jobs",
            headers={"Idempotency-Key": "k1"},
            json={"provider": "apimodels", "operation": "generate", "callback_url": machine.receiver.url}
            | {"input": CAT | {"prompt": secret}},
        )
        link = await machine.api.get(final.job["results"][0]["url"])
        timeline = [row["type"] for row in await machine.timeline(early["id"])]
        deliveries = (await machine.api.get("/v1/deliveries", params={"job": early["id"]})).json()["data"]
        feed = (await machine.api.get("/v1/events")).json()["data"]

    assert (refused.status_code, refused.json()["code"]) in {(409, "not_final"), (204, "")}
    assert (first.status_code, again.status_code) == (204, 204)
    assert (erased["input"], erased["erased"], erased["cost"]) == ({}, True, job["cost"])
    assert [(each["stored"], each["error"]) for each in erased["results"]] == [(False, "erased")]
    assert (link.status_code, link.json()["code"]) == (410, "result_erased")
    assert {"job.queued", "job.completed", "result.stored", "job.erased"} <= set(timeline)
    assert replayed.json()["input"] == {}
    assert deliveries == []
    assert feed == []
    assert files_in(tmp_path / "remora.db.results") == []
    for name in ("remora.db", "remora.db-wal"):
        path = tmp_path / name
        assert not path.exists() or rows_with(tmp_path, secret[:40]) == 0


def files_in(storage: Path) -> list[Path]:
    """All that is kept; the mark of whose the directory is is none of it."""
    return [each for each in storage.rglob("*") if each.is_file() and each.name != MARKER]


def rows_with(directory: Path, text: str) -> int:
    """How many values of the whole database hold a text."""
    connection = sqlite3.connect(f"file:{directory}/remora.db?mode=ro", uri=True)
    found = 0
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in connection.execute(f"SELECT * FROM {table}"):
            found += sum(
                text in (each.decode(errors="replace") if isinstance(each, bytes) else str(each)) for each in row
            )
    connection.close()
    return found


async def test_large_input_lies_apart_and_reaches_the_provider(tmp_path: Path) -> None:
    """A base64 picture lies in the storage, not in the job's row, and is sent as it was given."""
    picture_url = "data:image/png;base64," + base64.b64encode(picture("PNG", (900, 900)) + os.urandom(150_000)).decode()
    given = {"model": "openai/gpt-image-2", "prompt": "x", "image": [picture_url]}
    async with rig(tmp_path) as machine:
        taken = await machine.take(provider="sharkai", input=given)
        await machine.finished(taken["id"])
        job = await kept(machine, taken["id"])
        [sent] = [each for each in machine.sandbox.requests if each.method == "POST" and "generations" in each.path]
        apart = list((tmp_path / "remora.db.results" / "inputs").rglob("*.json"))
        heavy = rows_with(tmp_path, picture_url[-60:])

    assert job["input"]["image"][0].startswith("sha256:")
    assert picture_url[:10_000] in sent.body  # the sandbox keeps the beginning only
    assert len(apart) == 1
    assert heavy == 0


async def test_expiry_is_announced_and_the_copy_goes(tmp_path: Path) -> None:
    """At its end a result is announced as gone, once, its file is removed, and its link answers 410."""
    async with rig(tmp_path, env={"REMORA_RESULT_TTL": "4s"}) as machine:
        taken = await machine.take(callback_events=["result.stored", "result.expired"])
        [stored] = await machine.receiver.wait_for(1, of=of_type("result.stored"))
        [expired] = await machine.receiver.wait_for(1, of=of_type("result.expired"))
        link = await machine.api.get(stored.job["results"][0]["url"])
        job = await machine.job(taken["id"])
        files = files_in(tmp_path / "remora.db.results")

    assert expired.event["data"]["result"]["index"] == 0
    assert job["results"][0]["stored"] is False
    assert link.status_code == 410
    assert files == []


async def test_every_result_of_a_provider_comes_home(tmp_path: Path) -> None:
    """Strange links are fetched as they were given; what is none, or no picture, is a result that says why."""
    png = picture("PNG")
    text = base64.encodebytes(png).decode().rstrip("=\n")
    files = {
        "/a%20b.png?sig=%2F%7e%2B": (png, "X-A: b"),
        f"/long.png?token={'x' * 8_000}": (png, "Content-Encoding: aws-chunked"),
        "/packed.png?": (gzip.compress(png), "Content-Encoding: gzip"),
        "/own.png": (png, "Content-Encoding: utf-8"),
        "/page.png": (b"<html></html>", "Content-Type: image/png"),
    }

    async def provider(peer: Peer) -> None:
        await peer.request()
        method, target, _ = peer.heard[-1][0].split("\r\n")[0].split(" ")
        here = f"http://127.0.0.1:{server.port}"
        urls = [f" {here}/a b.png?sig=%2F%7e%2B#part ", 7, f"{here}/long.png?token={'x' * 8_000}", None, "no link"]
        urls += [[f"{here}/packed.png?", "/own.png"], f"DATA:image/png;base64,{text}", f"{here}/page.png"]
        done = {"code": 200, "msg": "ok", "data": {"taskId": "t1", "state": "completed", "resultUrls": urls}}
        body, header = files.get(target, (b"", "X-A: b")) if method == "GET" else (json.dumps(done).encode(), "X-A: b")
        await peer.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n".encode() + body)

    def base_url() -> dict[str, str]:
        return {provider_variable("apimodels", "BASE_URL"): f"http://127.0.0.1:{server.port}"}

    async with serving(provider) as server, rig(tmp_path, env=base_url()) as machine:
        job_id = (await machine.take())["id"]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                results = (await machine.job(job_id))["results"]
                if sum(result["stored"] for result in results) == 5:
                    break
                await asyncio.sleep(0.02)
        lost = [row["detail"] for row in await machine.timeline(job_id) if row["type"] == "result.lost"]
        [event] = (await machine.api.get("/v1/events", params={"job": job_id, "type": "job.completed"})).json()["data"]
        async with httpx.AsyncClient(trust_env=False) as stranger:
            copies = [(await stranger.get(result["url"])).content for result in results if result["stored"]]
    here = f"http://127.0.0.1:{server.port}"

    told = {each["index"]: each["error"] for each in event["data"]["job"]["results"] if "error" in each}
    assert told == {1: "url_invalid", 3: "url_invalid"}
    assert [result["stored"] for result in results] == [True, False, True, False, True, True, True, False]
    assert [result["source_url"] for result in results] == [
        f"{here}/a%20b.png?sig=%2F%7e%2B#part",
        None,
        f"{here}/long.png?token={'x' * 8_000}",
        None,
        f"{here}/packed.png?",
        f"{here}/own.png",
        None,
        f"{here}/page.png",
    ]
    assert (results[1]["error"], results[3]["error"]) == ("url_invalid", "url_invalid")
    assert copies == [png] * 5
    assert lost == [{"index": 1, "reason": "url_invalid"}, {"index": 3, "reason": "url_invalid"}]
