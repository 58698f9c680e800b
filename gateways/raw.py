"""ESP as IP protocol 50, without UDP around it: for paths that have no NAT.

A raw socket has neither UDP_SEGMENT nor UDP_GRO: packets go one by one. IKE stays in UDP, on port 4500 and with the
marker before each message (RFC 3948 §2.2).
"""

from __future__ import annotations

import select
import socket
from ipaddress import IPv4Address

from gateways.encapsulation import IP_PROTOCOL_ESP, NON_ESP_MARKER
from gateways.fast.wire import Wire
from topo.errors import NetworkError

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_BUFFER_OCTETS = 4 * 2**20
_REFUSED_A_READ = 8
"""Packets that one read passes over before the other socket has its turn."""


def raw_socket(local: IPv4Address, peer: IPv4Address) -> socket.socket:
    """A non-blocking socket for ESP between two gateways only, never fragmented (DF), with room for bursts.

    Raises `NetworkError` where the kernel refuses.
    """
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, IP_PROTOCOL_ESP)
    except OSError as error:
        raise NetworkError(f"raw socket: {error.strerror}; it needs root") from None
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_OCTETS)
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        raw.bind((str(local), 0))
        raw.connect((str(peer), 0))
    except OSError as error:
        raw.close()
        raise NetworkError(f"ESP {local} to {peer}: {error.strerror}") from None
    raw.setblocking(False)
    return raw


class _Unbuffered(Wire):
    """A wire on which nothing waits: what the socket has no room for is lost and counted."""

    def _wait(self, data: bytes | memoryview, size: int, traffic_class: int) -> None:
        self.errors["send_buffer_full"] += -(-len(data) // size)


class RawWire(_Unbuffered):
    """ESP on `raw`, and what has the non-ESP marker on `udp`: to its users one wire with one descriptor."""

    def __init__(self, raw: socket.socket, udp: socket.socket) -> None:
        super().__init__(raw, offloads=False)
        self._control = _Unbuffered(udp, offloads=False)
        self._control.errors = self.errors
        self._control_first = False
        self._either = select.epoll()
        for end in (raw, udp):
            self._either.register(end, select.EPOLLIN)

    def close(self) -> None:
        """Let the descriptor go; the sockets are the caller's."""
        self._either.close()

    def fileno(self) -> int:
        """A descriptor that is readable when either socket is."""
        return self._either.fileno()

    def send_control(self, message: bytes) -> None:
        """Send an IKE message, in UDP."""
        self._control.send_control(message)

    def receive(self, into: memoryview) -> tuple[int, int, int] | None:
        """Read one datagram, as `Wire.receive` does; an ESP packet without its IP header.

        The two sockets take turns, so that no flood of ESP packets keeps IKE's messages waiting.
        """
        self._control_first = not self._control_first
        if self._control_first:
            return self._control.receive(into) or self._receive_esp(into)
        return self._receive_esp(into) or self._control.receive(into)

    def _receive_esp(self, into: memoryview) -> tuple[int, int, int] | None:
        for _ in range(_REFUSED_A_READ):
            got = super().receive(into)
            if got is None:
                return None
            octets, _, traffic_class = got
            header_octets = (into[0] & 15) * 4
            esp_octets = octets - header_octets
            if into[header_octets : header_octets + 4] == NON_ESP_MARKER:
                self.errors["spi_0"] += 1  # reserved, and on this wire no sign of anything else
                continue
            into[:esp_octets] = into[header_octets:octets]
            return esp_octets, esp_octets, traffic_class
        return None
