"""Logs without secrets, in one form; metrics with the names that operators rely on."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.clock import VirtualClock
from service.metrics import METRICS
from service.printable import shown_json
from service.states import JobStatus
from service.telemetry import Metrics, SparingLog, configure_logging, redacted

SECRET = "c2VjcmV0-never-to-be-seen_0123456789ABCDEFGH"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    root.handlers[:], warnings.showwarning = handlers, show
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_is_json_with_time_level_and_fields() -> None:
    """What is no terminal gets one JSON object a line, with a time in UTC."""
    stream = io.StringIO()
    configure_logging("auto", "info", stream)
    structlog.get_logger("service.jobs").info("job_completed", job="job_1", polls=3)

    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "job_completed", "level": "info", "logger": "service.jobs", "job": "job_1", "polls": 3}


def test_terminal_gets_readable_lines() -> None:
    """A terminal gets text, and no text can move its cursor or forge a line of its own value."""
    stream = Terminal()
    configure_logging("auto", "info", stream)
    structlog.get_logger("service.jobs").info("job_completed", text="one\ntwo\x1b[2J")

    assert "job_completed" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert "\x1b[2J" not in stream.getvalue()


def test_terminal_shows_a_request_on_a_short_line() -> None:
    """As people say it, on 80 columns; in JSON each part stays a field of its own."""
    stream, machine = Terminal(), io.StringIO()
    exchange = {"method": "POST", "path": "/v1/jobs", "status": 422, "ms": 3.1, "request_id": "0011223344556677"}
    for each in (stream, machine):
        configure_logging("auto", "info", each)
        structlog.get_logger("service.api.exchange").info("exchange", **exchange)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).rstrip()

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3}Z \[info\] POST /v1/jobs 422 +ms=3.1 request_id='0011223344556677'", plain
    ), plain
    assert len(plain) <= 80
    assert lines(machine)[0].items() >= exchange.items()


def test_flood_of_lines_is_cut_and_counted() -> None:
    """An outage fails thousands of jobs a second; the log has some of them, and how many it has not."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    clock = VirtualClock()
    log = SparingLog("service.jobs", clock, per_s=3)
    for number in range(10):
        log.say("info", "job_failed", job=number)
    clock.advance(1.0)
    log.say("warning", "job_expired", job=10)

    said = lines(stream)
    assert [line["job"] for line in said] == [0, 1, 2, 10]
    assert said[-1]["lines_kept_back"] == 7
    assert said[-1]["level"] == "warning"


