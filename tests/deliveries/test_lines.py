"""Log lines name where it fails, for which job, how often and until when, and nothing that is secret in a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from service.clock import iso
from service.deliveries.log_lines import shown_url
from tests.deliveries.outage import Outage, outage

TOKEN = "xoxb7Kq2mN9pRtUvWyZa"
DOWN = f"https://down.example:8443/hooks/{TOKEN}?key=s3cr3t"
SHOWN = "https://down.example:8443/hooks/xoxb…"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """Nobody is subscribed yet."""
    async with outage(tmp_path, schedule_s=(5.0,)) as made:
        yield made


@pytest.fixture(autouse=True)
def plain_logging() -> None:
    """Loggers that `capture_logs` sees, whatever was configured before."""
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (DOWN, SHOWN),
        (DOWN.replace("://", "://user:pass@") + "#frag", SHOWN),
        ("https://shop.example", "https://shop.example"),
        ("http://[::1]:8000/a//b/", "http://[::1]:8000/a//b/"),
        (
            "https://hooks.slack.com/services/T00000000/B00000000/X5f0XXaXXXXXXXXXXXXXXXXX",
            "https://hooks.slack.com/services/T00000000/B00000000/X5f0…",
        ),
        ("https://shop.example/a-long-name-of-plain-words", "https://shop.example/a-long-name-of-plain-words"),
        ("https://shop.example/0199a000-0000-7000-8000-000000000001", "https://shop.example/0199…"),
        ("https://shop.example/" + "a/" * 500, ("https://shop.example/" + "a/" * 500)[:300]),
        ("https://[broken", "…"),
    ],
)
def test_url_is_shown_as_origin_and_path(url: str, shown: str) -> None:
    """No user, query, fragment nor token-like part of a path; never longer than a line can bear."""
    assert shown_url(url) == shown


async def test_failed_delivery_names_where_what_and_how_often(at: Outage) -> None:
    """Attempt by attempt, until it is dead."""
    at.web.answer = lambda _: 404
    made = await at.subscribe(DOWN)
    with capture_logs() as lines:
        await at.publish()
        await at.pass_time(8, step_s=4)

    failed, dead = [each for each in lines if each["event"] in {"delivery_failed", "delivery_dead"}]
    assert (failed["event"], dead["event"]) == ("delivery_failed", "delivery_dead")
    assert (failed["attempt"], dead["attempt"]) == (1, 2)
    assert failed["url"] == dead["url"] == SHOWN
    assert failed["subscription"] == made["id"]
    assert failed["delivery"].startswith("dlv_")
    assert {"job", "type", "error_class", "status"} <= failed.keys()
    assert (failed["type"], failed["error_class"]) == ("job.completed", "http_4xx")
    assert not any(secret in str(lines) for secret in (TOKEN, "s3cr3t"))


async def test_destination_that_goes_down_names_how_many_wait_and_until_when(at: Outage) -> None:
    """And the line about its return names it the same way."""
    at.web.answer = lambda _: 503
    await at.subscribe(DOWN, max_in_flight=1)
    with capture_logs() as lines:
        await at.publish(8)
        at.web.answer = lambda _: 204
        await at.pass_time(8, step_s=1)

    [down] = [each for each in lines if each["event"] == "destination_down"]
    [back] = [each for each in lines if each["event"] == "destination_back"]
    assert (down["url"], down["waiting"], down["error_class"]) == (SHOWN, 5, "http_5xx")
    assert iso(at.clock.now_ms() - 8_000) < down["until"] <= iso(at.clock.now_ms())
    assert back["url"] == SHOWN


async def test_what_the_paths_of_an_origin_share_is_named_by_the_origin(at: Outage) -> None:
    """No single path is blamed for it."""
    at.web.answer = lambda _: 503
    with capture_logs() as lines:
        for number in range(45):
            await at.publish(callback_url=f"https://down.example/{number}/{TOKEN}")
            at.clock.advance(1)  # a second has room for twenty lines

    assert "https://down.example" in {each["url"] for each in lines if each["event"] == "destination_down"}
    assert TOKEN not in str(lines)


async def test_disabled_subscription_names_account_and_address(at: Outage) -> None:
    """A 410 is the destination's own word; the operator sees whose and where."""
    at.web.answer = lambda _: 410
    made = await at.subscribe(DOWN)
    with capture_logs() as lines:
        await at.publish()

    [line] = [each for each in lines if each["event"] == "subscription_disabled"]
    assert (line["subscription"], line["url"]) == (made["id"], SHOWN)
    assert line["account"].startswith("acc_")
