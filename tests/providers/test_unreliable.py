"""Answers that are not what a card expects never break a job: it runs on, and nothing is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.egress import Answer
from service.errors import CardInvalid, EgressCut
from service.providers.client import PollVerdict, Verdict
from service.providers.documents.paths import Expression
from service.providers.mapping import Seen
from service.providers.registry import Provider, read_card
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, ScriptedEgress, answer, provider_of

CARD = """\
card: 1
name: painter
base_url: https://painter.example
operations:
  generate:
    input: {type: object}
    submit: {path: /jobs, observe: {task_id: id, http: {200: completed, 202: queued}, urls: url}}
    poll:
      path: /jobs/{id}
      observe:
        task_id: id
        state: status
        states: {busy: running, over: fetch_result}
        http: {204: running, 303: fetch_result, 410: failed/provider_timeout, 404: retry}
        result_url: result
      result:
        path: /jobs/{id}/result
        observe: {http: {200: completed, 4xx: failed, 5xx: retry}, urls: "images[].url", cost: {path: price}}
    callback: {slot: {field: hook}}
"""
OVER = answer(200, b'{"id":"t1","status":"over"}')
HUGE = b'{"images":[{"url":"https://a.example/1"}],"padding":"' + b"x" * 5_000_000 + b'"}'


def painter(*answers: Answer | EgressCut) -> tuple[Provider, ScriptedEgress]:
    egress = ScriptedEgress(*answers)
    return provider_of(CARD, egress), egress


@pytest.mark.parametrize(
    ("given", "verdict", "seen"),
    [
        (answer(200, b'{"id":"t1","status":"daydreaming"}'), PollVerdict.OBSERVED, Seen.RUNNING),
        (answer(200, b'{"id":"t1"}'), PollVerdict.RETRY, None),
        (answer(200, b'{"id":"t1","status":{"deep":1}}'), PollVerdict.RETRY, None),
        (answer(200, b"<html>It works!</html>", content_type="application/json"), PollVerdict.RETRY, None),
        (answer(200, b""), PollVerdict.RETRY, None),
        (answer(200, b"\xff\xfe", content_type="image/png"), PollVerdict.RETRY, None),
        (answer(200, HUGE), PollVerdict.RETRY, None),  # its state stands nowhere
        (answer(200, HUGE[:4_000_000], truncated=True), PollVerdict.RETRY, None),
        (answer(200, b"[" * 100_000), PollVerdict.RETRY, None),
        (answer(204), PollVerdict.OBSERVED, Seen.RUNNING),
        (answer(404), PollVerdict.RETRY, None),
        (answer(302, location="https://evil.example/"), PollVerdict.RETRY, None),
    ],
)
async def test_poll_survives_any_answer(given: Answer, verdict: PollVerdict, seen: Seen | None) -> None:
    """An unknown word is running; what cannot be read is asked again; nothing is final."""
    provider, _ = painter(given)

    outcome = await provider.poll("generate", "t1", None)

    assert outcome.verdict is verdict
    assert (outcome.observation and outcome.observation.seen) == seen


async def test_status_may_be_the_last_word() -> None:
    """410 Gone, where the card says what it means."""
    provider, _ = painter(answer(410, b'{"detail":"gone"}'))

    outcome = await provider.poll("generate", "t1", None)

    assert outcome.observation is not None
    assert (outcome.observation.seen, outcome.observation.error_code) == (Seen.FAILED, ErrorCode.PROVIDER_TIMEOUT)


@pytest.mark.parametrize(
    ("result", "verdict", "seen"),
    [
        (answer(200, b'{"images":[{"url":"https://a.example/1"}],"price":0.02}'), PollVerdict.OBSERVED, Seen.COMPLETED),
        (answer(200, b"{}"), PollVerdict.OBSERVED, Seen.COMPLETED),  # without a URL: the job asks again, then fails
        (answer(200, b"<html>"), PollVerdict.RETRY, None),
        (answer(200, HUGE), PollVerdict.OBSERVED, Seen.COMPLETED),
        (answer(200, HUGE[:4_000_000], truncated=True), PollVerdict.RETRY, None),
        (answer(422, b'{"detail":"no"}'), PollVerdict.OBSERVED, Seen.FAILED),
        (answer(418, b"<html>"), PollVerdict.OBSERVED, Seen.FAILED),
        (answer(401), PollVerdict.DENIED, None),
        (answer(404), PollVerdict.NOT_FOUND, None),
        (answer(429, retry_after="7"), PollVerdict.RETRY, None),
        (answer(503, b"<html>"), PollVerdict.RETRY, None),
        (answer(307, location="/elsewhere"), PollVerdict.RETRY, None),
        (EgressCut("timeout", "no whole answer"), PollVerdict.RETRY, None),
    ],
)
async def test_result_survives_any_answer(result: Answer | EgressCut, verdict: PollVerdict, seen: Seen | None) -> None:
    """Only the task's own failure is final: our key, our pace and the provider's bad moments are not."""
    provider, egress = painter(OVER, result)

    outcome = await provider.poll("generate", "t1", None)

    assert [call.url for call in egress.calls] == [
        "https://painter.example/jobs/t1",
        "https://painter.example/jobs/t1/result",
    ]
    assert outcome.verdict is verdict
    assert (outcome.observation and outcome.observation.seen) == seen
    if outcome.observation is not None:
        assert (outcome.observation.task_id, outcome.observation.provider_status) == ("t1", "over")


@pytest.mark.parametrize(
    ("told", "verdict", "task_id"),
    [
        ('"id":"t1",', PollVerdict.OBSERVED, "t1"),
        ("", PollVerdict.OBSERVED, "t1"),
        ('"id":"t2",', PollVerdict.RETRY, None),
    ],
)
async def test_result_of_another_task_is_no_result(told: str, verdict: PollVerdict, task_id: str | None) -> None:
    """Where the second request of a poll names another task than the first, what it brought belongs to somebody else."""
    egress = ScriptedEgress(OVER, answer(200, f'{{{told}"images":[{{"url":"https://a.example/1"}}]}}'.encode()))
    card = CARD.replace("observe: {http: {200: completed, 4xx", "observe: {task_id: id, http: {200: completed, 4xx")

    outcome = await provider_of(card, egress).poll("generate", "t1", None)

    assert outcome.verdict is verdict
    assert (outcome.observation and outcome.observation.task_id) == task_id
    if verdict is PollVerdict.RETRY:
        assert outcome.message == "painter answered 200 with the result of another task, t2"


async def test_result_is_fetched_where_our_key_may_go() -> None:
    """An address that the provider gives is used on its own origin; else the card's path."""
    done = answer(200, b"{}")
    elsewhere = answer(200, b'{"status":"over","result":"https://evil.example/r"}')
    provider, egress = painter(
        answer(200, b'{"status":"over","result":"/r/7"}'), done, elsewhere, done, answer(303), done
    )

    for _ in range(3):
        await provider.poll("generate", "t1", None)

    assert [call.url.removeprefix("https://painter.example") for call in egress.calls[1::2]] == [
        "/r/7",
        "/jobs/t1/result",
        "/jobs/t1/result",
    ]


