"""`data:` URLs in every spelling that providers use, and references to files."""

from __future__ import annotations

import base64
import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fileurls import MAX_LINK_CHARS, data_in, escaped, is_data_url, link_in, resolved


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,AAEC", b"\x00\x01\x02"),
        ("DATA:IMAGE/PNG;BASE64,AAEC", b"\x00\x01\x02"),
        (" \n data:image/png;base64,AAEC \r\n", b"\x00\x01\x02"),
        ("data:image/png;base64,AA\r\n EC\t\n", b"\x00\x01\x02"),
        ("data:image/png;base64,AAE", b"\x00\x01"),
        ("data:image/png;base64,AAE=", b"\x00\x01"),
        ("data:image/png;base64,AAE%3D", b"\x00\x01"),
        ("data:image/png;base64,%2B%2f%2B/", b"\xfb\xff\xbf"),
        ("data:image/png;base64,-_-_", b"\xfb\xff\xbf"),
        ("data:image/png;base64,%41%41EC%0A", b"\x00\x01\x02"),
        ("data:image/png; base64,AAEC", b"\x00\x01\x02"),
        ("data:image/png;charset=utf-8;base64,AAEC", b"\x00\x01\x02"),
        ("data:image/png;base64;name=a.png,AAEC", b"\x00\x01\x02"),
        ("data:image%2Fpng%3Bbase64%2CAAEC", b"\x00\x01\x02"),
        ("data:;base64,AAEC", b"\x00\x01\x02"),
        ("data:image/png;base64,AAEC#frag", b"\x00\x01\x02"),
        ("data:image/png,%89PNG%0D%0a", b"\x89PNG\r\n"),
        ("data:image/png,%89P\r\nNG", b"\x89PNG"),
        ("data:,100%", b"100%"),
        ("data:,é", "é".encode()),
        ("data:image/png;base64,A", None),
        ("data:image/png;base64,AA=C", None),
        ("data:image/png;base64,%%%", None),
        ("data:image/png;base64,\u00e9", None),
        ("data:image/png;base64,\ud800", None),
        ("data:image/png;base64,", None),
        ("data:image/png;base64", None),
        (f"data:{'x' * 2_000},a", None),
        ("https://cdn.example/a,b.png", None),
        ("", None),
    ],
)
def test_data_url_is_read_as_browsers_read_it(url: str, data: bytes | None) -> None:
    """Line breaks, missing padding, capitals, escapes and parameters change nothing; what is no base64 is none."""
    assert data_in(url) == data


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["", "=", "\n", "%"]), st.integers(1, 80))
def test_bytes_survive_every_spelling(data: bytes, style: str, width: int) -> None:
    """Wrapped at any width, with padding or without, percent-encoded or not: the same bytes."""
    text = base64.b64encode(data).decode()
    match style:
        case "":
            text = text.rstrip("=")
        case "\n":
            text = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
        case "%":
            text = quote(text, safe="")

    assert data_in(f"data:image/png;base64,{text}") == data
    assert data_in(f"data:image/png,{quote(data)}") == data


@pytest.mark.parametrize("shift", range(3))
def test_escape_at_the_edge_of_a_step_is_not_cut(shift: int) -> None:
    """A large percent-encoded picture is decoded in steps, wherever an escape stands."""
    data = b"x" * shift + bytes([0xFF]) * 200_000

    assert data_in(f"data:,{quote(data)}") == data


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("width", [61, 76, 10**6])
def test_large_base64_is_read_in_steps_wherever_they_end(shift: int, width: int) -> None:
    """A picture of many steps, whose lines, symbols and padding are cut anywhere, and none that goes on behind its padding."""
    data = bytes(range(256)) * 1_000 + b"x" * shift
    text = base64.b64encode(data).decode()
    lines = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))

    assert data_in(f"data:image/png;base64,{lines}#x") == data
    assert data_in(f"data:image/png;base64,{lines.replace('=', '%3D')}") == data
    assert data_in(f"data:image/png;base64,{lines}={' ' * 70_000}AAAA") is None


@given(st.text(max_size=60))
def test_any_text_is_a_data_url_or_none(text: str) -> None:
    """Nothing raises, and only what begins with `data:` is one."""
    assert data_in(text) is None or is_data_url(text)


@pytest.mark.parametrize("around", ["", " ", "\u3000\x01 "])
def test_large_data_url_is_known_without_a_copy(around: str) -> None:
    """The event loop asks for it: 64 MiB cost no memory, whatever stands around them."""
    url = f"{around}data:image/png;base64,{'A' * (64 << 20)}{around}"
    tracemalloc.start()
    known = is_data_url(url)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert known
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("https://b.test/x/../y?#f", "https://b.test/x/../y?#f"),
        (" https://b.test/a b ", "https://b.test/a b"),
        ("//b.test/x", "http://b.test/x"),
        ("/x/../y?z", "http://a.test:81/x/../y?z"),
        ("x?y=%2F", "http://a.test:81/p/x?y=%2F"),
        ("../x", "http://a.test:81/x"),
        ("?z", "http://a.test:81/p/q?z"),
        ("javascript:alert(1)", "javascript:alert(1)"),
    ],
)
def test_reference_leads_where_it_says(reference: str, target: str) -> None:
    """A whole URL stays as it is; the rest is completed from where it was found."""
    assert resolved("http://a.test:81/p/q?r#s", reference) == target


@given(st.text(max_size=60) | st.text(alphabet="aé€%/? \\", min_size=2_000, max_size=6_000))
def test_link_is_ready_after_one_reading(rest: str) -> None:
    """What is kept of a link is read later: as the same link, and never as too long."""
    link = link_in(f"https://cdn.example/{rest}")

    assert link is None or (link_in(link) == link and len(link) <= MAX_LINK_CHARS)


@given(st.text(max_size=60) | st.text(alphabet="aé€%2/?", max_size=60))
def test_escaped_length_is_known_beforehand(text: str) -> None:
    """The bound is held exactly, without the work."""
    base = "https://cdn.example/"
    longest = "x" * (MAX_LINK_CHARS - len(base) - len(escaped(text)))

    assert link_in(base + longest + text.strip()) is not None
    assert link_in(f"{base}{longest}x{text}.") is None
