"""Packets and keys for the ESP tests: inner packets of any length, seeded keys of any suite, any ESP plaintext."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors
from gateways.suites import SUITES, Suite

SPI = 0x1001
USERS, NETWORK = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
USERS6, NETWORK6 = IPv6Network("2001:db8:1::/64"), IPv6Network("2001:db8:2::/64")
ALL_SUITES = tuple(SUITES.values())


def inbound_selectors() -> TrafficSelectors:
    """What the network side lets in: from the users to the network, both versions."""
    return TrafficSelectors([NETWORK, NETWORK6], [USERS, USERS6])


def ipv4(
    octets: int, source: str = "10.1.0.5", destination: str = "10.2.0.7", protocol: int = 17
) -> bytes:
    """An IPv4 packet of `octets` (cut short below 20) with DF set; its checksum is left 0."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, octets, 1, 0x4000, 64, protocol, 0)
    head += IPv4Address(source).packed + IPv4Address(destination).packed
    return (head + bytes(range(256)) * (octets // 256 + 1))[:octets]


def ipv6(
    octets: int,
    source: str = "2001:db8:1::5",
    destination: str = "2001:db8:2::7",
    next_header: int = 17,
) -> bytes:
    """An IPv6 packet of `octets`, 40 at least."""
    head = struct.pack("!IHBB", 6 << 28, octets - 40, next_header, 64)
    head += IPv6Address(source).packed + IPv6Address(destination).packed
    return (head + bytes(range(256)) * (octets // 256 + 1))[:octets]


def keys_of(suite: Suite, seed: int = 1) -> SaKeys:
    """Keying material out of a seed."""
    return SaKeys.from_keymat(suite, random.Random(seed).randbytes(suite.keymat_octets))


def sealed(keys: SaKeys, plaintext: bytes, sequence: int = 1) -> bytes:
    """An ESP packet with any plaintext at all: what a peer that errs would send."""
    return keys.cipher().protect(struct.pack("!II", SPI, sequence), sequence, plaintext)


def trailed(suite: Suite, payload: bytes, next_header: int = 4) -> bytes:
    """`payload` with the shortest right trailer of a suite."""
    pad = -(len(payload) + 2) % suite.alignment
    return payload + bytes(range(1, pad + 1)) + bytes((pad, next_header))
