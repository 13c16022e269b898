"""One document becomes one observation, whatever the document is."""

from __future__ import annotations

import json
from dataclasses import asdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.documents.origins import LinkOrigins
from service.providers.documents.reading import Written
from service.providers.mapping import Observation, Seen, task_id
from service.states import ErrorCode
from tests.providers.scripted import KEY, ScriptedEgress, provider, quoted

APIMODELS = provider(ScriptedEgress())
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def heard(body: object) -> Observation:
    """What an apimodels callback with this body says."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return APIMODELS.read_callback("generate", raw, {})


def task(**fields: object) -> dict[str, object]:
    return {"code": 200, "msg": "success", "data": {"taskId": "clxxx...", **fields}}


def test_callback_is_read_like_a_poll() -> None:
    """The callback's body is the envelope of the query, so the documented examples are callbacks too."""
    done = heard(quoted("success-response"))
    failed = heard(quoted("failed-response"))

    assert done == Observation(
        seen=Seen.COMPLETED,
        task_id="clxxx...",
        provider_status="completed",
        urls=("https://r2.apimodels.app/images/xxx.jpeg",),
        finished_at_ms=1705123465000,
        created_at_ms=1705123450000,
    )
    assert (failed.seen, failed.error_code) == (Seen.FAILED, ErrorCode.CONTENT_MODERATED)


@pytest.mark.parametrize(
    ("word", "seen"),
    [("pending", Seen.QUEUED), ("processing", Seen.RUNNING), ("completed", Seen.COMPLETED), ("failed", Seen.FAILED)],
)
def test_every_documented_state_is_known(word: str, seen: Seen) -> None:
    """The four words of "Task States"."""
    observation = heard(task(state=word))

    assert (observation.seen, observation.provider_status, observation.word_known) == (seen, word, True)


def test_unknown_state_is_running_and_marked() -> None:
    """A word that the card does not list ends nothing, and is counted by whoever sees the mark."""
    observation = heard(task(state="Upscaling\n" * 40, resultUrls=["https://a.example/half"]))

    assert (observation.seen, observation.word_known) == (Seen.RUNNING, False)
    assert observation.provider_status is not None
    assert len(observation.provider_status) <= 64
    assert "\n" not in observation.provider_status
    assert observation.urls == ()


@pytest.mark.parametrize("state", [None, "", "  ", {}, [], {"a": 1}, 1.5])
def test_no_state_is_no_observation(state: object) -> None:
    """What is no word tells nothing."""
    assert heard(task(state=state)).seen is None


@pytest.mark.parametrize("text", ["Content policy violation", "blocked by MODERATION", "violates our content policies"])
def test_failure_that_speaks_of_moderation_is_moderated(text: str) -> None:
    """Apimodels has no state for it, only text."""
    assert heard(task(state="failed", failMsg=text)).error_code is ErrorCode.CONTENT_MODERATED


@pytest.mark.parametrize("text", ["GPU fell over", "", None, 7, {"no": "text"}])
def test_other_failures_are_the_providers(text: object) -> None:
    """Any other reason, or none."""
    assert heard(task(state="failed", failMsg=text)).error_code is ErrorCode.PROVIDER_FAILED


def test_message_is_one_short_line_without_the_key() -> None:
    """Nothing secret and nothing endless reaches our records, also where a cut would leave half of a secret."""
    observation = heard(task(state="failed", failMsg="x" * 490 + f" {KEY}\r\n" + "y" * 1_000_000))

    assert observation.error_message is not None
    assert len(observation.error_message) <= 500
    assert "\n" not in observation.error_message
    assert KEY[:4] not in observation.error_message


def test_results_are_told_in_their_order() -> None:
    """What is no URL stands in its place, beside those that are; only a completed task has results."""
    urls = ["https://a.example/2", "oops", "https://a.example/1"]
    done, running = heard(task(state="completed", resultUrls=urls)), heard(task(state="processing", resultUrls=urls))

    assert (done.urls, done.not_urls) == (("https://a.example/2", "https://a.example/1"), (1,))
    assert done.results == ("https://a.example/2", None, "https://a.example/1")
    assert running.results == ()


@pytest.mark.parametrize("time", [1705123465, 0, -5, True, "soon", 1e300, "1e999999999", {}, [], 10**30])
def test_time_in_another_unit_is_no_time(time: object) -> None:
    """Seconds where milliseconds are documented would be 1970: no time is better than a wrong one."""
    assert heard(task(state="completed", completeTime=time)).finished_at_ms is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", "abc"),
        (123, "123"),
        (" a ", "a"),
        (True, None),
        ("", None),
        (" ", None),
        ("..", None),
        (1.5, None),
        ("a\nb", None),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, None),
        (2**70, str(2**70)),
        (Written("1.0"), "1.0"),
        (Written("12e3"), "12e3"),
        ("caf\ufffd", None),
    ],
)
def test_task_id_is_a_short_text(value: object, expected: str | None) -> None:
    """A number is an id too, as it was written; what could break a URL or a row, or was damaged, is none."""
    assert task_id(value) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/jobs/1", "https://api.example/jobs/1"),
        ("https://api.example/jobs/1?x=2", "https://api.example/jobs/1?x=2"),
        ("https://API.example:443/jobs/1", "https://API.example:443/jobs/1"),
        ("http://api.example/jobs/1", None),
        ("https://api.example:8443/jobs/1", None),
        ("https://api.example.evil.example/jobs/1", None),
        ("https://api.example@evil.example/jobs/1", None),
        ("https://user@api.example/jobs/1", None),
        ("//evil.example/jobs/1", None),
        ("https:\\\\evil.example\\jobs", None),
        ("https://[", None),
        ("https://api.example:port/", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_given_addresses_must_have_the_cards_origin(url: object, expected: str | None) -> None:
    """Our key goes to the provider and nowhere else."""
    assert LinkOrigins("https://api.example").absolute(url) == expected


def test_observation_survives_the_store() -> None:
    """An observation that waits for the submit's answer is stored as JSON and comes back the same."""
    observation = heard(quoted("failed-response"))

    again = msgspec.json.decode(msgspec.json.encode(observation), type=Observation)

    assert again == observation
    assert asdict(again) == asdict(observation)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_callback_with_any_bytes_is_read_without_an_error(body: bytes) -> None:
    """Whatever anybody sends to a callback address, reading it raises nothing and completes nothing."""
    assert heard(body).seen in {None, Seen.RUNNING}


@given(JSON_VALUES, JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_task_with_any_fields_is_read_without_an_error(
    urls: object, time: object, message: object, task: object
) -> None:
    """The right envelope with anything in its fields."""
    for state in ("completed", "failed"):
        data = {"taskId": task, "state": state, "resultUrls": urls, "completeTime": time, "failMsg": message}
        assert heard({"code": 200, "data": data}).seen == state
