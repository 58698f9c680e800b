"""Gateways with every offload on, between namespaces of this machine: the kernel's own verdict on their packets."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.bench.gateway_chain import SERVER, Chain, missing
from experiments.bench.gateways import ours
from gateways.suites import SUITES

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces and TUN"),
    pytest.mark.skipif(bool(missing("iperf3", "ethtool")), reason="needs iperf3 and ethtool"),
]

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 3, 0x0800, 0x0806, 0x86DD


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Chain() as chain:
        ours(SUITES["AES-128-GCM"])(chain, tmp_path)
        chain.serve(tmp_path / "iperf3.log")
        yield chain


def counters(chain: Chain, host: str) -> dict[str, int]:
    """The kernel's `InCsumErrors` of a host, by protocol."""
    lines = chain.hosts[host].run(Path("/proc/thread-self/net/snmp").read_text).splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, *fields = names.split()
        row = dict(zip(fields, values.split()[1:], strict=True))
        if "InCsumErrors" in row:
            found[protocol] = int(row["InCsumErrors"])
    return found


def frames(chain: Chain, kinds: set[tuple[int, int]], stop: threading.Event) -> Callable[[], None]:
    """Collect (Ethernet type, UDP port) of every frame on the wire between the gateways."""

    def sniff() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
            raw.bind(("o0", 0))
            raw.settimeout(0.1)
            while not stop.is_set():
                try:
                    frame = raw.recv(128)
                except TimeoutError:
                    continue
                kind = int.from_bytes(frame[12:14])
                udp = kind == ETH_P_IP and frame[23] == socket.IPPROTO_UDP
                kinds.add((kind, int.from_bytes(frame[36:38]) if udp else -1))

    return lambda: chain.hosts["a"].run(sniff)


def echoed(chain: Chain, data: bytes) -> bytes:
    """What comes back of `data` from an echo server on the far side, over one TCP connection."""
    listener = chain.hosts["server"].run(lambda: socket.create_server((SERVER, 0)))

    def echo() -> None:
        connection, _ = listener.accept()
        with connection:
            while part := connection.recv(2**18):
                connection.sendall(part)

    server = threading.Thread(target=echo)
    server.start()
    address = listener.getsockname()
    with listener, chain.hosts["client"].run(lambda: socket.create_connection(address)) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(1)))
        sender.start()
        back = b"".join(iter(lambda: client.recv(2**18), b""))
        sender.join()
        server.join()
    return back


def test_the_kernel_finds_no_wrong_checksum_and_every_octet_comes_back(chain: Chain) -> None:
    data = os.urandom(20_000_000)
    for wires in (False, True):
        chain.segmented(wires)
        assert echoed(chain, data) == data
        assert chain.iperf3("-n", "20M", "-P", "4", "-R")["end"]["sum_received"]["bytes"]
        for octets in (64, 1300):
            end = chain.iperf3("-u", "-b", "20M", "-l", f"{octets}", "-t", "1")["end"]
            assert end["sum"]["packets"] > end["sum"]["lost_packets"]
    for host in chain.hosts:
        assert not any(counters(chain, host).values()), host


def test_a_path_that_shrinks_makes_the_packets_inside_shorter(chain: Chain) -> None:
    data = os.urandom(2_000_000)
    assert echoed(chain, data) == data
    for host, interface in (("a", "o0"), ("b", "o1")):
        chain.run(host, ["ip", "link", "set", interface, "mtu", "1200"], 20)
    assert echoed(chain, data) == data
    shown = chain.run("a", ["ip", "-o", "link", "show", "qtun0"], 20)
    assert " mtu 1138 " in shown


def test_nothing_protected_is_in_clear_while_a_gateway_is_killed(chain: Chain) -> None:
    kinds: set[tuple[int, int]] = set()
    stop = threading.Event()
    sniffer = threading.Thread(target=frames(chain, kinds, stop))
    sniffer.start()
    try:
        chain.iperf3("-n", "10M")
        for gateway in chain.gateways:
            gateway.send_signal(signal.SIGKILL)
            gateway.wait()
        with pytest.raises(Exception, match="ping"):
            chain.run("client", ["ping", "-c", "3", "-i", "0.2", "-W", "1", SERVER], 20)
    finally:
        stop.set()
        sniffer.join()
    assert (ETH_P_IP, 4500) in kinds
    assert kinds <= {(ETH_P_IP, 4500), (ETH_P_ARP, -1), (ETH_P_IPV6, -1)}
