"""Network namespaces held by descriptors, seen with iproute2, nsenter and plain sockets; needs root."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from topo import namespaces as module
from topo.errors import NetworkError
from topo.links import rtnetlink
from topo.links.offloads import switch_off
from topo.links.rtnetlink import Batch
from topo.namespaces import Namespace, namespaces

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]

PATIENCE_S = 10.0
ETH_P_IP = 0x0800
BULK_BYTES = 400_000


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.01)


def identity(of: str = "thread-self") -> str:
    """Which network namespace a task is in."""
    return str(Path(f"/proc/{of}/ns/net").readlink())


def interfaces(namespace: Namespace) -> list[str]:
    return [name for _, name in namespace.run(socket.if_nameindex)]


def nsenter(namespace: Namespace, *command: str) -> str:
    enter = ["nsenter", f"--net=/proc/{namespace.pid}/ns/net", *command]
    return subprocess.run(enter, check=True, capture_output=True, text=True).stdout


@contextmanager
def joined() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a veth pair `a` - `b` between them, 192.0.2.1 and 192.0.2.2, up."""
    with namespaces("one", "other") as (one, other):

        def wire(ipr: Any) -> None:
            peer = {"ifname": "b", "net_ns_pid": other.pid}
            ipr.link("add", kind="veth", ifname="a", peer=peer)

        def configure(ipr: Any, name: str, address: str) -> None:
            index = ipr.link_lookup(ifname=name)[0]
            ipr.addr("add", index=index, address=address, prefixlen=24)
            ipr.link("set", index=index, state="up")

        one.with_netlink(wire)
        one.with_netlink(lambda ipr: configure(ipr, "a", "192.0.2.1"))
        other.with_netlink(lambda ipr: configure(ipr, "b", "192.0.2.2"))
        yield one, other


# -- a namespace -----------------------------------------------------------------------------------


def test_it_is_another_one_with_nothing_but_loopback() -> None:
    mine = identity()
    with Namespace("alone") as namespace:
        assert namespace.run(identity) == identity(str(namespace.pid)) != mine
        assert interfaces(namespace) == ["lo"]
        assert "state DOWN" in nsenter(namespace, "ip", "link", "show", "lo")
        assert identity() == mine


def test_work_is_done_on_the_callers_thread_and_returned() -> None:
    with Namespace("worker") as namespace:
        assert namespace.run(threading.get_native_id) == threading.get_native_id() != namespace.pid
        assert namespace.run(lambda: [1, 2]) == [1, 2]


def test_one_within_the_other() -> None:
    mine = identity()
    with namespaces("outer", "inner") as (outer, inner):
        within, between = outer.run(lambda: (inner.run(identity), identity()))
        assert (within, between) == (identity(str(inner.pid)), identity(str(outer.pid)))
        assert identity() == mine


