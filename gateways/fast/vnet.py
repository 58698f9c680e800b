"""The header that a TUN device with IFF_VNET_HDR puts before every packet (virtio 1.2 §5.1.6, linux/virtio_net.h).

::

    flags (1) | gso_type (1) | hdr_len (2) | gso_size (2) | csum_start (2) | csum_offset (2)    native byte order

A super-packet is one IP packet that stands for many: its payload is cut every `gso_size` octets and each piece gets
its own headers. What the header says is checked against the packet here; nothing behind this module trusts it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateways.selectors import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, upper_layer
from topo.errors import ProtocolError

HEADER = struct.Struct("=BBHHHH")
VNET_OCTETS = HEADER.size
PLAIN = bytes(VNET_OCTETS)
"""Before a packet that stands for itself, its checksums complete."""

NEEDS_CSUM = 1
"""The checksum field holds the sum of the pseudo-header only."""
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP = 0, 1, 4, 5
_GSO_ECN = 0x80

HEADERS_OCTETS = 256
"""All the headers of a super-packet lie in so many octets, or it is refused."""

TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}
"""Where the checksum lies in the transport header."""
UDP_OCTETS = 8
_MIN_TCP_OCTETS = 20
_FRAGMENT = 0x3FFF
_KINDS = {GSO_TCPV4: (4, TCP), GSO_TCPV6: (6, TCP)}


@dataclass(frozen=True, slots=True)
class SuperPacket:
    """What is known of a super-packet once it has been checked; offsets and lengths in octets.

    `transport` is where the TCP or UDP header begins, `header` the length of all headers, `gso` the payload of each
    segment but the last, `payload` that of all together.
    """

    version: int
    protocol: int
    transport: int
    header: int
    gso: int
    payload: int


def parse(vnet: bytes, packet: bytes, octets: int) -> SuperPacket | tuple[int, int]:
    """A packet's virtio header checked against the packet: a `SuperPacket`, or where a checksum is to be completed.

    `packet` is at least its first `HEADERS_OCTETS`, or all of it where it is shorter; `octets` is its whole length. A
    checksum's place is (start, field), offsets into the packet in octets, (0, 0) where nothing is to be done. Raises
    `ProtocolError` for what no kernel should have written: another type, a size of 0, lengths or offsets beyond the
    packet or at odds with its own headers, a fragment that should be cut.
    """
    flags, kind, _, size, start, offset = HEADER.unpack_from(vnet)
    if kind == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return 0, 0
        field = start + offset
        if not start or start > octets or field + 2 > octets or offset not in CHECKSUM_AT.values():
            raise ProtocolError(f"virtio header: checksum at {field} of {octets} octets")
        return start, field
    if _stated_octets(packet) != octets:
        raise ProtocolError("virtio header: a super-packet that is no whole IP packet")
    version = packet[0] >> 4
    kind &= ~_GSO_ECN
    wanted = (version, UDP) if kind == GSO_UDP else _KINDS.get(kind)
    layer = upper_layer(packet)
    if layer is None or wanted != (version, layer[0]) or layer[1] != start:
        raise ProtocolError(f"virtio header: type {kind} on another kind of packet")
    if version == 4 and (packet[6] << 8 | packet[7]) & _FRAGMENT:
        raise ProtocolError("virtio header: a super-packet that is a fragment")
    protocol = layer[0]
    header = start + UDP_OCTETS
    if protocol == TCP:
        if start + _MIN_TCP_OCTETS > len(packet) or packet[start + 12] >> 4 < 5:
            raise ProtocolError("virtio header: no whole TCP header")
        header = start + (packet[start + 12] >> 4) * 4
    if not size or not header <= len(packet) or header >= octets or not flags & NEEDS_CSUM:
        raise ProtocolError(f"virtio header: segments of {size} octets, headers of {header}")
    if offset != CHECKSUM_AT[protocol]:
        raise ProtocolError(f"virtio header: checksum field at {offset}")
    return SuperPacket(version, protocol, start, header, size, octets - header)


def _stated_octets(packet: bytes) -> int | None:
    """The length that the beginning of an IP packet states, None if it is none."""
    if len(packet) >= IPV4_HEADER_OCTETS and packet[0] >> 4 == 4 and packet[0] & 15 >= 5:
        return packet[2] << 8 | packet[3]
    if len(packet) >= IPV6_HEADER_OCTETS and packet[0] >> 4 == 6:
        return IPV6_HEADER_OCTETS + (packet[4] << 8 | packet[5])
    return None


def merged(version: int, protocol: int, transport: int, header: int, gso: int) -> bytes:
    """The virtio header to write before a super-packet: its checksum field is the pseudo-header's sum."""
    kind = GSO_UDP if protocol == UDP else GSO_TCPV4 if version == 4 else GSO_TCPV6
    return HEADER.pack(NEEDS_CSUM, kind, header, gso, transport, CHECKSUM_AT[protocol])


def completed(packet: bytearray, start: int, field: int) -> None:
    """Complete the checksum at `field` of a packet in place: it covers `start` to the end.

    The field's own content, the pseudo-header's sum, is summed with the rest (skb_checksum_help does the same).
    """
    # In whatever byte order the words are summed, the sum comes out in that order (RFC 1071 §2 B).
    total = int.from_bytes(packet[start:], "little") % 0xFFFF
    check = -total % 0xFFFF
    if not check and field - start == CHECKSUM_AT[UDP]:
        check = 0xFFFF
    packet[field : field + 2] = check.to_bytes(2, "little")
