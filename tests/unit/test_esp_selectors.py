"""Traffic selectors: prefixes of both versions, protocols behind extension headers, default deny."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network

import pytest

from gateways.selectors import TrafficSelectors, ip_length, upper_layer
from tests.esp_packets import NETWORK, NETWORK6, USERS, USERS6, ipv4, ipv6

TCP, UDP, ICMPV6, HOP, ROUTING, FRAGMENT, OPTIONS, NONE = 6, 17, 58, 0, 43, 44, 60, 59
BOTH = TrafficSelectors([USERS, USERS6], [NETWORK, NETWORK6])


def extended(*headers: bytes, first: int) -> bytes:
    body = b"".join(headers)
    packet = ipv6(40 + len(body), next_header=first)
    return packet[:40] + body


def option(next_header: int, units: int = 0) -> bytes:
    return bytes((next_header, units)) + bytes(6 + 8 * units)


def fragment(next_header: int, offset: int, more: bool) -> bytes:
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, 7)


def test_nothing_passes_without_selectors() -> None:
    nothing = TrafficSelectors([], [])
    assert not nothing.outgoing(ipv4(40))
    assert nothing.incoming(ipv4(40)) is None


def test_each_version_has_its_own_prefixes() -> None:
    only4 = TrafficSelectors([USERS], [NETWORK])
    only6 = TrafficSelectors([USERS6], [NETWORK6])
    mixed = TrafficSelectors([USERS], [NETWORK6])
    assert [s.outgoing(ipv4(40)) for s in (BOTH, only4, only6, mixed)] == [True, True, False, False]
    assert [s.outgoing(ipv6(60)) for s in (BOTH, only4, only6, mixed)] == [True, False, True, False]
    everything = TrafficSelectors([IPv4Network("0.0.0.0/0")], [IPv4Network("0.0.0.0/0")])
    assert not everything.outgoing(ipv6(60))


def test_direction_matters() -> None:
    there = ipv6(60, source="2001:db8:2::7", destination="2001:db8:1::5")
    assert BOTH.incoming(there) == there
    assert not BOTH.outgoing(there)
    assert BOTH.incoming(ipv6(60)) is None
    assert BOTH.incoming(ipv4(40)) is None


def test_host_prefixes() -> None:
    hosts = TrafficSelectors([IPv6Network("2001:db8:1::5")], [IPv6Network("2001:db8:2::7")])
    assert hosts.outgoing(ipv6(60))
    assert not hosts.outgoing(ipv6(60, source="2001:db8:1::6"))


def test_padding_behind_the_packet_is_cut_off() -> None:
    there = ipv6(60, source="2001:db8:2::7", destination="2001:db8:1::5")
    assert BOTH.incoming(there + bytes(99)) == there


@pytest.mark.parametrize(
    ("packet", "length"),
    [
        (ipv4(20), 20),
        (ipv4(40) + bytes(5), 40),
        (ipv6(40), 40),
        (ipv6(60) + bytes(5), 60),
        (ipv4(40)[:39], None),
        (ipv6(60)[:59], None),
        (ipv6(60)[:39], None),
        (b"", None),
        (b"\x45", None),
        (b"\x54" + ipv4(40)[1:], None),
        (b"\x70" + ipv6(60)[1:], None),
    ],
)
def test_length(packet: bytes, length: int | None) -> None:
    assert ip_length(packet) == length


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ipv4(40, protocol=TCP), (TCP, 20)),
        (b"\x47" + ipv4(40, protocol=TCP)[1:], (TCP, 28)),
        (ipv4(40)[:6] + b"\x20\x00" + ipv4(40)[8:], (UDP, 20)),  # first fragment
        (ipv4(40)[:6] + b"\x00\x01" + ipv4(40)[8:], (UDP, 0)),  # later fragment
        (ipv6(60, next_header=TCP), (TCP, 40)),
        (extended(option(TCP), bytes(20), first=HOP), (TCP, 48)),
        (extended(option(TCP, 2), bytes(20), first=OPTIONS), (TCP, 64)),
        (extended(option(ROUTING), option(OPTIONS), option(UDP), bytes(8), first=HOP), (UDP, 64)),
        (extended(fragment(UDP, 0, True), bytes(8), first=FRAGMENT), (UDP, 48)),
        (extended(fragment(UDP, 9, False), bytes(8), first=FRAGMENT), (UDP, 0)),
        (extended(fragment(OPTIONS, 9, False), bytes(8), first=FRAGMENT), None),
        (extended(first=HOP), None),
        (extended(option(HOP, 9), first=HOP), None),
        (extended(*[option(OPTIONS)] * 9, first=OPTIONS), None),
        (ipv6(40, next_header=NONE), (NONE, 40)),
    ],
)
def test_upper_layer(packet: bytes, expected: tuple[int, int] | None) -> None:
    assert upper_layer(packet) == expected


def test_protocols() -> None:
    some = TrafficSelectors([USERS, USERS6], [NETWORK, NETWORK6], protocols=[TCP, ICMPV6])
    assert some.outgoing(ipv4(40, protocol=TCP))
    assert not some.outgoing(ipv4(40, protocol=UDP))
    assert some.outgoing(ipv6(60, next_header=ICMPV6))
    assert some.outgoing(extended(option(TCP), bytes(20), first=HOP))
    assert not some.outgoing(extended(option(UDP), bytes(20), first=HOP))
    assert not some.outgoing(extended(first=HOP))
    later = ipv4(40, protocol=TCP)[:6] + b"\x00\x09" + ipv4(40, protocol=TCP)[8:]
    assert some.outgoing(later)
    assert not some.outgoing(later[:9] + bytes((UDP,)) + later[10:])
