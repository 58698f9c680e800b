"""A plan made into kernel objects: Mininet hosts, virtual links, addresses, routes, neighbours and queues.

Mininet holds the hosts and gives the prompt; the kernel is configured over netlink, a few messages an interface, no
shell. Leaving the context takes down what was made here and nothing else: the hosts' processes by their ids, then the
namespaces with everything in them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from topo.errors import NetworkError
from topo.links import netem
from topo.links.offloads import switch_off
from topo.mininet_parts import NamespaceHost, PlannedLink, make_mininet
from topo.plan import HostPlan, LinkPlan, Plan, interface_name

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
        for link in self.plan.links:
            self._wire(link)
        for host in self.plan.hosts:
            self._configure(host)
        self.net.built = True

    def _wire(self, link: LinkPlan) -> None:
        """Create the link's virtual pair, or its two pairs with the waiting host between them."""
        if link.waiter is None:
            self._pair(link.a, link.interface(link.a), link.b, link.interface(link.b), link)
            return
        self.net.addHost(link.waiter)
        for end in (link.a, link.b):
            towards = interface_name(link.waiter, end)
            self._pair(end, link.interface(end), link.waiter, towards, link)
        self.host(link.waiter).namespace.with_netlink(lambda ipr: self._arm_waiter(ipr, link))

    def _pair(self, one: str, one_name: str, other: str, other_name: str, link: LinkPlan) -> None:
        a, b = self.host(one), self.host(other)
        macs = {end: link.mac(end) for end in (link.a, link.b)}
        ends: tuple[dict[str, Any], ...]
        ends = ({"ifname": one_name}, {"ifname": other_name, "net_ns_pid": b.pid})
        for end, host in zip(ends, (one, other), strict=True):
            if host in macs:
                end["address"] = macs[host]
        a.namespace.with_netlink(lambda ipr: ipr.link("add", kind="veth", peer=ends[1], **ends[0]))
        self.net.links.append(PlannedLink(a, one_name, b, other_name))

    def _arm_waiter(self, ipr: Any, link: LinkPlan) -> None:
        """Netem sits where packets leave the waiting host: waiting first, then the way itself."""
        assert link.waiter is not None
        _quiet()
        for direction, towards in ((link.up, link.b), (link.down, link.a)):
            name = interface_name(link.waiter, towards)
            index = _index(name)
            switch_off(name)
            netem.apply(ipr, index, direction.netem)
            ipr.link("set", index=index, state="up")

    def _configure(self, host: HostPlan) -> None:
        namespace = self.host(host.name).namespace
        namespace.with_netlink(lambda ipr: self._configure_inside(ipr, host))

    def _configure_inside(self, ipr: Any, host: HostPlan) -> None:
        """All of a host's own configuration, on the thread that lives in its namespace."""
        _quiet()
        _sysctl("net/ipv4/ip_forward", int(host.forwards))
        _sysctl("net/ipv4/conf/all/rp_filter", int(host.checks_sources))
        ipr.link("set", index=_index("lo"), state="up")
        for link in self.plan.links_of(host.name):
            self._configure_interface(ipr, host.name, link)
        for route in self.plan.routes:
            if route.host == host.name:
                gateway = self.plan.link(host.name, route.via).address(route.via)
                ipr.route("add", dst=route.subnet, gateway=gateway)

    def _configure_interface(self, ipr: Any, host: str, link: LinkPlan) -> None:
        name, peer = link.interface(host), link.peer(host)
        index = _index(name)
        switch_off(name)
        if not link.middle:
            netem.apply(ipr, index, (link.up if host == link.a else link.down).netem)
        prefix = int(link.subnet.split("/")[1])
        ipr.addr("add", index=index, address=link.address(host), prefixlen=prefix)
        ipr.link("set", index=index, state="up")
        ipr.neigh(
            "replace",
            dst=link.address(peer),
            lladdr=link.mac(peer),
            ifindex=index,
            state=NUD_PERMANENT,
        )
        self.host(host).nameToIntf[name].note_address(link.address(host), prefix, link.mac(host))


NUD_PERMANENT = 0x80  # linux/neighbour.h


def _index(name: str) -> int:
    """The index of an interface of the calling thread's namespace: one system call, where netlink dumps them all."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise NetworkError(f"no interface {name} where the plan has one") from error


def _sysctl(key: str, value: int) -> None:
    Path("/proc/sys", key).write_text(f"{value}\n")


def _quiet() -> None:
    """No neighbour discovery or router solicitation of IPv6 on the emulated links: the plan is IPv4."""
    for scope in ("all", "default"):
        key = Path("/proc/sys/net/ipv6/conf", scope, "disable_ipv6")
        if key.exists():
            key.write_text("1\n")


def require_root() -> None:
    """Raise `NetworkError` unless this process may make network namespaces."""
    if os.geteuid() != 0:
        raise NetworkError("building a network on this kernel needs root")
