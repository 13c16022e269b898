"""Callbacks: stored and answered 200 whatever they say, 404 for a token that nobody has, and nothing else by any method."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.callbacks.inbox import MAX_BODY_BYTES
from tests.api.conftest import Served, serve

TOKEN = "t0ken-" + "x" * 37


async def _submission(served: Served) -> str:
    """A job that the provider holds, with a known callback token; nobody asks for it during the test."""
    job = await served.take()
    await served.sql(
        "INSERT INTO submissions (id, job_id, provider, token_hash, outcome, provider_task_id, created_at) "
        "VALUES ('sbm_1', :job, 'apimodels', :hash, 'accepted', 'task-1', 1)",
        job=job["id"],
        hash=hashlib.sha256(TOKEN.encode()).digest(),
    )
    await served.sql(
        "UPDATE jobs SET status = 'running', submission_id = 'sbm_1', provider_task_id = 'task-1', due_at = expires_at, "
        "submitted_at = created_at, seq = seq WHERE id = :job",
        job=job["id"],
    )
    return str(job["id"])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"code":200,"data":{"taskId":"task-1","state":"pending"}}', "application/json"),
        (b"", None),
        (b"\xff\xfe\x00 no JSON at all", "text/plain"),
        (b'{"a": ' * 10_000, "application/json"),
        (b"a=1&b=2", "application/x-www-form-urlencoded"),
    ],
)
async def test_callback_is_stored_whatever_it_says(served: Served, body: bytes, content_type: str | None) -> None:
    """200 once it is stored, with its bytes as they came and its type."""
    await _submission(served)
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await served.stranger.post(f"/callbacks/{TOKEN}", content=body, headers=headers)

    assert answer.status_code == 200
    assert [(bytes(row["body"]), row["content_type"]) for row in await _stored(served)] == [(body, content_type)]


@pytest.mark.parametrize("tail", ["", "/", "/status", "/a/b/c", "?x=1&x=%FF", "//", "/%00/%ff"])
async def test_callback_may_come_below_its_address(served: Served, tail: str) -> None:
    """Providers that append to the address they were given are heard; never a redirect."""
    await _submission(served)
    answer = await served.stranger.post(f"/callbacks/{TOKEN}{tail}", content=b"{}")

    assert answer.status_code == 200
    assert len(await _stored(served)) == 1


@pytest.mark.parametrize("token", ["x", "x" * 43, "x" * 5000, "%00", "%FF%FE", "...", TOKEN[:-1], TOKEN.upper()])
async def test_unknown_token_is_not_found(served: Served, token: str) -> None:
    """404, and nothing is stored."""
    await _submission(served)
    answer = await served.stranger.post(f"/callbacks/{token}", content=b"{}")

    assert answer.status_code == 404
    assert await _stored(served) == []


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_path_that_only_begins_alike_is_no_callback(served: Served, method: str) -> None:
    """404 as for any path that nobody offers."""
    answers = [await served.stranger.request(method, path) for path in (f"/callbacksome/{TOKEN}", "/callbacksome")]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 2


async def test_guess_never_reaches_the_writer(tmp_path: Path) -> None:
    """While nobody can write, a guess is still 404 and a callback 503: only what is known waits for the writer."""
    async with serve(tmp_path, REMORA_BUSY_TIMEOUT="100ms") as served:
        await _submission(served)
        with closing(sqlite3.connect(tmp_path / "remora.db", isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            guess = await served.stranger.post("/callbacks/guess", content=b"{}")
            known = await served.stranger.post(f"/callbacks/{TOKEN}", content=b"{}")

    assert (guess.status_code, guess.json()["code"]) == (404, "unknown_token")
    assert (known.status_code, known.json()["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND"])
async def test_other_methods_are_refused(served: Served, method: str) -> None:
    """405 and the method that is taken, for probes of every kind, known token or not."""
    await _submission(served)
    answers = [await served.stranger.request(method, f"/callbacks/{token}") for token in (TOKEN, "x")]

    assert [answer.status_code for answer in answers] == [405, 405]
    assert {answer.headers["allow"] for answer in answers} == {"OPTIONS, POST"}


async def test_long_body_is_cut_and_still_heard(served: Served) -> None:
    """Of a body over 256 KiB the beginning is kept; the provider may finish sending and has its 200."""
    await _submission(served)
    answer = await served.stranger.post(f"/callbacks/{TOKEN}", content=b"a" * (MAX_BODY_BYTES * 3))
    streamed = await served.stranger.post(f"/callbacks/{TOKEN}", content=_pieces(5 * MAX_BODY_BYTES))

    assert (answer.status_code, streamed.status_code) == (200, 200)
    assert [(len(row["body"]), row["copies"]) for row in await _stored(served)] == [(MAX_BODY_BYTES, 2)]


ENDED = b'{"code":200,"data":{"taskId":"task-1","state":"completed","x":"caf%b"}}'
SAYING = {
    "packed": (gzip.compress(ENDED % b""), "gzip", "completed", None),
    "marked": (b"\xef\xbb\xbf" + ENDED % b"\xe9\n", "", "completed", None),
    "packed and cut": (
        gzip.compress(ENDED % random.Random(1).randbytes(400_000).hex().encode()),
        "gzip",
        "unreadable",
        "was cut at 256 KiB",
    ),
    "cut": (ENDED % (b"x" * 300_000), "", "unreadable", "was cut at 256 KiB"),
    "unknown packing": (b"\x0b\x02", "br", "unreadable", "is packed with br, which cannot be unpacked here"),
    "empty": (b"", "", "unreadable", "is empty"),
}


@pytest.mark.parametrize("case", SAYING)
async def test_callback_is_read_or_told_and_heals_what_it_can(served: Served, case: str) -> None:
    """The token names the submission and what stands in the body its task: what a fetch can tell is asked for."""
    body, encoding, says, reason = SAYING[case]
    job = await _submission(served)
    await served.sql("UPDATE submissions SET provider_task_id = NULL, outcome = 'unknown'")
    await served.sql("UPDATE jobs SET status = 'submit_unknown', provider_task_id = NULL")
    answer = await served.stranger.post(
        f"/callbacks/{TOKEN}", content=body, headers={"Content-Encoding": encoding} if encoding else {}
    )
    timeline = (await served.client.get(f"/v1/jobs/{job}/events")).json()["data"]
    detail = next(row["detail"] for row in timeline if row["type"] == "callback.received")

    assert answer.status_code == 200
    assert (detail["says"], detail.get("reason")) == (says, reason and f"its body {reason}")
    named = case not in {"unknown packing", "empty"}
    assert detail["provider_task_id"] == ("task-1" if named else None)
    assert [row["provider_task_id"] for row in await served.rows("SELECT provider_task_id FROM jobs")] == [
        "task-1" if named else None
    ]


async def _pieces(size: int) -> Any:
    for _ in range(0, size, 4096):
        yield b"a" * 4096


async def test_callback_that_cannot_be_stored_is_503(served: Served) -> None:
    """The provider is told to come back; nothing is lost by a 200 that was none."""
    await _submission(served)
    served.service._base.store.writer._closing = True
    answer = await served.stranger.post(f"/callbacks/{TOKEN}", content=b"{}")
    served.service._base.store.writer._closing = False

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert await _stored(served) == []


async def test_two_callbacks_of_one_body_are_one(served: Served) -> None:
    """Doubled ones are counted, also when they come at once."""
    await _submission(served)
    answers = await asyncio.gather(
        *(served.stranger.post(f"/callbacks/{TOKEN}", content=b'{"a":1}') for _ in range(10))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert [row["copies"] for row in await _stored(served)] == [10]


async def test_token_reaches_no_log(
    served: Served, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Known, unknown, refused: the token is in none of the lines."""
    caplog.set_level(logging.DEBUG)
    # As `configure_logging` sets it; pytest gives this logger a handler, and with that uvicorn thinks it is wanted.
    caplog.set_level(logging.WARNING, logger="uvicorn.access")
    await _submission(served)
    for method, tail in (("POST", ""), ("POST", "/below"), ("GET", ""), ("POST", "x")):
        await served.stranger.request(method, f"/callbacks/{TOKEN}{tail}", content=b"{}")
    out, err = capsys.readouterr()

    assert "/callbacks/" in out + err + caplog.text
    assert TOKEN not in out + err + caplog.text


async def _stored(served: Served) -> list[Mapping[str, Any]]:
    return list(await served.rows("SELECT body, content_type, copies FROM callbacks ORDER BY id"))
