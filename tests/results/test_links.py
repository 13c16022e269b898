"""Result links: the same every time, readable by their maker only."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from service.results.links import Linked, ResultLinks

JOB = "job_019aa5f0-1234-7abc-8def-0123456789ab"
LINKS = ResultLinks(b"k" * 32, "https://remora.example")


def _token(url: str) -> str:
    prefix, token = url.rsplit("/", 1)
    assert prefix == "https://remora.example/r"
    return token


def test_lasting_link_is_the_same_every_time() -> None:
    """An event's bytes can name it before and after a restart; each result has its own."""
    again = ResultLinks(b"k" * 32, "https://remora.example")

    assert LINKS.url(JOB, 0) == again.url(JOB, 0)
    assert len({LINKS.url(JOB, index) for index in range(100)}) == 100
    assert LINKS.read(_token(LINKS.url(JOB, 3))) == Linked(JOB, 3)


def test_short_link_carries_its_end() -> None:
    """What it names, and until when."""
    assert LINKS.read(_token(LINKS.short(JOB, 65535, 1_795_000_000_123))) == Linked(JOB, 65535, 1_795_000_000_123)


def test_link_of_another_installation_is_not_read() -> None:
    """Another root secret, another link."""
    assert ResultLinks(b"K" * 32, "https://remora.example").read(_token(LINKS.url(JOB, 0))) is None


def test_changed_link_is_not_read() -> None:
    """No bit can be changed, no part exchanged, nothing added."""
    for url in (LINKS.url(JOB, 0), LINKS.short(JOB, 0, 1)):
        raw = bytearray(base64.urlsafe_b64decode(_token(url) + "=="))
        for position in range(len(raw) * 8):
            changed = bytearray(raw)
            changed[position // 8] ^= 1 << position % 8
            assert LINKS.read(base64.urlsafe_b64encode(changed).rstrip(b"=").decode()) is None
        for token in (_token(url) + "A", _token(url) + "=", _token(url)[:-1], " " + _token(url), _token(url) + "\n"):
            assert LINKS.read(token) is None


@given(st.text(max_size=80))
def test_no_text_is_a_link_by_chance(token: str) -> None:
    """Whatever is asked for is read or not found."""
    assert LINKS.read(token) is None
