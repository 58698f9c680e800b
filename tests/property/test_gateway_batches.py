"""The batch path against plain per-packet code: what is cut, sealed, opened and merged is what was there before."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from gateways.fast import vnet
from gateways.selectors import TrafficSelectors
from gateways.suites import SUITES, Suite
from tests.batch_tunnel import HERE, SPI, THERE, Tunnel, cut, is_right, super_packet


def traffic(rng: random.Random) -> list[bytes]:
    """A burst of reads: super-packets, and single packets, some of them alike."""
    if rng.random() < 0.7:
        gso = rng.choice((1, 7, 100, 536, 1301, 1348, 1360))
        return [super_packet(rng, gso, rng.randrange(gso + 1, min(60_000, 60 * gso) + 2))]
    one = super_packet(rng, 0, rng.randrange(1, 1300))
    return [one] * rng.choice((1, 3, 40)) + [super_packet(rng, 0, rng.randrange(1, 1300))]


@pytest.mark.parametrize("packets", [10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_every_packet_arrives_with_the_checksums_it_should_have(packets: int) -> None:
    rng = random.Random(14)
    done = 0
    with Tunnel(SUITES["AES-128-GCM"]) as tunnel:
        while done < packets:
            alone = rng.random() < 0.1
            read = traffic(rng)
            wanted = [packet for one in read for packet in cut(one)]
            tunnel.seal(read, alone=alone)
            written = tunnel.open(alone=alone)
            arrived = [packet for one in written for packet in cut(one)]
            assert arrived == wanted
            assert all(is_right(packet) for packet in arrived)
            done += len(arrived)
    assert tunnel.core.receiver.counters.packets == done
    assert not tunnel.core.drops


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_carries_what_scapy_would_have_written(suite: Suite) -> None:
    rng = random.Random(4)
    with Tunnel(suite) as tunnel:
        for _ in range(12):
            tunnel.seal(traffic(rng)[:1])
            for one in tunnel.open():
                for packet in cut(one)[:5]:
                    parsed = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
                    if parsed.version == 4:
                        del parsed.chksum, parsed.len
                    layer = parsed[TCP] if TCP in parsed else parsed[UDP]
                    del layer.chksum
                    assert bytes(parsed) == packet


def test_without_merging_every_write_is_one_packet() -> None:
    rng = random.Random(1)
    with Tunnel(SUITES["AES-128-GCM"], merge=False) as tunnel:
        read = super_packet(rng, 1301, 30_000)
        tunnel.seal([read])
        assert [one[10:] for one in tunnel.open()] == cut(read)


def test_a_wrong_checksum_stays_wrong_and_is_not_merged() -> None:
    rng = random.Random(2)
    with Tunnel(SUITES["AES-128-GCM"]) as tunnel:
        packets = cut(super_packet(rng, 1000, 20_000))
        broken = bytearray(packets[7])
        broken[-1] ^= 1
        packets[7] = bytes(broken)
        tunnel.seal([vnet.PLAIN + packet for packet in packets])
        arrived = [packet for one in tunnel.open() for packet in cut(one)]
        assert arrived == packets
        assert not is_right(arrived[7])


def test_bad_rows_are_refused_and_the_rest_arrives_in_order() -> None:
    rng = random.Random(3)
    with Tunnel(SUITES["AES-128-GCM"]) as tunnel:
        packets = cut(super_packet(rng, 1000, 30_000))
        for _ in range(20):
            tunnel.seal([vnet.PLAIN + packet for packet in packets])
            sent = list(tunnel.wire.datagrams())
            forged, lost, again = rng.sample(range(len(sent)), 3)
            for at, bit in ((forged, rng.randrange(8 * len(sent[forged]) - 64) + 64),):
                flipped = bytearray(sent[at])
                flipped[bit // 8] ^= 1 << bit % 8
                sent[at] = bytes(flipped)
            expected = [p for at, p in enumerate(packets) if at not in {forged, lost}]
            on_wire = [d for at, d in enumerate(sent) if at != lost]
            tunnel.wire.queue.extend((d, len(d)) for d in on_wire)
            tunnel.wire.queue.extend((d, len(d)) for d in (sent[again],) * 5)
            assert [p for one in tunnel.open() for p in cut(one)] == expected


def malformed(rng: random.Random) -> bytes:
    """A virtio header and a packet that a kernel should never have written, or nearly."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(3000))
    read = bytearray(super_packet(rng, rng.choice((0, 0, 500)), rng.randrange(1, 3000)))
    if kind == 1:
        fields = [rng.choice((0, 1, 9, 20, 28, 65535, rng.getrandbits(16))) for _ in range(4)]
        kinds = rng.choice((0, 1, 3, 4, 5, 0x81, rng.getrandbits(8)))
        read[:10] = vnet.HEADER.pack(rng.randrange(4), kinds, *fields)
    elif kind == 2:
        del read[rng.randrange(len(read)) :]
    elif kind == 3:
        for _ in range(rng.randrange(1, 6)):
            read[rng.randrange(min(len(read), 80))] = rng.getrandbits(8)
    else:
        read[10] = rng.getrandbits(8)
    return bytes(read)


