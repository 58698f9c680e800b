"""Too-big messages, fragments and clamped SYNs, octet by octet against scapy's."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from gateways.mtu import clamp_mss, fragments, too_big_reply

pytestmark = pytest.mark.interop

GATEWAY, GATEWAY6 = IPv4Address("10.1.0.1"), IPv6Address("2001:db8:1::1")


@pytest.mark.parametrize("octets", [1439, 1440, 1500, 9000])
def test_fragmentation_needed(octets: int) -> None:
    data = random.Random(octets).randbytes(octets - 28)
    packet = bytes(IP(src="10.1.0.5", dst="10.2.0.7", flags="DF") / UDP() / Raw(data))
    expected = (
        IP(src=str(GATEWAY), dst="10.1.0.5", tos=0xC0, id=0, flags="DF", ttl=64)
        / ICMP(type=3, code=4, nexthopmtu=1438)
        / Raw(packet[:548])
    )
    assert too_big_reply(packet, 1438, GATEWAY) == bytes(expected)
    assert len(bytes(expected)) == 576


@pytest.mark.parametrize("octets", [1439, 1440, 1500, 9001])
def test_packet_too_big(octets: int) -> None:
    data = random.Random(octets).randbytes(octets - 48)
    packet = bytes(IPv6(src="2001:db8:1::5", dst="2001:db8:2::7") / UDP() / Raw(data))
    expected = (
        IPv6(src=str(GATEWAY6), dst="2001:db8:1::5", tc=0xC0, hlim=64)
        / ICMPv6PacketTooBig(mtu=1438)
        / Raw(packet[: 1280 - 48])
    )
    assert too_big_reply(packet, 1438, GATEWAY6) == bytes(expected)
    assert len(bytes(expected)) == 1280


@pytest.mark.parametrize("octets", [1439, 1446, 1500, 4000, 65000])
def test_fragments(octets: int) -> None:
    data = random.Random(octets).randbytes(octets - 28)
    packet = bytes(IP(src="10.1.0.5", dst="10.2.0.7", id=77) / UDP() / Raw(data))
    ours = fragments(packet, 1438)
    assert ours == [bytes(piece) for piece in fragment(IP(packet), fragsize=1438 - 20)]
    whole = [bytes(p) for p in defragment([IP(piece) for piece in ours])]
    assert [IP(p).payload.build() for p in whole] == [IP(packet).payload.build()]


@pytest.mark.parametrize("seed", range(200))
def test_clamped_syn(seed: int) -> None:
    rng = random.Random(seed)
    options: list[tuple[str, Any]] = [
        ("MSS", rng.randint(1200, 9000)),
        ("WScale", 7),
        ("SAckOK", b""),
        ("NOP", None),
    ]
    options += [("Timestamp", (rng.getrandbits(32), 0))] + [("NOP", None)] * rng.randint(0, 3)
    rng.shuffle(options)
    ip = rng.choice(
        [IP(src="10.1.0.5", dst="10.2.0.7"), IPv6(src="2001:db8:1::5", dst="2001:db8:2::7")]
    )
    allowed = 1438 - (40 if ip.version == 4 else 60)
    ports = {"sport": rng.randrange(65536), "dport": 443, "seq": rng.getrandbits(32)}
    flags = rng.choice(["S", "SA"])
    clamped = [(n, min(v, allowed) if n == "MSS" else v) for n, v in options]
    packet = bytes(ip / TCP(flags=flags, options=options, **ports))
    expected = bytes(ip / TCP(flags=flags, options=clamped, **ports))
    assert clamp_mss(packet, 1438) == expected
