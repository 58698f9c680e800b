"""Traffic selectors: which inner packets a tunnel protects (RFC 4301 §4.4.1, RFC 7296 §2.9)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

_IPV4_HEADER_OCTETS = 20


def ipv4_total_length(packet: bytes) -> int | None:
    """The total length an IPv4 packet states of itself, octets; None if it is no such packet.

    Refuses other IP versions, header lengths below the minimum, and a total length that is
    shorter than the header or longer than the octets present.
    """
    if len(packet) < _IPV4_HEADER_OCTETS or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 0x0F) * 4
    total = packet[2] << 8 | packet[3]
    if not _IPV4_HEADER_OCTETS <= header <= total <= len(packet):
        return None
    return total


class TrafficSelectors:
    """The prefixes behind this gateway (`local`) and behind its peer (`remote`).

    Any protocol and any port; IPv4 only, so that an IPv6 packet is always outside. Everything not
    selected is refused: there is no bypass.
    """

    def __init__(self, local: Iterable[IPv4Network], remote: Iterable[IPv4Network]) -> None:
        self.local, self.remote = tuple(local), tuple(remote)
        self._local = [(int(n.netmask), int(n.network_address)) for n in self.local]
        self._remote = [(int(n.netmask), int(n.network_address)) for n in self.remote]

    def outgoing(self, packet: bytes) -> bool:
        """Whether a packet from our side may enter the tunnel: source local, destination remote."""
        return ipv4_total_length(packet) is not None and (
            _covers(self._local, packet[12:16]) and _covers(self._remote, packet[16:20])
        )

    def incoming(self, packet: bytes) -> bytes | None:
        """The packet that may leave the tunnel on our side, or None if it is outside the policy.

        Octets beyond the IPv4 total length are traffic-flow-confidentiality padding
        (RFC 4303 §2.7) and are cut off.
        """
        total = ipv4_total_length(packet)
        if total is None or not (
            _covers(self._remote, packet[12:16]) and _covers(self._local, packet[16:20])
        ):
            return None
        return packet if total == len(packet) else packet[:total]


def _covers(networks: list[tuple[int, int]], address: bytes) -> bool:
    value = int.from_bytes(address)
    return any(value & mask == network for mask, network in networks)
