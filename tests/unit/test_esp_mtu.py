"""Inner packets that fit: what passes, what is cut up, who is told, and no outer packet above the path MTU."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from gateways.checksum import checksum, pseudo_header
from gateways.encapsulation import Encapsulation
from gateways.esp import InboundSa, OutboundSa
from gateways.mtu import (
    MIN_IPV6_MTU,
    MIN_PATH_MTU,
    RAISE_AFTER_NS,
    PathMtu,
    clamp_mss,
    fit,
    fragments,
    too_big_reply,
)
from gateways.suites import AES_128_GCM, SM4_128_CBC_SM3, SUITES, Suite
from tests.esp_packets import ALL_SUITES, SPI, inbound_selectors, ipv4, ipv6, keys_of

GATEWAY, GATEWAY6 = IPv4Address("10.1.0.1"), IPv6Address("2001:db8:1::1")
S = 10**9


def without_df(packet: bytes) -> bytes:
    return packet[:6] + bytes(2) + packet[8:]


def joined(pieces: list[bytes]) -> bytes:
    """An IPv4 packet's payload out of its fragments, each of which must fit where it says."""
    payload = b""
    for index, piece in enumerate(pieces):
        field = piece[6] << 8 | piece[7]
        assert int.from_bytes(piece[2:4]) == len(piece)
        assert checksum(piece[:20]) == 0
        assert (field & 0x1FFF) * 8 == len(payload)
        assert bool(field & 0x2000) is (index < len(pieces) - 1)
        payload += piece[(piece[0] & 15) * 4 :]
    return payload


@pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))
@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_every_size_arrives_and_no_outer_packet_is_too_long(
    suite: Suite, encapsulation: Encapsulation
) -> None:
    path = PathMtu(1500, suite, encapsulation)
    keys = keys_of(suite)
    outbound, inbound = OutboundSa(SPI, keys), InboundSa(SPI, keys, inbound_selectors())
    told = 0
    for octets in range(1, 1501):
        for packet in (ipv4(octets), without_df(ipv4(octets)), ipv6(max(octets, 40))):
            source = GATEWAY if packet[0] >> 4 == 4 else GATEWAY6
            fitted = fit(packet, path.inner, source)
            if octets < 20 and packet[0] >> 4 == 4:
                assert fitted.forward == []
                assert fitted.reply is None
                continue
            outer = outbound.seal_batch(fitted.forward)
            assert all(len(esp) + encapsulation.octets <= 1500 for esp in outer)
            arrived = inbound.open_batch(outer)
            if len(arrived) == 1:
                assert arrived == [packet]
                assert fitted.reply is None
            elif arrived:
                assert joined(arrived) == packet[20:]
                assert fitted.reply is None
            else:
                assert len(packet) > path.inner
                assert fitted.reply is not None
                told += 1
    assert told == 2 * (1500 - path.inner)


@pytest.mark.parametrize("mtu", [68, 69, 75, 76, 576, 1438])
@pytest.mark.parametrize("octets", [21, 68, 77, 1438, 1439, 1500, 3000, 65535])
def test_fragments_make_the_packet_again(mtu: int, octets: int) -> None:
    packet = without_df(ipv4(octets))
    pieces = fragments(packet, mtu)
    assert all(len(piece) <= mtu for piece in pieces)
    assert all(len(piece) % 8 == 20 % 8 for piece in pieces[:-1])
    assert joined(pieces) == packet[20:]


def test_a_fragment_may_be_cut_again() -> None:
    packet = without_df(ipv4(3000))
    pieces = [smaller for piece in fragments(packet, 1400) for smaller in fragments(piece, 500)]
    assert joined(pieces) == packet[20:]
    assert len(pieces) > 6


