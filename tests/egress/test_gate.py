from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from service.egress.gate import Gate, GateVerdict, Network, verdict
from service.errors import EgressRefused


def listed(text: str) -> list[str]:
    return text.split()


PRIVATE = listed("""
0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255
169.254.0.0 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.255 192.0.2.0 192.0.2.255 192.88.99.1
192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255
224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.254 255.255.255.255
:: ::1 ::8.8.8.8 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:8.8.8.8 ::ffff:0:10.0.0.1
64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b:1::1 64:ff9b:1::808:808 64:ff9b:1:ffff:ffff:ffff:ffff:ffff
64:ff9b::1:0:0 100::1 100:0:0:1::1 1fff:ffff:: 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1
2001:20::1 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101:: 3ffe::1 3fff::1 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff 4000::1 5f00::1
fc00:: fd00::1 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::1 fe80::1%eth0 febf::1 fec0::1 feff::1
ff00:: ff02::1 ff0e::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
""")

OPEN = listed("""
1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255
192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 8.8.8.8
2000:: 2001:200:: 2001:4860:4860::8888 2001:db7:ffff:: 2001:db9:: 2003:: 2606:2800:220:1:248:1893:25c8:1946 3ffd:ffff::
3fff:1000:: 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
""")

METADATA = listed("""
169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd00:ec2::23
fd20:ce::254 fe80::a9fe:a9fe fe80::a9fe:a9fe%eth0
::ffff:169.254.169.254 ::169.254.169.254 ::ffff:0:169.254.169.254 64:ff9b::169.254.169.254 64:ff9b::168.63.129.16
64:ff9b:1::169.254.169.254 64:ff9b:1:a9fe:a9:fe00:: 2002:a9fe:a9fe::1 2001:0:a9fe:a9fe:: 2001:0:808:808:0:0:5601:5601
""")

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize("address", PRIVATE)
def test_gate_shuts_special_ranges_at_both_ends(address: str) -> None:
    """Whatever is not the public internet is shut unless the operator opens it."""
    assert verdict(ip_address(address), ()) is GateVerdict.PRIVATE
    assert verdict(ip_address(address), EVERYTHING) is GateVerdict.OPEN


@pytest.mark.parametrize("address", OPEN)
def test_gate_opens_their_public_neighbours(address: str) -> None:
    """No public address is shut by accident: those just outside of each range pass."""
    assert verdict(ip_address(address), ()) is GateVerdict.OPEN


@pytest.mark.parametrize("address", METADATA)
def test_gate_never_opens_metadata(address: str) -> None:
    """A machine's own credentials stay out of reach, however they are spelt and whatever is allowed."""
    assert verdict(ip_address(address), ()) is GateVerdict.NEVER
    assert verdict(ip_address(address), EVERYTHING) is GateVerdict.NEVER


@pytest.mark.parametrize(
    ("address", "allow", "expected"),
    [
        ("10.1.2.3", "10.1.0.0/16", GateVerdict.OPEN),
        ("10.2.2.3", "10.1.0.0/16", GateVerdict.PRIVATE),
        ("::ffff:10.1.2.3", "10.1.0.0/16", GateVerdict.OPEN),
        ("64:ff9b::10.1.2.3", "10.1.0.0/16", GateVerdict.OPEN),
        ("2002:a01:203::", "10.1.0.0/16", GateVerdict.OPEN),
        ("::ffff:10.1.2.3", "::/0", GateVerdict.PRIVATE),  # the address that is reached is an IPv4 address
        ("fd12::1", "fd12::/16", GateVerdict.OPEN),
        ("fe80::1%eth0", "fe80::/10", GateVerdict.OPEN),
        ("::1", "127.0.0.0/8", GateVerdict.PRIVATE),
    ],
)
def test_gate_applies_the_operators_list(address: str, allow: str, expected: GateVerdict) -> None:
    """What is allowed is allowed in each form of the same address, and no further."""
    assert verdict(ip_address(address), (ip_network(allow),)) is expected


@pytest.mark.parametrize(
    ("allow", "addresses", "hint"),
    [
        ((), ["8.8.8.8", "10.0.0.1"], "REMORA_EGRESS_ALLOW"),
        (EVERYTHING, ["8.8.8.8", "169.254.169.254"], "metadata"),
    ],
)
def test_one_forbidden_address_refuses_the_host(allow: tuple[Network, ...], addresses: list[str], hint: str) -> None:
    """A name with a public and a private address is refused, without telling the private one."""
    with pytest.raises(EgressRefused, match=hint) as caught:
        Gate(allow).admit("two.test", addresses)

    assert caught.value.reason == "address_forbidden"
    assert "two.test" in str(caught.value)
    assert addresses[1] not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "addresses", "opening"),
    [
        ("127.0.0.1", ["127.0.0.1"], "add 127.0.0.0/8 to"),
        ("localhost", ["::1", "127.0.0.1"], "add 127.0.0.0/8 and ::1/128 to"),
        ("10.1.2.3", ["10.1.2.3"], "add 10.1.2.3/32 to"),
        ("fd00::7", ["fd00::7"], "add fd00::7/128 to"),
        ("db.internal", ["10.1.2.3"], "add its network to"),
    ],
)
def test_refusal_names_the_network_to_allow(host: str, addresses: list[str], opening: str) -> None:
    """It can be pasted, and opens no more than is needed; what only our name servers know is not told."""
    with pytest.raises(EgressRefused, match=opening):
        Gate(()).admit(host, addresses)
