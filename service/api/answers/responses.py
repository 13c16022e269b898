"""Answers in JSON. Everything that leaves is built explicitly; a row of a table never does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """A value as JSON."""
    return raw_answer(msgspec.json.encode(value), status, headers)


def raw_answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """JSON that is encoded already. It ends a line, so that a shell's prompt does not stand behind it."""
    return Response(body + b"\n", status_code=status, media_type=JSON, headers=dict(headers or {}))


def empty_answer(status: int, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """An answer without a body."""
    return Response(b"", status_code=status, headers=dict(headers or {}))