@pytest.mark.parametrize("reads", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_malformed_virtio_headers_are_dropped_and_nothing_else_goes_wrong(reads: int) -> None:
    rng = random.Random(12)
    with Tunnel(SUITES["AES-128-GCM"]) as tunnel:
        selectors = TrafficSelectors(THERE, HERE)
        for _ in range(reads // 8):
            tunnel.seal([malformed(rng) for _ in range(8)], alone=rng.random() < 0.2)
            for datagram in tunnel.wire.datagrams():
                inner = tunnel.core.receiver.open(datagram)
                assert selectors.incoming(inner) is not None
        assert tunnel.core.drops["bad_vnet_header"] > reads // 10
        good = super_packet(rng, 1000, 20_000)
        tunnel.seal([good])
        assert [p for one in tunnel.open() for p in cut(one)] == cut(good)


def on_the_wire(rng: random.Random, good: list[bytes]) -> tuple[bytes, int]:
    """What an attacker or a broken network may bring: octets, and where they are cut."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(
            (b"", b"\xff", b"\0\0\0\0", b"\0\0\0", rng.randbytes(rng.randrange(64)))
        ), 0
    if kind == 1:
        return SPI.to_bytes(4) + rng.randbytes(rng.randrange(200)), 0
    if kind == 2:
        return rng.randbytes(rng.randrange(1, 20_000)), rng.choice((1, 7, 88, 1432))
    some = b"".join(rng.choice(good) for _ in range(rng.randrange(1, 60)))
    if kind == 3:  # replays
        return some, len(good[0])
    spoiled = bytearray(some)
    if kind == 4:
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    elif kind == 5:  # higher numbers, nobody's
        for at in range(0, len(spoiled), len(good[0])):
            spoiled[at + 4 : at + 8] = (2**32 - 1 - (len(spoiled) - at)).to_bytes(4)
    else:
        del spoiled[rng.randrange(len(spoiled)) :]
    return bytes(spoiled), rng.choice((len(good[0]), len(good[0]) - 4, 1000))


@pytest.mark.parametrize("reads", [800, pytest.param(100_000, marks=pytest.mark.long)])
def test_what_anybody_sends_is_dropped_and_moves_no_window(reads: int) -> None:
    rng = random.Random(11)
    with Tunnel(SUITES["AES-128-GCM"]) as tunnel:
        packets = cut(super_packet(rng, 1000, 30_000))[:-1]
        tunnel.seal([vnet.PLAIN + packet for packet in packets])
        good = list(tunnel.wire.datagrams())
        tunnel.wire.queue.extend((one, len(one)) for one in good)
        assert [p for one in tunnel.open() for p in cut(one)] == packets
        counters, window = tunnel.core.receiver.counters, tunnel.core.receiver.window
        for _ in range(reads // 8):
            for _ in range(8):
                data, size = on_the_wire(rng, good)
                tunnel.wire.queue.append((data, size or len(data)))
            assert tunnel.open(alone=rng.random() < 0.2) == []
        assert (window.highest, counters.packets) == (len(good), len(good))
        assert counters.replays
        assert counters.icv_failures
        tunnel.seal([vnet.PLAIN + packet for packet in packets])
        assert [p for one in tunnel.open() for p in cut(one)] == packets