def test_server_says_nothing_of_its_own_start_and_stop() -> None:
    """`serve` has its own words for it; what goes wrong is told."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("uvicorn.error").info("Started server process [1]")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")

    assert [line["event"] for line in lines(stream)] == ["Exception in ASGI application"]


#: What a terminal obeys, what turns a line around, what shows nothing, what some take for a line's end, half a character.
NASTY = "\n\r\t\x00\x1b[2J\x7f\x85\x9b\xa0\xad\u200b\u200f\u202e\u2028\u2029\u2066\ufeff\ud800\udc80\ue000\U000e0041"
nasty = st.text(st.one_of(st.sampled_from(NASTY), st.characters()), max_size=30)


@given(message=nasty, value=nasty, key=nasty, reason=nasty, raised=st.booleans())
@example(message="GET /x", value="a", key="k", reason="\n12:00:00.000Z [error] forged", raised=True)
def test_terminal_gets_one_line_an_event(message: str, value: str, key: str, reason: str, raised: bool) -> None:
    """It starts with a time; only a traceback follows it, indented. Nothing in it is anything but printable."""
    stream = io.StringIO()
    configure_logging("console", "info", stream)
    error = ValueError(reason) if raised else None
    structlog.get_logger("elsewhere\n" + value).info(message, value=value, deep=[{key: value}], exc_info=error)
    logging.getLogger("library").error("%s", message, exc_info=error)
    said = stream.getvalue().removesuffix("\n").split("\n")

    assert [bool(re.match(r"\d\d:\d\d:\d\d\.\d{3}Z \[(info|error)\] ", line)) for line in said].count(True) == 2
    assert all(line[0].isdigit() or line.startswith("  ") for line in said)
    assert all(line.isprintable() for line in said)
    assert raised or len(said) == 2


@given(text=nasty.filter(lambda text: not re.search("[\ud800-\udfff]", text)))  # no UTF-8 has half a character
def test_json_without_what_is_not_printable_says_the_same(text: str) -> None:
    """It can be shown on a terminal and is read as before."""
    shown = shown_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))

    assert json.loads(shown) == {text: [text]}
    assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_level_is_the_least_that_is_logged(level: str) -> None:
    """Nothing below the level, everything from it on."""
    stream = io.StringIO()
    order = ["debug", "info", "warning", "error", "critical"]
    configure_logging("json", level, stream)
    for each in order:
        getattr(structlog.get_logger("service"), each)("said")

    assert [line["level"] for line in lines(stream)] == order[order.index(level) :]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer …"),
        (f"basic {SECRET}, next", "basic …, next"),
        (f"key rmk_1a2b{SECRET}.", "key rmk_1a2b…."),
        ("prefix rmk_1a2b", "prefix rmk_1a2b"),
        (f"whsec_ab12{SECRET}==", "whsec_ab12…"),
        (f"POST /callbacks/{SECRET}/x?y=1 200", "POST /callbacks/…/x?y=1 200"),
        (f"to https%3A%2F%2Fr%2Fcallbacks%2F{SECRET}", "to https%3A%2F%2Fr%2Fcallbacks%2F…"),
        (f"sent https:\\/\\/r\\/callbacks\\/{SECRET}", "sent https:\\/\\/r\\/callbacks\\/…"),
        (f"https://remora.example/r/{SECRET}", "https://remora.example/r/…"),
        (f"GET //r//{SECRET} 200", "GET //r//… 200"),
        (f"v1,{SECRET} v1a,{SECRET}", "v1,… v1a,…"),
        (f"https://f.example/a.png?X-Amz-Signature={SECRET}&b=1", "https://f.example/a.png?X-Amz-Signature=…&b=1"),
        (f"postgresql://u:{SECRET}@db/x", "postgresql://…@db/x"),
        ("https://backend.example/hooks/images", "https://backend.example/hooks/images"),
        ("job_0199 for mail@example.org", "job_0199 for mail@example.org"),
    ],
)
def test_secret_in_text_is_masked(text: str, kept: str) -> None:
    """Secrets are found by their form, and what is no secret stays readable."""
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "key",
    [
        *("authorization", "Authorization", "api_key", "apikey", "x-api-key", "admin_key", "secret", "webhook_secret"),
        *("token", "callback_token", "webhook-signature", "cookie", "set-cookie", "password"),
    ],
)
def test_value_under_a_secret_name_is_masked(key: str) -> None:
    """A secret without a form of its own is found by its name, however deep it lies."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    structlog.get_logger("service").info("said", **{key: SECRET}, headers=[{"inner": {key: SECRET}}])

    assert SECRET not in stream.getvalue()
    assert lines(stream)[0]["headers"] == [{"inner": {key: "…"}}]


def test_names_that_only_sound_secret_stay() -> None:
    """Masking everything with `key` in it would make lines useless."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    structlog.get_logger("service").info("said", idempotency_key="order-1", tokens=3, key_prefix="rmk_1a2b")

    line = lines(stream)[0]
    assert (line["idempotency_key"], line["tokens"], line["key_prefix"]) == ("order-1", 3, "rmk_1a2b")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secret_in_an_exception_is_masked(log_format: Any) -> None:
    """The text of an exception and its cause goes through the same masking, and no local variable is printed."""
    stream = Terminal()
    configure_logging(log_format, "info", stream)
    hidden = SECRET
    try:
        try:
            raise ValueError(f"Bearer {hidden}")
        except ValueError as error:
            raise RuntimeError(f"GET /callbacks/{hidden}") from error
    except RuntimeError:
        structlog.get_logger("service").exception("failed", error=RuntimeError(f"rmk_1a2b{hidden}"))

    assert "RuntimeError" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_secret_in_an_object_or_bytes_is_masked() -> None:
    """What the renderer would turn into text is judged as text first."""

    class Request:
        def __repr__(self) -> str:
            return f"Request(Bearer {SECRET})"

    stream = io.StringIO()
    configure_logging("json", "info", stream)
    structlog.get_logger("service").info("said", request=Request(), body=f"/r/{SECRET}".encode(), many={Request()})

    assert SECRET not in stream.getvalue()


def test_libraries_speak_through_the_same_lines() -> None:
    """The standard library's loggers get the same form and masking; chatty ones are kept to warnings."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("uvicorn.error").warning("listening on /callbacks/%s", SECRET)
    logging.getLogger("httpx").info("GET https://provider.example")
    logging.getLogger("httpx").warning("slow")

    assert [line["event"] for line in lines(stream)] == ["listening on /callbacks/…", "slow"]


