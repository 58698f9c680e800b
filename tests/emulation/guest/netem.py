"""netem on one interface: what is asked for is what is there, whatever was there before."""

import socket
import struct
import subprocess
import time

from topo.errors import NetworkError
from topo.links.netem import NetemSpec, ask, compare, read_back
from topo.links.offloads import switch_off
from topo.links.rtnetlink import Batch, qdiscs
from topo.namespaces import Namespace

MS = 1_000_000
SPECS = (
    NetemSpec(delay_ns=122_958_199, rate_bps=5_000_000),
    NetemSpec(delay_ns=0, rate_bps=1_000_000_000, loss=0.25),
    NetemSpec(delay_ns=10 * MS, rate_bps=80_000_000_000),
    NetemSpec(delay_ns=1, rate_bps=8),
)
PACKETS, SPACING_NS = 4000, 200_000


def tc(namespace: Namespace, *arguments: str) -> str:
    command = ["mnexec", "-a", str(namespace.pid), "tc", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def apply(spec):
    """On the interface `a`, as a network does it; inside its namespace."""
    index = socket.if_nametoindex("a")
    with Batch() as batch:
        ask(batch, index, spec)
        batch.send()
    compare(qdiscs(), {index: spec})


def found():
    return read_back(qdiscs()).get(socket.if_nametoindex("a"))


with Namespace("one") as one, Namespace("other") as other:
    one.with_netlink(
        lambda ipr: ipr.link(
            "add", ifname="a", kind="veth", peer={"ifname": "b", "net_ns_pid": other.pid}
        )
    )
    for spec in SPECS:
        one.run(lambda spec=spec: apply(spec))
        print("replaced", one.run(found) == spec, flush=True)

    tc(
        one,
        "qdisc",
        "replace",
        "dev",
        "a",
        "root",
        "netem",
        "delay",
        "10ms",
        "2ms",
        "rate",
        "1mbit",
    )
    try:
        one.run(found)
    except NetworkError as error:
        print("foreign", error, flush=True)
    one.run(lambda: apply(SPECS[0]))
    print("cleaned", one.run(found) == SPECS[0], flush=True)

    # A long fat pipe: 5000 packets a second over 267 ms, in a queue sized from rate and delay, in order.
    long_pipe = NetemSpec(delay_ns=267 * MS, rate_bps=100_000_000)
    for namespace, name, address in ((one, "a", "10.9.0.1"), (other, "b", "10.9.0.2")):

        def configure(ipr, name=name, address=address):
            at = ipr.link_lookup(ifname=name)[0]
            switch_off(name)
            ipr.addr("add", index=at, address=address, prefixlen=24)
            ipr.link("set", index=at, state="up")

        namespace.with_netlink(configure)
    one.run(lambda: apply(long_pipe))
    sender = one.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver = other.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("10.9.0.2", 9))
    receiver.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    receiver.settimeout(2)
    sender.sendto(b"resolve the address", ("10.9.0.2", 9))
    receiver.recv(100)
    begin = time.monotonic_ns()
    for number in range(PACKETS):
        sender.sendto(struct.pack("!I", number), ("10.9.0.2", 9))
        time.sleep(max(0, begin + (number + 1) * SPACING_NS - time.monotonic_ns()) / 1e9)
    got = []
    try:
        while len(got) < PACKETS:
            got.append(struct.unpack("!I", receiver.recv(100))[0])
    except TimeoutError:
        pass
    print("received", len(got), got == sorted(got), flush=True)
