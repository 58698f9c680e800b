"""The Internet checksum (RFC 1071), of whole data and after a change (RFC 1624).

Ones' complement sums of 16-bit words are sums modulo 65535, and 2¹⁶ ≡ 1 there: the sum of all words of some data is
the data itself, read as one number, modulo 65535.
"""

from __future__ import annotations

_MODULUS = 0xFFFF


def checksum(data: bytes) -> int:
    """The checksum of `data`, whose own checksum field is 0. Not all of it may be zero."""
    if len(data) % 2:
        data += b"\0"
    return -int.from_bytes(data) % _MODULUS


def adjusted(check: int, old: int, new: int) -> int:
    """The checksum after one 16-bit word has gone from `old` to `new` (RFC 1624, equation 3)."""
    return (check + old - new) % _MODULUS


def pseudo_header(packet: bytes, protocol: int, octets: int) -> bytes:
    """What an upper layer of `octets` sums before itself (RFC 9293 §3.1, RFC 8200 §8.1)."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + bytes((0, protocol)) + octets.to_bytes(2)
    return packet[8:40] + octets.to_bytes(4) + protocol.to_bytes(4)
