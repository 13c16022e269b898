"""One range of bytes, as RFC 9110 has it."""

from __future__ import annotations

import pytest

from service.api.requests.ranges import Span, span_of


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (None, Span(0, 100)),
        ("bytes=0-9", Span(0, 10, partial=True)),
        ("bytes=90-", Span(90, 100, partial=True)),
        ("bytes=-10", Span(90, 100, partial=True)),
        ("bytes=-1000", Span(0, 100, partial=True)),
        ("bytes=0-1000", Span(0, 100, partial=True)),
        ("Bytes=0-0", Span(0, 1, partial=True)),
        ("bytes=100-", None),
        ("bytes=100-200", None),
        ("bytes=-0", None),
        ("bytes=9-3", Span(0, 100)),
        ("bytes=0-1,5-6", Span(0, 100)),
        ("bytes=-", Span(0, 100)),
        ("bytes=a-b", Span(0, 100)),
        ("lines=1-2", Span(0, 100)),
        (f"bytes={'9' * 400}-", Span(0, 100)),
    ],
)
def test_range_is_one_a_whole_or_nothing(asked: str | None, wanted: Span | None) -> None:
    """A range that is satisfiable, one that is not, and what is left aside."""
    assert span_of(asked, 100) == wanted
