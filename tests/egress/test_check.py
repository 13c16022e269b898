"""The gate at work: URLs that callers hand in, and names that change between judging and dialling."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from service.clock import VirtualClock
from service.egress.names import REMEMBER_S
from service.errors import EgressRefused
from tests.egress.raw import opened, polite, serving
from tests.egress.test_door import WAYS, send

NAMES: dict[str, Sequence[str] | OSError] = {
    "public.test": ["8.8.8.8", "2606:2800:220:1::1"],
    "private.test": ["10.0.0.7"],
    "mixed.test": ["8.8.8.8", "10.0.0.7"],
    "mapped.test": ["::ffff:10.0.0.7"],
    "metadata.test": ["169.254.169.254"],
    "localhost": ["::1", "127.0.0.1"],
    "missing.test": socket.gaierror(socket.EAI_NONAME, "unknown"),
    "backend.example": socket.gaierror(socket.EAI_NONAME, "unknown"),
    "later.test": socket.gaierror(socket.EAI_AGAIN, "again"),
}


def book(host: str) -> Sequence[str]:
    answer = NAMES[host]
    if isinstance(answer, OSError):
        raise answer
    return answer


@pytest.mark.parametrize(
    "url",
    [
        "https://public.test/hook",
        "http://127.0.0.1:8080/hook",  # allowed in these tests
        "https://8.8.8.8/",
        "https://backend.example/hooks/images",  # stands in every README
        "https://later.test/",  # judged when it is dialled
    ],
)
async def test_check_lets_usable_urls_pass(url: str) -> None:
    """What is public, allowed, for documentation or not to be known at the moment can be stored."""
    async with opened(book) as door:
        await door.check(url)


@pytest.mark.parametrize(
    ("url", "reason", "hint"),
    [
        ("https://private.test/", "address_forbidden", "REMORA_EGRESS_ALLOW"),
        ("https://mixed.test/", "address_forbidden", "REMORA_EGRESS_ALLOW"),
        ("https://mapped.test/", "address_forbidden", "REMORA_EGRESS_ALLOW"),
        ("http://localhost:8080/", "address_forbidden", "add ::1/128 to REMORA_EGRESS_ALLOW"),
        ("http://10.0.0.7/", "address_forbidden", "add 10.0.0.7/32 to REMORA_EGRESS_ALLOW"),
        ("http://[::1]/", "address_forbidden", "add ::1/128 to REMORA_EGRESS_ALLOW"),
        ("http://169.254.169.254/latest/meta-data", "address_forbidden", "metadata"),
        ("https://metadata.test/", "address_forbidden", "metadata"),
        ("https://missing.test/", "dns_not_found", "does not exist"),
        ("gopher://public.test/", "url_invalid", "https://"),
    ],
)
async def test_check_refuses_with_reason_and_fix(url: str, reason: str, hint: str) -> None:
    """Who hands in a URL that cannot work is told why and what to do, and no address of the inside."""
    async with opened(book) as door:
        with pytest.raises(EgressRefused, match=hint) as caught:
            await door.check(url)

    assert caught.value.reason == reason
    assert "meta-data" not in str(caught.value)
    assert "10.0.0.7" not in str(caught.value) or "10.0.0.7" in url


async def test_check_takes_missing_names_where_told() -> None:
    """A host that is yet to come can be stored, a forbidden one cannot."""
    async with opened(book) as door:
        await door.check("https://missing.test/", unresolved_ok=True)
        with pytest.raises(EgressRefused):
            await door.check("https://private.test/", unresolved_ok=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "host", ["private.test", "mixed.test", "metadata.test", "10.0.0.7", "[::ffff:7f00:1]", "[::1]"]
)
async def test_door_judges_whatever_it_dials(way: str, host: str) -> None:
    """Names and addresses are judged at the door too: a URL in the store may be old, and a name may move."""
    async with serving(polite) as server, opened(book, allow=()) as door:
        with pytest.raises(EgressRefused) as caught:
            await send(door, way, f"http://{host}:{server.port}/hook")

    assert caught.value.reason == "address_forbidden"
    assert server.connections == 0


@pytest.mark.parametrize("way", WAYS)
async def test_door_dials_the_address_that_it_judged(way: str) -> None:
    """A name that answers something else the second time is not asked a second time."""
    answers = iter([["127.0.0.1"], ["10.0.0.7"]])
    clock = VirtualClock()
    async with serving(polite) as server, opened(lambda _: next(answers), clock=clock) as door:
        url = f"http://moving.test:{server.port}/hook"
        await door.check(url)
        answer = await send(door, way, url)
        clock.advance(REMEMBER_S)
        with pytest.raises(EgressRefused):
            await door.check(url)

    assert answer.status == 200
    assert f"host: moving.test:{server.port}" in server.heard[0][0].lower()


@pytest.mark.parametrize("way", WAYS)
async def test_door_tries_the_next_address(way: str) -> None:
    """A name with a dead address and a living one is reached."""
    async with serving(polite) as server, opened(lambda _: ["127.0.0.9", "127.0.0.1"]) as door:
        answer = await send(door, way, f"http://two.test:{server.port}/hook")

    assert answer.status == 200
