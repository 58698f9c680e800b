"""A plan made into kernel objects: Mininet hosts, virtual links, addresses, routes, neighbours and queues.

Mininet holds the hosts and gives the prompt; the kernel is configured over netlink, one message a host, no shell.
Leaving the context takes down what was made here and nothing else: the hosts' processes by their ids, then the
namespaces with everything in them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import IO, Any

from topo.errors import NetworkError
from topo.links import netem, rtnetlink
from topo.links.netem import NetemSpec
from topo.links.offloads import switch_off
from topo.links.rtnetlink import Batch
from topo.mininet_parts import NamespaceHost, PlannedLink, make_mininet
from topo.namespaces import Namespace, write_sysctl
from topo.plan import HostPlan, LinkPlan, Plan, interface_name

Queues = dict[int, NetemSpec]
"""What interfaces of a host do to the packets that leave by them, by interface index."""

END_GRACE_S = 5.0
"""How long a process may take to end after SIGTERM, seconds of real time or of virtual time."""


class Network:
    """A running network. Use as a context manager; `net` is the `mininet.net.Mininet` object."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.net = make_mininet()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def host(self, name: str) -> NamespaceHost:
        """The Mininet host of that name."""
        host: NamespaceHost = self.net.get(name)
        return host

    def popen(
        self, host: str, argv: Sequence[str], stderr: IO[str] | int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in a host; its standard output is a pipe. It ends with the network at the latest."""
        process: subprocess.Popen[bytes] = self.host(host).popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """End one program with SIGTERM, or SIGKILL where it does not listen, and return its exit status."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if process in self._processes:
            self._processes.remove(process)
        return status

    def close(self) -> None:
        """Take down what this network made: its processes, latest first, then its namespaces."""
        for process in reversed(self._processes.copy()):
            self.end(process)
        self.net.stop()

    # -- building ---------------------------------------------------------------------------------

    def _build(self) -> None:
        for host in self.plan.hosts:
            self.net.addHost(host.name)
        with Batch() as batch:
            for link in self.plan.links:
                self._wire(batch, link)
            batch.send()
            for link in self.plan.links:
                if link.waiter is not None:
                    self._inside(batch, link.waiter, partial(self._arm_waiter, link=link))
            for host in self.plan.hosts:
                self._inside(batch, host.name, partial(self._configure, host=host))
        self.net.built = True

    def _wire(self, batch: Batch, link: LinkPlan) -> None:
        """Ask for the link's virtual pair, or for its two pairs with the waiting host between them."""
        if link.waiter is None:
            self._pair(
                batch, (link.a, link.interface(link.a)), (link.b, link.interface(link.b)), link
            )
            return
        self.net.addHost(link.waiter)
        for end in (link.a, link.b):
            towards = (link.waiter, interface_name(link.waiter, end))
            self._pair(batch, (end, link.interface(end)), towards, link)

    def _pair(
        self, batch: Batch, one: tuple[str, str], other: tuple[str, str], link: LinkPlan
    ) -> None:
        """Ask for a virtual pair between two hosts, each end given as (host, interface)."""
        ends: list[dict[str, Any]] = []
        for host, interface in (one, other):
            end = {"ifname": interface, "net_ns_fd": self._namespace(host).fileno()}
            ends.append(end | ({} if host == link.waiter else {"address": link.mac(host)}))
        batch.ask("link", "add", kind="veth", peer=ends[1], **ends[0])
        nodes = [self.host(host) for host, _ in (one, other)]
        self.net.links.append(PlannedLink(nodes[0], one[1], nodes[1], other[1]))

    def _namespace(self, host: str) -> Namespace:
        return self.host(host).namespace

    def _inside(self, batch: Batch, host: str, configure: Callable[[Batch], Queues]) -> None:
        """Configure a host from within its namespace, and compare its queues with the plan's."""

        def work() -> None:
            _quiet()
            wanted = configure(batch)
            batch.send()
            netem.compare(rtnetlink.qdiscs(), wanted)

        self._namespace(host).run(work)

    def _arm_waiter(self, batch: Batch, link: LinkPlan) -> Queues:
        """Netem sits where packets leave the waiting host: waiting first, then the way itself."""
        assert link.waiter is not None
        queues = {}
        for direction, towards in ((link.up, link.b), (link.down, link.a)):
            name = interface_name(link.waiter, towards)
            index = _index(name)
            switch_off(name)
            queues[index] = direction.netem
            netem.ask(batch, index, direction.netem)
            batch.ask("link", "set", index=index, state="up")
        return queues

    def _configure(self, batch: Batch, host: HostPlan) -> Queues:
        """All of a host's own configuration."""
        write_sysctl("net/ipv4/ip_forward", str(int(host.forwards)))
        write_sysctl("net/ipv4/conf/all/rp_filter", str(int(host.checks_sources)))
        batch.ask("link", "set", index=LOOPBACK_INDEX, state="up")
        queues: Queues = {}
        for link in self.plan.links_of(host.name):
            queues |= self._configure_interface(batch, host.name, link)
        for route in self.plan.routes:
            if route.host == host.name:
                gateway = self.plan.link(host.name, route.via).address(route.via)
                batch.ask("route", "add", dst=route.subnet, gateway=gateway)
        return queues

    def _configure_interface(self, batch: Batch, host: str, link: LinkPlan) -> Queues:
        name, peer = link.interface(host), link.peer(host)
        index = _index(name)
        switch_off(name)
        queues = {}
        if not link.middle:
            queues[index] = (link.up if host == link.a else link.down).netem
            netem.ask(batch, index, queues[index])
        prefix = int(link.subnet.split("/")[1])
        batch.ask("addr", "add", index=index, address=link.address(host), prefixlen=prefix)
        batch.ask("link", "set", index=index, state="up")
        batch.ask(
            "neigh",
            "replace",
            dst=link.address(peer),
            lladdr=link.mac(peer),
            ifindex=index,
            state=NUD_PERMANENT,
        )
        self.host(host).nameToIntf[name].note_address(link.address(host), prefix, link.mac(host))
        return queues


NUD_PERMANENT = 0x80  # linux/neighbour.h
LOOPBACK_INDEX = 1


def _index(name: str) -> int:
    """The index of an interface of the calling thread's namespace: one system call, where netlink dumps them all."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise NetworkError(f"no interface {name} where the plan has one") from error


def _quiet() -> None:
    """No neighbour discovery or router solicitation of IPv6 on the emulated links: the plan is IPv4."""
    if os.path.isdir("/proc/sys/net/ipv6"):  # noqa: PTH112 - a kernel's folder, looked at once a host
        for scope in ("all", "default"):
            write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")


def require_root() -> None:
    """Raise `NetworkError` unless this process may make network namespaces."""
    if os.geteuid() != 0:
        raise NetworkError("building a network on this kernel needs root")
