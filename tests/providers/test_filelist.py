"""The files in a document: read leniently, and nothing that stands there is passed over in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.documents.filelist import MAX_FILES, FileList, file_list
from service.providers.documents.origins import LinkOrigins
from tests.providers.test_mapping import JSON_VALUES

ORIGINS = LinkOrigins("https://api.painter.example/v1")
URL = "https://a.example/1"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example/1?sig=a%2Fb%7E+c=", "https://a.example/1?sig=a%2Fb%7E+c="),
        (" \nhttps://a.example/1\r\n", "https://a.example/1"),
        ("HTTPS://A.example/1", "HTTPS://A.example/1"),
        ("https://a.example/a b.png?sig=%2F#f g", "https://a.example/a%20b.png?sig=%2F#f%20g"),
        ("https://bücher.example/ü", "https://bücher.example/%C3%BC"),
        ("https://a.example/?" + "x" * 16_000, "https://a.example/?" + "x" * 16_000),
        ("https://user:pass@a.example/1", "https://user:pass@a.example/1"),
        ("//cdn.painter.example/1.png", "https://cdn.painter.example/1.png"),
        ("/files/1 2.png?q=%2F", "https://api.painter.example/files/1%202.png?q=%2F"),
        (" DATA:image/png;base64,AA\nAA ", "DATA:image/png;base64,AA\nAA"),
        ("data:,x", "data:,x"),
        ("files/1.png", None),
        ("1.png", None),
        ("a.example/1.png", None),
        ("pending", None),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
        ("ftp://x/y", None),
        ("http://", None),
        ("http://[", None),
        ("http:// a.example/", None),
        ("https://a.example:port/", None),
        ("https://a.example\\@b.example/", None),
        ("//", None),
        ("///etc/passwd", None),
        ("data:image/png;base64", None),
        ("https://a.example/" + "x" * 16_384, None),
        ("https://a.example/" + "é" * 2_800, None),
    ],
)
def test_text_is_the_url_of_a_file_or_none(text: str, url: str | None) -> None:
    """Only what HTTP forbids is changed; what begins with a slash is the provider's own."""
    found = file_list(["https://a.example/0", text], ORIGINS)

    assert found.urls[1:] == (() if url is None else (url,))
    assert found.not_urls == ((1,) if url is None else ())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, FileList()),
        ("", FileList()),
        ([], FileList()),
        ([None, "", " \n", [], [None]], FileList()),
        (URL, FileList((URL,))),
        ([URL, f" {URL} ", URL], FileList((URL,))),
        ([[URL], [["https://a.example/2"]]], FileList((URL, "https://a.example/2"))),
        ([7, URL, {"url": URL}, None, True, "oops"], FileList((URL,), (0, 2, 3, 4))),
        ({"url": URL}, FileList((), (0,))),
        (7, FileList((), (0,))),
        ([f"{URL}?{n}" for n in range(MAX_FILES + 3)], FileList(tuple(f"{URL}?{n}" for n in range(MAX_FILES)), (), 3)),
        ([f"{URL}?{n}" for n in range(MAX_FILES)] * 2, FileList(tuple(f"{URL}?{n}" for n in range(MAX_FILES)))),
        ([7] * 70, FileList((), tuple(range(MAX_FILES)), 6)),
    ],
)
def test_entries_are_results_in_their_order(value: object, found: FileList) -> None:
    """Each URL once, lists opened; a null or an empty text is no result, and anything else is told as no URL."""
    assert file_list(value, ORIGINS) == found


@pytest.mark.parametrize("entry", [URL, 7, None, [], [[]]])
def test_endless_list_takes_no_time(entry: object) -> None:
    """A document of a million entries is not walked through; that there is more is told."""
    found = file_list([URL, "https://a.example/2", *[entry] * 1_000_000], ORIGINS)

    assert found.urls == (URL, "https://a.example/2")
    assert found.left_out > 990_000


@given(JSON_VALUES | st.lists(st.text(max_size=40)))
def test_any_value_is_read(value: object) -> None:
    """Nothing raises; the places of what is no URL lie among the results."""
    found = file_list(value, ORIGINS)

    assert set(found.not_urls) <= set(range(len(found.urls) + len(found.not_urls)))
