"""Heads that browsers read are read, and what is refused is told by its own words."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.egress.heads import HEAD_BYTES, HeadInvalid, mended
from service.errors import EgressCut
from tests.egress.raw import Peer, opened, saying, serving
from tests.egress.test_answers import read
from tests.egress.test_door import WAYS, send

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n"
CHUNKS = b"\r\n2\r\nok\r\n0\r\n\r\n"
SLOPPY = {
    "a length twice": OK + TWO + TWO + b"\r\nok",
    "a length as a list": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "chunks and a length": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + CHUNKS,
    "no coding at all": OK + b"Transfer-Encoding: identity\r\n" + TWO + b"\r\nok",
    "a folded line": OK + b"X-A: b\r\n\tc\r\n" + TWO + b"\r\nok",
    "a blank before the colon": OK + b"X-A : b\r\nContent-Length : 2\r\n\r\nok",
    "line feeds alone": (OK + TWO + b"\r\nok").replace(b"\r", b""),
    "one line feed alone": OK + TWO + b"\nok",
    "a carriage return in a value": OK + b"X-A: a\rb\r\n" + TWO + b"\r\nok",
    "a NUL in a value": OK + b"X-A: a\0b\r\n" + TWO + b"\r\nok",
    "Latin-1 in a value": OK + b"X-A: \xe9\r\n" + TWO + b"\r\nok",
    "Latin-1 in a name": OK + b"X\xe9: a\r\n" + TWO + b"\r\nok",
    "Latin-1 in the reason": b"HTTP/1.1 200 d\xe9j\xe0 vu\r\n" + TWO + b"\r\nok",
    "a line that is no header": OK + b"nonsense\r\n" + TWO + b"\r\nok",
    "a name with a blank": OK + b"X A: b\r\n" + TWO + b"\r\nok",
    "a header without a name": OK + b": b\r\n" + TWO + b"\r\nok",
    "another version": b"HTTP/2 200\r\n" + TWO + b"\r\nok",
    "small letters": b"http/1.1 200 ok\r\n" + TWO + b"\r\nok",
    "two blanks": b"HTTP/1.1  200 OK\r\n" + TWO + b"\r\nok",
    "a byte order mark": b"\xef\xbb\xbf" + OK + TWO + b"\r\nok",
    "a long line": OK + b"X-A: " + b"a" * 9000 + b"\r\n" + TWO + b"\r\nok",
    "a very long line": OK + b"X-A: " + b"a" * 65_000 + b"\r\n" + TWO + b"\r\nok",
    "a long reason": b"HTTP/1.1 200 " + b"O" * 9000 + b"\r\n" + TWO + b"\r\nok",
    "many lines": OK + b"X-A: b\r\n" * 400 + TWO + b"\r\nok",
    "the old version": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO + b"\r\nok",
}
REFUSED = {
    "a head of more than 64 KiB": OK + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
    "a head of more than 500 lines": OK + b"X-A: b\r\n" * 1000 + b"\r\n",
    "two different lengths of its body": OK + TWO + b"Content-Length: 3\r\n\r\nok",
    "a length of its body that is no number": OK + b"Content-Length: +2\r\n\r\nok",
    "more than 8 interim answers or blank lines": b"HTTP/1.1 102 Wait\r\n\r\n" * 9 + OK + TWO + b"\r\nok",
    "a status that means nothing": b"HTTP/1.1 999 No\r\n\r\n",
    "something that is not HTTP": b"SSH-2.0-OpenSSH_9.6",
    "a body that is not HTTP": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}
PIECES = (b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"HTTP/1.1 200", b"Content-Length", b"Transfer-Encoding")
heads = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=30).map(b"".join)


@pytest.mark.parametrize("way", [*WAYS, "fetch"])
@pytest.mark.parametrize("answer", SLOPPY)
async def test_sloppy_head_is_read(way: str, answer: str) -> None:
    """What RFC 9112 and browsers take, deliveries, provider calls and downloads take."""
    async with serving(saying(SLOPPY[answer])) as server, opened() as door:
        assert await read(door, way, server.url) == b"ok"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", REFUSED)
async def test_refused_head_is_told_by_its_own_words(way: str, words: str) -> None:
    """An operator reads what was wrong; "not HTTP" is said only of what is not HTTP, and at once."""

    async def saying_and_waiting(peer: Peer) -> None:
        await peer.request()
        await peer.say(REFUSED[words])
        await peer.reader.read()

    async with serving(saying_and_waiting) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await send(door, way, server.url)

    assert (caught.value.reason, str(caught.value)) == ("bad_answer", f"127.0.0.1 answered with {words}")


@pytest.mark.parametrize("cut", range(1, 60, 4))
async def test_head_may_come_in_pieces(cut: int) -> None:
    """Wherever the network parts a head, blank lines and sloppy ones included, it is the same head."""
    answer = b"\r\n\r\n" + OK + b"X-A : b\r\n" + TWO + TWO + b"\nok"
    async with serving(saying(answer[:cut], answer[cut : cut + 1], answer[cut + 1 :])) as server, opened() as door:
        got = await send(door, "call", server.url)

    assert (got.body, got.headers["x-a"]) == (b"ok", "b")


async def test_chunks_beside_a_length_end_the_connection() -> None:
    """RFC 9112, 6.3: who sends both may have smuggled; its next answer comes on a new connection."""

    async def both(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(SLOPPY["chunks and a length"])

    async with serving(both) as server, opened() as door:
        bodies = [(await send(door, "call", server.url)).body for _ in range(2)]

    assert (bodies, server.connections) == ([b"ok", b"ok"], 2)


@given(heads)
def test_mending_never_adds_a_line(head: bytes) -> None:
    """Whatever comes, what is handed on has no more lines, and mending it again changes nothing."""
    try:
        made, _ = mended(head)
    except HeadInvalid:
        return

    assert made.count(b"\n") <= head.count(b"\n") + 2
    assert mended(made)[0] == made


@pytest.mark.parametrize(
    "line", [b"\r", b" ", b"\t", b":", b"a", b"a ", b"a:", b": ", b"\0", b"\xff", b"HTTP/1.1 2", b"Content-Length:,"]
)
def test_mending_takes_no_time(line: bytes) -> None:
    """The largest head of anything repeated costs milliseconds."""
    for head in (line * (HEAD_BYTES // len(line)), (line + b"\r\n") * 400, OK + line * 60_000 + b"\r\n\r\n"):
        began = time.thread_time()
        with suppress(HeadInvalid):
            mended(head)
        assert time.thread_time() - began < 0.05
