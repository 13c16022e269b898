"""Large inputs: a file in the storage for a job that was taken, and for no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import STUCK, Served, serve

LARGE = "A" * 200_000  # of an input; more than lies in the database where there is a storage


def _body(number: int = 0) -> dict[str, Any]:
    stuck: dict[str, Any] = dict(STUCK)
    return {**stuck, "input": {**stuck["input"], "prompt": LARGE}, "metadata": {"n": str(number)}}


def _files(directory: Path) -> list[Path]:
    return [each for each in (directory / "kept").rglob("*") if each.is_file() and each.parts[-3] == "inputs"]


async def _poor(served: Served, credit: str) -> httpx.AsyncClient:
    made = await served.client.post("/v1/accounts", json={"name": "poor", "limit": "prepaid", "credit": credit})
    assert made.status_code == 201, made.text
    return served.keyed(made.json()["key"]["secret"])


async def test_refused_job_leaves_no_file(tmp_path: Path) -> None:
    """402 before anything is written, and where it is found out only when it is stored."""
    async with serve(tmp_path, REMORA_STORAGE_URL=f"file:{tmp_path}/kept") as served:
        async with await _poor(served, "0") as nothing:
            refused = await nothing.post("/v1/jobs", json=_body())
        files = _files(tmp_path)
        price = (await served.take(_body()))["cost"]["estimated"]
        async with await _poor(served, price) as enough_for_one:
            posts = [enough_for_one.post("/v1/jobs", json=_body(number)) for number in range(4)]
            answers = await asyncio.gather(*posts)

    assert (refused.status_code, files) == (402, [])
    assert sorted(each.status_code for each in answers) == [202, 402, 402, 402]
    assert len(_files(tmp_path)) == 2


async def test_repeated_request_leaves_one_file(tmp_path: Path) -> None:
    """Requests with one key at the same moment are one job with one file."""
    async with serve(tmp_path, REMORA_STORAGE_URL=f"file:{tmp_path}/kept") as served:
        headers = {"Idempotency-Key": "k"}
        posts = [served.client.post("/v1/jobs", json=_body(), headers=headers) for _ in range(4)]
        answers = await asyncio.gather(*posts)
        jobs = {each.json()["id"] for each in answers}

    assert len(jobs) == 1
    assert [each.stem for each in _files(tmp_path)] == list(jobs)