def test_options_are_copied_where_they_ask_for_it() -> None:
    """RFC 791 §3.1: strict source route (137) goes into every fragment, record route (7) into the first only."""
    route, record = b"\x89\x07\x04\x0a\x00\x00\x01", b"\x07\x07\x04\x00\x00\x00\x00"
    options = record + b"\x01" + route + b"\x00"
    head = without_df(ipv4(20 + len(options) + 200))[:20]
    packet = b"\x49" + head[1:] + options + bytes(range(200))
    first, *rest = fragments(packet, 120)
    assert first[20:36] == options
    assert rest
    for piece in rest:
        assert piece[0] == 0x47
        assert piece[20:28] == route + b"\x00"
    assert b"".join(p[(p[0] & 15) * 4 :] for p in (first, *rest)) == bytes(range(200))


def test_an_mtu_no_link_has() -> None:
    with pytest.raises(ValueError, match="68"):
        fragments(without_df(ipv4(100)), 67)


def test_what_is_behind_a_packet_is_not_forwarded() -> None:
    assert fit(ipv4(100) + bytes(2000), 1438, GATEWAY).forward == [ipv4(100)]
    pieces = fit(without_df(ipv4(1500)) + bytes(99), 1438, GATEWAY).forward
    assert joined(pieces) == ipv4(1500)[20:]


ICMP_ERROR = ipv4(1500, protocol=1)[:20] + b"\x03" + ipv4(1500)[21:]
ICMP_ECHO = ipv4(1500, protocol=1)[:20] + b"\x08" + ipv4(1500)[21:]
ICMPV6_ERROR = ipv6(1500, next_header=58)[:40] + b"\x01" + ipv6(1500)[41:]
ICMPV6_ECHO = ipv6(1500, next_header=58)[:40] + b"\x80" + ipv6(1500)[41:]


@pytest.mark.parametrize(
    ("packet", "answered"),
    [
        (ipv4(1500), True),
        (ICMP_ECHO, True),
        (ICMP_ERROR, False),
        (ipv4(1500)[:6] + b"\x40\x01" + ipv4(1500)[8:], False),  # later fragment with DF
        (ipv4(1500, destination="224.0.0.5"), False),
        (ipv4(1500, destination="255.255.255.255"), False),
        (ipv4(1500, source="0.0.0.0"), False),
        (ipv4(1500, source="0.0.0.9"), False),
        (ipv4(1500, source="127.0.0.1"), False),
        (ipv4(1500, source="224.0.0.5"), False),
        (ipv4(1500, source="255.255.255.255"), False),
        (ipv6(1500), True),
        (ipv6(1500, destination="ff02::1"), True),  # RFC 4443 §2.4 (e.3): packet too big may
        (ICMPV6_ECHO, True),
        (ICMPV6_ERROR, False),
        (ipv6(1500, source="::"), False),
        (ipv6(1500, source="::1"), False),
        (ipv6(1500, source="ff02::1"), False),
    ],
)
def test_whom_an_error_may_be_sent_to(packet: bytes, answered: bool) -> None:
    source = GATEWAY if packet[0] >> 4 == 4 else GATEWAY6
    assert (too_big_reply(packet, 1438, source) is not None) is answered
    other = GATEWAY6 if packet[0] >> 4 == 4 else GATEWAY
    assert too_big_reply(packet, 1438, other) is None


def tcp(packet: bytes, flags: int, options: bytes) -> bytes:
    """A TCP segment in an IP header made for it, its checksum right."""
    ip = packet[: 20 if packet[0] >> 4 == 4 else 40]
    segment = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 + len(options) // 4 << 4, flags, 9, 0, 0)
    segment += options
    check = checksum(pseudo_header(ip, 6, len(segment)) + segment)
    return ip + segment[:16] + check.to_bytes(2) + segment[18:]


def syn(version: int, options: bytes, flags: int = 2) -> bytes:
    octets = 20 + len(options)
    if version == 4:
        return tcp(ipv4(20 + octets, protocol=6), flags, options)
    return tcp(ipv6(40 + octets, next_header=6), flags, options)


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2)


