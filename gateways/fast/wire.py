"""The UDP socket between two gateways: many equal datagrams a system call where the kernel can.

UDP_SEGMENT cuts one long send into datagrams as late as possible, UDP_GRO gives many received ones back in one go.
Where a kernel or an interface cannot, they are switched off and the datagrams go one by one.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter, deque
from contextlib import suppress
from ipaddress import IPv4Address

from topo.errors import NetworkError

MAX_DATAGRAMS = 64
"""Of one UDP_SEGMENT send (UDP_MAX_SEGMENTS of Linux before 6.9)."""
MAX_OCTETS = 65507
"""Of one send: the longest UDP payload over IPv4."""

_UDP_SEGMENT, _UDP_GRO = 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IP_TOS, _IP_RECVTOS, _IP_MTU_DISCOVER, _IP_MTU = 1, 13, 10, 14
_IP_PMTUDISC_DONT, _IP_PMTUDISC_PROBE = 0, 3
"""PROBE: DF is set, and what the kernel believes of the path, perhaps because of a forged ICMP message, refuses no
datagram: it is for `gateways.mtu.PathMtu` to believe it."""
_FITS_EVERYWHERE = 576 - 28
"""A UDP payload that no IPv4 path is too narrow for (RFC 791 §3.1)."""
_BUFFER_OCTETS = 4 * 2**20
_ANCILLARY_OCTETS = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(1)
_MAX_WAITING = 1024
"""Sends that wait for room in the socket's buffer."""
_SOCKET_ERRORS = frozenset(
    (errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.EDESTADDRREQ, errno.EFAULT)
)
"""The socket itself cannot be used. Anything else is what a network says of datagrams, and anybody on the way may say
it in a forged ICMP message: it is counted, and life goes on."""
_ERRORS_A_READ = 8
"""Errors that one read passes over, one for each ICMP message, before others have their turn."""
_CANNOT_SEGMENT = {errno.EIO, errno.EINVAL}
"""What a UDP_SEGMENT send says where the interface has no checksum offload, or the kernel a smaller limit."""


