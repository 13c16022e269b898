"""Which addresses may be reached: the range table and the judgement over it, pure functions.

The table is our own because `ipaddress.is_global` calls multicast, NAT64-wrapped and 6to4-wrapped addresses global.
Knows nothing of names, sockets or URLs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from service.errors import EgressRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class GateVerdict(Enum):
    """What the gate says to an address."""

    OPEN = "open"
    PRIVATE = "private"  # the operator may open it
    NEVER = "never"  # a metadata service: its answers are the machine's own credentials


#: IANA's special-purpose IPv4 registry (RFC 6890 and successors), without the blocks that are reached over the
#: public internet like any other (AS112, AMT), with multicast and the reserved top.
PRIVATE_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)

#: This machine itself: where a subscriber or a sandbox is tried out.
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

#: The only IPv6 space that is handed out for the public internet. Loopback, unspecified, IPv4-compatible (::/96),
#: IPv4-translated (::ffff:0:0:0/96), local NAT64 (64:ff9b:1::/48), discard-only (100::/64), SRv6 (5f00::/16), unique
#: local (fc00::/7), link-local (fe80::/10), site-local (fec0::/10) and multicast (ff00::/8) all lie outside of it.
GLOBAL_V6 = IPv6Network("2000::/3")

#: What is special inside the public space.
PRIVATE_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo (2001::/32), benchmarking (2001:2::/48), ORCHID and others
        "2001:db8::/32",  # documentation
        "3ffe::/16",  # the former 6bone
        "3fff::/20",  # documentation
    )
)

#: These carry an IPv4 address to which a gateway on the way translates: the judgement is over that one.
MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = IPv6Network("2002::/16")

#: These carry one too, but no public host is reached through them; they are opened only to find metadata in them.
NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
COMPATIBLE = IPv6Network("::/96")
TRANSLATED = IPv6Network("::ffff:0:0:0/96")
TEREDO = IPv6Network("2001::/32")

#: Where clouds hand out a machine's own credentials. They stay shut even inside an allowed network.
METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, GCP, Azure, Oracle, DigitalOcean, Hetzner, OpenStack
        "169.254.169.253",  # AWS, the resolver of the VPC
        "169.254.169.252",  # GKE, workload identity
        "169.254.170.2",  # AWS ECS, task credentials
        "169.254.170.23",  # AWS EKS, pod identity
        "169.254.0.23",  # Tencent
        "169.254.10.10",  # Tencent
        "169.254.42.42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure, the wire server: lies in public space
        "192.0.0.192",  # Oracle, classic
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS, pod identity
        "fd20:ce::254",  # GCP
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
        "fe80::a9fe:a9fe",  # OpenStack
        "fd00:a9fe:a9fe::1",  # Akamai
    )
)


def _low_32(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that will really be reached, if the prefix says that there is one."""
    if address in MAPPED or address in NAT64:
        return _low_32(address)
    if address in SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return None


def _hidden(address: IPv6Address) -> set[Address]:
    """Every IPv4 address that a translator could read out of a transition address."""
    if address in TEREDO:
        return {IPv4Address(int(address) >> 64 & 0xFFFF_FFFF), IPv4Address(int(_low_32(address)) ^ 0xFFFF_FFFF)}
    if address in NAT64_LOCAL:
        # RFC 6052 puts the four bytes behind a prefix of 48 around the zero byte in the middle, behind one of 96 last.
        bits = int(address)
        return {_low_32(address), IPv4Address((bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF)}
    if address in COMPATIBLE or address in TRANSLATED:
        return {_low_32(address)}
    return set()


def _is_private(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in PRIVATE_V4)
    return address not in GLOBAL_V6 or any(address in network for network in PRIVATE_V6)


def verdict(address: Address, allow: Iterable[Network]) -> GateVerdict:
    """Judge one address; an IPv6 address that carries an IPv4 address is judged as that one.

    Args:
        address: What would be dialled.
        allow: Networks that may be reached although they are private; metadata services may not even then.
    """
    if isinstance(address, IPv6Address):
        address = IPv6Address(int(address))  # without its zone, which would make equal addresses differ
        if not _hidden(address).isdisjoint(METADATA):
            return GateVerdict.NEVER
        address = _carried(address) or address
    if address in METADATA:
        return GateVerdict.NEVER
    if _is_private(address) and not any(address in network for network in allow):
        return GateVerdict.PRIVATE
    return GateVerdict.OPEN


@dataclass(frozen=True, slots=True)
class Gate:
    """The judgement with the operator's own list applied."""

    allow: tuple[Network, ...]

    def admit(self, host: str, addresses: Iterable[str]) -> None:
        """Let a host pass only if every one of its addresses may be reached.

        Raises:
            EgressRefused: One may not. The message names the host, and not the address: what our name servers know
                of the inside is not for those who hand us URLs.
        """
        found = [ip_address(address) for address in addresses]
        verdicts = {verdict(address, self.allow) for address in found}
        if GateVerdict.NEVER in verdicts:
            raise EgressRefused(
                "address_forbidden", f"{host} is a metadata service, which is never reached: use another host"
            )
        if GateVerdict.PRIVATE in verdicts:
            raise EgressRefused(
                "address_forbidden",
                f"{host} has a private or reserved address: use a public host, or let the operator add "
                f"{self._opening(host, found)} to REMORA_EGRESS_ALLOW",
            )

    def _opening(self, host: str, addresses: Iterable[Address]) -> str:
        """What to allow: named only where the URL itself says the address, since a name's addresses are not told."""
        if host != "localhost" and host not in map(str, addresses):
            return "its network"
        shut = [address for address in addresses if verdict(address, self.allow) is GateVerdict.PRIVATE]
        loopback = [network for network in LOOPBACK if any(address in network for address in shut)]
        others = [ip_network(address) for address in shut if not any(address in network for network in LOOPBACK)]
        return " and ".join(map(str, [*loopback, *others]))
