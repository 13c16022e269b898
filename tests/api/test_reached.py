"""Where callers reach the service: links by the host they ask for, and a path in front of ours, taken away or not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.api.requests.prefix import BelowPrefix
from service.api.routes.callbacks import serve_callback
from tests.api.conftest import PICTURE, serve
from tests.receiver import Receiver

PUBLIC = "https://h.example/remora"


@pytest.mark.parametrize("host", ["remora.internal", "REMORA:8090", "10.1.2.3:80", "[2001:db8::1]:8090", "localhost"])
async def test_link_leads_where_the_caller_came_to(host: str, tmp_path: Path) -> None:
    """Without a public URL nobody else knows how this service is reached; the file is behind the link's path."""
    async with serve(tmp_path, REMORA_HOST="0.0.0.0") as served:
        job = await served.completed()
        url = f"/v1/jobs/{job['id']}"
        shown = (await served.client.get(url, headers={"Host": host})).json()
        listed = (await served.client.get("/v1/jobs", headers={"Host": host})).json()["data"][0]
        moved = await served.client.get(f"{url}/results/0", headers={"Host": host})
        link = shown["results"][0]["url"]
        file = await served.stranger.get(link.removeprefix(f"http://{host}"))

    assert link.startswith(f"http://{host}/r/")
    assert listed["results"][0]["url"] == link
    assert moved.headers["location"].startswith(f"http://{host}/r/")
    assert file.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("user@evil.example", "evil.example/path", "evil.example?x", "evil.example#x", "a b", "a\tb", "[::1", ""),
        *(
            "evil.example:80:80",
            "evil.example:port",
            "ev\xefl.example",
            "-evil",
            "a" * 300,
            "evil.example\\x",
            "<script>",
        ),
    ],
)
async def test_strange_host_stands_in_no_link(host: str, tmp_path: Path) -> None:
    """Nothing that leads elsewhere than it seems to; then the link is as in an event."""
    async with serve(tmp_path, REMORA_HOST="0.0.0.0") as served:
        await served.completed()
        listed = await served.client.get("/v1/jobs", headers={b"Host": host.encode("latin-1")})

    if listed.status_code == 200:
        assert listed.json()["data"][0]["results"][0]["url"].startswith("http://localhost:")


async def test_event_never_says_where_one_caller_came_to(tmp_path: Path) -> None:
    """An event goes to others: of all addresses it names none, and what one caller asked for is not in it."""
    async with Receiver() as receiver, serve(tmp_path, REMORA_HOST="0.0.0.0") as served:
        body = {**PICTURE, "callback_url": receiver.url}
        await served.client.post("/v1/jobs", json=body, headers={"Host": "evil.example"})
        [event] = await receiver.wait_for(1)

    assert "evil.example" not in json.dumps(event.event)
    assert event.job["results"][0]["url"].startswith("http://localhost:")


async def test_public_url_is_the_last_word(tmp_path: Path) -> None:
    """Where the operator said how the service is reached, no caller says otherwise."""
    async with serve(tmp_path, REMORA_PUBLIC_URL=PUBLIC) as served:
        job = await served.completed()
        shown = (await served.client.get(f"/v1/jobs/{job['id']}", headers={"Host": "evil.example"})).json()

    assert shown["results"][0]["url"].startswith(f"{PUBLIC}/r/")


@pytest.mark.parametrize("prefix", ["", "/remora"])
async def test_every_route_answers_below_the_prefix_and_without_it(prefix: str, tmp_path: Path) -> None:
    """The proxy may take the path away or leave it; what leads on always has it, since callers come through the proxy."""
    async with serve(tmp_path, REMORA_PUBLIC_URL=PUBLIC) as served:
        answer = await served.client.post(f"{prefix}/v1/jobs", json=PICTURE, headers={"Prefer": "wait=30"})
        link = answer.json()["results"][0]["url"]
        asked = {
            path: await served.stranger.get(f"{prefix}{path}")
            for path in (
                "/healthz",
                "/readyz",
                "/metrics",
                "/schema",
                "/schema/openapi.json",
                "/schema/static/start.js",
            )
        }
        file = await served.stranger.get(prefix + link.removeprefix(PUBLIC))
        page = await served.stranger.get(f"{prefix}/schema", headers={"Accept": "text/html"})
        root = await served.stranger.get(f"{prefix}/", headers={"Accept": "text/html"})
        callback = await served.stranger.post(f"{prefix}/callbacks/nobody")
        nothing = await served.stranger.get(f"{prefix}/nothing")
        beside = await served.stranger.get("/remorax/v1/jobs")

    assert (answer.status_code, file.status_code) == (200, 200)
    assert answer.headers["location"] == f"/remora/v1/jobs/{answer.json()['id']}"
    assert {path: each.status_code for path, each in asked.items() if each.status_code != 200} == {}
    assert asked["/schema/openapi.json"].json()["servers"] == [{"url": "/remora"}]
    assert page.text.count('="/remora/schema/static/') == 4
    assert root.headers["location"] == "/remora/schema"
    assert callback.json()["code"] == "unknown_token"
    assert [nothing.status_code, beside.status_code] == [404, 404]


async def test_bare_prefix_is_the_root(tmp_path: Path) -> None:
    """With and without the slash."""
    async with serve(tmp_path, REMORA_PUBLIC_URL=PUBLIC) as served:
        answers = [await served.stranger.get(path) for path in ("/remora", "/remora/", "/")]

    assert [each.json()["schema"] for each in answers] == ["/remora/schema"] * 3


@pytest.mark.parametrize("prefix", ["/v1", "/callbacks", "/a/b", "/a b", "/schema"])
async def test_prefix_may_be_called_like_a_route(prefix: str, tmp_path: Path) -> None:
    """It hides no route, whatever it is called."""
    public = str(httpx.URL(f"https://h.example{prefix}"))
    async with serve(tmp_path, REMORA_PUBLIC_URL=public) as served:
        answers = [
            await served.client.get(path)
            for path in (
                "/v1/jobs",
                "/healthz",
                "/schema",
                f"{prefix}/v1/jobs",
                f"{prefix}/healthz",
                f"{prefix}/schema",
            )
        ]

    assert [each.status_code for each in answers] == [200] * 6


@pytest.mark.parametrize("path", ["/remora/callbacks/token", "/callbacks/token"])
async def test_signature_is_checked_over_the_url_that_the_provider_called(path: str) -> None:
    """Some sign it, and what they called is the public one, whatever the proxy made of it."""
    urls: list[str] = []

    class Receiving:
        async def receive(self, token: str, body: bytes, kind: str | None, headers: dict[str, str], url: str) -> bool:
            urls.append(url)
            return True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        context: Any = SimpleNamespace(receiver=Receiving())
        assert await serve_callback(context, scope, receive, send)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(_: Any) -> None: ...

    scope = {"method": "POST", "path": path, "query_string": b"a=1", "headers": [], "state": {}}
    await BelowPrefix(app, "/remora", frozenset({"/callbacks"}))(scope, receive, send)

    assert urls == ["/remora/callbacks/token?a=1"]
