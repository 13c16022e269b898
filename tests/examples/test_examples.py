"""The examples do what they say, against a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import Service
from service.environment import load

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "rmk_a-key-for-the-examples-only"
PATIENCE_S = 30.0


@contextlib.asynccontextmanager
async def service_in(directory: Path) -> AsyncIterator[Service]:
    environ = {"REMORA_PORT": "0", "REMORA_ADMIN_KEY": KEY, "REMORA_EGRESS_ALLOW": "127.0.0.0/8"}
    service = await Service.open(load(environ, directory))
    try:
        await service.listen()
        yield service
    finally:
        await service.close()


@contextlib.asynccontextmanager
async def example(name: str, *arguments: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / name),
        *arguments,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE_S)


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().strip()


async def new_secret(service: Service) -> str:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/v1/account/rotate-secret")
    return str(answer.json()["secret"])


async def test_submit_gets_a_picture_and_the_subscriber_its_event(tmp_path: Path) -> None:
    """Both tell of the same job with the same result link, and the link leads to a picture."""
    async with service_in(tmp_path) as service:
        secret = await new_secret(service)
        async with example("subscriber.py", "0", REMORA_WEBHOOK_SECRET=secret) as subscriber:
            url = await line_of(subscriber)
            asked = {"REMORA_URL": service.url, "REMORA_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
            async with example("submit.py", "A lighthouse", url, **asked) as submit:
                printed, stderr = await asyncio.wait_for(submit.communicate(), PATIENCE_S)
            event_type, job_id, link = (await line_of(subscriber)).split()
        async with httpx.AsyncClient(trust_env=False) as client:
            picture = await client.get(link)

    assert submit.returncode == 0, stderr
    assert printed.decode().split()[:4] == ["taken:", job_id, "completed", link]
    assert event_type == "job.completed"
    assert picture.headers["content-type"] == "image/png"


async def test_submit_shows_what_the_service_refuses(tmp_path: Path) -> None:
    """The problem's detail and the field, instead of a traceback."""
    async with service_in(tmp_path) as service:
        asked = {"REMORA_URL": service.url, "REMORA_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        async with example("submit.py", "", **asked) as submit:
            _, stderr = await asyncio.wait_for(submit.communicate(), PATIENCE_S)

    assert submit.returncode == 1
    assert b"/input/prompt" in stderr
    assert b"Traceback" not in stderr


@contextlib.asynccontextmanager
async def something_else(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every connection alike, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "is `remora serve` running there?"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "does REMORA_URL lead to it?"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}', "does REMORA_URL lead to it?"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\n[]", "does REMORA_URL lead to it?"),
    ],
)
async def test_submit_ends_in_a_line_where_nobody_answers_as_remora(answer: bytes, word: str) -> None:
    """No traceback, whoever is there instead."""
    async with something_else(answer) as url:
        asked = {"REMORA_URL": url, "REMORA_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        async with example("submit.py", "A lighthouse", **asked) as submit:
            _, stderr = await asyncio.wait_for(submit.communicate(), PATIENCE_S)

    assert submit.returncode == 1
    assert word in stderr.decode()
    assert len(stderr.decode().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "given", "word"),
    [
        ((), {}, "usage:"),
        (("a",), {"REMORA_API_KEY": ""}, "usage:"),
        (("a",), {"REMORA_URL": "http://127.0.0.1:9"}, "is `remora serve` running there?"),
        (("a",), {"REMORA_URL": "127.0.0.1:9"}, "127.0.0.1:9"),
        (("a",), {"REMORA_URL": "http://[::1"}, "http://[::1"),
    ],
)
async def test_submit_tells_a_mistake_in_a_line(arguments: tuple[str, ...], given: dict[str, str], word: str) -> None:
    """What was left out, or that nobody is there."""
    asked = {"REMORA_API_KEY": KEY, "REMORA_URL": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"} | given
    async with example("submit.py", *arguments, **asked) as submit:
        _, stderr = await asyncio.wait_for(submit.communicate(), PATIENCE_S)

    assert submit.returncode == 1
    assert word in stderr.decode()
    assert len(stderr.decode().splitlines()) == 1


async def test_submit_tells_that_its_key_is_refused(tmp_path: Path) -> None:
    """With the reason."""
    async with service_in(tmp_path) as service:
        asked = {"REMORA_URL": service.url, "REMORA_API_KEY": "rmk_nobodys", "NO_PROXY": "127.0.0.1"}
        async with example("submit.py", "A lighthouse", **asked) as submit:
            _, stderr = await asyncio.wait_for(submit.communicate(), PATIENCE_S)

    assert submit.returncode == 1
    assert stderr.decode().startswith("401: the key is not valid: unknown")
    assert len(stderr.decode().splitlines()) == 1


@pytest.mark.parametrize("name", ["subscriber.py", "verify/subscriber.py"])
@pytest.mark.parametrize("port", ["taken", "http", "70000"])
async def test_subscriber_tells_that_it_cannot_listen(name: str, port: str) -> None:
    """A port that is taken, or none, in a line."""
    secret = "whsec_" + "MDEy" * 8
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = str(taken.getsockname()[1]) if port == "taken" else port
        async with example(name, given, REMORA_WEBHOOK_SECRET=secret, REMORA_WEBHOOK_KEYS=secret) as subscriber:
            _, stderr = await asyncio.wait_for(subscriber.communicate(), PATIENCE_S)

    assert subscriber.returncode == 1
    assert stderr.decode().startswith(f"cannot listen on port {given}: ")
    assert len(stderr.decode().splitlines()) == 1


@pytest.mark.parametrize(
    "headers", [{}, {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AA=="}]
)
async def test_subscriber_refuses_what_is_not_signed(headers: dict[str, str]) -> None:
    """401, and nothing is handled."""
    async with example("subscriber.py", "0", REMORA_WEBHOOK_SECRET="whsec_" + "MDEy" * 8) as subscriber:
        url = await line_of(subscriber)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, content=json.dumps({"type": "job.completed"}), headers=headers)
        subscriber.terminate()
        printed, _ = await subscriber.communicate()

    assert answer.status_code == 401
    assert printed == b""


@pytest.mark.parametrize("secret", ["", "rmk_an-api-key-of-some-length"])
async def test_subscriber_refuses_what_is_no_signing_secret(secret: str) -> None:
    """A key would be taken for a secret, and no signature would ever fit; the mistake is told at the start."""
    async with example("subscriber.py", "0", REMORA_WEBHOOK_SECRET=secret) as subscriber:
        printed, stderr = await asyncio.wait_for(subscriber.communicate(), PATIENCE_S)

    assert subscriber.returncode == 1
    assert printed == b""
    assert b"whsec_" in stderr
    assert b"Traceback" not in stderr


def test_readme_and_examples_agree() -> None:
    """Every example is named in the readme, and the readme names no other."""
    named = set(re.findall(r"examples/(\w+\.\w+)", (ROOT / "README.md").read_text("utf-8")))

    assert named == {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
