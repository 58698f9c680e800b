"""ESP: the order of checks, padding, selectors, the sequence limit, hidden keys."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest

from gateways.encapsulation import inner_mtu
from gateways.esp import MAX_SEQUENCE, AesGcm16, EspRefused, InboundSa, OutboundSa, Refusal
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors

USERS, NETWORK = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
KEYS = SaKeys(bytes(range(16)), b"salt")
SPI = 0x1001


def ipv4(octets: int, source: str = "10.1.0.5", destination: str = "10.2.0.7") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, octets, 1, 0, 64, 17, 0)
    return (
        head
        + IPv4Address(source).packed
        + IPv4Address(destination).packed
        + bytes(range(256)) * (octets // 256 + 1)
    )[:octets]


def pair(window: int = 1024) -> tuple[OutboundSa, InboundSa]:
    return (
        OutboundSa(SPI, KEYS),
        InboundSa(SPI, KEYS, TrafficSelectors([NETWORK], [USERS]), window),
    )


def sealed(plaintext: bytes, sequence: int = 1) -> bytes:
    """An ESP packet with any plaintext at all: what a peer that errs would send."""
    return AesGcm16(KEYS).protect(
        struct.pack("!II", SPI, sequence), sequence.to_bytes(8), plaintext
    )


def refusal(sa: InboundSa, packet: bytes) -> Refusal:
    with pytest.raises(EspRefused) as refused:
        sa.open(packet)
    assert getattr(sa.counters, refused.value.reason) >= 1
    return refused.value.reason


@pytest.mark.parametrize("octets", [20, 21, 22, 23, 84, 1394, 1438])
def test_what_is_sealed_is_opened(octets: int) -> None:
    outbound, inbound = pair()
    inner = ipv4(octets)
    packet = outbound.seal(inner)
    assert len(packet) % 4 == 0
    assert packet[:16] == struct.pack("!IIQ", SPI, 1, 1)
    assert inbound.open(packet) == inner
    assert (inbound.counters.packets, inbound.counters.bytes) == (1, octets)


@pytest.mark.parametrize("path_mtu", [1280, 1400, 1499, 1500, 9000])
def test_inner_mtu_is_the_longest_that_fits(path_mtu: int) -> None:
    outbound, _ = pair()
    longest = inner_mtu(path_mtu)
    assert len(outbound.seal(ipv4(longest))) + 28 <= path_mtu
    assert len(outbound.seal(ipv4(longest + 1))) + 28 > path_mtu


def test_inner_mtu_of_ethernet() -> None:
    assert inner_mtu(1500) == 1438


def test_every_flipped_bit_is_refused_and_moves_nothing() -> None:
    outbound, inbound = pair()
    packet = outbound.seal(ipv4(1400))
    for bit in range(len(packet) * 8):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EspRefused):
            inbound.open(bytes(flipped))
    assert inbound.window.highest == 0
    assert inbound.counters.packets == 0
    assert inbound.counters.icv_failures + inbound.counters.unknown_spi == len(packet) * 8 - 1
    assert inbound.counters.replays == 1  # sequence number 1 turned into 0
    assert inbound.open(packet) == ipv4(1400)


def test_replay_is_refused_before_the_icv() -> None:
    outbound, inbound = pair()
    packet = outbound.seal(ipv4(100))
    inbound.open(packet)
    assert refusal(inbound, packet) is Refusal.REPLAY
    assert refusal(inbound, packet[:-1] + b"\0") is Refusal.REPLAY


def test_forged_last_sequence_number_does_not_move_the_window() -> None:
    outbound, inbound = pair()
    forged = bytearray(outbound.seal(ipv4(100)))
    forged[4:8] = MAX_SEQUENCE.to_bytes(4)
    assert refusal(inbound, bytes(forged)) is Refusal.ICV
    assert inbound.open(outbound.seal(ipv4(60))) == ipv4(60)


def test_own_packet_reflected_is_refused() -> None:
    """Each direction has its own key, so even an equal SPI does not make a reflection pass."""
    outbound, _ = pair()
    other = InboundSa(SPI, SaKeys(bytes(16), b"tlas"), TrafficSelectors([USERS], [NETWORK]))
    assert refusal(other, outbound.seal(ipv4(100))) is Refusal.ICV


@pytest.mark.parametrize("octets", [0, 1, 7, 8, 35, 37, 38, 39])
def test_runts_and_odd_lengths(octets: int) -> None:
    _, inbound = pair()
    assert refusal(inbound, sealed(bytes(2000))[:octets]) is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("trailer", "expected"),
    [
        (b"\x01\x02\x02\x04", None),
        (b"\x01\x02\x03\x04\x05\x06\x06\x04", None),  # more padding than alignment needs
        (b"\x01\x03\x02\x04", Refusal.PADDING),
        (b"\x00\x00\x02\x04", Refusal.PADDING),
        (b"\x01\x02\xff\x04", Refusal.PADDING),  # longer than the payload
        (b"\x01\x02\x02\x3b", Refusal.DUMMY),
        (b"\x01\x02\x02\x29", Refusal.NEXT_HEADER),
        (b"\x01\x02\x02\x11", Refusal.NEXT_HEADER),
    ],
)
def test_trailer(trailer: bytes, expected: Refusal | None) -> None:
    _, inbound = pair()
    packet = sealed(ipv4(40) + trailer)
    if expected is None:
        assert inbound.open(packet) == ipv4(40)
    else:
        assert refusal(inbound, packet) is expected


def test_traffic_flow_padding_is_cut_off() -> None:
    _, inbound = pair()
    assert inbound.open(sealed(ipv4(40) + bytes(200) + b"\x01\x02\x02\x04")) == ipv4(40)


@pytest.mark.parametrize(
    "inner",
    [
        ipv4(40, source="10.3.0.5"),
        ipv4(40, destination="10.2.1.7"),
        ipv4(40, source="10.2.0.7", destination="10.1.0.5"),
        b"",
        b"\x45" * 16,
        b"\x60" + bytes(39),  # IPv6 claimed to be IPv4
        ipv4(40)[:2] + (41).to_bytes(2) + ipv4(40)[4:],  # longer than what is there
        ipv4(40)[:2] + (19).to_bytes(2) + ipv4(40)[4:],  # shorter than its header
        b"\x44" + ipv4(40)[1:],  # header of 16 octets
        b"\x4f" + ipv4(40)[1:],  # header of 60 octets in a packet of 40
    ],
)
def test_inner_packet_outside_the_selectors(inner: bytes) -> None:
    _, inbound = pair()
    pad = -(len(inner) + 2) % 4
    trailer = bytes(range(1, pad + 1)) + bytes((pad, 4))
    assert refusal(inbound, sealed(inner + trailer)) is Refusal.SELECTOR


def test_sequence_numbers_end_and_never_wrap() -> None:
    outbound, inbound = pair()
    outbound.sequence = MAX_SEQUENCE - 2
    for last in (MAX_SEQUENCE - 1, MAX_SEQUENCE):
        packet = outbound.seal(ipv4(40))
        assert int.from_bytes(packet[4:8]) == last
        assert inbound.open(packet) == ipv4(40)
    for _ in range(3):
        with pytest.raises(EspRefused) as refused:
            outbound.seal(ipv4(40))
        assert refused.value.reason is Refusal.EXHAUSTED
    assert outbound.sequence == MAX_SEQUENCE
    assert (outbound.counters.packets, outbound.counters.exhausted) == (2, 3)


def test_repr_hides_keys() -> None:
    outbound, inbound = pair()
    text = f"{outbound!r} {inbound!r} {KEYS!r} {KEYS} {AesGcm16(KEYS)!r}"
    assert KEYS.key.hex() not in text
    assert repr(KEYS.key)[2:-1] not in text
    assert "salt=" not in text


@pytest.mark.parametrize("spi", [0, 1, 255, 2**32])
def test_reserved_spis(spi: int) -> None:
    with pytest.raises(ValueError, match="SPI"):
        OutboundSa(spi, KEYS)
    with pytest.raises(ValueError, match="SPI"):
        InboundSa(spi, KEYS, TrafficSelectors([NETWORK], [USERS]))
