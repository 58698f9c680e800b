"""What the batch path does to single packets: policy, TCP's MSS, congestion marks, the end of an SA."""

from __future__ import annotations

import struct
from ipaddress import ip_network

import pytest

from gateways.encapsulation import traffic_class
from gateways.fast import vnet
from gateways.selectors import TrafficSelectors
from gateways.suites import SUITES
from tests.batch_tunnel import HERE, MTU, SPI, THERE, Tunnel, cut, is_right, pseudo, summed

AES_GCM = SUITES["AES-128-GCM"]


def packet(
    payload: bytes, *, protocol: int = 17, destination: str = "10.2.0.7", tos: int = 0
) -> bytes:
    """An IPv4 packet from 10.1.0.1."""
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    )
    head += bytes((10, 1, 0, 1)) + ip_network(destination).network_address.packed
    head[10:12] = (0xFFFF - summed(bytes(head))).to_bytes(2)
    return bytes(head) + payload


def syn(mss: int) -> bytes:
    """A TCP SYN with an MSS option."""
    segment = bytearray(struct.pack("!HHIIBBHHHBBH", 1, 2, 3, 0, 0x60, 0x02, 9, 0, 0, 2, 4, mss))
    whole = packet(bytes(segment), protocol=6)
    check = 0xFFFF - summed(pseudo(whole, 6, len(segment)) + bytes(segment))
    segment[16:18] = check.to_bytes(2)
    return packet(bytes(segment), protocol=6)


@pytest.mark.parametrize("count", [1, 10])
def test_a_syn_leaves_with_an_mss_that_fits(count: int) -> None:
    with Tunnel(AES_GCM) as tunnel:
        tunnel.seal([vnet.PLAIN + syn(1460)] * count, alone=count == 1)
        arrived = [one[10:] for one in tunnel.open()]
    assert len(arrived) == count
    for one in arrived:
        assert int.from_bytes(one[42:44]) == MTU - 40
        assert is_right(one)


def test_the_policy_is_asked_again_when_it_has_changed() -> None:
    allowed, other = packet(b"a"), packet(b"a", destination="10.3.0.7")
    with Tunnel(AES_GCM) as tunnel:
        tunnel.seal([vnet.PLAIN + one for one in (allowed, allowed, other, allowed)], alone=True)
        assert [one[10:] for one in tunnel.open()] == [allowed] * 3
        assert tunnel.core.drops == {"outside_selectors": 1}
        tunnel.core.selectors = TrafficSelectors(HERE, [ip_network("10.2.0.8/32")])
        tunnel.seal([vnet.PLAIN + allowed], alone=True)
        assert not tunnel.wire.queue


@pytest.mark.parametrize("count", [1, 3, 20])
def test_what_the_receivers_policy_refuses_is_counted_once(count: int) -> None:
    with Tunnel(AES_GCM) as tunnel:
        tunnel.core.selectors = TrafficSelectors(HERE, [*THERE, ip_network("10.3.0.0/24")])
        refused, passing = packet(b"abcd", destination="10.3.0.7"), packet(b"abcd")
        tunnel.seal([vnet.PLAIN + refused] * count + [vnet.PLAIN + passing] * count)
        arrived = [piece for one in tunnel.open() for piece in cut(one)]
        assert arrived == [passing] * count
        counters = tunnel.core.receiver.counters
        assert (counters.packets, counters.selector_drops) == (count, count)


def test_an_ipv6_packet_admits_no_ipv4_packet_that_looks_like_it() -> None:
    """The octets that are protocol and addresses in IPv4 are the sender's to choose in IPv6."""
    source = ip_network("fd01::").network_address.packed[:8] + bytes((10, 3, 0, 7, 0, 0, 0, 1))
    ipv6 = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + source
    ipv6 += ip_network("fd02::7").network_address.packed + bytes(8)
    ipv4 = struct.pack("!BBHHHBB2x", 0x45, 0, 28, 0, 0, 64, ipv6[9]) + ipv6[12:20] + bytes(8)
    with Tunnel(AES_GCM) as tunnel:
        sa = tunnel.core.outbound
        assert sa is not None
        for one in (ipv6, ipv4):
            datagram = sa.seal(one)
            tunnel.wire.send(datagram, len(datagram))
        assert [one[10:] for one in tunnel.open(alone=True)] == [ipv6]
        assert tunnel.core.receiver.counters.selector_drops == 1


@pytest.mark.parametrize("count", [1, 20])
def test_without_an_sa_nothing_leaves(count: int) -> None:
    with Tunnel(AES_GCM) as tunnel:
        tunnel.core.outbound = None
        tunnel.seal([vnet.PLAIN + packet(b"x" * 8)] * count, alone=count == 1)
        assert not tunnel.wire.queue
        assert tunnel.core.drops == {"no_outbound_sa": count}


@pytest.mark.parametrize("alone", [True, False])
def test_an_sa_ends_at_its_limit_and_never_begins_again(alone: bool) -> None:
    with Tunnel(AES_GCM) as tunnel:
        sa = tunnel.core.outbound
        assert sa is not None
        sa.limit = 25
        tunnel.seal([vnet.PLAIN + packet(b"x" * 8)] * 40, alone=alone)
        sent = list(tunnel.wire.datagrams())
        assert [int.from_bytes(one[4:8]) for one in sent] == list(range(1, 26))
        assert {one[:4] for one in sent} == {SPI.to_bytes(4)}
        assert sa.counters.exhausted == 15


@pytest.mark.parametrize(("inner", "arrives"), [(0, None), (1, 3), (2, 3), (3, 3)])
@pytest.mark.parametrize("count", [1, 10])
def test_congestion_on_the_way_reaches_the_receiver(
    inner: int, arrives: int | None, count: int
) -> None:
    with Tunnel(AES_GCM) as tunnel:
        tunnel.seal([vnet.PLAIN + packet(b"x" * 8, tos=inner)] * count)
        tunnel.wire.outer_class = 3
        marks = [traffic_class(one[10:]) for one in tunnel.open()]
        assert marks == ([] if arrives is None else [arrives] * count)
        if arrives is None:
            assert tunnel.core.drops == {"congestion_marked": count}


@pytest.mark.parametrize("later_ns", [10**9, 1000])
def test_a_wake_up_for_nothing_does_nothing(later_ns: int) -> None:
    with Tunnel(AES_GCM) as tunnel:
        tunnel.outbound.carry(later_ns)
        tunnel.inbound.carry(later_ns)
        assert not tunnel.wire.queue
        assert not tunnel.core.drops


def test_a_turn_has_no_more_reads_than_it_is_given() -> None:
    """What a constant-rate tunnel counts on: the next slot is looked at after a few packets, whatever waits."""
    with Tunnel(AES_GCM) as tunnel:
        tunnel.outbound.reads = 4
        for _ in range(20):
            tunnel.inside.send(vnet.PLAIN + packet(b"x" * 8))
        tunnel.outbound.carry(10**9)
        carried = [len(list(tunnel.wire.datagrams()))]
        for turn in range(1, 4):
            tunnel.outbound.carry(10**9 + turn)
            carried.append(len(list(tunnel.wire.datagrams())))
    assert carried == [1, 4, 4, 4]