SACK_PERMITTED, NOP, END = b"\x04\x02", b"\x01", b"\x00"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x02, 0x12, 0xC2])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (SACK_PERMITTED + NOP * 2, b""),
        (NOP, SACK_PERMITTED + END),  # at an odd place
        (NOP * 3, END),
        (NOP * 4, SACK_PERMITTED + NOP * 2),
    ],
)
def test_mss_is_clamped_and_the_checksum_stays_right(
    version: int, flags: int, before: bytes, after: bytes
) -> None:
    allowed = 1438 - (40 if version == 4 else 60)
    packet = syn(version, before + mss(1460) + after, flags)
    assert clamp_mss(packet, 1438) == syn(version, before + mss(allowed) + after, flags)


@pytest.mark.parametrize("value", range(0, 65536, 257))
def test_mss_values(value: int) -> None:
    for before in (b"", NOP):
        options = before + mss(value) + NOP * (4 - len(before))
        clamped = syn(4, before + mss(min(value, 1398)) + NOP * (4 - len(before)))
        assert clamp_mss(syn(4, options), 1438) == clamped


def test_a_wrong_checksum_stays_wrong_and_a_partial_one_as_it_is() -> None:
    packet = syn(4, mss(1460))
    wrong = packet[:36] + bytes((packet[36] ^ 1,)) + packet[37:]
    clamped = clamp_mss(wrong, 1438)
    assert checksum(pseudo_header(clamped, 6, len(clamped) - 20) + clamped[20:]) != 0
    partial = clamp_mss(packet, 1438, partial_checksum=True)
    assert partial[36:38] == packet[36:38]
    assert partial[42:44] == (1398).to_bytes(2)


@pytest.mark.parametrize(
    "packet",
    [
        syn(4, mss(1460), flags=0x10),  # no SYN
        syn(4, SACK_PERMITTED + NOP * 2),  # no MSS
        syn(4, END + NOP * 3 + mss(1460)),  # behind the end of the options
        syn(4, b"\x02\x03" + NOP * 2),  # MSS of a wrong length
        syn(4, b"\x05\x00" + NOP * 2),  # an option of length 0
        syn(4, NOP * 3 + b"\x02"),  # cut short
        syn(4, mss(1460))[:40],  # header longer than what is there
        syn(4, mss(1460))[:30],
        syn(4, mss(1460))[:6] + b"\x00\x01" + syn(4, mss(1460))[8:],  # later fragment
        ipv4(60, protocol=17),
        ipv6(60, next_header=0),
    ],
)
def test_anything_else_is_left_alone(packet: bytes) -> None:
    assert clamp_mss(packet, 600) is packet


def test_path_mtu_falls_by_reports_and_is_tried_again() -> None:
    path = PathMtu(1500)
    assert (path.outer, path.inner, path.next_deadline_ns()) == (1500, 1438, None)
    assert not path.report(1500, 0)
    assert not path.report(9000, 0)
    assert path.report(1400, S)
    assert (path.outer, path.inner) == (1400, 1338)
    assert not path.report(1450, 2 * S)
    assert not path.report(1400, 5 * S)  # still so: wait anew
    assert path.next_deadline_ns() == 5 * S + RAISE_AFTER_NS
    assert not path.tick(5 * S + RAISE_AFTER_NS - 1)
    assert path.tick(5 * S + RAISE_AFTER_NS)
    assert (path.outer, path.next_deadline_ns()) == (1500, None)
    assert not path.tick(10**15)


def test_a_forged_report_cannot_take_the_path_away() -> None:
    path = PathMtu(1500, SM4_128_CBC_SM3, Encapsulation.RAW)
    assert path.report(68, 0)
    assert path.outer == MIN_PATH_MTU
    assert path.inner == SM4_128_CBC_SM3.inner_octets(MIN_PATH_MTU - 20)
    small = PathMtu(500, AES_128_GCM)
    assert not small.report(68, 0)
    assert small.outer == 500


@pytest.mark.parametrize("suite", [AES_128_GCM, SM4_128_CBC_SM3])
@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_a_forged_report_cannot_take_ipv6_away(suite: Suite, encapsulation: Encapsulation) -> None:
    path = PathMtu(1500, suite, encapsulation, least_inner=MIN_IPV6_MTU)
    assert path.report(600, 0)
    assert path.inner >= MIN_IPV6_MTU
    assert path.report(600, S) is False
