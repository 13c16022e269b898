"""What holds for every dialect: faults strike in its own words, and what makes no sense for it is refused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from service.sandbox.faults import KINDS
from tests.sandbox.conftest import Caller, Open, Place, WatchedClock

CALLBACKS = {
    "lost-callback",
    "double-callback",
    "late-callback",
    "early-callback",
    "forged-callback",
    "conflicting-callback",
    "garbled-callback",
}
POLLS = {"failing-polls", "not-found-lag", "unknown-state-word"}
CANCELS = {"late-cancel", "ignored-cancel", "cut-cancel"}


@dataclass(frozen=True)
class Operation:
    """How to submit, where the id is in the answer, where to poll, and the faults that make no sense."""

    card: str
    path: str
    body: dict[str, Any]
    senseless: frozenset[str]
    id_at: tuple[str, ...] = ()
    poll: str = ""

    def task_id(self, answer: Any) -> str:
        for key in self.id_at:
            answer = answer[key]
        return str(answer)


GENERATIONS = "/api/v1/images/generations"
OPERATIONS = {
    "apimodels generate": Operation(
        "apimodels",
        GENERATIONS,
        {"prompt": "a"},
        frozenset(CANCELS | {"foreign-links"}),
        ("data", "taskId"),
        f"{GENERATIONS}?task_id=%s",
    ),
    "apimodels sparkpix": Operation(
        "apimodels", f"{GENERATIONS}-sync", {"prompt": "a"}, frozenset(POLLS | CANCELS | {"foreign-links"})
    ),
    "apimodels sparkpix-edit": Operation(
        "apimodels", "/api/v1/images/edit", {"prompt": "a"}, frozenset(POLLS | CANCELS | {"foreign-links"})
    ),
    "sharkai generate": Operation(
        "sharkai",
        GENERATIONS,
        {"model": "m", "prompt": "a", "async": True},
        frozenset(CALLBACKS | {"code-in-200"}),
        ("id",),
        f"{GENERATIONS}/%s",
    ),
    "sharkai generate-sync": Operation(
        "sharkai",
        GENERATIONS,
        {"model": "m", "prompt": "a"},
        frozenset(CALLBACKS | POLLS | CANCELS | {"code-in-200", "foreign-links"}),
    ),
    "sharkapi generate": Operation(
        "sharkapi",
        "/api/v1/image",
        {"prompt": "a"},
        frozenset(CALLBACKS | CANCELS | {"code-in-200"}),
        ("job_id",),
        "/api/v1/jobs/%s",
    ),
    "sharkapi-v1 generate": Operation(
        "sharkapi-v1",
        "/v1/generate",
        {"prompt": "a", "mode": "1k"},
        frozenset(CALLBACKS | CANCELS | {"code-in-200"}),
        ("job_id",),
        "/v1/jobs/%s",
    ),
}
ALL = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
POLLED = pytest.mark.parametrize(
    "operation",
    [each for each in OPERATIONS.values() if each.poll],
    ids=[name for name, each in OPERATIONS.items() if each.poll],
)


async def submit(place: Place, operation: Operation, fault: str) -> tuple[int, Any]:
    """Submit with a fault of its own."""
    body = {**operation.body, "prompt": f"a [fault:{fault}]"}
    return await place.to(operation.card).post(body, operation.path)


async def exchange(caller: Caller, path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
    """Status and raw body; None where the connection was cut."""
    try:
        async with caller.session.post(caller.url + path, data=json.dumps(body), headers=caller.headers) as answer:
            return answer.status, await answer.read()
    except aiohttp.ServerDisconnectedError:
        return None


@ALL
async def test_every_fault_strikes_or_is_refused(start: Open, operation: Operation) -> None:
    """Which words make sense for an operation, and that none of the others breaks it."""
    place = await start()
    refused = set()
    for word in set(KINDS) - {"stuck", "slow-submit"}:
        body = {**operation.body, "prompt": f"a [fault:{word}]"}
        answer = await exchange(place.to(operation.card), operation.path, body)
        if answer is not None and b"makes no sense here" in answer[1]:
            assert answer[0] == 400
            refused.add(word)

    assert refused == operation.senseless
    await place.ended()
    assert (await place.to(operation.card).post(operation.body, operation.path))[0] in {200, 202}


@ALL
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("refused-submit", 429),
        ("refused-submit:402", 402),
        ("refused-submit:moderation", 400),
        ("submit-500", 500),
        ("bad-gateway", 502),
    ],
)
async def test_refused_submit_creates_nothing(start: Open, operation: Operation, fault: str, status: int) -> None:
    """The status is HTTP's, and there is no task."""
    place = await start()

    assert (await submit(place, operation, fault))[0] == status
    assert place.server.tasks == ()


@ALL
@pytest.mark.parametrize(("fault", "created"), [("cut-submit", 1), ("cut-submit-lost", 0)])
async def test_cut_submit_gives_no_answer(start: Open, operation: Operation, fault: str, created: int) -> None:
    """With a task or without one, the caller cannot tell."""
    place = await start()

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await submit(place, operation, fault)

    assert len(place.server.tasks) == created