@pytest.mark.parametrize(
    ("given", "verdict", "seen"),
    [
        (answer(202, b'{"id":"t1"}'), Verdict.ACCEPTED, Seen.QUEUED),
        (answer(200, b'{"url":"https://a.example/1"}'), Verdict.ACCEPTED, Seen.COMPLETED),
        (answer(200, b"<html>"), Verdict.UNKNOWN, None),
        (answer(200, HUGE), Verdict.ACCEPTED, Seen.COMPLETED),
        (answer(200, HUGE[:4_000_000], truncated=True), Verdict.UNKNOWN, None),
        (answer(202, b"{}"), Verdict.UNKNOWN, None),
    ],
)
async def test_submit_may_be_read_by_its_status(given: Answer, verdict: Verdict, seen: Seen | None) -> None:
    """202 is a task, 200 is the picture; what names neither may have been taken."""
    provider, _ = painter(given)

    outcome = await provider.submit("generate", {}, CALLBACK_URL)

    assert outcome.verdict is verdict
    assert (outcome.observation and outcome.observation.seen) == seen


@pytest.mark.parametrize("document", [{"id": "t1", "status": "over"}, {"id": "t1"}, [], 7, "x", None, {"status": []}])
def test_callback_that_tells_no_end_is_a_hint(document: Any) -> None:
    """The word that needs a second request has seen nothing yet, so the provider is asked."""
    provider, _ = painter()

    assert provider.read_callback("generate", json.dumps(document).encode(), {}).seen is None


