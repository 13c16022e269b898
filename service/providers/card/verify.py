"""What a card may say of how callbacks are signed: `callback.verify`.

Owns the form of the schemes and of the template that says what is signed. It must not know how a signature is judged
(signatures) nor what the operator's secrets are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from service import notation
from service.providers.card.forms import Duration, Expression, HeaderName, Part
from service.providers.documents.paths import check_expression

TOLERANCE: Final = timedelta(minutes=5)  # by which a callback's own time may be off, as Standard Webhooks has it
_PIECE: Final = re.compile(r"\{(raw|url|sha256hex:raw|header:[^{}]+|field:[^{}]+|body:[^{}]+)\}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of what is signed: a text as it is, or something of the request."""

    kind: Literal["text", "raw", "url", "sha256hex", "header", "field", "body"]
    value: str = ""


def pieces(template: str) -> list[Piece]:
    """A `signed` template taken apart.

    Raises:
        ValueError: A placeholder is none that exists.
    """
    found: list[Piece] = []
    for index, part in enumerate(_PIECE.split(template)):
        if index % 2 == 0:
            if "{" in part or "}" in part:
                raise ValueError(
                    "placeholders are {raw}, {sha256hex:raw}, {header:Name}, {body:expression}, {field:name} and {url}"
                )
            found += [Piece("text", part)] if part else []
        else:
            found.append(_piece(part))
    return found


def _piece(text: str) -> Piece:
    kind, _, value = text.partition(":")
    match kind:
        case "raw":
            return Piece("raw")
        case "url":
            return Piece("url")
        case "sha256hex":
            return Piece("sha256hex")
        case "header":
            if _HEADER.fullmatch(value) is None:
                raise ValueError(f"{value!r} is no name of a header")
            return Piece("header", value.lower())
        case "field":
            return Piece("field", value)
        case _:
            return Piece("body", check_expression(value))


def _signed(value: str) -> str:
    if not pieces(value):
        raise ValueError("say what is signed, such as {raw}")
    return value


def _jwks(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("write an https:// URL: keys that come over anything else prove nothing")
    return notation.http_url(value, path=True)


Signed = Annotated[str, AfterValidator(_signed)]


class Timestamp(Part):
    """Where a callback says when it was signed; `field` is one of a header such as `t=…,v1=…`."""

    header: HeaderName | None = None
    field: str | None = None
    unit: Literal["s", "ms"] = "s"
    tolerance: Duration = TOLERANCE

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.field is None):
            raise ValueError("write either header or field")
        return self


class _Signature(Part):
    """What schemes with a signature in a header have in common."""

    header: HeaderName
    field: str | None = Field(default=None, min_length=1)
    prefix: str = ""
    encoding: Literal["hex", "base64"] = "hex"
    signed: Signed = "{raw}"
    timestamp: Timestamp | None = None
    covers_body: bool | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        named = [piece.value for piece in pieces(self.signed) if piece.kind == "field"]
        if self.field is None and (named or (self.timestamp is not None and self.timestamp.field is not None)):
            raise ValueError("field is missing: which entry of the header t=…,v1=… holds the signature")
        if self.covers_body and not self._signs_body():
            raise ValueError("covers_body: true needs {raw} or {sha256hex:raw} in signed")
        return self

    def _signs_body(self) -> bool:
        return any(piece.kind in {"raw", "sha256hex"} for piece in pieces(self.signed))

    @property
    def proves_body(self) -> bool:
        """Whether a good signature proves what the body says."""
        return self._signs_body() if self.covers_body is None else self.covers_body


class Hmac(_Signature):
    """A shared secret signs."""

    scheme: Literal["hmac"]
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    key: Literal["text", "base64", "hex", "whsec"] = "text"


class Ed25519(_Signature):
    """The provider's own key signs; its public keys are at a URL."""

    scheme: Literal["ed25519"]
    jwks: Annotated[str, AfterValidator(_jwks)]


class StandardWebhooks(Part):
    """Standard Webhooks, `v1`: a `whsec_` secret, and the headers webhook-id, -timestamp and -signature."""

    scheme: Literal["standard_webhooks"]
    tolerance: Duration = TOLERANCE

    @property
    def proves_body(self) -> bool:
        """Always: id, time and body are signed."""
        return True


class Static(Part):
    """The secret itself stands in a header, in the callback URL's query or in the body."""

    scheme: Literal["static"]
    header: HeaderName | None = None
    query: str | None = Field(default=None, min_length=1)
    body: Expression | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.header, self.query, self.body)) != 1:
            raise ValueError("write one of header, query and body: where the secret stands")
        return self

    @property
    def proves_body(self) -> bool:
        """Never: who has seen one callback can write another."""
        return False


Scheme = Hmac | Ed25519 | StandardWebhooks | Static


def _which(value: Any) -> str | None:
    if isinstance(value, dict):
        scheme = value.get("scheme")
        return scheme if isinstance(scheme, str) and scheme in _SCHEMES else None
    return "word" if isinstance(value, str) else getattr(value, "scheme", None)


_SCHEMES: Final = ("hmac", "standard_webhooks", "ed25519", "static")

Verify = Annotated[
    Annotated[Literal["fetch", "trust"], Tag("word")]
    | Annotated[Hmac, Tag("hmac")]
    | Annotated[StandardWebhooks, Tag("standard_webhooks")]
    | Annotated[Ed25519, Tag("ed25519")]
    | Annotated[Static, Tag("static")],
    Discriminator(
        _which,
        custom_error_type="verify",
        custom_error_message=f"write fetch, trust, or a mapping with scheme: one of {', '.join(_SCHEMES)}",
    ),
]
