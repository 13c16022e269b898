"""What goes wrong: whether a request can have left decides what may be done next, so each fault is told apart."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.egress import Call
from service.errors import EgressCut, EgressError, EgressNotSent, EgressRefused
from tests.egress.certificates import DAY, made_out, server_tls
from tests.egress.raw import OK, Peer, Script, mute, opened, polite, saying, serving
from tests.egress.test_door import WAYS, send


async def drip(peer: Peer) -> None:
    """Say the answer so slowly that every read succeeds and the whole never comes."""
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await peer.say(b"z")
        await asyncio.sleep(0.02)  # the pace of the server is what is tested


async def drip_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await peer.say(b"z")
        await asyncio.sleep(0.02)  # as above


async def stall(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await mute(peer)


async def reset(peer: Peer) -> None:
    """Close without reading what came, which resets the connection."""
    await peer.reader.readexactly(1)
    peer.writer.transport.abort()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def failing(way: str, url: str, *, timeout_s: float = 5, tls: ssl.SSLContext | None = None) -> EgressError:
    async with opened(tls=tls) as door:
        with pytest.raises(EgressError) as caught:
            await send(door, way, url, timeout_s=timeout_s)
    assert "/hook" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", [mute, drip, drip_head, stall])
async def test_deadline_after_sending_is_a_cut(way: str, script: Script) -> None:
    """One deadline ends silence, dripping and stalling alike; the request may have been taken."""
    async with serving(script) as server:
        error = await failing(way, server.url, timeout_s=0.3)

    assert isinstance(error, EgressCut)
    assert error.reason == "timeout"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (saying(), "connection_cut"),
        (saying(b"HTTP/1.1 200"), "connection_cut"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), "connection_cut"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "connection_cut"),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), "connection_cut"),
        (reset, "connection_cut"),
        (saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "bad_answer"),
        (saying(b"HTTP/1.1 2000 OK\r\n\r\n"), "bad_answer"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "bad_answer"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n"), "bad_answer"),
        (saying(b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n"), "bad_answer"),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "bad_answer"),
    ],
)
async def test_broken_answer_is_a_cut(way: str, script: Script, reason: str) -> None:
    """Whatever breaks after the connection stood, the request may have been taken; it was sent once."""
    async with serving(script) as server:
        error = await failing(way, server.url)

    assert isinstance(error, EgressCut)
    assert error.reason == reason
    assert server.connections == 1


@pytest.mark.parametrize("way", WAYS)
async def test_refused_connection_was_not_sent(way: str) -> None:
    """Nobody listens: it may be sent again."""
    error = await failing(way, f"http://127.0.0.1:{free_port()}/hook")

    assert isinstance(error, EgressNotSent)
    assert error.reason == "connect_refused"


@pytest.mark.parametrize("way", WAYS)
async def test_deadline_while_connecting_was_not_sent(way: str) -> None:
    """A host that does not take the connection never saw the request."""
    with ExitStack() as stack:
        # Linux drops what comes while the queue of a listener is full, as a firewall would.
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        error = await failing(way, f"http://127.0.0.1:{listener.getsockname()[1]}/hook", timeout_s=0.3)

    assert isinstance(error, EgressNotSent)
    assert error.reason == "connect_timeout"


@pytest.mark.parametrize("way", WAYS)
async def test_deadline_in_the_handshake_was_not_sent(way: str) -> None:
    """A server that takes the connection and never finishes TLS never saw the request."""
    async with serving(mute) as server:
        error = await failing(way, server.url.replace("http:", "https:"), timeout_s=0.3)

    assert isinstance(error, EgressNotSent)
    assert error.reason == "connect_timeout"


@pytest.mark.parametrize("way", WAYS)
async def test_deadline_in_the_look_up_was_not_sent(way: str) -> None:
    """A name whose servers do not answer holds nobody beyond the deadline."""
    go = threading.Event()

    def dead(host: str) -> list[str]:
        go.wait(30)
        return ["127.0.0.1"]

    async with opened(dead) as door:
        with pytest.raises(EgressNotSent):
            await send(door, way, "http://dead.test/hook", timeout_s=0.2)
        go.set()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1."""
    return made_out(tmp_path_factory.mktemp("tls"), None)


@pytest.mark.parametrize("way", WAYS)
async def test_unknown_certificate_was_not_sent(way: str, certificate: Path) -> None:
    """Without a certificate that is trusted nothing is sent."""
    async with serving(polite, tls=server_tls(certificate)) as server:
        error = await failing(way, server.url)

    assert isinstance(error, EgressNotSent)
    assert error.reason == "tls_untrusted"
    assert server.heard == []


