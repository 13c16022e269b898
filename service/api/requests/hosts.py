"""Which names a request may call this machine by, where what it asks for is open to everybody on it.

A page of a foreign site can have its own name resolved to 127.0.0.1, and a browser then lets it read what is open here (DNS
rebinding). It cannot change the `Host` that the browser sends.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from litestar.types import Scope

from service.api.requests.body import header
from service.errors import Forbidden

_PORT: Final = re.compile(r":[0-9]{0,5}$")


def is_asked_here(scope: Scope, public_url: str | None) -> bool:
    """Whether a request names loopback, or us; False: it names somebody else, but has a key to look at.

    What has no `Host` is no browser.

    Raises:
        Forbidden: It names somebody else, and has no key.
    """
    given = header(scope, b"host")
    if given is None:
        return True
    name = _PORT.sub("", given.strip().lower()).removesuffix(".").removeprefix("[").removesuffix("]")
    if name == "localhost" or _is_loopback(name) or (public_url and name == urlsplit(public_url).hostname):
        return True
    if header(scope, b"authorization") is None:
        raise Forbidden(
            f"{given[:100]!a} is no name of this machine; ask at 127.0.0.1 or localhost, or send a key",
            code="host_unknown",
        )
    return False


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
