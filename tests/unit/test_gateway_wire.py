"""The UDP socket between gateways: batches where the kernel can, the same datagrams where it cannot, none lost."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from gateways.encapsulation import NON_ESP_MARKER
from gateways.fast.wire import MAX_DATAGRAMS, Wire, udp_socket
from gateways.raw import RawWire
from topo.errors import NetworkError

SEGMENT = 103


class Refusing:
    """A socket whose sends fail as the test says, and otherwise arrive."""

    def __init__(self, *errors: int, only_batches: bool = False) -> None:
        self.errors = list(errors)
        self.only_batches = only_batches
        self.arrived: list[bytes] = []
        self.waiting: list[bytes] = []

    def recvmsg_into(
        self, into: list[memoryview], _octets: int
    ) -> tuple[int, list[tuple[int, int, bytes]], int, None]:
        if self.errors:
            raise OSError(self.errors.pop(0), "as told")
        if not self.waiting:
            raise BlockingIOError
        data = self.waiting.pop(0)
        into[0][: len(data)] = data
        return len(data), [], 0, None

    def send(self, data: bytes) -> None:
        if self.errors and not self.only_batches:
            raise OSError(self.errors.pop(0), "as told")
        self.arrived.append(bytes(data))

    def sendmsg(self, parts: tuple[bytes], ancillary: list[tuple[int, int, bytes]]) -> None:
        sizes = [int.from_bytes(value, "little") for _, kind, value in ancillary if kind == SEGMENT]
        if self.errors and sizes:
            raise OSError(self.errors.pop(0), "as told")
        data, size = bytes(parts[0]), (sizes or [len(parts[0])])[0]
        self.arrived += [data[at : at + size] for at in range(0, len(data), size)]

    def getsockopt(self, level: int, name: int) -> int:
        return 1300 if (level, name) == (socket.IPPROTO_IP, 14) else 0

    def setsockopt(self, *_: Any) -> None: ...


def wire_on(udp: Refusing, *, offloads: bool = True) -> Wire:
    return Wire(udp, offloads=offloads)  # type: ignore[arg-type]


def datagrams(count: int, size: int = 100, last: int = 60) -> tuple[bytes, list[bytes]]:
    """A send and the datagrams in it."""
    each = [bytes((number % 256,)) * size for number in range(count - 1)] + [b"\xff" * last]
    return b"".join(each), each


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(here), 0))
        port = probe.getsockname()[1]
    with udp_socket(here, there, port) as one, udp_socket(there, here, port) as other:
        yield one, other


@pytest.mark.parametrize("offloads", [True, False])
def test_what_is_sent_in_one_go_arrives_datagram_by_datagram(
    pair: tuple[socket.socket, socket.socket], offloads: bool
) -> None:
    sender, receiver = Wire(pair[0], offloads=offloads), Wire(pair[1], offloads=offloads)
    data, each = datagrams(3 * MAX_DATAGRAMS)
    sender.send(data, 100)
    buffer = memoryview(bytearray(65536))
    arrived: list[bytes] = []
    reads = 0
    while (got := receiver.receive(buffer)) is not None:
        octets, size, traffic_class = got
        assert traffic_class == 0
        arrived += [bytes(buffer[at : min(at + size, octets)]) for at in range(0, octets, size)]
        reads += 1
    assert arrived == each
    assert sender.segment == receiver.gro == offloads
    if offloads:
        assert reads < len(each)
    else:
        assert reads == len(each)


def test_the_traffic_class_travels(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = (Wire(end, offloads=True) for end in pair)
    sender.send(b"a" * 50, 50, 0xB9)
    sender.send_one(b"b" * 50, 0x02)
    buffer = memoryview(bytearray(65536))
    assert receiver.receive(buffer) == (50, 50, 0xB9)
    assert receiver.receive(buffer) == (50, 50, 0x02)
    assert receiver.receive(buffer) is None


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_where_an_interface_cannot_segment_datagrams_go_one_by_one(code: int) -> None:
    udp = Refusing(code, only_batches=True)
    wire = wire_on(udp)
    data, each = datagrams(10)
    wire.send(data, 100)
    wire.send(data, 100)
    assert udp.arrived == each * 2
    assert not wire.segment
    assert wire.errors == {"no_udp_segment": 1}


def test_a_full_buffer_loses_nothing_and_keeps_the_order() -> None:
    udp = Refusing(errno.EAGAIN)
    wire = wire_on(udp)
    sends = [datagrams(count) for count in (70, 5, 1)]
    for data, _ in sends:
        wire.send(data, 100)
    wire.send_one(b"one", 0)
    assert wire.blocked
    assert not udp.arrived
    udp.errors = [errno.EAGAIN]
    wire.flush()
    assert wire.blocked
    wire.flush()
    assert not wire.blocked
    assert udp.arrived == [one for _, each in sends for one in each] + [b"one"]
    assert not wire.errors


def test_a_send_too_long_for_the_path_tells_its_mtu() -> None:
    wire = wire_on(Refusing(errno.EMSGSIZE))
    wire.send(b"x" * 1400, 1400)
    assert wire.path_mtu == 1300
    assert wire.errors == {"EMSGSIZE": 1}


def test_a_peer_that_is_not_up_yet_costs_no_datagram() -> None:
    udp = Refusing(errno.ECONNREFUSED)
    wire = wire_on(udp)
    wire.send_one(b"first", 0)
    assert udp.arrived == [b"first"]


def test_a_network_that_is_down_loses_packets_and_counts_them() -> None:
    wire = wire_on(Refusing(errno.ENETUNREACH, errno.ENETUNREACH))
    wire.send_one(b"lost", 0)
    assert wire.errors == {"ENETUNREACH": 1}
    assert not wire.blocked


SAID_BY_A_NETWORK = [
    errno.EPROTO,  # ICMP: parameter problem
    errno.EHOSTDOWN,  # destination host unknown
    errno.ENONET,  # source host isolated
    errno.EOPNOTSUPP,  # source route failed
    errno.EACCES,  # a prohibit route
    errno.EINVAL,  # a blackhole route
    errno.ENOMEM,
]


@pytest.mark.parametrize("code", SAID_BY_A_NETWORK)
def test_nothing_that_a_network_says_ends_the_gateway(code: int) -> None:
    udp = Refusing(code)
    wire = wire_on(udp)
    wire.send_one(b"one", 0)
    udp.errors = [code]
    wire.send(b"two", 3)
    assert udp.arrived == [b"one", b"two"]  # a first error was about something earlier
    udp.errors = [code] * 2
    wire.send(b"lost", 4)
    assert udp.arrived == [b"one", b"two"]
    assert wire.errors == {errno.errorcode[code]: 3}
    assert not wire.blocked


@pytest.mark.parametrize("code", SAID_BY_A_NETWORK)
def test_nothing_that_a_network_says_keeps_a_datagram_from_being_read(code: int) -> None:
    udp = Refusing(*[code] * 3)
    udp.waiting.append(b"datagram")
    wire, into = wire_on(udp), memoryview(bytearray(100))
    assert wire.receive(into) == (8, 8, 0)
    assert wire.errors == {errno.errorcode[code]: 3}
    assert wire.receive(into) is None


def test_a_path_that_refuses_batches_and_single_datagrams_says_nothing_of_the_kernel() -> None:
    udp = Refusing(*[errno.EINVAL] * 100)
    wire = wire_on(udp)
    wire.send(datagrams(10)[0], 100)
    assert wire.segment
    assert wire.errors == {"EINVAL": 10}


@pytest.mark.parametrize("code", [errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN])
def test_a_socket_that_cannot_be_used_ends_the_gateway(code: int) -> None:
    with pytest.raises(NetworkError, match="UDP to the peer"):
        wire_on(Refusing(code, code)).send(b"x", 1)
    with pytest.raises(NetworkError, match="UDP to the peer"):
        wire_on(Refusing(code)).receive(memoryview(bytearray(9)))


def test_an_address_that_is_not_ours_is_one_clear_error() -> None:
    with pytest.raises(NetworkError, match=r"192\.0\.2\.77"):
        udp_socket(IPv4Address("192.0.2.77"), IPv4Address("192.0.2.78"), 4500)


def test_only_a_long_ike_message_may_be_fragmented() -> None:
    ours, peer = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
    modes = []
    with udp_socket(ours, peer, 44500) as udp:

        class Watched(Wire):
            def send(self, data: bytes | memoryview, size: int, traffic_class: int = 0) -> None:
                modes.append(udp.getsockopt(socket.IPPROTO_IP, 10))
                super().send(data, size, traffic_class)

        wire = Watched(udp, offloads=False)
        for octets in (548, 549):
            wire.send_control(bytes(octets))
        assert modes == [3, 0]  # IP_PMTUDISC_PROBE, IP_PMTUDISC_DONT
        assert udp.getsockopt(socket.IPPROTO_IP, 10) == 3


@pytest.fixture
def raw_wire() -> Iterator[tuple[RawWire, socket.socket, socket.socket]]:
    """A wire of two sockets, and the other ends of both."""
    kind = socket.AF_UNIX, socket.SOCK_DGRAM
    raw, udp = socket.socketpair(*kind), socket.socketpair(*kind)
    with raw[0], raw[1], udp[0], udp[1]:
        for end in (raw[0], udp[0]):
            end.setblocking(False)
        wire = RawWire(raw[0], udp[0])
        yield wire, raw[1], udp[1]
        wire.close()


@pytest.mark.parametrize("spi", [0, 0x77777777])
def test_a_flood_of_esp_packets_keeps_no_message_of_ike_waiting(
    raw_wire: tuple[RawWire, socket.socket, socket.socket], spi: int
) -> None:
    wire, raw, udp = raw_wire
    flood = b"\x45" + bytes(19) + spi.to_bytes(4) + bytes(40)
    message = NON_ESP_MARKER + b"message"
    for _ in range(10):
        raw.send(flood)
    udp.send(message)
    into = memoryview(bytearray(200))
    read = [wire.receive(into) and bytes(into[:11]) for _ in range(2)]
    assert message in read


def test_both_sockets_of_a_raw_wire_are_read_to_their_ends(
    raw_wire: tuple[RawWire, socket.socket, socket.socket],
) -> None:
    wire, raw, udp = raw_wire
    for number in range(5):
        raw.send(b"\x45" + bytes(19) + (number + 1).to_bytes(4) + bytes(40))
    for number in range(3):
        udp.send(NON_ESP_MARKER + bytes((number,)))
    into = memoryview(bytearray(200))
    read = []
    while (got := wire.receive(into)) is not None:
        read.append(bytes(into[: got[0]]))
    esp = [one for one in read if one[:4] != NON_ESP_MARKER]
    assert [one[3] for one in esp] == [1, 2, 3, 4, 5]
    assert [one[4] for one in read if one not in esp] == [0, 1, 2]
