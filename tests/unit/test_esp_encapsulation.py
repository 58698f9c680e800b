"""What is around ESP: the MTU table, datagrams on port 4500, ECN through the tunnel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateways.checksum import adjusted, checksum
from gateways.encapsulation import (
    KEEPALIVE,
    NON_ESP_MARKER,
    Encapsulation,
    Kind,
    inner_mtu,
    kind_of,
    outer_length,
    traffic_class,
    with_outer_ecn,
)
from gateways.esp import OutboundSa
from gateways.suites import (
    AES_128_CBC_SHA256,
    AES_128_GCM,
    SM4_128_CBC_SM3,
    SM4_128_GCM,
    SUITES,
    Suite,
)
from tests.esp_packets import ALL_SUITES, SPI, ipv4, ipv6, keys_of

UDP, RAW = Encapsulation.UDP, Encapsulation.RAW
GTP_U_WITH_QFI_OCTETS = 44


@pytest.mark.parametrize(
    ("suite", "encapsulation", "longest", "longest_of_ue"),
    [
        (AES_128_GCM, UDP, 1438, 1394),
        (SM4_128_GCM, UDP, 1438, 1394),
        (AES_128_GCM, RAW, 1446, 1402),
        (SM4_128_GCM, RAW, 1446, 1402),
        (AES_128_CBC_SHA256, UDP, 1422, 1378),
        (SM4_128_CBC_SM3, UDP, 1422, 1378),
    ],
    ids=str,
)
def test_table_of_mtus_for_a_path_of_1500(
    suite: Suite, encapsulation: Encapsulation, longest: int, longest_of_ue: int
) -> None:
    assert inner_mtu(1500, suite, encapsulation) == longest
    assert longest - GTP_U_WITH_QFI_OCTETS == longest_of_ue


def test_defaults_are_aes_gcm_in_udp() -> None:
    assert inner_mtu(1500) == inner_mtu(1500, AES_128_GCM, UDP)
    assert outer_length(1438) == 1500


@pytest.mark.parametrize("suite", ALL_SUITES, ids=list(SUITES))
@pytest.mark.parametrize("encapsulation", Encapsulation)
@pytest.mark.parametrize("path_mtu", [576, 1280, 1400, 1499, 1500, 9000])
def test_inner_mtu_is_the_longest_that_fits(
    suite: Suite, encapsulation: Encapsulation, path_mtu: int
) -> None:
    outbound = OutboundSa(SPI, keys_of(suite))
    around = 28 if encapsulation is UDP else 20
    longest = inner_mtu(path_mtu, suite, encapsulation)
    assert len(outbound.seal(ipv4(longest))) + around <= path_mtu
    assert len(outbound.seal(ipv4(longest + 1))) + around > path_mtu
    assert outer_length(longest, suite, encapsulation) <= path_mtu


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (KEEPALIVE, Kind.KEEPALIVE),
        (NON_ESP_MARKER + b"IKE", Kind.IKE),
        (bytes.fromhex("00000100") + bytes(40), Kind.ESP),
        (bytes.fromhex("ffffffff") + bytes(40), Kind.ESP),
        (bytes.fromhex("000000ff") + bytes(40), Kind.JUNK),
        (NON_ESP_MARKER, Kind.JUNK),
        (b"", Kind.JUNK),
        (b"\xff\xff", Kind.JUNK),
        (b"\x00", Kind.JUNK),
    ],
)
def test_kinds_of_datagrams(datagram: bytes, kind: Kind) -> None:
    assert kind_of(datagram) is kind


NOT_ECT, ECT_1, ECT_0, CE = range(4)
RFC_6040_FIGURE_4: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
DSCP_EF = 46 << 2


def marked4(traffic: int) -> bytes:
    packet = ipv4(60)[:1] + bytes((traffic,)) + ipv4(60)[2:]
    check = checksum(packet[:10] + bytes(2) + packet[12:20])
    return packet[:10] + check.to_bytes(2) + packet[12:]


def marked6(traffic: int) -> bytes:
    return (6 << 28 | traffic << 20 | 0xABCDE).to_bytes(4) + ipv6(60)[4:]


@pytest.mark.parametrize("marked", [marked4, marked6])
@pytest.mark.parametrize("inner", RFC_6040_FIGURE_4)
@pytest.mark.parametrize("outer", range(4))
def test_congestion_met_outside_is_told_inside(
    marked: Callable[[int], bytes], inner: int, outer: int
) -> None:
    packet = marked(DSCP_EF | inner)
    assert traffic_class(packet) == DSCP_EF | inner
    result = with_outer_ecn(packet, 0xA0 | outer)
    expected = RFC_6040_FIGURE_4[inner][outer]
    assert result == (None if expected is None else marked(DSCP_EF | expected))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0001f203f4f5f6f7", 0x220D),  # RFC 1071 §3: the sum is ddf2
        ("4500003044224000800600008c7c19acae241e2b", 0x442E),
        ("ffff", 0),
        ("01", 0xFEFF),
    ],
)
def test_checksum(data: str, expected: int) -> None:
    assert checksum(bytes.fromhex(data)) == expected


def test_adjusted_checksum_of_rfc_1624() -> None:
    """Its §4: header checksum dd2f, a word goes from 5555 to 3285, and the answer is 0000, not ffff."""
    assert adjusted(0xDD2F, 0x5555, 0x3285) == 0
