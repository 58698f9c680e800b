"""Traffic selectors: which inner packets a tunnel protects (RFC 4301 §4.4.1, RFC 7296 §2.9)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

IPV4_HEADER_OCTETS = 20
IPV6_HEADER_OCTETS = 40
_FRAGMENT = 44
_SKIPPED_HEADERS = frozenset((0, 43, 60, 135, 139, 140))
"""IPv6 extension headers of the common shape: next header, length in 8 octets less one (RFC 6564)."""
_MAX_EXTENSION_HEADERS = 8


def ip_length(packet: bytes) -> int | None:
    """The length an IP packet states of itself, octets; None if it is neither IPv4 nor IPv6.

    Refuses other versions, IPv4 header lengths below the minimum, and a length that is shorter than the header
    or longer than the octets present. An IPv6 jumbogram states no payload and counts as its bare header.
    """
    present = len(packet)
    if present < IPV4_HEADER_OCTETS:
        return None
    version = packet[0] >> 4
    if version == 4:
        total = packet[2] << 8 | packet[3]
        return total if IPV4_HEADER_OCTETS <= (packet[0] & 15) * 4 <= total <= present else None
    if version == 6 and present >= IPV6_HEADER_OCTETS:
        total = IPV6_HEADER_OCTETS + (packet[4] << 8 | packet[5])
        return total if total <= present else None
    return None


def upper_layer(packet: bytes) -> tuple[int, int] | None:
    """Protocol of a whole IP packet and the offset of its header in octets; None if there is none to be seen.

    Walks IPv6 extension headers. The protocol of a fragment that is not the first is known, its header is not
    there: the offset is then 0. None for a chain that is cut short or too long, and for a later IPv6 fragment
    whose first header is one of the chain's own.
    """
    if packet[0] >> 4 == 4:
        later = (packet[6] << 8 | packet[7]) & 0x1FFF
        return packet[9], 0 if later else (packet[0] & 15) * 4
    protocol, offset = packet[6], IPV6_HEADER_OCTETS
    for _ in range(_MAX_EXTENSION_HEADERS):
        if protocol in _SKIPPED_HEADERS or protocol == _FRAGMENT:
            if offset + 8 > len(packet):
                return None
            fragment = protocol == _FRAGMENT
            protocol = packet[offset]
            if not fragment:
                offset += 8 * (packet[offset + 1] + 1)
            elif packet[offset + 2] << 8 | packet[offset + 3] & 0xF8:
                return (
                    None if protocol in _SKIPPED_HEADERS or protocol == _FRAGMENT else (protocol, 0)
                )
            else:
                offset += 8
        else:
            return protocol, offset
    return None


class TrafficSelectors:
    """The prefixes behind this gateway (`local`) and behind its peer (`remote`), IPv4 and IPv6.

    `protocols` are the IP protocol numbers that may pass, none named: any. Everything not selected is refused:
    there is no bypass. Ports are not selected by, so that a fragment carries all that is looked at and passes
    like any other packet (RFC 4301 §7.1: an SA for any port carries fragments).
    """

    def __init__(
        self, local: Iterable[Network], remote: Iterable[Network], protocols: Iterable[int] = ()
    ) -> None:
        self.local, self.remote = tuple(local), tuple(remote)
        self.protocols = frozenset(protocols)
        self._outgoing = _address_pairs(self.local, self.remote)
        self._incoming = _address_pairs(self.remote, self.local)

    def outgoing(self, packet: bytes) -> bool:
        """Whether a packet from our side may enter the tunnel: source local, destination remote."""
        return ip_length(packet) is not None and self._admits(self._outgoing, packet)

    def incoming(self, packet: bytes) -> bytes | None:
        """The packet that may leave the tunnel on our side, or None if it is outside the policy.

        Source must be remote, destination local. Octets beyond the length the packet states of itself are
        traffic-flow-confidentiality padding (RFC 4303 §2.7) and are cut off.
        """
        total = ip_length(packet)
        if total is None or not self._admits(self._incoming, packet):
            return None
        return packet if total == len(packet) else packet[:total]

    def _admits(self, pairs: _AddressPairs, packet: bytes) -> bool:
        if packet[0] >> 4 == 4:
            addresses, wanted = int.from_bytes(packet[12:20]), pairs[0]
        else:
            addresses, wanted = int.from_bytes(packet[8:40]), pairs[1]
        for mask, value in wanted:
            if addresses & mask == value:
                break
        else:
            return False
        if not self.protocols:
            return True
        found = upper_layer(packet)
        return found is not None and found[0] in self.protocols


_AddressPairs = tuple[list[tuple[int, int]], list[tuple[int, int]]]
"""For IPv4 and for IPv6: (mask, value) of source and destination side by side, as they lie in a header."""


def _address_pairs(sources: Iterable[Network], destinations: Iterable[Network]) -> _AddressPairs:
    pairs: _AddressPairs = ([], [])
    for source in sources:
        for destination in destinations:
            if source.version == destination.version:
                bits = source.max_prefixlen
                mask = int(source.netmask) << bits | int(destination.netmask)
                value = int(source.network_address) << bits | int(destination.network_address)
                pairs[source.version == 6].append((mask, value))
    return pairs
