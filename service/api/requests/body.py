"""Request bodies: read under a cap and decoded strictly, so that what is stored is exactly what was sent.

Litestar's own decoding is not used: it answers 500 to bad UTF-8 and to deep nesting, and takes the last of two equal
keys. This file knows JSON and HTTP, and nothing of what a body means.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, TypeVar

from litestar import Request
from litestar.types import Receive, Scope

from service.api.listening.buffers import FREE_BYTES, Bodies
from service.errors import FieldError, Malformed, TooLarge, UnsupportedMediaType
from service.offload import QUICK_BYTES, beside
from service.providers.documents.longtexts import TooMuch, parsed
from service.schemas.request_model import escaped

T = TypeVar("T")

BODY_MAX_BYTES: Final = 1024 * 1024  # of any other request's body
JOB_BODY_MAX_BYTES: Final = 16 * 1024 * 1024  # base64 images of up to 10 MB
MAX_DEPTH: Final = 32  # nested lists and objects
MAX_VALUES: Final = 50_000  # in one body: decoding must not hold up everybody else
_WHOLE_BYTES: Final = 1 << 20  # of a larger body long texts are decoded by themselves, in pieces
_LEFT_BYTES: Final = 4 << 20  # of such a body beside its long texts
_LONG_BYTES: Final = 1 << 10  # of a long text
_INTEGERS: Final = range(-(2**63), 2**64)  # what the store and our own encoder can hold
_BOM: Final = b"\xef\xbb\xbf"
_SINGLE: Final = frozenset(
    {b"authorization", b"content-type", b"host", b"idempotency-key", b"if-range", b"last-event-id", b"range"}
)
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class _Refused(ValueError):
    """A hook of the decoder met something that JSON has no place for."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (in small letters), without building a map of all of them."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def check_single(scope: Scope) -> None:
    """Whether headers of which there can only be one are there once: others may have read another one than we do.

    Raises:
        Malformed: One is there more than once.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]  # a list, from every server
    if len(dict(headers)) == len(headers):
        return
    counts = Counter(name for name, _ in headers)
    for name in _SINGLE & counts.keys():
        if counts[name] > 1:
            shown = name.decode().title()
            raise Malformed(f"the header {shown} is there {counts[name]} times; send it once", code="header_repeated")


async def parsed_body(request: Request[Any, Any, Any], parse: Callable[[object], T], limit: int = BODY_MAX_BYTES) -> T:
    """What `parse` makes of the decoded body of a request; both beside the loop for a large one.

    Raises:
        Malformed: It is empty, cut off, or not JSON.
        UnsupportedMediaType: It is not declared as JSON.
        TooLarge: It has more bytes than `limit`.
        Invalid: What `parse` raises.
    """
    raw = await read(request.scope, request.receive, limit)
    if not raw:
        raise Malformed("the body is empty; send a JSON object", code="body_empty")
    check_type(request.scope)
    return await beside(len(raw) > QUICK_BYTES, lambda: parse(decode(raw)))


async def optional_body(request: Request[Any, Any, Any], parse: Callable[[object], T]) -> T:
    """As `parsed_body`, of an empty object where there is no body at all, or null."""
    raw = await read(request.scope, request.receive, BODY_MAX_BYTES)
    if not raw:
        return parse({})
    check_type(request.scope)

    def parsed() -> T:
        body = decode(raw)
        return parse({} if body is None else body)

    return await beside(len(raw) > QUICK_BYTES, parsed)


def check_type(scope: Scope) -> None:
    """Whether a body is declared as plain JSON in UTF-8.

    Raises:
        UnsupportedMediaType: It is not.
    """
    declared = header(scope, b"content-type")
    if declared == "application/json":
        pass
    elif declared is None:
        raise UnsupportedMediaType("Content-Type is missing; send application/json")
    else:
        _judge_type(declared)
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType("the body is compressed; send it plain, without Content-Encoding")


def _judge_type(declared: str) -> None:
    media, *parameters = (part.strip().lower() for part in declared.split(";"))
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMediaType(f"Content-Type {media[:80]!r} is not taken; send application/json")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType("the body must be in UTF-8; leave the charset out")


async def read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The raw body.

    Raises:
        TooLarge: It has, or declares, more bytes than `limit`; the rest is not read.
        Malformed: The caller went away in the middle of it.
        Unavailable: It is large, and others take up all the memory for such ones.
    """
    declared = _declared(scope)
    if declared > limit:
        raise _too_large(limit)
    held = FREE_BYTES
    if declared > held:  # before anything of it is asked for: what is not taken stays with its sender
        await _bodies(scope).wait_for(scope, _owner(scope), declared - held)
        held = declared
    message = await receive()
    body = _chunk(message)
    if not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks, size = [body], len(body)
    while size <= limit:
        if size > held:
            _bodies(scope).hold(scope, _owner(scope), size - held)
            held = size
        message = await receive()
        chunks.append(_chunk(message))
        size += len(chunks[-1])
        if not message.get("more_body", False):
            break
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _bodies(scope: Scope) -> Bodies:
    """The memory for bodies; what a request holds of it is given back when it ends (`exchange`)."""
    return scope["litestar_app"].state.context.memory.bodies  # type: ignore[no-any-return]


