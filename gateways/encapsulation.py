"""What is around an ESP packet: UDP port 4500 (RFC 3948) or nothing, its cost in MTU, and the outer traffic class."""

from __future__ import annotations

from enum import Enum, StrEnum

from gateways.checksum import adjusted
from gateways.suites import AES_128_GCM, Suite

PORT = 4500
NON_ESP_MARKER = bytes(4)
"""Before a control message on port 4500: no ESP packet can begin so, as SPI 0 is reserved."""
KEEPALIVE = b"\xff"
"""NAT keepalive: dropped without a word (RFC 3948 §2.3)."""
IP_PROTOCOL_ESP = 50
"""IP protocol number of raw ESP."""

_OUTER_IPV4_OCTETS = 20
_UDP_OCTETS = 8
_MIN_SPI = 256

_NOT_ECT, _ECT_1, _ECT_0, _CE = range(4)


class Encapsulation(StrEnum):
    """How ESP packets travel: in UDP, through any NAT, or as IP protocol 50."""

    UDP = "udp"
    RAW = "raw"

    @property
    def octets(self) -> int:
        """What lies before the ESP header, outer IPv4 header included, octets."""
        return _OUTER_IPV4_OCTETS + (_UDP_OCTETS if self is Encapsulation.UDP else 0)


class Kind(Enum):
    """What a datagram on port 4500 is, by its first octets (RFC 3948 §2)."""

    ESP = "esp"
    IKE = "ike"
    KEEPALIVE = "keepalive"
    JUNK = "junk"


def kind_of(datagram: bytes) -> Kind:
    """What a UDP payload on port 4500 claims to be; JUNK: too short, or a reserved SPI."""
    if datagram == KEEPALIVE:
        return Kind.KEEPALIVE
    if len(datagram) <= len(NON_ESP_MARKER):
        return Kind.JUNK
    spi = int.from_bytes(datagram[: len(NON_ESP_MARKER)])
    if spi >= _MIN_SPI:
        return Kind.ESP
    return Kind.JUNK if spi else Kind.IKE


def inner_mtu(
    path_mtu: int,
    suite: Suite = AES_128_GCM,
    encapsulation: Encapsulation = Encapsulation.UDP,
) -> int:
    """The longest inner packet whose outer IPv4 packet fits `path_mtu`, octets.

    AES-128-GCM in UDP: 1438 for a path of 1500 (RFC 4303 §2.4: payload and trailer end on a 4-octet boundary).
    """
    return suite.inner_octets(path_mtu - encapsulation.octets)


def outer_length(
    inner_octets: int,
    suite: Suite = AES_128_GCM,
    encapsulation: Encapsulation = Encapsulation.UDP,
) -> int:
    """Length of the outer IPv4 packet that carries an inner one of `inner_octets`, octets."""
    return encapsulation.octets + suite.esp_octets(inner_octets)


def traffic_class(packet: bytes) -> int:
    """DSCP and ECN of an IP packet, as the octet the outer header copies (RFC 4301 §5.1.2, RFC 6040 §4.1)."""
    if packet[0] >> 4 == 6:
        return (packet[0] & 15) << 4 | packet[1] >> 4
    return packet[1]


def with_outer_ecn(inner: bytes, outer_class: int) -> bytes | None:
    """The inner packet with the congestion that its outer header met (RFC 6040 §4.2, figure 4).

    `outer_class` is the outer traffic class; its DSCP is ignored. None: the packet must be dropped, because the
    network marked congestion on a packet whose sender cannot be told (outer CE, inner not ECT).
    """
    outer, own = outer_class & 3, traffic_class(inner) & 3
    if outer == _CE and own == _NOT_ECT:
        return None
    if outer == _CE or (outer == _ECT_1 and own == _ECT_0):
        ecn = outer
    else:
        return inner
    if inner[0] >> 4 == 6:
        return inner[:1] + bytes((inner[1] & 0xCF | ecn << 4,)) + inner[2:]
    marked = inner[1] & 0xFC | ecn
    check = adjusted(int.from_bytes(inner[10:12]), inner[1], marked)
    return inner[:1] + bytes((marked,)) + inner[2:10] + check.to_bytes(2) + inner[12:]
