"""Words of a provider, fit for our records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.documents.text import HEAD_CHARS, MESSAGE_CHARS, Scrubber

KEY = 'k"ey+/\\u00e9='


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ({"code": 7, "why": ["a", None]}, '{"code": 7, "why": ["a", null]}'),
        (["too", "many"], '["too", "many"]'),
        ({"why": f"bad key {KEY}"}, '{"why": "bad key [secret]"}'),
        ({"a": "x" * 900}, '{"a": "' + "x" * 493),
        ({"a": float("nan"), "b": "a\nb"}, '{"a": NaN, "b": "a\\nb"}'),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_reason_that_is_no_text_is_told_as_json(reason: Any, line: str | None) -> None:
    """In one line, shortened, and without the key however JSON spells it."""
    assert Scrubber(KEY).line(reason) == line


def test_endless_reason_is_bounded() -> None:
    """Deep or wide, it takes no time and no stack."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert Scrubber().line({"a": deep}) is None
    assert len(Scrubber().line([["x" * 100] * 100_000]) or "") == MESSAGE_CHARS


def test_head_shows_no_secret() -> None:
    """Cookies, keys and the queries of addresses stay with whoever sent them; the rest is as it came."""
    raw = (
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nSet-Cookie: sid=hush; Path=/\r\nX-Api-Key: hush\r\nX-Auth-Token: hush\r\n"
        b"Location: https://a.example/x?sig=hush&b=1\r\nRefresh: 0; /x?t=hush\r\nLink: <https://b.example/?t=hush>; rel=next\r\nX-Echo: "
        + KEY.encode()
        + b"\r\nX-Bad: \xff\x07\r\n\r\n"
    )

    head = Scrubber(KEY).head(raw)

    assert head is not None
    assert "hush" not in head
    assert KEY not in head
    assert head.splitlines()[:3] == ["HTTP/1.1 200 OK", "Server: nginx", "Set-Cookie: [secret]"]
    assert "Location: https://a.example/x?[secret]" in head
    assert Scrubber().head(b"") is None


@pytest.mark.parametrize("slash", ["/", "//", "\\/", "\\\\/", "%2F", "%2f", "%252F", "\\u002f"])
def test_token_of_a_callback_is_hidden_however_its_address_is_packed(slash: str) -> None:
    """Providers quote what they were sent: in a query, in JSON that escapes slashes, in a text inside of a text."""
    address = f"https:{slash}{slash}r.example{slash}callbacks{slash}"

    line = Scrubber().line(f"no answer from {address}hush-HUSH_1, giving up")

    assert line == f"no answer from {address}[secret] giving up"


def test_header_that_goes_on_is_one_header() -> None:
    """Folded lines, and the part of one that was cut, are hidden with the name they belong to."""
    raw = b"HTTP/1.1 200 OK\r\nSet-Cookie:\r\n sid=hush;\n\tPath=/\r\nX-Api-Key:\r\n hush"

    assert Scrubber().head(raw) == "HTTP/1.1 200 OK\nSet-Cookie: [secret]\nX-Api-Key: [secret]"


def test_line_that_was_cut_shows_its_name_alone() -> None:
    """A half of a key is not known for a key any more."""
    assert Scrubber(KEY).head(b"HTTP/1.1 200 OK\r\nX-Echo: " + KEY.encode()[:5]) == "HTTP/1.1 200 OK\nX-Echo: ..."


@given(st.binary(max_size=6000))
def test_any_head_can_be_stored(raw: bytes) -> None:
    """Whatever a server sends, what is kept of it is short text."""
    head = Scrubber(KEY).head(raw)

    assert head is None or (len(head) <= HEAD_CHARS and json.dumps(head, ensure_ascii=False).encode())
