"""Two gateways' batch paths back to back, without kernel and clock, and plain per-packet code to compare them with.

A pair of connected sockets stands for each TUN device: one read is one packet, as with the real one. The reference
cuts super-packets one by one with `struct`, and sums words as RFC 1071 does.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network

from gateways.esp import EspRefused, InboundSa, OutboundSa
from gateways.fast import vnet
from gateways.fast.inbound import Inbound
from gateways.fast.outbound import Outbound
from gateways.keys import SaKeys
from gateways.selectors import TrafficSelectors
from gateways.suites import Suite

HERE = [ip_network("10.1.0.0/24"), ip_network("fd01::/64")]
THERE = [ip_network("10.2.0.0/24"), ip_network("fd02::/64")]
SPI = 0x51C0FFEE
MTU = 1400


class Core:
    """One SA, sent on at one end and received on at the other."""

    def __init__(self, suite: Suite) -> None:
        keys = SaKeys.from_keymat(suite, os.urandom(suite.keymat_octets))
        self.drops: Counter[str] = Counter()
        self.selectors = TrafficSelectors(HERE, THERE)
        self.outbound: OutboundSa | None = OutboundSa(SPI, keys)
        self.receiver = InboundSa(SPI, keys, TrafficSelectors(THERE, HERE))

    def inbound(self, spi: int) -> InboundSa | None:
        return self.receiver if spi == SPI else None

    def sealed(self, now_ns: int) -> None: ...

    def opened(self, sa: InboundSa, now_ns: int) -> None: ...

    def from_inside(self, packet: bytes, now_ns: int) -> bytes | None:
        if not self.selectors.outgoing(packet):
            self.drops["outside_selectors"] += 1
            return None
        if self.outbound is None:
            self.drops["no_outbound_sa"] += 1
            return None
        with suppress(EspRefused):
            return self.outbound.seal(packet)
        return None

    def from_outside(self, datagram: bytes, now_ns: int) -> bytes | None:
        try:
            return self.receiver.open(datagram)
        except EspRefused:
            return None


class Wire:
    """What is sent at one end arrives at the other, in the portions of UDP_SEGMENT and UDP_GRO."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.path_mtu = None
        self.blocked = False
        self.outer_class = 0
        self.queue: deque[tuple[bytes, int]] = deque()

    def send(self, data: bytes | memoryview, size: int, traffic_class: int = 0) -> None:
        for at in range(0, len(data), 45 * size):
            self.queue.append((bytes(data[at : at + 45 * size]), size))

    def send_one(self, datagram: bytes, traffic_class: int) -> None:
        self.send(datagram, len(datagram))

    def receive(self, into: memoryview) -> tuple[int, int, int] | None:
        if not self.queue:
            return None
        data, size = self.queue.popleft()
        into[: len(data)] = data
        return len(data), min(size, len(data)), self.outer_class

    def datagrams(self) -> Iterator[bytes]:
        """Take everything off the wire, one datagram at a time."""
        while self.queue:
            data, size = self.queue.popleft()
            for at in range(0, len(data), size):
                yield data[at : at + size]


class Tunnel:
    """A TUN device, a gateway that seals, a wire, a gateway that opens, a TUN device."""

    def __init__(self, suite: Suite, *, merge: bool = True) -> None:
        self.core, self.wire = Core(suite), Wire()
        self._sockets = [
            *socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
            *socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        ]
        for end in self._sockets:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        self.inside, self.tun, far_tun, self.far_inside = self._sockets
        self.outbound = Outbound(self.tun.fileno(), self.wire, self.core, MTU)  # type: ignore[arg-type]
        self.inbound = Inbound(
            far_tun.fileno(),
            self.wire,  # type: ignore[arg-type]
            self.core,
            merge=merge,
            merge_udp=merge,
        )
        self._now_ns = 0

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for end in self._sockets:
            end.close()

    def seal(self, read: list[bytes], *, alone: bool = False) -> None:
        """Let the first gateway find these in its TUN device: in a burst, or each by itself."""
        for one in read:
            self.inside.send(one)
            if alone:
                self._carry(10**9)
        while select.select([self.tun], [], [], 0)[0]:
            self._carry(1000)

    def _carry(self, later_ns: int) -> None:
        self._now_ns += later_ns
        self.outbound.carry(self._now_ns)

    def open(self, *, alone: bool = False) -> list[bytes]:
        """Let the second gateway take what is on the wire: what it writes to its TUN device."""
        written = []
        while self.wire.queue:
            self._now_ns += 10**9 if alone else 1000
            self.inbound.carry(self._now_ns)
            while True:
                try:
                    written.append(self.far_inside.recv(2**17))
                except BlockingIOError:
                    break
        return written


def summed(data: bytes) -> int:
    """The ones' complement sum of RFC 1071 §1, word by word."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack("!BBH", 0, protocol, length)
    return packet[8:40] + struct.pack("!II", length, protocol)


def transport_of(packet: bytes) -> tuple[int, int]:
    """Protocol and offset of the transport header of a packet without extension headers."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4
    return packet[6], 40


