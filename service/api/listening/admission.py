"""Who may be connected: as many as there is room for, no more than a share from one address, and the idle ones leave first.

It must not know HTTP.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Protocol

_V6_PREFIX_BITS: Final = 64  # what one customer has at least; single addresses are no measure


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may take, and for how long."""

    connections: int = 8_000
    per_peer: int | None = None  # None: half of them
    write_s: float = 30.0  # without a byte of its answer taken
    head_s: float = 10.0  # from the first byte of a request, or from connecting, to the end of its headers
    body_s: float = 60.0  # from the end of the headers to the end of the body
    body_window_s: float = 15.0  # in each of these, unless the body ends in it …
    body_window_bytes: int = 120 * 1024  # … so much of it has to come: 8 KiB/s
    keep_alive_s: float = 30.0  # longer than most clients keep an idle connection, so that they close it and not we
    stop_s: float = 3.0  # once the service stops: for a request to be whole, and for an answer's bytes to be taken
    linger_s: float = 2.0  # for a refused caller to read why
    every_s: float = 1.0  # how often all this is looked at


class Connected(Protocol):
    """A connection that can be cut."""

    def cut(self) -> None:
        """End it at once."""


class Admission:
    """The connections that are open, by address, and those with nothing in progress in the order in which that began."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._most = limits.connections
        self._share = min(limits.connections, limits.per_peer or max(1, limits.connections // 2))
        self._peers: Counter[str] = Counter()
        self._idle: OrderedDict[Connected, None] = OrderedDict()
        self._open = 0
        self.refused = 0  # since the last line in the log
        self.evicted = 0

    def enter(self, connection: Connected, peer: str) -> bool:
        """Count a new connection; False where there is no room. At a full house the one that was idle longest leaves."""
        if self._peers[peer] >= self._share < self._most:  # a share that is everything is none
            self.refused += 1
            return False
        if self._open >= self._most:
            if not self._idle:
                self.refused += 1
                return False
            oldest, _ = self._idle.popitem(last=False)
            self.evicted += 1
            oldest.cut()
        self._open += 1
        self._peers[peer] += 1
        self._idle[connection] = None
        return True

    def leave(self, connection: Connected, peer: str) -> None:
        """A connection that had entered is closed."""
        self._idle.pop(connection, None)
        self._open -= 1
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def rest(self, connection: Connected) -> None:
        """Nothing is in progress on it any more."""
        self._idle[connection] = None

    def work(self, connection: Connected) -> None:
        """A request's headers are there."""
        self._idle.pop(connection, None)


def peer_of(host: str) -> str:
    """Whose address it is: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _V6_PREFIX_BITS << _V6_PREFIX_BITS))
