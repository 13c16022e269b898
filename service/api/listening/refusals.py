"""What a caller is told of a request that never reached the application: an answer in bytes, with a status and a code of its own.

Made here and not in `problems`, since there is no request yet. This file must not know connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import httptools
import msgspec

MAX_TARGET_BYTES: Final = 32 * 1024  # path and query
MAX_HEADER_BYTES: Final = 64 * 1024  # of one request, its target included
MAX_FRAMING_BYTES: Final = 64 * 1024  # chunk sizes and trailers, beside as many bytes as the body has
MAX_AHEAD: Final = 8  # requests that a connection may send ahead of their answers
RETRY_AFTER_S: Final = 1  # told by a 503 of the listening server
_REQUEST_LINE: Final = re.compile(rb"\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/[0-9.]+\r?\n")
_TLS_RECORD: Final = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection ends."""

    status: int
    code: str
    detail: str

    def answer(self) -> bytes:
        """The whole answer, as problem+json."""
        title = HTTPStatus(self.status).phrase
        body = msgspec.json.encode(
            {"type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail}
        )
        retry = b"retry-after: %d\r\n" % RETRY_AFTER_S if self.status in {429, 503} else b""
        return (
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"x-content-type-options: nosniff\r\n%bconnection: close\r\n\r\n%b"
        ) % (self.status, title.encode(), len(body), retry, body)


class RequestRefused(Exception):
    """Raised while a head is read; the parser ends with it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


NOT_HTTP: Final = Refusal(400, "not_http", "this is no HTTP request; speak HTTP/1.1 here")
TLS: Final = Refusal(
    400, "tls", "this port speaks plain HTTP; use http:// here, or the https:// address of the proxy in front"
)
METHOD: Final = Refusal(501, "method_unknown", "there is no such method; methods are written in capitals")
CONNECT: Final = Refusal(501, "connect", "this is no proxy: CONNECT is not served")
VERSION: Final = Refusal(505, "http_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
TARGET: Final = Refusal(
    400, "malformed_target", "the request target is malformed; percent-encode what is not plain ASCII"
)
TARGET_TOO_LONG: Final = Refusal(
    414, "target_too_long", f"path and query have more than {MAX_TARGET_BYTES} bytes; send less of them"
)
HEADERS_TOO_LARGE: Final = Refusal(
    431,
    "headers_too_large",
    f"the headers have more than {MAX_HEADER_BYTES} bytes together; send fewer or shorter ones",
)
HEADER: Final = Refusal(400, "malformed_header", "a header is malformed; write `Name: value`, each on one line")
LINE_END: Final = Refusal(400, "malformed_line", "a line does not end in CR LF")
CONTENT_LENGTH: Final = Refusal(
    400, "content_length", "Content-Length is not one whole number of bytes; send one, or Transfer-Encoding: chunked"
)
FRAMING: Final = Refusal(400, "framing", "Content-Length and Transfer-Encoding are both there; send one of them")
TRANSFER_CODING: Final = Refusal(501, "transfer_coding", "the only Transfer-Encoding taken is chunked, once")
CHUNK: Final = Refusal(400, "malformed_chunk", "a chunk of the body is malformed; its size does not fit what follows")
FRAMING_TOO_LARGE: Final = Refusal(
    400, "framing_too_large", "the body has more chunk sizes and trailers than content; send larger chunks"
)
AHEAD: Final = Refusal(
    429, "too_many_ahead", f"more than {MAX_AHEAD} requests were sent ahead of their answers; send this one again"
)
HEAD_TOO_SLOW: Final = Refusal(408, "head_too_slow", "the request's headers did not come in time; send it again")
BODY_TOO_SLOW: Final = Refusal(408, "body_too_slow", "the request's body did not come in time; send it again")
STOPPING: Final = Refusal(503, "stopping", "the service is stopping, and the request was not whole; send it again")

#: What the parser (llhttp) says begins with this; the first that fits counts.
_BY_REASON: Final = (
    ("Pause on PRI", VERSION),
    ("Expected HTTP/2", VERSION),
    ("Invalid HTTP version", VERSION),
    ("Invalid major", VERSION),
    ("Invalid minor", VERSION),
    ("Content-Length can't", FRAMING),
    ("Transfer-Encoding can't", FRAMING),
    ("Duplicate Content-Length", CONTENT_LENGTH),
    ("Empty Content-Length", CONTENT_LENGTH),
    ("Content-Length", CONTENT_LENGTH),
    ("Invalid character in Content-Length", CONTENT_LENGTH),
    ("Request has invalid `Transfer", TRANSFER_CODING),
    ("Invalid `Transfer", TRANSFER_CODING),
    ("Chunk size", CHUNK),
    ("Invalid character in chunk", CHUNK),
    ("Invalid quoted-pair in chunk", CHUNK),
    ("Expected LF after chunk", CHUNK),
    ("Invalid header", HEADER),
    ("Unexpected whitespace after header", HEADER),
    ("Unexpected space after", HEADER),
    ("Expected CRLF", LINE_END),
    ("Expected LF", LINE_END),
    ("Missing expected", LINE_END),
)


def read_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was sent, and query of a request's target.

    Raises:
        RequestRefused: It is too long, or malformed.
    """
    if len(url) > MAX_TARGET_BYTES:
        raise RequestRefused(TARGET_TOO_LONG)
    try:
        target = httptools.parse_url(url)
        raw_path: bytes = target.path or b"/"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        raise RequestRefused(TARGET) from None
    return unquote(path) if "%" in path else path, raw_path, target.query or b""


def check_size(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Whether a head is within bounds.

    Raises:
        RequestRefused: It is not.
    """
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES:
        raise RequestRefused(HEADERS_TOO_LARGE)


def of_parser(reason: str, data: bytes, *, in_target: bool, is_method: bool) -> Refusal:
    """What to say of bytes that the parser does not take.

    Args:
        reason: The parser's own words.
        data: What was read last; where the method is wrong, it may begin the request.
        in_target: The target is what it stumbled over.
        is_method: The method is.
    """
    if is_method:
        if data.startswith(_TLS_RECORD):
            return TLS
        return METHOD if _REQUEST_LINE.match(data) else NOT_HTTP
    if in_target:
        return TARGET
    return next((refusal for start, refusal in _BY_REASON if reason.startswith(start)), NOT_HTTP)