def is_right(packet: bytes) -> bool:
    """Whether an IP packet's length and checksums are right."""
    protocol, at = transport_of(packet)
    if packet[0] >> 4 == 4 and (
        summed(packet[:at]) != 0xFFFF or int.from_bytes(packet[2:4]) != len(packet)
    ):
        return False
    if packet[0] >> 4 == 6 and int.from_bytes(packet[4:6]) + 40 != len(packet):
        return False
    return summed(pseudo(packet, protocol, len(packet) - at) + packet[at:]) == 0xFFFF


def cut(read: bytes) -> list[bytes]:
    """The packets that a read from a TUN device stands for, all checksums complete."""
    flags, kind, _, gso, start, offset = struct.unpack("=BBHHHH", read[:10])
    packet = read[10:]
    if not flags & 1:
        return [packet]
    protocol, at = transport_of(packet)
    assert start == at
    header = at + ((packet[at + 12] >> 4) * 4 if protocol == 6 else 8)
    pieces = [packet[header:]]
    if kind:
        pieces = [packet[i : i + gso] for i in range(header, len(packet), gso)]
    made = []
    for number, piece in enumerate(pieces):
        head = bytearray(packet[:header])
        total = header + len(piece)
        if head[0] >> 4 == 4:
            identification = int.from_bytes(head[4:6])
            if not head[6] & 0x40 and kind:
                head[4:6] = ((identification + number) & 0xFFFF).to_bytes(2)
            head[2:4], head[10:12] = total.to_bytes(2), bytes(2)
            head[10:12] = (0xFFFF - summed(bytes(head[:at]))).to_bytes(2)
        else:
            head[4:6] = (total - 40).to_bytes(2)
        if protocol == 6:
            sequence = (int.from_bytes(head[at + 4 : at + 8]) + number * gso) & 0xFFFFFFFF
            head[at + 4 : at + 8] = sequence.to_bytes(4)
            if number:
                head[at + 13] &= ~0x80
            if number < len(pieces) - 1:
                head[at + 13] &= ~0x09
        else:
            head[at + 4 : at + 6] = (total - at).to_bytes(2)
        head[at + offset : at + offset + 2] = bytes(2)
        check = 0xFFFF - summed(pseudo(bytes(head), protocol, total - at) + head[at:] + piece)
        if protocol == 17 and not check:
            check = 0xFFFF
        head[at + offset : at + offset + 2] = check.to_bytes(2)
        made.append(bytes(head) + piece)
    return made


def super_packet(rng: random.Random, gso: int, payload: int) -> bytes:
    """A read from a TUN device: one packet if `gso` is 0, a super-packet otherwise; its checksum left to us."""
    version, protocol = rng.choice((4, 6)), rng.choice((6, 17))
    options = rng.choice((b"", b"", b"\1\1\x08\x0a" + rng.randbytes(8)))
    head = b""
    if protocol == 6:
        flags = 0x10 | rng.choice((0, 0, 0x08, 0x01, 0x40, 0x80))
        head = struct.pack(
            "!HHIIBBHHH", 1, 2, rng.getrandbits(32), 3, 0x50 + 4 * len(options), flags, 9, 0, 0
        )
        head += options
    else:
        head = struct.pack("!HHHH", 5, 6, 8 + payload, 0)
    total = len(head) + payload
    if version == 4:
        ip_options = rng.choice((b"", b"", b"", b"\1\1\1\0"))
        ihl = 5 + len(ip_options) // 4
        fragmentable = rng.choice((0x4000, 0x4000, 0))
        ip = bytearray(
            struct.pack(
                "!BBHHHBBH",
                0x40 | ihl,
                0,
                4 * ihl + total,
                rng.getrandbits(16),
                fragmentable,
                64,
                protocol,
                0,
            )
        )
        ip += bytes((10, 1, 0, rng.randrange(4), 10, 2, 0, 7)) + ip_options
        ip[10:12] = (0xFFFF - summed(bytes(ip))).to_bytes(2)
    else:
        addresses = (
            ip_network("fd01::/64")[rng.randrange(4)].packed + ip_network("fd02::/64")[7].packed
        )
        ip = bytearray(struct.pack("!IHBB", 6 << 28 | 77, total, protocol, 64) + addresses)
    packet = bytearray(bytes(ip) + head + rng.randbytes(payload))
    field = len(ip) + vnet.CHECKSUM_AT[protocol]
    packet[field : field + 2] = summed(pseudo(bytes(packet), protocol, total)).to_bytes(2)
    kind = 0
    if gso:
        kind = (
            vnet.GSO_UDP if protocol == 17 else vnet.GSO_TCPV4 if version == 4 else vnet.GSO_TCPV6
        )
    header = vnet.HEADER.pack(
        1, kind, len(ip) + len(head), gso, len(ip), vnet.CHECKSUM_AT[protocol]
    )
    return header + bytes(packet)