async def test_submission_is_not_completed_by_the_status_of_polls() -> None:
    """An observe that is borrowed from the poll brings its words, but a 200 to a submission only means taken."""
    card = CARD.replace(", observe: {task_id: id, http: {200: completed, 202: queued}, urls: url}", "").replace(
        "{204: running", "{200: completed, 204: running"
    )
    provider = provider_of(card, ScriptedEgress(answer(200, b'{"id":"t1"}')))

    outcome = await provider.submit("generate", {}, None)

    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.QUEUED


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("over: fetch_result", "over: completed", None),  # 303 still fetches
        ("busy: running, over: fetch_result", "busy: running, over: completed", None),
        (
            "{204: running, 303: fetch_result, 410: failed/provider_timeout, 404: retry}",
            "{abc: running}",
            "abc is no status",
        ),
        ("{200: completed, 4xx: failed, 5xx: retry}", "{200: fetch_result}", "cannot ask for the result again"),
        ("http: {200: completed, 4xx: failed, 5xx: retry}, ", "", "observe.http is missing"),
        ("path: /jobs/{id}/result", "path: /{model}/result", "a result knows one placeholder: {id}"),
        (
            "base_url: https://painter.example",
            "base_url: https://painter.example\ntrusted_origins: ['*']",
            "write an origin",
        ),
        (
            "base_url: https://painter.example",
            "base_url: https://painter.example\ntrusted_origins: ['https://a.*.example']",
            "left of the last two",
        ),
        ("{slot: {field: hook}}", "{slot: {field: hook}, verify: {scheme: hmac}}", "header: is missing"),
        ("{slot: {field: hook}}", "{slot: {field: hook}, verify: {scheme: what}}", "write fetch, trust, or a mapping"),
    ],
)
def test_card_that_cannot_work_is_refused(old: str, new: str, reason: str | None) -> None:
    """Each with what would be right; the first two are right."""
    assert old in CARD
    text = CARD.replace(old, new)
    if reason is None:
        assert read_card(text, "one.yaml").name == "painter"
        return

    with pytest.raises(CardInvalid) as caught:
        read_card(text, "one.yaml")

    assert reason in str(caught.value)
    assert str(caught.value).startswith("one.yaml:")


def test_hints_need_somebody_to_ask() -> None:
    """Without a poll, what makes a hint of a callback would lose it."""
    for more, reason in (
        ("refetch_when: late", "refetch_when needs poll"),
        ("verify: {scheme: ed25519, header: X, jwks: 'https://a.example/keys'}", "ed25519 needs poll"),
    ):
        card = f"""\
card: 1
name: painter
base_url: https://painter.example
operations:
  generate:
    input: {{type: object}}
    submit: {{path: /jobs, observe: {{task_id: id}}}}
    callback: {{slot: {{field: hook}}, {more}}}
"""
        with pytest.raises(CardInvalid) as caught:
            read_card(card, "one.yaml")
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["(code > `400` && 'failed') || status", "contains(code, `1`)", "ceil(to_number(code))", "code[::0]", "sum(code)"],
)
@pytest.mark.parametrize("code", ["500", 500, None, [], {}, "nan", "1e999", True])
def test_expression_that_meets_another_type_finds_nothing_or_something_but_never_raises(
    text: str, code: object
) -> None:
    """What a provider sends decides neither whether a callback is stored nor whether a poll ends."""
    assert Expression(text).read({"code": code, "status": "done"}) != "raised"
