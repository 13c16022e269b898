"""Pictures in `data:` URLs: the bytes say what they are, whatever the URL calls them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from service.results.data_urls import inline_picture
from tests.results.files import mp4, picture

PNG = picture()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{TEXT}",
        f"DATA:Image/JPEG;name=a.jpg;BASE64,{TEXT}",
        f"data:;base64,{TEXT.rstrip('=')}",
        f"data:application/octet-stream;base64,{TEXT[:50]}\r\n{TEXT[50:]}\n",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png,{quote(PNG)}",
    ],
)
def test_picture_is_shown_under_its_own_type(url: str) -> None:
    """However it is spelt."""
    found = inline_picture(url)

    assert found is not None
    assert (found.content_type, found.data) == ("image/png", PNG)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,AAEC",
        "data:image/png,AAEC",
        "data:image/png;base64,",
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg onload='alert(1)'/>").decode(),
        "data:image/png,<script>alert(1)</script>",
        f"data:image/png;base64,{TEXT[:-20]}",
        "data:video/mp4;base64," + base64.b64encode(mp4()).decode(),
        "https://cdn.example/a.png",
        "",
    ],
)
def test_nothing_else_is_shown(url: str) -> None:
    """No document, no cut picture, no video, no address."""
    assert inline_picture(url) is None
