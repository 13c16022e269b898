"""What the log says of refused requests: who, where and why, never a secret, and never a flood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.api.requests.refusal_log import LINES_A_KIND, MAX_KINDS, WINDOW_S, RefusalLog
from service.clock import VirtualClock
from service.jobs.tokens import hash_of
from tests.api.conftest import ADMIN_KEY, STUCK, Served, serve

ROOT = Path(__file__).resolve().parent.parent.parent


def refused(lines: list[Any]) -> list[dict[str, Any]]:
    """The lines about refused requests, without what differs each time."""
    return [
        {name: value for name, value in line.items() if name not in {"ms", "request_id", "event", "log_level"}}
        for line in lines
        if line["event"] == "exchange" and line["log_level"] == "info"
    ]


async def test_refusal_names_caller_and_cause(served: Served) -> None:
    """The problem's code, the account, the key's beginning, route and address; of wrong fields their names, no values."""
    body = {**STUCK, "input": {"prompt": "a very private prompt", "size": "huge"}}
    with capture_logs() as lines:
        answer = await served.client.post("/v1/jobs", json=body)
    [account] = await served.rows("SELECT id FROM accounts")

    [line] = refused(lines)
    assert answer.status_code == 422
    assert line.pop("fields")[0].startswith("/input/")
    assert line == {
        "method": "POST",
        "path": "/v1/jobs",
        "route": "/v1/jobs",
        "status": 422,
        "code": answer.json()["code"],
        "account": account["id"],
        "key_prefix": ADMIN_KEY[:8],
        "peer": "127.0.0.1",
    }
    assert "private" not in str(lines)


@pytest.mark.parametrize(
    ("authorization", "reason", "prefix"),
    [
        (None, "send a key", None),
        ("Bearer rmk_1a2b3c4d5e6f", "unknown", "rmk_1a2b"),
        ("Bearer sk-of-another-service", "unknown", None),
        ("Basic cm1rOnNlY3JldA==", "must read", None),
    ],
)
async def test_refused_key_is_told_by_its_beginning(
    served: Served, authorization: str | None, reason: str, prefix: str | None
) -> None:
    """And why; what is no key of ours may be a secret of somebody else's, and nothing of it is told."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with capture_logs() as lines:
        await served.stranger.get("/v1/jobs", headers=headers)

    [line] = refused(lines)
    assert (line["status"], line["code"]) == (401, "unauthenticated")
    assert reason in line["reason"]
    assert line.get("key_prefix") == prefix
    assert authorization is None or authorization.partition(" ")[2] not in str(lines)


async def test_reason_of_a_refused_key_is_the_right_one(served: Served) -> None:
    """Revoked and expired are told apart, in the answer, too; a missing scope comes with the account."""
    with capture_logs() as lines:
        for end in ("revoked_at", "expires_at"):
            made = (await served.client.post("/v1/keys", json={"name": "ci", "scopes": ["jobs:read"]})).json()
            async with served.keyed(made["secret"]) as key:
                await key.get("/v1/keys")
                await served.sql(f"UPDATE keys SET {end} = 1 WHERE id = :id", id=made["id"])
                served.service._base.keys.forget([made["id"]])
                answer = await key.get("/v1/jobs")
            assert end[:6] in answer.json()["detail"]

    said = refused(lines)
    assert [line["status"] for line in said] == [403, 401, 403, 401]
    assert ["account" in line for line in said] == [True, False, True, False]
    assert "revoked" in said[1]["reason"]
    assert "expired" in said[3]["reason"]


async def test_refused_callback_is_told_and_what_nobody_offers_is_not(served: Served) -> None:
    """A token that nobody has stands there as its route; a path that there is not is for debugging only."""
    with capture_logs() as lines:
        await served.stranger.post("/callbacks/a-token-that-nobody-has")
        await served.stranger.get("/wp-login.php")

    [line] = refused(lines)
    assert (line["path"], line["code"]) == ("/callbacks/{token}", "unknown_token")
    assert "a-token-that" not in str(lines)


async def test_path_cannot_forge_a_line(served: Served) -> None:
    """Line ends, direction marks and blanks of a path stay encoded."""
    with capture_logs() as lines:
        await served.client.get("/v1/jobs/%0a12:00:00.000Z%20[error]%E2%80%AE")

    [line] = refused(lines)
    assert line["path"] == "/v1/jobs/%0A12:00:00.000Z%20%5Berror%5D%E2%80%AE"


async def test_forged_callback_is_told(tmp_path: Path) -> None:
    """Stored and answered 200 like any other, but somebody should know: the job, its provider and what does not fit."""
    given = {
        "REMORA_CARDS_DIR": str(ROOT / "examples" / "cards"),
        "REMORA_PROVIDERS__REPLICATE__API_KEY": "r8-test",
        "REMORA_PROVIDERS__REPLICATE__WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    async with serve(tmp_path, **given) as served:
        job = await served.take()
        await served.sql(
            "INSERT INTO submissions (id, job_id, provider, token_hash, outcome, provider_task_id, created_at) "
            "VALUES ('sbm_1', :job, 'replicate', :hash, 'accepted', 'task-1', 1)",
            job=job["id"],
            hash=hash_of("a-token"),
        )
        headers = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        with capture_logs() as lines:
            answer = await served.stranger.post("/callbacks/a-token", content=b'{"id": "task-1"}', headers=headers)

    [line] = [line for line in lines if line["event"] == "callback_refused"]
    assert answer.status_code == 200
    assert (line["job"], line["provider"], line["code"]) == (job["id"], "replicate", "signature_invalid")
    assert line["reason"]


def test_flood_is_folded_by_kind() -> None:
    """The first lines of a kind are told, the others counted; another caller's are not hidden by them."""
    clock = VirtualClock()
    refusals = RefusalLog(clock)

    def ask(peer: str) -> None:
        scope: Any = {"headers": [], "client": (peer, 1), "state": {"refused": {"code": "unauthenticated"}}}
        refusals.tell(scope, {"status": 401, "route": "/v1/jobs"})

    with capture_logs() as lines:
        for _ in range(10_000):
            ask("192.0.2.1")
        clock.advance(1)
        ask("192.0.2.2")
        clock.advance(WINDOW_S)
        ask("192.0.2.1")

    assert [line["peer"] for line in lines] == ["192.0.2.1"] * LINES_A_KIND + ["192.0.2.2", "192.0.2.1"]
    assert lines[-1]["repeated"] == 10_000 - LINES_A_KIND


def test_flood_from_everywhere_is_bounded() -> None:
    """Any number of addresses makes twenty lines a second at most, and nothing that grows."""
    refusals = RefusalLog(VirtualClock())
    with capture_logs() as lines:
        for number in range(3 * MAX_KINDS):
            scope: Any = {"headers": [], "client": (f"2001:db8::{number:x}", 1), "state": {}}
            refusals.tell(scope, {"status": 401, "route": "/v1/jobs"})

    assert len(lines) == 20
    assert len(refusals._kinds) <= MAX_KINDS