@pytest.mark.parametrize("way", WAYS)
async def test_trusted_certificate_is_taken(way: str, certificate: Path) -> None:
    """The other way round, so that the test above proves something."""
    trust = ssl.create_default_context(cafile=certificate)
    async with serving(polite, tls=server_tls(certificate)) as server, opened(tls=trust) as door:
        answer = await send(door, way, server.url)

    assert answer.status == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"name": None, "since": -2 * DAY, "until": -DAY}, "tls_expired"),
        ({"name": None, "since": DAY, "until": 2 * DAY}, "tls_not_yet_valid"),
        ({"name": "shop.test"}, "tls_wrong_name"),
    ],
)
async def test_certificate_at_fault_is_told(way: str, made: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Its owner can mend a certificate that has run out or is another's once they are told; nothing is sent."""
    path = made_out(tmp_path, **made)
    async with serving(polite, tls=server_tls(path)) as server:
        error = await failing(way, server.url, tls=ssl.create_default_context(cafile=path))

    assert isinstance(error, EgressNotSent)
    assert error.reason == reason
    assert server.heard == []


@pytest.mark.parametrize("way", WAYS)
async def test_wrong_name_of_a_name_is_told(way: str, tmp_path: Path) -> None:
    """The same for a host that has a name, and not only an address."""
    path = made_out(tmp_path, "shop.test")
    trust = ssl.create_default_context(cafile=path)
    async with serving(polite, server_tls(path)) as server, opened(lambda _: ["127.0.0.1"], tls=trust) as door:
        with pytest.raises(EgressNotSent) as caught:
            await send(door, way, server.url.replace("127.0.0.1", "other.test"))

    assert caught.value.reason == "tls_wrong_name"
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
async def test_server_without_tls_is_a_failed_handshake(way: str) -> None:
    """A plain server behind an https URL: no certificate is at fault."""

    async def plain(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(plain) as server:
        error = await failing(way, server.url.replace("http:", "https:"))

    assert isinstance(error, EgressNotSent)
    assert error.reason == "tls_failed"


async def closing_second(peer: Peer) -> None:
    """Keep the connection after the first answer, and close it when the second request comes."""
    await peer.request()
    await peer.say(OK)
    await peer.request()


async def test_delivery_survives_a_kept_connection_that_closes() -> None:
    """A delivery that meets a closing connection is sent again on a new one, unseen."""
    async with serving(closing_second) as server, opened() as door:
        first = await send(door, "deliver", server.url)
        second = await send(door, "deliver", server.url, body=b"second")

    assert (first.status, second.status) == (200, 200)
    assert [body for _, body in server.heard] == [b"{}", b"second", b"second"]
    assert server.connections == 2


async def test_delivery_is_not_repeated_once_an_answer_began() -> None:
    """What was answered, if only by half, was read; and a new connection that is cut is no closing one."""

    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-")

    async with serving(half) as server, opened() as door:
        await send(door, "deliver", server.url)
        with pytest.raises(EgressCut):
            await send(door, "deliver", server.url)

    assert server.connections == 1


async def test_delivery_repeats_once_at_most() -> None:
    """If the new connection is cut too, it is the receiver's fault and the schedule's business."""

    async def first_only(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.say(OK)
            await peer.request()

    async with serving(first_only) as server, opened() as door:
        await send(door, "deliver", server.url)
        with pytest.raises(EgressCut) as caught:
            await send(door, "deliver", server.url)

    assert caught.value.reason == "connection_cut"
    assert server.connections == 2


async def test_call_on_a_kept_connection_that_closes_is_a_cut() -> None:
    """A provider's POST is never sent twice, whoever was at fault."""
    async with serving(closing_second) as server, opened() as door:
        await send(door, "call", server.url)
        with pytest.raises(EgressCut):
            await send(door, "call", server.url)

    assert len(server.heard) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_fresh_call_is_sent_once(method: str) -> None:
    """The client repeats what it takes for idempotent; a submission goes out once, whatever its method."""
    async with serving(saying()) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await door.call(Call(method, server.url, {}), timeout_s=5, read_bytes=10, fresh=True)

    assert caught.value.reason == "connection_cut"
    assert server.connections == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("headers", [{"x-a": "1\r\nx-b: 2"}, {"x-a": "\x00"}, {"x\na": "1"}])
async def test_header_that_cannot_be_sent_is_refused(way: str, headers: dict[str, str]) -> None:
    """A header cannot smuggle another one in; nothing is sent."""
    async with serving(polite) as server, opened() as door:
        with pytest.raises(EgressRefused) as caught:
            await send(door, way, server.url, headers=headers)

    assert caught.value.reason == "headers_invalid"
    assert server.heard == []


@pytest.mark.parametrize("way", WAYS)
async def test_closed_door_sends_nothing(way: str) -> None:
    """Who comes after the end is told that nothing was sent."""
    async with serving(polite) as server:
        async with opened() as door:
            pass
        with pytest.raises(EgressNotSent):
            await send(door, way, server.url)

    assert server.connections == 0


@pytest.mark.parametrize("way", WAYS)
async def test_closing_cuts_what_is_under_way(way: str) -> None:
    """Requests that are under way at the end have an end too."""
    arrived = asyncio.Event()

    async def never(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await mute(peer)

    async with serving(never) as server, opened() as door:
        under_way = asyncio.create_task(send(door, way, server.url))
        await arrived.wait()
        await door.close()
        with pytest.raises(EgressCut):
            await under_way
