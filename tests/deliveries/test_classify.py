"""What an answer means for a delivery."""

from __future__ import annotations

import pytest

from service.backoff import retry_after_s
from service.clock import SeededRandomness
from service.deliveries.classify import broken, classify, kept_and_cut, next_due_ms
from service.egress import Answer
from service.errors import EgressCut, EgressNotSent, Timing

NOW = 1_795_000_000_000  # 2026-11-18T11:06:40Z
SCHEDULE = (5.0, 300.0, 1_800.0)


def answer(status: int, **headers: str) -> Answer:
    """An answer with that status."""
    return Answer(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        b"said",
        truncated=False,
        duration_ms=5,
    )


@pytest.mark.parametrize(
    ("status", "delivered"),
    [
        (200, True),
        (201, True),
        (204, True),
        (299, True),
        (199, False),
        (300, False),
        (301, False),
        (304, False),
        (400, False),
        (500, False),
    ],
)
def test_only_2xx_is_success(status: int, delivered: bool) -> None:
    """Everything else is a failed attempt, redirects too."""
    assert classify(answer(status), NOW).delivered is delivered


def test_gone_ends_the_destination() -> None:
    """410: never again."""
    tried = classify(answer(410), NOW)

    assert tried.gone
    assert next_due_ms(tried, 1, SCHEDULE, NOW, SeededRandomness(1)) is None


@pytest.mark.parametrize("status", [429, 502, 504])
def test_overload_slows_the_lane(status: int) -> None:
    """These say that the destination, not the request, is the trouble."""
    assert classify(answer(status), NOW).slow_s == 5
    assert classify(answer(status, retry_after="60"), NOW).slow_s == 60
    assert classify(answer(500), NOW).slow_s == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999", 86_400.0),
        ("Wed, 18 Nov 2026 11:07:40 GMT", 60.0),
        ("Wed, 18 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("Mon, 01 Jan 0000 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
        ("-5", None),
        ("1.5", 1.5),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    """Capped at a day; nonsense is ignored."""
    assert retry_after_s(header, NOW) == seconds


def test_schedule_is_followed_with_jitter_and_ends() -> None:
    """Each wait within ±20 %, then None."""
    waits = []
    for failed in range(1, 5):
        due = next_due_ms(classify(answer(500), NOW), failed, SCHEDULE, NOW, SeededRandomness(failed))
        waits.append(None if due is None else (due - NOW) / 1000)

    assert waits[0] is not None
    assert 4 <= waits[0] <= 6
    assert waits[2] is not None
    assert 1_440 <= waits[2] <= 2_160
    assert waits[3] is None


def test_retry_after_lengthens_a_wait_and_never_shortens_it() -> None:
    """The destination's word counts when it is longer."""
    longer = next_due_ms(classify(answer(503, retry_after="100"), NOW), 1, SCHEDULE, NOW, SeededRandomness(1))
    shorter = next_due_ms(classify(answer(503, retry_after="1"), NOW), 2, SCHEDULE, NOW, SeededRandomness(1))

    assert longer == NOW + 100_000
    assert shorter is not None
    assert shorter >= NOW + 240_000


def test_no_answer_is_told_by_its_class() -> None:
    """The stable word comes first."""
    tried = broken(EgressNotSent("connect_refused", "shop.example:443 refused the connection"))

    assert tried.error == "connect_refused: shop.example:443 refused the connection"
    assert tried.error_class == "connect_refused"
    assert tried.status_code is None


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (200, None),
        (204, None),
        (301, "redirect"),
        (304, "redirect"),
        (400, "http_4xx"),
        (404, "http_4xx"),
        (410, "gone"),
        (429, "rate_limited"),
        (500, "http_5xx"),
        (503, "http_5xx"),
        (700, "http_7xx"),
    ],
)
def test_answer_has_a_stable_word(status: int, word: str | None) -> None:
    """A few words for all answers, so that they can be counted; success has none."""
    assert classify(answer(status), NOW).error_class == word


def test_timing_goes_into_the_log_with_and_without_an_answer() -> None:
    """Where the time went is told in both cases."""
    timing = Timing(dns_ms=1, connect_ms=2, tls_ms=3)
    error = EgressCut("timeout", "shop.example gave no whole answer in time")
    error.timing = timing

    assert classify(Answer(200, {}, b"", truncated=False, duration_ms=9, timing=timing), NOW).timing == timing
    assert broken(error).timing == timing


@pytest.mark.parametrize(
    ("body", "kept", "cut"),
    [
        (b"", None, False),
        (b"a" * 16_384, "a" * 16_384, False),
        (b"a" * 16_385, "a" * 16_384, True),
        ("ä".encode() * 8_192, "ä" * 8_192, False),
        (b"a" + "ä".encode() * 8_192, "a" + "ä" * 8_191 + "\ufffd", True),
        (b"aaa" + "😀".encode() * 4_096, "aaa" + "😀" * 4_095 + "\ufffd", True),
        (b"\xff" * 5_461, "\ufffd" * 5_461, False),  # three bytes of text for each
        (b"\xff" * 5_462, "\ufffd" * 5_461 + "\ufffd", True),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_answer_is_kept_up_to_16_kib_and_the_rest_is_told(body: bytes, kept: str | None, cut: bool) -> None:
    """What fits is whole, and what is shown in part says so."""
    assert kept_and_cut(classify(Answer(500, {}, body, truncated=False, duration_ms=1), NOW).response_body) == (
        kept,
        cut,
    )


def test_binary_answer_is_kept_as_text() -> None:
    """Whatever bytes come, the log can be stored and shown; at most 16 KiB of text, and a mark."""
    tried = classify(Answer(500, {}, b"\xff\x00" * 20_000, truncated=True, duration_ms=1), NOW)

    assert tried.response_body is not None
    assert "\x00" not in tried.response_body
    assert len(tried.response_body.encode()) <= 16 * 1024 + 2 + len("…".encode())
