"""What a URL asks us to reach; pure.

Callers' URLs are read strictly, links to files leniently, and the host of both strictly: what two readers could read
differently is refused, so that the host that is judged is the host that is dialled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from yarl import URL

from service.errors import EgressRefused
from service.fileurls import MAX_LINK_CHARS, escaped, link_parts

MAX_LENGTH = 2048  # characters of a URL
MAX_AUTHORITY = 300  # of these; to read longer ones in other alphabets takes long
REMEMBERED = 4096  # URLs that are kept read

#: Names that no name server may answer for: RFC 6761 and RFC 7686.
NOWHERE = ("invalid", "onion")

#: A host name as it stands in DNS; the underscore is what container networks use.
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")

#: A last label that makes readers of URLs take the whole host for an IPv4 address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_AUTHORITY = re.compile(r"https?://([^/?]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that can be dialled."""

    url: URL
    host: str  # lower case, IDNA, without brackets
    address: str | None  # what would be dialled if the host is an address


@lru_cache(maxsize=REMEMBERED)
def read_target(url: str) -> Target:
    """Read a URL.

    Raises:
        EgressRefused: It is none that we send to; the message says what to change and quotes nothing of it.
    """
    authority = _authority(url)
    try:
        parsed = URL(url)
        host = parsed.raw_host or ""
        port = parsed.port
    except ValueError:
        raise _invalid("is not a URL: write it as https://host/path, with a port from 1 to 65535") from None
    if not host:
        raise _invalid("has no host: write it as https://host/path")
    if not port:
        raise _invalid("has port 0: use a port from 1 to 65535")
    address = _v6(host) if "[" in authority else _address(host)
    rest = url.partition("://")[2][len(authority) :]
    return Target(_exact(parsed, escaped(rest)), host, address)


def read_link(link: str) -> Target:
    """Read a link to a file, as a provider or a file host gave it: what HTTP carries goes out byte for byte.

    Blanks around it and its fragment are left out; `fileurls` says what is encoded.

    Raises:
        EgressRefused: See `read_target`.
    """
    parts = link_parts(link)
    if parts is None:
        raise _invalid(
            f"must be a whole URL that starts with https:// or http://, of {MAX_LINK_CHARS} characters at most"
        )
    target = read_target(parts[0])
    return Target(_exact(target.url, parts[1].partition("#")[0]), target.host, target.address)


def is_documentation(host: str) -> bool:
    """Whether a name is under the top-level domain for examples, which no name server knows (RFC 6761)."""
    return host.rstrip(".").endswith(".example")


def _exact(origin: URL, rest: str) -> URL:
    """Path and query as they were written: a URL may carry a signature, and yarl would turn %2F in a query into /.

    All of it is the path, since yarl would leave out the ? of an empty query.
    """
    path = rest if rest.startswith("/") else f"/{rest}"
    return URL.build(scheme=origin.scheme, authority=origin.raw_authority, path=path, encoded=True)


def _authority(url: str) -> str:
    if len(url) > MAX_LENGTH:
        raise _invalid(f"is longer than {MAX_LENGTH} characters: use a shorter one")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise _invalid("has whitespace or control characters: percent-encode them")
    if "\\" in url:
        raise _invalid("has a backslash: use / in the path, or percent-encode it")
    if "#" in url:
        raise _invalid("has a fragment: leave out what follows the #, it is never sent")
    authority = _AUTHORITY.match(url)
    if authority is None:
        raise _invalid("must be a whole URL that starts with https:// or http://")
    if len(authority[1]) > MAX_AUTHORITY:
        raise _invalid("has a host that is no valid name: no name is so long")
    if "@" in authority[1]:
        raise _invalid("has a user name or password: leave it out, and use a header or a query parameter instead")
    return authority[1]


def _address(host: str) -> str | None:
    name = host.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _v4(host)
    if not _NAME.fullmatch(name):
        raise _invalid("has a host that is no valid name: use letters, digits, hyphens and dots")
    if labels[-1] in NOWHERE:
        raise _invalid(f"has a host under .{labels[-1]}, which is never reachable: use a public host")
    return None


def _v6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError:
        raise _invalid("has a host that is no valid IPv6 address") from None
    if address.scope_id is not None:
        raise _invalid("has an IPv6 address with a zone: leave out what follows the %")
    return str(address)


def _v4(host: str) -> str:
    # The operating system also takes 127.1, 2130706433, 0x7f.1 and 0177.0.0.1 for an address, where other readers see
    # a name or another address: only the one notation that all read alike goes through.
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        raise _invalid("has a host that ends in a number: write an IPv4 address as four decimal numbers") from None


def _invalid(detail: str) -> EgressRefused:
    return EgressRefused("url_invalid", detail)