def test_long_value_is_cut() -> None:
    """A picture in a message does not drown the log."""
    assert len(redacted("x" * 1_000_000)) < 20_000


def test_line_that_cannot_be_written_stops_nobody() -> None:
    """A full disk or a closed pipe behind the log is no reason to fail a job."""

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    configure_logging("json", "info", Full())

    structlog.get_logger("service").info("said")


def test_metrics_have_their_names_labels_and_values() -> None:
    """Every metric can be counted, and shows the value under its name."""
    metrics = Metrics()
    metrics.set_jobs({"running": 3})
    metrics.moved("apimodels", "generate", JobStatus.QUEUED, JobStatus.SUBMITTING)
    metrics.submitted("apimodels", "accepted")
    metrics.callback("apimodels", "stored")
    metrics.polled("apimodels", "observed")
    metrics.unknown_word("apimodels")
    metrics.callback_became_event(0.004)
    metrics.delivered(2_000)
    metrics.attempted("delivered", None, 20)
    metrics.attempted("failed", "tls_expired", 20)
    metrics.attempted("failed", "tls_expired", 20)
    metrics.batch(17, 0.001)
    metrics.request_served("POST", "/v1/jobs", 202, 0.003)
    metrics.request_served("GET", "/v1/events/stream", 200, 3600.0)
    metrics.loop_failed("poller")
    body, content_type = metrics.render()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }

    assert content_type.startswith("text/plain; version=")
    assert samples["remora_jobs", "running"] == 3
    assert samples["remora_jobs", "queued"] == 0
    assert samples["remora_job_state_changes_total", "apimodels", "submitting"] == 1
    assert samples["remora_submits_total", "accepted", "apimodels"] == 1
    assert samples["remora_callbacks_total", "apimodels", "stored"] == 1
    assert samples["remora_polls_total", "apimodels", "observed"] == 1
    assert samples["remora_unknown_status_words_total", "apimodels"] == 1
    assert samples["remora_callback_to_event_seconds_sum",] == 0.004
    assert samples["remora_deliveries_total", "delivered"] == 1
    assert samples["remora_event_delivery_seconds_sum",] == 2
    assert samples["remora_delivery_attempt_seconds_sum", "delivered"] == 0.02
    assert samples["remora_delivery_attempt_seconds_count", "failed"] == 2
    assert samples["remora_delivery_attempts_total", "", "delivered"] == 1
    assert samples["remora_delivery_attempts_total", "failed", "tls_expired"] == 2
    assert ("remora_deliveries_total", "failed") not in samples
    assert samples["remora_writer_batch_commands_sum",] == 17
    assert samples["remora_writer_commit_seconds_count",] == 1
    assert samples["remora_http_requests_total", "/v1/jobs", "202", "POST"] == 1
    assert samples["remora_http_request_seconds_count", "/v1/jobs"] == 1
    assert samples["remora_http_requests_total", "/v1/events/stream", "200", "GET"] == 1
    assert ("remora_http_request_seconds_count", "/v1/events/stream") not in samples
    assert samples["remora_loop_failures_total", "poller"] == 1


def test_two_services_in_one_process_do_not_mix() -> None:
    """Each has its own registry."""
    first, second = Metrics(), Metrics()
    first.loop_failed("poller")

    assert b'loop="poller"' in first.render()[0]
    assert b'loop="poller"' not in second.render()[0]


def test_metric_names_carry_their_unit() -> None:
    """Prometheus's conventions: counters end in `_total`, times in `_seconds`; all are ours by name."""
    for row in METRICS:
        assert row.name.startswith("remora_")
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert row.kind != "histogram" or row.name.endswith(("_seconds", "_commands"))
