"""What a request's time went to: the parts of a connection, and the wait for the answer's head.

The clock is moved by the peers themselves, so that every figure is exact and nobody waits.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from service.clock import VirtualClock
from service.errors import EgressError, Timing
from tests.egress.certificates import made_out, server_tls
from tests.egress.raw import OK, Peer, mute, opened, polite, serving
from tests.egress.test_door import WAYS, send
from tests.egress.test_faults import free_port


def looked_up_in(clock: VirtualClock, milliseconds: int) -> Callable[[str], list[str]]:
    """A name server that takes so long for any name."""

    def lookup(_: str) -> list[str]:
        clock.advance(milliseconds / 1000)
        return ["127.0.0.1"]

    return lookup


@pytest.mark.parametrize("way", WAYS)
async def test_timing_tells_the_parts_of_a_new_connection(way: str, tmp_path: Path) -> None:
    """Look-up, handshake and thinking time are told apart; the first byte counts from the request's beginning."""
    clock = VirtualClock()
    path = made_out(tmp_path, "slow.test")
    context = server_tls(path)
    context.sni_callback = lambda *_: clock.advance(0.07)

    async def thinking(peer: Peer) -> None:
        await peer.request()
        clock.advance(0.4)
        await peer.say(OK)

    trust = ssl.create_default_context(cafile=path)
    async with serving(thinking, context) as server, opened(looked_up_in(clock, 30), clock=clock, tls=trust) as door:
        answer = await send(door, way, server.url.replace("127.0.0.1", "slow.test"))

    assert answer.timing == Timing(dns_ms=30, connect_ms=0, tls_ms=70, first_byte_ms=500)
    assert answer.duration_ms == 500


@pytest.mark.parametrize("way", ["deliver", "call"])
async def test_kept_connection_has_no_connection_times(way: str) -> None:
    """What did not happen has no time: the second request looks nothing up and dials nobody."""
    clock = VirtualClock()

    async with serving(polite) as server, opened(looked_up_in(clock, 30), clock=clock) as door:
        url = server.url.replace("127.0.0.1", "kept.test")
        first, second = await send(door, way, url), await send(door, way, url)

    assert first.timing == Timing(dns_ms=30, connect_ms=0, first_byte_ms=30)
    assert second.timing == Timing(first_byte_ms=0)
    assert server.connections == 1


@pytest.mark.parametrize("way", WAYS)
async def test_address_needs_no_look_up(way: str) -> None:
    """A URL that names an address has a connection without a look-up, and none for TLS."""
    async with serving(polite) as server, opened(clock=VirtualClock()) as door:
        answer = await send(door, way, server.url)

    assert answer.timing == Timing(connect_ms=0, first_byte_ms=0)


@pytest.mark.parametrize("way", WAYS)
async def test_failures_tell_how_far_they_came(way: str, tmp_path: Path) -> None:
    """A part that did not come to its end has no time, and those before it have theirs."""
    path = made_out(tmp_path, "other.test")
    lookup = looked_up_in(clock := VirtualClock(), 30)

    async def timing(url: str) -> Timing:
        async with opened(lookup, clock=clock) as door:
            with pytest.raises(EgressError) as caught:
                await send(door, way, url.replace("127.0.0.1", "far.test"), timeout_s=0.3)
        return caught.value.timing

    async with serving(mute) as silent, serving(polite, server_tls(path)) as other:
        assert await timing(f"http://127.0.0.1:{free_port()}/hook") == Timing(dns_ms=30)
        assert await timing(other.url) == Timing(dns_ms=30, connect_ms=0)
        assert await timing(silent.url) == Timing(dns_ms=30, connect_ms=0)


@pytest.mark.parametrize("way", WAYS)
async def test_name_that_does_not_exist_has_no_times(way: str) -> None:
    """Nothing came to its end: there is nothing to connect to."""

    def nowhere(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async with opened(nowhere) as door:
        with pytest.raises(EgressError) as caught:
            await send(door, way, "http://gone.test/hook")

    assert (caught.value.reason, caught.value.timing) == ("dns_not_found", Timing())


@pytest.mark.parametrize("way", WAYS)
async def test_answer_that_stalls_has_a_first_byte(way: str) -> None:
    """The head came, the body did not: the wait for the first byte is told although there is no answer."""

    async def stalling(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await mute(peer)

    async with serving(stalling) as server, opened(clock=VirtualClock()) as door:
        with pytest.raises(EgressError) as caught:
            await send(door, way, server.url, timeout_s=0.3)

    assert (caught.value.reason, caught.value.timing) == ("timeout", Timing(connect_ms=0, first_byte_ms=0))
