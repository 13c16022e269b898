"""How operators write values: what is understood, and what is refused with a hint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import notation


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1ms", 0.001),
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5h", 5400),
        ("5 m", 300),
        ("7d", 604_800),
        ("3650d", 315_360_000),
    ],
)
def test_duration_is_understood(text: str, seconds: float) -> None:
    """Durations as contract 6 writes them."""
    assert notation.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "1e9d", "3651d", "1h30m", "5 minutes", "５s", "nan s", "0.4ms"])
def test_duration_is_refused(text: str) -> None:
    """No unit, no time, too long, or no number that we write."""
    with pytest.raises(ValueError, match="write a duration such as 500ms, 30s"):
        notation.duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10B", 10), ("1KB", 1000), ("1 KiB", 1024), ("512MiB", 536_870_912), ("2gib", 2_147_483_648)],
)
def test_size_is_understood(text: str, size: int) -> None:
    """Sizes with decimal and binary units."""
    assert notation.size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5MiB", "1TiB", "999999999GiB", "MiB"])
def test_size_is_refused(text: str) -> None:
    """Nothing, fractions, unknown units, absurd sizes."""
    with pytest.raises(ValueError, match="write a size such as 512MiB"):
        notation.size(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "remora.example", "ftp://a", "http://", "http://a?x", "http://a#x", "http://u:p@a", "http://a b"),
        *("http://a:0", "http://a:99999", "http://a:b", "http://[::1", "http://ä", "http://a\\b", "https:///x"),
    ],
)
def test_url_is_refused(text: str) -> None:
    """What is no http(s) URL of a host, or carries more than a path."""
    with pytest.raises(ValueError, match=r"write http\(s\)://host"):
        notation.http_url(text, path=True)


def test_origin_takes_no_path() -> None:
    """The paths of a provider are its card's, so the setting names scheme, host and port only."""
    assert notation.http_url("https://a.example:8443/", path=False) == "https://a.example:8443"
    assert notation.http_url("http://[::1]:80/x/", path=True) == "http://[::1]:80/x"
    with pytest.raises(ValueError, match="the paths are the card's"):
        notation.http_url("https://a.example/v1", path=False)


def test_networks_say_how_to_write_this_machine() -> None:
    """Who tries things out writes localhost first."""
    with pytest.raises(ValueError, match=r"'localhost' is no address range; .*for this machine write 127\.0\.0\.0/8"):
        notation.networks("localhost")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:///remora.db", "sqlite:///remora.db"),
        ("sqlite+aiosqlite:////data/remora.db", "sqlite:////data/remora.db"),
        ("postgres://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
    ],
)
def test_database_url_is_understood(text: str, url: str) -> None:
    """The engines of the contract, whatever driver the URL was written for."""
    assert notation.database_url(text) == url


@pytest.mark.parametrize(
    "text", ["remora.db", "mysql://h/d", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x?mode=memory"]
)
def test_database_url_is_refused(text: str) -> None:
    """Other engines, and databases that would be gone with the process."""
    with pytest.raises(ValueError, match="write sqlite:///"):
        notation.database_url(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("file:/data/results", "file:/data/results"),
        ("file:///data/results", "file:/data/results"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("none", None),
    ],
)
def test_storage_url_is_understood(text: str, url: str | None) -> None:
    """Where results can go."""
    assert notation.storage_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data",
        "file:",
        "file://host/x",
        "s3:",
        "ftp://x/y",
        "s3://key:secret@bucket",
        "s3://b?x=1",
        "s3://b#f",
        "file:/a?b",
        "file:/a#b",
        "file:/a\tb",
        "file:/a\x00b",
        "file:/a\x7f",
        "s3://b\nucket",
    ],
)
def test_storage_url_is_refused(text: str) -> None:
    """Unknown schemes, nothing behind them, credentials within, or what would be dropped without a word."""
    with pytest.raises(ValueError, match="write file:/path"):
        notation.storage_url(text)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0", "::1/8", "10.0.0.1/24", "all", "10.0.0.0/8/8"])
def test_networks_are_refused(text: str) -> None:
    """What is no range is said with the part that is wrong."""
    with pytest.raises(ValueError, match=f"{text!r} "):
        notation.networks(f"192.0.2.0/24,{text}")


@pytest.mark.parametrize("text", ["a b", "http://x", "", "host;rm"])
def test_host_is_refused(text: str) -> None:
    """Only what one can listen on."""
    with pytest.raises(ValueError, match="write an address to listen on"):
        notation.host(text)


@given(st.text(max_size=40))
def test_readers_raise_nothing_but_value_error(text: str) -> None:
    """Whatever is written, the answer is a value or a hint, never another error."""
    readers: list[Callable[[str], object]] = [
        *(notation.duration, notation.size, notation.networks, notation.storage_url, notation.database_url),
        *(notation.host, notation.schedule, notation.secret, notation.one_of("a", "b")),
        lambda each: notation.http_url(each, path=True),
        lambda each: notation.whole(each, low=0, high=10),
    ]
    for reader in readers:
        with suppress(ValueError):
            reader(text)


def test_shown_value_is_short_and_holds_no_password() -> None:
    """A message stays readable and safe, whatever stands in the variable."""
    assert notation.shown("https://user:pass@host/x") == "'https://…@host/x'"
    assert notation.shown("a\nb") == r"'a\nb'"
    assert len(notation.shown("x" * 10_000)) == 83
