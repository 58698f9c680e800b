"""Inner packets that fit: MSS clamping, fragmenting before ESP, and telling the sender that a packet is too big.

The outer packet is never fragmented (its DF is set): whatever does not fit is refused or cut up before it is sealed,
and every fragment is a packet of its own to ESP (RFC 4301 §7, §8). No socket, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from gateways.checksum import adjusted, checksum, pseudo_header
from gateways.encapsulation import Encapsulation, inner_mtu, outer_length
from gateways.selectors import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, ip_length, upper_layer
from gateways.suites import AES_128_GCM, Suite

MIN_PATH_MTU = 576
"""Outer path MTU that a report may lower us to, octets: an ICMP message is forged more easily than ESP. Where the
tunnel carries IPv6, what IPv6 needs inside is the least."""
RAISE_AFTER_NS = 600 * 10**9
"""After this long without a report the configured path MTU is tried again (RFC 1191 §6.3)."""
MIN_IPV6_MTU = 1280
"""Every IPv6 link carries this (RFC 8200 §5)."""

_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_TCP_HEADER_OCTETS = 20
_SYN = 0x02
_OPTION_END, _OPTION_NOP, _OPTION_MSS = 0, 1, 2
_OPTION_COPIED = 0x80
_DF, _MF, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ICMP_HEADER_OCTETS = 8
_MIN_IPV4_MTU = 68
_MAX_ICMP_OCTETS = 576
"""RFC 1812 §4.3.2.3: as much of the packet as fits an error message of this length."""
_ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
_ICMPV6_REDIRECT = 137
_CLASS_INTERNETWORK_CONTROL = 0xC0
_TTL = 64


def clamp_mss(packet: bytes, mtu: int, *, partial_checksum: bool = False) -> bytes:
    """The packet, and if it is a TCP SYN, with an MSS no larger than an inner MTU of `mtu` octets allows.

    Lowers the MSS option where there is one, never raises it, and corrects the checksum by the difference
    (RFC 1624), so that a wrong checksum stays wrong. `partial_checksum`: the field holds the pseudo-header's sum
    only, as under virtio's NEEDS_CSUM, and stays. Anything that is not a whole TCP header comes back as it is.
    """
    layer = upper_layer(packet)
    if layer is None or layer[0] != _TCP or not layer[1]:
        return packet
    tcp = layer[1]
    if len(packet) < tcp + _TCP_HEADER_OCTETS or not packet[tcp + 13] & _SYN:
        return packet
    end = tcp + (packet[tcp + 12] >> 4) * 4
    at = tcp + _TCP_HEADER_OCTETS
    if end > len(packet):
        return packet
    while at + 4 <= end and packet[at] != _OPTION_END:
        if packet[at] == _OPTION_MSS and packet[at + 1] == 4:
            break
        at += 1 if packet[at] == _OPTION_NOP else max(packet[at + 1], 2)
    else:
        return packet
    ip_octets = IPV4_HEADER_OCTETS if packet[0] >> 4 == 4 else IPV6_HEADER_OCTETS
    stated = int.from_bytes(packet[at + 2 : at + 4])
    allowed = mtu - ip_octets - _TCP_HEADER_OCTETS
    if stated <= allowed:
        return packet
    clamped = bytearray(packet)
    clamped[at + 2 : at + 4] = allowed.to_bytes(2)
    if not partial_checksum:
        # At an odd place the option straddles two words: there it counts with its octets swapped.
        weight = 1 << 8 * ((at - tcp) % 2)
        check = int.from_bytes(packet[tcp + 16 : tcp + 18])
        clamped[tcp + 16 : tcp + 18] = adjusted(check, stated * weight, allowed * weight).to_bytes(
            2
        )
    return bytes(clamped)


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet with DF clear, cut to fragments of at most `mtu` octets (RFC 791 §3.2).

    A fragment may itself be cut. Options go into every fragment where their copied bit is set. Raises `ValueError`
    below the 68 octets that every IPv4 link carries.
    """
    if mtu < _MIN_IPV4_MTU:
        raise ValueError(f"MTU {mtu} is less than {_MIN_IPV4_MTU}")
    header_octets = (packet[0] & 15) * 4
    flags = packet[6] << 8 | packet[7]
    header, payload = packet[:header_octets], packet[header_octets:]
    made = []
    start = 0
    while start < len(payload):
        room = (mtu - len(header)) // 8 * 8
        piece = payload[start : start + room]
        last = start + len(piece) == len(payload)
        field = flags & ~_OFFSET | ((flags & _OFFSET) + start // 8) | (0 if last else _MF)
        head = bytearray(header)
        head[0] = 0x40 | len(header) // 4
        head[2:4] = (len(header) + len(piece)).to_bytes(2)
        head[6:8] = field.to_bytes(2)
        head[10:12] = bytes(2)
        head[10:12] = checksum(bytes(head)).to_bytes(2)
        made.append(bytes(head) + piece)
        if not start:
            header = header[:IPV4_HEADER_OCTETS] + _copied_options(header)
        start += len(piece)
    return made


def _copied_options(header: bytes) -> bytes:
    """The options of an IPv4 header that belong in every fragment, padded to 4 octets."""
    copied = b""
    at = IPV4_HEADER_OCTETS
    while at < len(header) and header[at] != _OPTION_END:
        octets = 1
        if header[at] != _OPTION_NOP:
            if at + 1 >= len(header) or not 2 <= header[at + 1] <= len(header) - at:
                break
            octets = header[at + 1]
        if header[at] & _OPTION_COPIED:
            copied += header[at : at + octets]
        at += octets
    return copied + bytes(-len(copied) % 4)


def too_big_reply(packet: bytes, mtu: int, source: IPv4Address | IPv6Address) -> bytes | None:
    """The ICMP message that tells the sender of `packet` to send at most `mtu` octets, or None.

    IPv4: destination unreachable, fragmentation needed (RFC 1191 §4); IPv6: packet too big (RFC 4443 §3.2).
    `source` is the gateway's own address of that version. None where no error may be sent: about an ICMP error, a
    later fragment, an address that is not one host's (RFC 1122 §3.2.2, RFC 4443 §2.4 e), or another version's
    `source`.
    """
    if packet[0] >> 4 != source.version or not _may_be_answered(packet):
        return None
    return _icmp(packet, mtu, source) if source.version == 4 else _icmpv6(packet, mtu, source)


def _icmp(packet: bytes, mtu: int, source: IPv4Address | IPv6Address) -> bytes:
    quoted = packet[: _MAX_ICMP_OCTETS - IPV4_HEADER_OCTETS - _ICMP_HEADER_OCTETS]
    body = bytes((3, 4, 0, 0, 0, 0)) + mtu.to_bytes(2) + quoted
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    head = bytes((0x45, _CLASS_INTERNETWORK_CONTROL))
    head += (IPV4_HEADER_OCTETS + len(body)).to_bytes(2) + b"\0\0" + _DF.to_bytes(2)
    head += bytes((_TTL, _ICMP, 0, 0)) + source.packed + packet[12:16]
    return head[:10] + checksum(head).to_bytes(2) + head[12:] + body


def _icmpv6(packet: bytes, mtu: int, source: IPv4Address | IPv6Address) -> bytes:
    quoted = packet[: MIN_IPV6_MTU - IPV6_HEADER_OCTETS - _ICMP_HEADER_OCTETS]
    body = bytes((2, 0, 0, 0)) + mtu.to_bytes(4) + quoted
    head = (6 << 28 | _CLASS_INTERNETWORK_CONTROL << 20).to_bytes(4)
    head += len(body).to_bytes(2) + bytes((_ICMPV6, _TTL)) + source.packed + packet[8:24]
    check = checksum(pseudo_header(head, _ICMPV6, len(body)) + body)
    return head + body[:2] + check.to_bytes(2) + body[4:]


def _may_be_answered(packet: bytes) -> bool:
    """Whether an ICMP error about this packet may be sent to its source."""
    layer = upper_layer(packet)
    sender: IPv4Address | IPv6Address
    if packet[0] >> 4 == 4:
        if (
            layer is None or not layer[1] or packet[16] >= 224
        ):  # later fragment, multicast, broadcast
            return False
        sender, own_icmp = IPv4Address(packet[12:16]), _ICMP
        if packet[12] in (0, *range(240, 256)):
            return False
    else:
        sender, own_icmp = IPv6Address(packet[8:24]), _ICMPV6
    if sender.is_unspecified or sender.is_multicast or sender.is_loopback:
        return False
    if layer is None or layer[0] != own_icmp or not 0 < layer[1] < len(packet):
        return True
    kind = packet[layer[1]]
    if own_icmp == _ICMP:
        return kind not in _ICMP_ERRORS
    return kind >= 128 and kind != _ICMPV6_REDIRECT


@dataclass(frozen=True, slots=True)
class Fitted:
    """What becomes of an inner packet: `forward` through the tunnel, and `reply` back to its sender."""

    forward: list[bytes]
    reply: bytes | None = None


def fit(packet: bytes, mtu: int, source: IPv4Address | IPv6Address) -> Fitted:
    """Make an IP packet fit an inner MTU of `mtu` octets (RFC 4301 §8.2.1).

    It goes through if it is short enough; IPv4 with DF clear is fragmented; anything else is dropped and its
    sender told, from address `source`. Octets behind the packet's own length are cut off. What is no IP packet
    goes nowhere.
    """
    length = ip_length(packet)
    if length is None:
        return Fitted([])
    packet = packet[:length]
    if length <= mtu:
        return Fitted([packet])
    if packet[0] >> 4 == 4 and not packet[6] & _DF >> 8:
        return Fitted(fragments(packet, mtu))
    return Fitted([], too_big_reply(packet, mtu, source))


class PathMtu:
    """The MTU of the outer path: as configured, lowered by reports, tried again after ten minutes.

    `outer` and `inner` are octets. A report comes from an ICMP message or as EMSGSIZE from the outer socket, and
    may be forged: it never raises the MTU, and never lowers it below `MIN_PATH_MTU`, nor, with `least_inner`, so far
    that fewer octets than that are left inside.
    """

    def __init__(
        self,
        configured: int,
        suite: Suite = AES_128_GCM,
        encapsulation: Encapsulation = Encapsulation.UDP,
        least_inner: int = 0,
    ) -> None:
        self.configured = self.outer = configured
        least = max(MIN_PATH_MTU, outer_length(least_inner, suite, encapsulation))
        self._least = min(least, configured)
        self._suite, self._encapsulation = suite, encapsulation
        self._raise_at_ns: int | None = None

    @property
    def inner(self) -> int:
        """The longest inner packet that fits now, octets."""
        return inner_mtu(self.outer, self._suite, self._encapsulation)

    def report(self, path_mtu: int, now_ns: int) -> bool:
        """Take a report of a smaller path MTU; whether it changed anything."""
        lowered = max(path_mtu, self._least)
        if lowered > self.outer or (lowered == self.outer and self._raise_at_ns is None):
            return False
        self._raise_at_ns = now_ns + RAISE_AFTER_NS
        changed, self.outer = lowered < self.outer, lowered
        return changed

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called next."""
        return self._raise_at_ns

    def tick(self, now_ns: int) -> bool:
        """Let time pass; whether the configured path MTU is tried again."""
        if self._raise_at_ns is None or now_ns < self._raise_at_ns:
            return False
        self._raise_at_ns = None
        changed, self.outer = self.outer < self.configured, self.configured
        return changed