def test_it_costs_no_thread_until_somebody_asks_for_its_id() -> None:
    before = threading.active_count()
    with Namespace("quiet") as namespace:
        namespace.run(identity)
        assert threading.active_count() == before
        assert namespace.pid == namespace.pid
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_an_error_inside_is_raised_outside_and_one_is_back_home() -> None:
    mine = identity()
    with Namespace("worker") as namespace:
        with pytest.raises(ZeroDivisionError):
            namespace.run(lambda: 1 // 0)
        with pytest.raises(SystemExit):
            namespace.run(sys.exit)
        assert identity() == mine
        assert namespace.run(lambda: "well") == "well"


def test_settings_are_its_own() -> None:
    key, mine = "net/ipv4/ip_forward", Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with namespaces("one", "other") as (one, other):
        one.sysctl(key, "1")
        other.sysctl(key, "0")
        assert nsenter(one, "cat", f"/proc/sys/{key}") == "1\n"
        assert nsenter(other, "cat", f"/proc/sys/{key}") == "0\n"
    assert Path("/proc/sys", key).read_text() == mine


def test_the_netlink_handle_is_its_own_and_kept() -> None:
    with Namespace("alone") as namespace:
        first = namespace.with_netlink(lambda ipr: ipr)
        assert namespace.with_netlink(lambda ipr: ipr) is first
        namespace.with_netlink(lambda ipr: ipr.link("add", ifname="x", kind="veth", peer="y"))
        assert interfaces(namespace) == ["lo", "y", "x"]
    assert "x" not in {name for _, name in socket.if_nameindex()}


def test_packets_go_from_one_to_the_other() -> None:
    with joined() as (one, other):
        receiver = other.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender = one.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with receiver, sender:
            receiver.settimeout(PATIENCE_S)
            receiver.bind(("192.0.2.2", 4000))
            sender.sendto(b"hello", ("192.0.2.2", 4000))
            assert receiver.recvfrom(100)[0] == b"hello"


# -- its end ---------------------------------------------------------------------------------------


def test_what_is_in_it_goes_with_it() -> None:
    with Namespace("stays") as stays:
        goes = Namespace("goes")
        peer = {"ifname": "b", "net_ns_pid": goes.pid}
        stays.with_netlink(lambda ipr: ipr.link("add", kind="veth", ifname="a", peer=peer))
        assert interfaces(stays) == ["lo", "a"]
        assert interfaces(goes) == ["lo", "b"]
        goes.close()
        until(lambda: interfaces(stays) == ["lo"], "the kernel to take the pair away")


def test_the_end_of_a_process_is_the_end_of_its_namespaces() -> None:
    """Also where it had no time to tidy up."""
    program = (
        "import sys, os\n"
        "from topo.namespaces import Namespace\n"
        "namespace = Namespace('doomed')\n"
        "print(namespace.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(9)\n"
    )
    root = str(Path(module.__file__).parents[1])
    with (
        Namespace("stays") as stays,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        peer = {"ifname": "b", "net_ns_pid": int(process.stdout.readline())}
        stays.with_netlink(lambda ipr: ipr.link("add", kind="veth", ifname="a", peer=peer))
        assert interfaces(stays) == ["lo", "a"]
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 9
        until(lambda: interfaces(stays) == ["lo"], "the kernel to take the pair away")


def test_closing_twice_does_no_harm_and_a_closed_one_says_so() -> None:
    namespace = Namespace("brief")
    namespace.close()
    namespace.close()
    with pytest.raises(NetworkError, match="namespace brief is closed"):
        namespace.run(identity)


def test_several_are_let_go_when_one_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Namespace] = []

    class Second(Namespace):
        def __init__(self, name: str) -> None:
            if made:
                raise NetworkError(f"no network namespace for {name}")
            super().__init__(name)
            made.append(self)

    monkeypatch.setattr(module, "Namespace", Second)
    with pytest.raises(NetworkError, match="for two"), namespaces("one", "two", "three"):
        pytest.fail("entered without all of them")
    with pytest.raises(NetworkError, match="closed"):
        made[0].run(identity)


def test_a_kernel_that_refuses_is_an_error_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing:
        @staticmethod
        def unshare(_flags: int) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

        @staticmethod
        def setns(_descriptor: int, _flags: int) -> int:
            return 0

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(module, "_libc", Refusing)
    with pytest.raises(
        NetworkError, match="no network namespace for vain: Operation not permitted"
    ):
        Namespace("vain")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


# -- requests in batches ---------------------------------------------------------------------------


def test_many_requests_in_one_message_across_namespaces() -> None:
    with namespaces("one", "other") as (one, other), Batch() as batch:
        for number in range(40):
            peer = {"ifname": f"b{number}", "net_ns_fd": other.fileno()}
            batch.ask(
                "link", "add", kind="veth", ifname=f"a{number}", net_ns_fd=one.fileno(), peer=peer
            )
        batch.send()
        assert sorted(interfaces(one)) == sorted(["lo", *(f"a{n}" for n in range(40))])
        assert sorted(interfaces(other)) == sorted(["lo", *(f"b{n}" for n in range(40))])
        batch.send()  # nothing is left to ask for
        assert "noqueue" not in {qdisc.get_attr("TCA_KIND") for qdisc in one.run(rtnetlink.qdiscs)}


def test_a_refusal_names_the_request_and_the_rest_is_done() -> None:
    with Namespace("alone") as namespace, Batch() as batch:
        batch.ask("link", "set", index=77, state="up")
        batch.ask("link", "add", kind="veth", ifname="x", peer={"ifname": "y"})
        with pytest.raises(
            NetworkError, match=r"refuses `link set index 77 state up`: No such dev"
        ):
            namespace.run(batch.send)
        assert sorted(interfaces(namespace)) == ["lo", "x", "y"]
        batch.ask("addr", "add", index=1, address="192.0.2.9", prefixlen=32)
        namespace.run(batch.send)
        assert "192.0.2.9/32" in nsenter(namespace, "ip", "address", "show", "lo")


# -- offloads --------------------------------------------------------------------------------------


def longest_frame(one: Namespace, other: Namespace) -> int:
    """The longest frame that arrives when a bulk of TCP is sent from one to the other."""

    def sniff() -> socket.socket:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * BULK_BYTES)
        sniffer.bind(("b", ETH_P_IP))
        sniffer.setblocking(False)
        return sniffer

    server = other.run(lambda: socket.create_server(("192.0.2.2", 0)))
    sniffer, port = other.run(sniff), server.getsockname()[1]
    with server, sniffer:
        client = one.run(lambda: socket.create_connection(("192.0.2.2", port), PATIENCE_S))
        receiver, _ = server.accept()
        with client, receiver:
            receiver.settimeout(PATIENCE_S)
            sending = threading.Thread(target=client.sendall, args=(bytes(BULK_BYTES),))
            sending.start()
            missing = BULK_BYTES
            while missing:
                missing -= len(receiver.recv(missing))
            sending.join()
        lengths = []
        while True:
            try:
                lengths.append(len(sniffer.recv(1 << 17)))
            except BlockingIOError:
                return max(lengths)