@ALL
async def test_gateway_timeout_hides_a_task(start: Open, operation: Operation) -> None:
    """504, and the task lives on."""
    place = await start()

    assert (await submit(place, operation, "gateway-timeout"))[0] == 504
    await place.ended()
    assert [task.state for task in place.server.tasks] == ["completed"]


@ALL
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"{",
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b'{"prompt": {"a": [null]}}',
        b'{"prompt": "a [fault:nonsense]", "model": "m"}',
    ],
)
async def test_garbage_is_a_400_in_the_dialects_form(start: Open, operation: Operation, body: bytes) -> None:
    """Whatever comes is refused in the provider's own words, and nothing is created."""
    place = await start()

    status, answer = await place.to(operation.card).post(body, operation.path)

    assert (status, place.server.tasks) == (400, ())
    assert answer.get("msg") or answer["error"]


@ALL
async def test_every_prompt_becomes_a_picture(start: Open, operation: Operation) -> None:
    """A prompt that no UTF-8 can hold is drawn like any other."""
    place = await start()
    wish = {**operation.body, "prompt": "half \ud83d"}
    status, made = await place.to(operation.card).post(wish, operation.path)
    await place.ended()
    if operation.poll:
        _, made = await place.to(operation.card).get(operation.poll % operation.task_id(made))

    [url] = re.findall(r"http://[^\"]+/files/[^\"]+", json.dumps(made))
    async with place.caller.session.get(url) as answer:
        assert (status in {200, 202}, answer.status, answer.content_type[:6]) == (True, 200, "image/")


@POLLED
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("failing-polls:2", [500, 429, 200]),
        ("not-found-lag:1", [404, 200, 200]),
        ("bad-gateway:poll", [502, 200, 200]),
        ("gateway-timeout:poll", [504, 200, 200]),
        ("html-error:poll", [502, 200, 200]),
    ],
)
async def test_polls_fail_and_recover(start: Open, operation: Operation, fault: str, statuses: list[int]) -> None:
    """As often as wished, in every dialect that is polled."""
    place = await start()
    caller = place.to(operation.card)
    _, made = await submit(place, operation, fault)
    url = caller.url + operation.poll % operation.task_id(made)

    got = []
    for _ in statuses:
        async with caller.session.get(url, headers=caller.headers) as answer:
            got.append(answer.status)

    assert got == statuses


@POLLED
async def test_unknown_state_word_is_in_no_document(start: Open, operation: Operation) -> None:
    """Until its end the task is in a state that the documents do not have."""
    place = await start(speed=0.001)
    _, made = await submit(place, operation, "unknown-state-word")

    _, body = await place.to(operation.card).get(operation.poll % operation.task_id(made))

    said = body.get("status") or body["data"]["state"]
    assert said in {"rendering", "finalizing", "upscaling"}


@POLLED
async def test_stuck_task_never_ends(start: Open, operation: Operation) -> None:
    """It is at work while another one begins and ends."""
    place = await start()
    await submit(place, operation, "stuck")
    await place.server.until(lambda: place.server.tasks[0].state == "processing")
    await place.to(operation.card).post(operation.body, operation.path)
    await place.server.until(lambda: place.server.tasks[1].ended)

    assert place.server.tasks[0].state == "processing"


@pytest.mark.parametrize("code", [400, 402, 429, 500])
@pytest.mark.parametrize("name", ["apimodels generate", "apimodels sparkpix", "apimodels sparkpix-edit"])
async def test_code_in_200_is_an_error_all_the_same(start: Open, name: str, code: int) -> None:
    """HTTP says 200, the body says otherwise, and nothing is created."""
    place = await start()

    status, body = await submit(place, OPERATIONS[name], f"code-in-200:{code}")

    assert (status, body["code"], set(body)) == (200, code, {"code", "msg"})
    assert place.server.tasks == ()


async def test_code_in_200_can_befall_a_poll(start: Open) -> None:
    """The code describes the query, and the next one is answered."""
    place = await start()
    _, made = await submit(place, OPERATIONS["apimodels generate"], "code-in-200:poll")
    task_id = made["data"]["taskId"]

    first, second = [await place.caller.poll(task_id) for _ in range(2)]

    assert (first[0], first[1]["code"], second[0], second[1]["code"]) == (200, 500, 200, 200)


@pytest.mark.parametrize(
    ("fault", "first", "second", "ends"),
    [
        ("late-cancel", 409, 409, "completed"),
        ("ignored-cancel", 200, 200, "completed"),
        ("cut-cancel", None, 409, "cancelled"),
        ("bad-gateway:cancel", 502, 200, "cancelled"),
    ],
)
async def test_cancels_go_wrong(start: Open, fault: str, first: int | None, second: int, ends: str) -> None:
    """Too late, without effect, without an answer, or on the second try only."""
    clock = WatchedClock()  # which stands, so that the task is pending
    place = await start(speed=1.0, clock=clock)
    _, made = await submit(place, OPERATIONS["sharkai generate"], fault)
    path = f"{GENERATIONS}/{made['id']}/cancel"

    got = [await exchange(place.to("sharkai"), path, {}) for _ in range(2)]
    for _ in range(2 if ends == "completed" else 0):  # queue and work
        await clock.pass_by(31)
    await place.ended()

    assert [answer and answer[0] for answer in got] == [first, second]
    assert place.server.tasks[0].state == ends
