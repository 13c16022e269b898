from __future__ import annotations

import pytest

from service.egress.target import read_target
from service.errors import EgressRefused


@pytest.mark.parametrize(
    ("url", "host", "address"),
    [
        ("https://Backend.Example/hooks?a=b", "backend.example", None),
        ("http://worker_1:8080/", "worker_1", None),
        ("HTTPS://a.test.:443", "a.test.", None),
        ("https://bücher.test/ü", "xn--bcher-kva.test", None),
        ("http://192.0.2.7/x", "192.0.2.7", "192.0.2.7"),
        ("http://127。0。0。1/", "127.0.0.1", "127.0.0.1"),
        ("http://[2001:DB8::7]:81/", "2001:db8::7", "2001:db8::7"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:a00:1", "::ffff:a00:1"),
    ],
)
def test_target_reads_usable_urls(url: str, host: str, address: str | None) -> None:
    """The host that is judged is the one that will be dialled, in its one spelling."""
    target = read_target(url)

    assert target.host == host
    assert target.address == address


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "https://"),
        ("backend.test/hook", "https://"),
        ("ftp://backend.test/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("http:/backend.test", "https://"),
        ("//backend.test/", "https://"),
        ("https:///path", "no host"),
        ("https://?q", "no host"),
        ("https://user@backend.test/", "user name"),
        ("https://:secret@backend.test/", "user name"),
        ("https://@backend.test/", "user name"),
        ("https://backend.test#@127.0.0.1/", "fragment"),
        ("https://backend.test/#part", "fragment"),
        ("https://backend.test\\@127.0.0.1/", "backslash"),
        ("https://backend.test:0/", "port"),
        ("https://backend.test:65536/", "port"),
        ("https://backend.test:http/", "port"),
        ("https://backend.test/a b", "whitespace"),
        (" https://backend.test/", "whitespace"),
        ("https://backend.test/\r\nHost: other", "whitespace"),
        ("https://backend.test/\x00", "control"),
        ("https://backend.test/\u2028", "whitespace"),
        ("https://backend.test/\ud800", "control"),
        ("https://backend.test/" + "a" * 2028, "2048"),
        ("http://[::1", "not a URL"),
        ("http://[v1.a]/", "IPv6"),
        ("http://[fe80::1%25eth0]/", "IPv6"),
        ("http://[fe80::1%eth0]/", "zone|IPv6"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("http://0x7f000001/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
        ("http://127.1/", "four decimal numbers"),
        ("http://127.0.0.1./", "four decimal numbers"),
        ("http://1.2.3.4.5/", "four decimal numbers"),
        ("http://256.1.1.1/", "four decimal numbers"),
        ("http://%31%32%37.0.0.1/", "no valid name|four decimal numbers"),
        ("http://a..b/", "no valid name"),
        ("http://a../", "no valid name"),
        ("http://-a.test/", "no valid name"),
        ("http://" + "a" * 64 + ".test/", "no valid name|not a URL"),
        ("http://a!b.test/", "no valid name"),
        ("http://" + "a.é" * 101 + "/", "no valid name"),
        ("http://nowhere.invalid/", "never reachable"),
        ("http://expyuzz4wqqyqhjn.onion./", "never reachable"),
    ],
)
def test_target_refuses_what_could_be_read_in_two_ways(url: str, hint: str) -> None:
    """A URL that is none, or that two readers would take to different hosts, is refused with the fix, and not quoted."""
    with pytest.raises(EgressRefused, match=hint) as caught:
        read_target(url)

    assert caught.value.reason == "url_invalid"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/a%2Fb?c=%2F&d=%2B+e%7e", "/hooks/token_-~x?x=1&x=2", "/", "/?q", "/a//b/../c;d"])
def test_target_leaves_path_and_query_as_they_were(path: str) -> None:
    """Paths may hold signatures: what is escaped stays escaped."""
    assert str(read_target(f"https://backend.test{path}").url) == f"https://backend.test{path}"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://BACKEND.test", "https://backend.test/"),
        ("https://backend.test?q=1", "https://backend.test/?q=1"),
        ('https://backend.test/{a}"?b=100%', "https://backend.test/%7Ba%7D%22?b=100%25"),
        ("https://backend.test/{a}?sig=%2F%7e+&b", "https://backend.test/%7Ba%7D?sig=%2F%7e+&b"),
        ("https://bücher.test/ü?ü", "https://xn--bcher-kva.test/%C3%BC?%C3%BC"),
        ("http://[::FFFF:10.0.0.1]:81/A", "http://[::ffff:a00:1]:81/A"),
    ],
)
def test_target_encodes_what_cannot_be_sent(url: str, sent: str) -> None:
    """Hosts have one spelling, and characters that HTTP does not carry are percent-encoded."""
    assert str(read_target(url).url) == sent
