"""The ESP input under a flood of mangled packets: no crash, nothing let through, every packet counted.

The packets know the format: short ones, SPI 0 and reserved SPIs, keepalives, IKE markers, huge ones, flipped bits,
moved ends, spliced halves, replays, and plaintexts sealed with the right key whose pad length, next header, version or
lengths are wrong.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address

import pytest

from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER, kind_of, with_outer_ecn
from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.mtu import clamp_mss, fit
from gateways.selectors import TrafficSelectors, ip_length
from gateways.suites import SUITES, Suite
from tests.esp_packets import (
    ALL_SUITES,
    NETWORK,
    NETWORK6,
    SPI,
    USERS,
    USERS6,
    inbound_selectors,
    ipv4,
    ipv6,
    keys_of,
    sealed,
    trailed,
)

every_suite = pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))


class Mangler:
    """Wrong packets for one suite, out of one seed. `sequence` counts those sealed with the right key."""

    def __init__(self, suite: Suite, seed: int) -> None:
        self.rng = random.Random(seed)
        self.suite = suite
        self.keys = keys_of(suite)
        self.sequence = 0
        self.good = OutboundSa(SPI, self.keys).seal_batch([ipv4(n) for n in range(20, 220)])

    def inner(self) -> bytes:
        """An IP packet, or something like it."""
        rng = self.rng
        packet = bytearray(ipv4(rng.randint(20, 120)) if rng.random() < 0.5 else ipv6(60))
        for _ in range(rng.randrange(4)):
            packet[rng.randrange(min(48, len(packet)))] = rng.randrange(256)
        return bytes(packet[: rng.randint(0, len(packet))] if rng.random() < 0.2 else packet)

    def unauthentic(self) -> bytes:
        """A packet that must not pass, whatever is inside."""
        rng = self.rng
        packet = bytearray(rng.choice(self.good))
        match rng.randrange(9):
            case 0:
                return rng.randbytes(rng.randrange(64))
            case 1:
                return rng.choice([b"", KEEPALIVE, NON_ESP_MARKER + rng.randbytes(40), bytes(99)])
            case 2:
                return SPI.to_bytes(4) + rng.randbytes(rng.randrange(200))
            case 3:
                return struct.pack("!II", rng.randrange(256), 1) + bytes(packet[8:])
            case 4:
                packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
            case 5:
                del packet[rng.randrange(len(packet)) :]
            case 6:
                packet += rng.randbytes(rng.randint(1, 40))
            case 7:
                other = rng.choice(self.good)
                packet[8:] = (other if other[4:8] != packet[4:8] else b"\0" * 80)[8:]
            case 8:
                size = rng.randrange(60_000, 65_508)
                return SPI.to_bytes(4) + rng.randbytes(4) + bytes(size)
        return bytes(packet)

    def authentic(self) -> bytes:
        """A new packet with the right key and any plaintext that ends on the alignment."""
        rng, suite = self.rng, self.suite
        next_header = rng.choice([4, 41, 59, 144, rng.randrange(256)])
        plaintext = bytearray(trailed(suite, self.inner(), next_header))
        match rng.randrange(4):
            case 0:
                plaintext[-2] = rng.randrange(256)  # pad length beyond the payload, or too short
            case 1:
                plaintext = bytearray(rng.randbytes(suite.alignment * rng.randint(1, 9)))
        self.sequence += 1
        return sealed(self.keys, bytes(plaintext), self.sequence)


@every_suite
@pytest.mark.parametrize("packets", [5_000, pytest.param(250_000, marks=pytest.mark.long)])
def test_inbound(suite: Suite, packets: int) -> None:
    mangler, rng = Mangler(suite, 11), random.Random(12)
    one = InboundSa(SPI, mangler.keys, inbound_selectors())
    batch = InboundSa(SPI, mangler.keys, inbound_selectors())
    policy = inbound_selectors()
    outcome: Counter[str] = Counter()
    burst: list[bytes] = []
    passed: list[bytes] = []
    opened: list[bytes] = []
    for number in range(packets):
        authentic = rng.random() < 0.4
        packet = mangler.authentic() if authentic else mangler.unauthentic()
        kind_of(packet)
        burst.append(packet)
        try:
            inner = one.open(packet)
        except EspRefused as refused:
            outcome[refused.reason] += 1
        else:
            assert authentic
            assert policy.incoming(inner) == inner
            outcome["packets"] += 1
            passed.append(inner)
        if len(burst) == 64 or number == packets - 1:
            opened += batch.open_batch(burst)
            assert opened == passed
            burst, opened, passed = [], [], []
    assert one.window.highest == batch.window.highest == mangler.sequence
    assert one.counters == batch.counters
    counted = asdict(one.counters)
    del counted["bytes"]
    assert counted == {name: outcome[name] for name in counted}
    assert sum(counted.values()) == packets
    seen = set(outcome)
    assert seen >= {"malformed", "unknown_spi", "icv_failures", "bad_padding", "dummies"}
    assert seen >= {"bad_next_header", "selector_drops", "packets", "replays"}


@pytest.mark.parametrize("packets", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_inner_packets_of_any_shape(packets: int) -> None:
    """What the TUN device may hand us: whatever comes of it is IP, fits, and is never longer than it was."""
    mangler, rng = Mangler(ALL_SUITES[0], 21), random.Random(22)
    outbound = OutboundSa(SPI, mangler.keys)
    selectors = TrafficSelectors([USERS, USERS6], [NETWORK, NETWORK6], protocols=[6, 17, 58])
    sources: dict[int, IPv4Address | IPv6Address] = {
        4: IPv4Address("10.1.0.1"),
        6: IPv6Address("2001:db8:1::1"),
    }
    for _ in range(packets):
        packet = mangler.inner() if rng.random() < 0.9 else rng.randbytes(rng.randrange(80))
        mtu = rng.choice([68, 80, 576, 1438])
        if not selectors.outgoing(packet):
            continue
        fitted = fit(packet, mtu, sources[packet[0] >> 4])
        for piece in fitted.forward:
            assert ip_length(piece) == len(piece) <= mtu
            clamped = clamp_mss(piece, mtu)
            assert len(clamped) == len(piece)
            assert outbound.seal(clamped)
        if fitted.reply is not None:
            assert ip_length(fitted.reply) == len(fitted.reply)
        with_outer_ecn(packet, rng.randrange(256))
    assert outbound.counters.packets > packets // 10


def test_memory_does_not_grow_with_what_is_refused() -> None:
    mangler = Mangler(ALL_SUITES[0], 31)
    sa = InboundSa(SPI, mangler.keys, inbound_selectors())
    wrong = [mangler.unauthentic() for _ in range(500)]
    tracemalloc.start()
    try:
        assert sa.open_batch(wrong) == []
        before_octets, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            assert sa.open_batch(wrong) == []
        after_octets, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_octets - before_octets < 500
