"""Moderation on the way of a job: blocked is never sent, silence waits or goes on, a verdict is asked for once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.rig import rig
from tests.receiver import Received, Receiver


@pytest.fixture
async def moderator() -> AsyncIterator[Receiver]:
    """A moderator that passes everything until a test says otherwise."""
    async with Receiver(answer=lambda asked: says(asked, flagged=False)) as made:
        yield made


def says(asked: Received, *, flagged: bool) -> web.Response:
    """A result for each text."""
    texts = json.loads(asked.body)["input"]
    return web.json_response({"results": [{"flagged": flagged, "categories": {"violence": flagged}} for _ in texts]})


async def test_blocked_job_fails_before_it_is_sent(tmp_path: Path) -> None:
    """content_moderated, the verdict on the job and its timeline, one event, nothing charged; others pass."""
    (tmp_path / "words").write_text("dragon\n", "utf-8")
    async with rig(tmp_path, env={"REMORA_MODERATION_LIST": "words"}) as machine:
        blocked = await machine.finished((await machine.take("A dragon"))["id"])
        timeline = await machine.timeline(blocked["id"])
        submits = machine.submits()
        passed = await machine.finished((await machine.take("A cat"))["id"])

    assert (blocked["status"], blocked["error"]["code"], submits) == ("failed", "content_moderated", 0)
    assert blocked["error"]["message"].endswith("before it was sent: word list")
    assert blocked["cost"]["charged"] is None
    verdict = blocked["moderation"]
    assert verdict | {"at": ""} == {"verdict": "blocked", "by": "list", "categories": ["word list"], "at": ""}
    assert [row["type"] for row in timeline] == ["job.queued", "job.moderated", "job.failed"]
    assert (passed["status"], passed["moderation"]["verdict"]) == ("completed", "passed")


async def test_job_waits_for_a_silent_moderator(moderator: Receiver, tmp_path: Path) -> None:
    """Fail closed: queued, told once on the timeline, and sent when the moderator is back."""
    back = asyncio.Event()
    moderator.answer = lambda asked: says(asked, flagged=False) if back.is_set() else 503
    async with rig(tmp_path, env={"REMORA_MODERATION_URL": moderator.url}) as machine:
        job = await machine.take()
        await moderator.wait_for(2)
        waiting = await machine.job(job["id"])
        sent_before = machine.submits()
        back.set()
        done = await machine.finished(job["id"])
        timeline = await machine.timeline(job["id"])

    assert (waiting["status"], waiting["moderation"]["verdict"], sent_before) == ("queued", "waiting", 0)
    assert (done["status"], done["moderation"]["verdict"]) == ("completed", "passed")
    verdicts = [row["detail"]["verdict"] for row in timeline if row["type"] == "job.moderated"]
    assert verdicts == ["waiting", "passed"]


async def test_job_goes_on_without_a_silent_moderator_where_told_so(moderator: Receiver, tmp_path: Path) -> None:
    """Fail open: sent, and the verdict says that nobody judged it."""
    moderator.answer = lambda _: 503
    env = {"REMORA_MODERATION_URL": moderator.url, "REMORA_MODERATION_FAIL": "open"}
    async with rig(tmp_path, env=env) as machine:
        done = await machine.finished((await machine.take())["id"])

    assert (done["status"], done["moderation"]["verdict"]) == ("completed", "skipped")


async def test_verdict_is_asked_for_once(moderator: Receiver, tmp_path: Path) -> None:
    """A submission that is tried again is not judged again; the job's event shows the verdict."""
    env = {"REMORA_MODERATION_URL": moderator.url}
    async with rig(tmp_path, faults="refused-submit:429=1", env=env) as machine:
        done = await machine.finished((await machine.take())["id"])
        tries = machine.submits()

    assert done["status"] == "completed"
    assert tries >= 2
    assert len(moderator.received) == 1


async def test_wrong_list_is_told_at_the_start(tmp_path: Path) -> None:
    """All of its wrong lines, and nothing is served."""
    (tmp_path / "words").write_text("fine\n/(/\n/[/\n", "utf-8")
    with pytest.raises(Exception, match=r"line 2: .*\n.*line 3: "):
        async with rig(tmp_path, env={"REMORA_MODERATION_LIST": "words"}):
            pass