def udp_socket(local: IPv4Address, peer: IPv4Address, port: int) -> socket.socket:
    """A non-blocking UDP socket between two gateways only, never fragmented (DF), with room for bursts.

    Raises `NetworkError` where the kernel refuses.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_OCTETS)
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        udp.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        udp.bind((str(local), port))
        udp.connect((str(peer), port))
    except OSError as error:
        udp.close()
        raise NetworkError(f"UDP {local} to {peer}, {port}: {error.strerror}") from None
    udp.setblocking(False)
    return udp


class Wire:
    """Sends and receives on a connected UDP socket; counts in `errors` what the network says of datagrams, by name.

    `segment` and `gro` tell whether UDP_SEGMENT and UDP_GRO are in use; with `offloads` false they never are.
    `path_mtu` is the MTU that the kernel has learnt of the path since it was last reset, or None.
    """

    def __init__(self, udp: socket.socket, *, offloads: bool) -> None:
        self.errors: Counter[str] = Counter()
        self.path_mtu: int | None = None
        self.segment = self.gro = False
        self._udp = udp
        self._waiting: deque[tuple[bytes, int, int]] = deque()
        if offloads:
            with suppress(OSError):  # Linux before 4.18
                udp.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
                self.segment = True
            with suppress(OSError):  # Linux before 5.0
                udp.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
                self.gro = True

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._udp.fileno()

    @property
    def blocked(self) -> bool:
        """Whether sends wait: `flush` when the socket is writable, and send nothing new until then."""
        return bool(self._waiting)

    def send(self, data: bytes | memoryview, size: int, traffic_class: int = 0) -> None:
        """Send `data` as datagrams of `size` octets, the last one perhaps shorter.

        Where the socket's buffer is full they wait; a datagram that the network refuses is lost and counted.
        """
        if self._waiting:
            self._wait(data, size, traffic_class)
            return
        most = min(MAX_DATAGRAMS, MAX_OCTETS // size) * size if self.segment else size
        for at in range(0, len(data), most):
            if self._waiting or not self._send(data[at : at + most], size, traffic_class):
                self._wait(data[at:], size, traffic_class)
                return

    def send_one(self, datagram: bytes, traffic_class: int) -> None:
        """`send` of one datagram, in as few steps as can be."""
        if not traffic_class and not self._waiting:
            try:
                self._udp.send(datagram)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                self._note(error)
                if self._send(datagram, len(datagram), 0, error.errno):
                    return
        self.send(datagram, len(datagram), traffic_class)

    def send_control(self, message: bytes) -> None:
        """Send an IKE message. It alone may be fragmented on its way, as many prefixes or certificates make it long."""
        if len(message) <= _FITS_EVERYWHERE:
            self.send(message, len(message))
            return
        self._udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        try:
            self.send(message, len(message))
        finally:
            self._udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        waiting, self._waiting = self._waiting, deque()
        for data, size, traffic_class in waiting:
            self.send(data, size, traffic_class)

    def receive(self, into: memoryview) -> tuple[int, int, int] | None:
        """Read what came in one go: its octets, those of each datagram but the last, traffic class; None: nothing."""
        for _ in range(_ERRORS_A_READ):
            try:
                octets, ancillary, _, _ = self._udp.recvmsg_into([into], _ANCILLARY_OCTETS)
            except BlockingIOError:
                return None
            except OSError as error:  # an ICMP message about what was sent
                self._note(error)
                continue
            size, traffic_class = octets, 0
            for level, kind, value in ancillary:
                if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
                    size = int.from_bytes(value[:4], "little")
                elif level == socket.IPPROTO_IP and kind == _IP_TOS:
                    traffic_class = value[0]
            return octets, size, traffic_class
        return None

    def _send(
        self, data: bytes | memoryview, size: int, traffic_class: int, said: int | None = None
    ) -> bool:
        """Hand one send to the kernel; False if its buffer is full. Falls back to single datagrams.

        A first error may be about an earlier datagram, so this one is tried again. `said`: the error before, counted.
        """
        ancillary: list[tuple[int, int, bytes]] = []
        if len(data) > size:
            ancillary.append((socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size)))
        if traffic_class:
            ancillary.append((socket.IPPROTO_IP, _IP_TOS, struct.pack("=i", traffic_class)))
        for _ in range(2):
            try:
                if ancillary:
                    self._udp.sendmsg((data,), ancillary)
                else:
                    self._udp.send(data)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _CANNOT_SEGMENT and len(data) > size:
                    self._send_singly(data, size, traffic_class)
                    return True
                if error.errno != said:
                    self._note(error)
                said = error.errno
        return True

    def _send_singly(self, data: bytes | memoryview, size: int, traffic_class: int) -> None:
        """Send without UDP_SEGMENT what failed with it; do without from now on, unless that fails too."""
        before = self.errors.total()
        self.segment = False
        self.send(data, size, traffic_class)
        if self.errors.total() == before:
            self.errors["no_udp_segment"] += 1
        else:
            self.segment = True

    def _note(self, error: OSError) -> None:
        """Count what the network says, and learn from it. Raises `NetworkError` if the socket itself cannot be used."""
        code = error.errno or 0
        if code in _SOCKET_ERRORS:
            raise NetworkError(f"UDP to the peer: {error.strerror}") from None
        self.errors[errno.errorcode.get(code, "error")] += 1
        if code == errno.EMSGSIZE:
            with suppress(OSError):  # there is no route any more
                self.path_mtu = self._udp.getsockopt(socket.IPPROTO_IP, _IP_MTU)

    def _wait(self, data: bytes | memoryview, size: int, traffic_class: int) -> None:
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append((bytes(data), size, traffic_class))
        else:
            self.errors["send_buffer_full"] += -(-len(data) // size)
