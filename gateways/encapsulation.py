"""ESP in UDP port 4500 (RFC 3948) and what the wrapping costs in MTU."""

from __future__ import annotations

PORT = 4500
NON_ESP_MARKER = bytes(4)
"""Before a control message on port 4500: no ESP packet can begin so, as SPI 0 is reserved."""
KEEPALIVE = b"\xff"
"""NAT keepalive: dropped without a word (RFC 3948 §2.3)."""

_OUTER_IPV4_OCTETS = 20
_UDP_OCTETS = 8
_ESP_HEADER_OCTETS = 8
_IV_OCTETS = 8
_ICV_OCTETS = 16
_TRAILER_OCTETS = 2
_ALIGNMENT = 4


def inner_mtu(path_mtu: int) -> int:
    """The longest inner packet that fits `path_mtu` once sealed and UDP-encapsulated, octets.

    1438 for a path of 1500 (RFC 4303 §2.4: payload and trailer end on a 4-octet boundary).
    """
    fixed = _OUTER_IPV4_OCTETS + _UDP_OCTETS + _ESP_HEADER_OCTETS + _IV_OCTETS + _ICV_OCTETS
    return (path_mtu - fixed) // _ALIGNMENT * _ALIGNMENT - _TRAILER_OCTETS


def outer_length(inner_octets: int) -> int:
    """Length of the outer IPv4 packet that carries an inner one of `inner_octets`, octets."""
    payload = inner_octets + _TRAILER_OCTETS
    aligned = -(-payload // _ALIGNMENT) * _ALIGNMENT
    return (
        _OUTER_IPV4_OCTETS + _UDP_OCTETS + _ESP_HEADER_OCTETS + _IV_OCTETS + aligned + _ICV_OCTETS
    )
