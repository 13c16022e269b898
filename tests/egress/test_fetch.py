"""Fetching a file: the link goes out byte for byte as it was given, to the host that was judged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.egress.target import read_link
from service.errors import EgressRefused
from service.fileurls import MAX_LINK_CHARS
from tests.egress.raw import opened, polite, saying, serving

HEX = "0123456789ABCDEFabcdef"

#: Written out from RFC 3986, section 2, with the square brackets that every client sends in a query.
ALLOWED = st.sampled_from("abcXYZ019-._~:/?@!$&'()*+,;=[]") | st.tuples(
    st.just("%"), st.sampled_from(HEX), st.sampled_from(HEX)
).map("".join)

SIGV4 = (
    "/bucket/a%20b/c%2Bd.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20261130%2Fus-east-1%2Fs3%2F"
    "aws4_request&X-Amz-Date=20261130T101112Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Security-Token="
    f"{'Fwo%2FGXIv' * 700}%3D%3D&X-Amz-Signature={'0a' * 32}"
)
AZURE = "/c/f.png?sv=2023-11-03&sr=b&st=2026-11-30T10%3A00%3A00Z&sp=r&sig=u%2BF%2f7w%7E3c%3D"
GOOGLE = "/b/o/a%2Fb.png?GoogleAccessId=x%40y.iam&Expires=1795255200&Signature=a%2Bb%2Fc%3D%3D&response-content-type"
ALIBABA = "/o.png?OSSAccessKeyId=LTAI&Expires=1&Signature=vjby%2BPxydV0aDz8%2F~x-_%3D&x-oss-process=image/resize,w_1"


async def targets(rests: Sequence[str]) -> list[str]:
    """What stands in the request line for links that go on like this behind the host."""
    async with serving(polite) as server, opened() as door:
        for rest in rests:
            file = await door.fetch(f"http://127.0.0.1:{server.port}{rest}", timeout_s=5, stall_s=5)
            while await file.read():
                pass
            file.close()
    return [head.split("\r\n")[0].removeprefix("GET ").removesuffix(" HTTP/1.1") for head, _ in server.heard]


@pytest.mark.parametrize(
    ("rest", "sent"),
    [
        (SIGV4, SIGV4),
        (AZURE, AZURE),
        (GOOGLE, GOOGLE),
        (ALIBABA, ALIBABA),
        ("", "/"),
        ("?q=1", "/?q=1"),
        ("/a?", "/a?"),
        ("/a?b?c", "/a?b?c"),
        ("/a//b/../c/./d;e=f", "/a//b/../c/./d;e=f"),
        ("/%2e%2e/a", "/%2e%2e/a"),
        ("/a+b?c+d", "/a+b?c+d"),
        ("/a b.png?sig=%2F%7e%7E", "/a%20b.png?sig=%2F%7e%7E"),
        ("/ä/€.png?q=日&sig=%2B", "/%C3%A4/%E2%82%AC.png?q=%E6%97%A5&sig=%2B"),
        ('/{a}|"b"<c>`^?sig=%2F', "/%7Ba%7D%7C%22b%22%3Cc%3E%60%5E?sig=%2F"),
        ("/a\\b?c\\d=%5c", "/a%5Cb?c%5Cd=%5c"),
        ("/100%.png?a=%2&b=%zz&c=%2F", "/100%25.png?a=%252&b=%25zz&c=%2F"),
        ("/a\r\nHost: evil?\tb", "/a%0D%0AHost:%20evil?%09b"),
        ("/a?sig=%2F#part=1&b#c", "/a?sig=%2F"),
        ("#part", "/"),
        ("/a \r\n", "/a"),
        ("/a?b=" + "x" * 8_187, "/a?b=" + "x" * 8_187),
    ],
)
async def test_link_is_sent_as_it_was_given(rest: str, sent: str) -> None:
    """Only what HTTP forbids is encoded, each character by itself; a signature beside it stays what it is."""
    assert await targets([rest]) == [sent]


async def test_redirect_may_hold_the_longest_link() -> None:
    """A host may lead to a presigned link of any length that is taken."""
    location = "https://cdn.test/?" + "x" * (MAX_LINK_CHARS - 18)
    redirect = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
    async with serving(saying(redirect.encode())) as server, opened() as door:
        file = await door.fetch(server.url, timeout_s=5, stall_s=5)

    assert file.headers["location"] == location
    assert str(read_link(location).url) == location


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(ALLOWED, max_size=40).map("".join), min_size=1, max_size=8))
def test_what_http_allows_is_sent_unchanged(rests: list[str]) -> None:
    """Any path and query of the characters of a URL arrives byte for byte."""
    assert asyncio.run(targets([f"/{rest}" for rest in rests])) == [f"/{rest}" for rest in rests]


@given(st.text(max_size=60))
def test_whatever_follows_the_host_becomes_a_request_target(rest: str) -> None:
    """No character splits the request line, and reading the sent form again changes nothing more."""
    sent = str(read_link(f"https://cdn.test/{rest}").url)

    assert re.fullmatch(r"https://cdn\.test/[!-~]*", sent)
    assert str(read_link(sent).url) == sent


@given(st.text(alphabet="ab1.@:\\#?/[]%0x \t。é-_", max_size=24))
def test_host_of_a_link_is_read_in_one_way_only(authority: str) -> None:
    """However strange the place of the host is: it is refused, or another reader finds the same host in what is sent."""
    try:
        target = read_link(f"http://{authority}")
    except EgressRefused:
        return

    assert target.url.raw_host == target.host == urlsplit(str(target.url)).hostname
    assert re.fullmatch(r"[a-z0-9_.:-]+", target.host)
    assert "@" not in re.split("[/?#]", authority)[0]


@pytest.mark.parametrize(
    ("link", "host"),
    [
        (" https://CDN.test/a.png\n", "cdn.test"),
        ("HTTPS://bücher.test/a b.png", "xn--bcher-kva.test"),
        ("https://cdn.test:8443", "cdn.test"),
        ("http://[2001:DB8::7]/x", "2001:db8::7"),
    ],
)
def test_link_is_read_leniently_around_its_host(link: str, host: str) -> None:
    """Blanks at the ends, capitals, other alphabets."""
    assert read_link(link).host == host


@pytest.mark.parametrize(
    "link",
    [
        "http://cdn.test\\@127.0.0.1/",
        "http://cdn.test\\a",
        "http://user:secret@cdn.test/",
        "http://cdn .test/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://cdn%2etest/",
        "http://[fe80::1%25eth0]/",
        "http://cdn.test:0/",
        "http://cdn.test:65536/",
        "http:/cdn.test/a",
        "https:cdn.test/a",
        "//cdn.test/a",
        "ftp://cdn.test/a",
        "https://cdn.test/" + "a" * 16_384,
        "https://cdn.test/" + "é" * 2_800,
        "https://cdn.test/\ud800",
        "https://\ud800/a",
    ],
)
def test_link_whose_host_could_be_read_in_two_ways_is_refused(link: str) -> None:
    """Leniency ends where the gate begins; so does it for what is no link, or too long for any host."""
    with pytest.raises(EgressRefused) as caught:
        read_link(link)

    assert caught.value.reason == "url_invalid"
    assert "secret" not in str(caught.value)