def _owner(scope: Scope) -> str:
    """Whose share it is."""
    return scope["auth"].account_id if scope.get("auth") else ""


def _declared(scope: Scope) -> int:
    """The length that a body is said to have; 0 where nothing is said."""
    length = header(scope, b"content-length")
    return int(length[:18]) if length is not None and length.isdecimal() else 0


def _chunk(message: Any) -> bytes:
    if message["type"] != "http.request":
        raise Malformed("the connection was closed before the body was complete", code="body_cut")
    chunk: bytes = message.get("body", b"")
    return chunk


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body may have at most {limit} bytes here")


def decode(raw: bytes) -> object:
    """Strict JSON: one reading only, nothing that cannot be stored.

    Raises:
        Malformed: With what is wrong and where.
    """
    if raw.startswith(_BOM):
        raise _malformed("it begins with a byte order mark; leave that out")
    try:
        value = _decode_large(raw) if len(raw) > _WHOLE_BYTES else _decode(raw)
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8: {error.reason} at byte {_first_fault(raw, error)}") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg.removesuffix(' at')}{_place(raw, error)}") from error
    except _Refused as error:
        raise _malformed(str(error)) from error
    except TooMuch as error:
        raise _malformed(f"it {error}") from error
    if b"\\u" in raw:  # only an escape can bring what UTF-8 itself cannot
        _check_texts(value)
    return value


def _decode(raw: bytes) -> Any:
    if not raw.startswith(b'"'):  # a text has none
        _check_structure(raw)
    return _DECODER.decode(raw.decode())


def _decode_large(raw: bytes) -> Any:
    if raw.count(b'"') > 4 * MAX_VALUES:  # looking for the long ones among so many would take long
        raise _too_many()
    return parsed(raw, _decode, long_bytes=_LONG_BYTES, most_left_bytes=_LEFT_BYTES, strict=True)


def _first_fault(raw: bytes, error: UnicodeDecodeError) -> int:
    """At which byte a body is no UTF-8, of which the decoder may have seen a part."""
    if len(raw) <= _WHOLE_BYTES:
        return error.start
    try:
        raw.decode()
    except UnicodeDecodeError as first:
        return first.start
    return error.start


def _place(raw: bytes, error: json.JSONDecodeError) -> str:
    """Where a body is broken; not told where the decoder saw it without its long texts."""
    if len(raw) > _WHOLE_BYTES and len(raw) != len(error.doc.encode()):
        return ""
    return f" at line {error.lineno}, column {error.colno}, byte {len(error.doc[: error.pos].encode())}"


def _malformed(reason: str, errors: tuple[FieldError, ...] = ()) -> Malformed:
    return Malformed(f"the body is not the JSON that is taken here: {reason}", code="malformed_json", errors=errors)


def _too_many() -> Malformed:
    return _malformed(f"it has more than {MAX_VALUES} values")


def _check_structure(raw: bytes) -> None:
    """Refuse what would take the decoder deep or long, by counting bytes before anything is built."""
    opened = raw.count(b"[") + raw.count(b"{")
    if opened + raw.count(b",") > MAX_VALUES or raw.count(b'"') > 4 * MAX_VALUES:
        raise _too_many()
    if opened <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRUCTURE.finditer(raw):
        first = raw[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _malformed(f"it is nested deeper than {MAX_DEPTH} levels at byte {match.start()}")
        elif first in b"]}":
            depth -= 1


def _check_texts(value: object) -> None:
    for pointer, text in _texts(value, ""):
        if "\x00" in text:
            _refuse_text(pointer, "holds the character NUL (\\u0000), which cannot be stored")
        if not _encodable(text):
            _refuse_text(pointer, "holds half of a surrogate pair (\\ud800 to \\udfff alone), which is no character")


def _refuse_text(pointer: str, detail: str) -> NoReturn:
    shown = pointer.encode("utf-8", "replace").decode().replace("\x00", "?")
    raise _malformed(f"{shown or 'the text'} {detail}", (FieldError(shown, detail),))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: object, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            below = f"{pointer}/{escaped(name)}"
            yield below, name
            yield from _texts(inner, below)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{pointer}/{index}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Refused(f"the key {name[:100]!a} occurs twice in one object")
            seen.add(name)
    return made


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 21 else _INTEGERS.stop
    if value not in _INTEGERS:
        raise _Refused(f"the number {text[:40]} does not fit 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Refused(f"the number {text[:40]} is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON value")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