def test_with_offloads_off_one_packet_is_one_frame() -> None:
    with joined() as (one, other):
        assert longest_frame(one, other) > 1514, "this kernel has no offloads to switch off"
        one.run(lambda: switch_off("a"))
        other.run(lambda: switch_off("b"))
        assert longest_frame(one, other) == 1514


def test_checksums_are_filled_in_where_a_raw_socket_reads() -> None:
    """The Internet checksum (RFC 1071) over a UDP datagram and its pseudo-header comes to zero."""

    def checksum_of_one_datagram(one: Namespace, other: Namespace) -> int:
        raw = other.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP))
        sender = one.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with raw, sender:
            raw.settimeout(PATIENCE_S)
            sender.sendto(b"to be summed", ("192.0.2.2", 4000))
            datagram = raw.recv(100)[20:]
        pseudo = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2")
        pseudo += bytes([0, socket.IPPROTO_UDP]) + len(datagram).to_bytes(2, "big")
        octets = pseudo + datagram
        total = sum(int.from_bytes(octets[i : i + 2], "big") for i in range(0, len(octets), 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return total ^ 0xFFFF

    with joined() as (one, other):
        assert checksum_of_one_datagram(one, other) != 0, "this kernel fills them in anyway"
        one.run(lambda: switch_off("a"))
        assert checksum_of_one_datagram(one, other) == 0


def test_an_interface_that_there_is_not() -> None:
    with (
        Namespace("alone") as namespace,
        pytest.raises(NetworkError, match=r"x0: tx checksum offload cannot be set: .*No such dev"),
    ):
        namespace.run(lambda: switch_off("x0"))
