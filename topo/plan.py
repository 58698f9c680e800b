"""The plan: what the network is, down to every address and queue, inert and printable.

Configuration becomes a plan (`topo.planner`), the plan becomes kernel objects (`topo.network`). Nothing here touches
a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from topo.errors import InputError
from topo.links.delays import DelayElement, Serialise, describe, netem_delay_ns, waiting
from topo.links.netem import NetemSpec

PREFIX_LENGTH = 24


@dataclass(frozen=True)
class HostPlan:
    """One Mininet host."""

    name: str
    place: str
    forwards: bool
    """It routes packets of others."""
    checks_sources: bool = False
    """It drops what comes in by another interface than the way back to its source (RFC 3704, strict): at a gateway,
    protected addresses must come out of the tunnel."""


@dataclass(frozen=True)
class DirectionPlan:
    """One direction of a link: its elements, its line rate, its loss."""

    elements: tuple[DelayElement, ...]
    """Propagation, constants and waits; not the serialisation, which `rate_bps` gives."""
    rate_bps: int
    loss: float = 0.0

    @property
    def netem(self) -> NetemSpec:
        """What the kernel's queue does of it."""
        return NetemSpec(
            delay_ns=netem_delay_ns(self.elements), rate_bps=self.rate_bps, loss=self.loss
        )

    @property
    def waits(self) -> tuple[DelayElement, ...]:
        """What a waiting process does of it."""
        return waiting(self.elements)

    def with_serialisation(self, overhead_bytes: int = 0) -> tuple[DelayElement, ...]:
        """All elements, the serialisation of frames lengthened by `overhead_bytes` among them (for the predictor)."""
        rate = Serialise(rate_mbps=self.rate_bps / 1e6, overhead_bytes=overhead_bytes)
        return (*self.elements, rate)


@dataclass(frozen=True)
class LinkPlan:
    """A point-to-point link between hosts `a` (nearer the UE) and `b`, on a subnet of its own.

    Addresses are derived from `number`, so that a capture can be read: link 3 is 10.0.3.0/24, `a` has .1 and `b` .2.
    """

    number: int
    a: str
    b: str
    up: DirectionPlan
    down: DirectionPlan
    kinds: tuple[str, ...] = ()
    net: str = "10.0"
    middle: bool = False
    """Whether a host in the middle of the link holds packets back: where there are waits, and where an end host would
    otherwise send into its own long queue (the kernel then throttles its TCP: TCP small queues)."""

    @property
    def subnet(self) -> str:
        return f"{self.net}.{self.number}.0/{PREFIX_LENGTH}"

    @property
    def waiter(self) -> str | None:
        """The name of the host in the middle, if there is one."""
        return f"W{self.number}" if self.middle else None

    def address(self, host: str) -> str:
        return f"{self.net}.{self.number}.{1 + self._side(host)}"

    def mac(self, host: str) -> str:
        octets = [int(part) for part in self.address(host).split(".")]
        return "02:00:" + ":".join(f"{octet:02x}" for octet in octets)

    def interface(self, host: str) -> str:
        """The interface of `host` on this link, named after both its ends."""
        return interface_name(host, self.peer(host))

    def peer(self, host: str) -> str:
        return (self.b, self.a)[self._side(host)]

    def _side(self, host: str) -> int:
        return (self.a, self.b).index(host)


def interface_name(host: str, towards: str) -> str:
    """`host-towards`; the kernel allows 15 characters."""
    name = f"{host}-{towards}"
    if len(name) > 15:
        raise InputError(f"interface name {name} is longer than the kernel's 15 characters")
    return name


@dataclass(frozen=True)
class RoutePlan:
    """At `host`, packets for `subnet` go to its neighbour `via`."""

    host: str
    subnet: str
    via: str


@dataclass(frozen=True)
class Plan:
    """A whole network: hosts, links, routes."""

    name: str
    hosts: tuple[HostPlan, ...]
    links: tuple[LinkPlan, ...]
    routes: tuple[RoutePlan, ...]

    def host(self, name: str) -> HostPlan:
        found = next((h for h in self.hosts if h.name == name), None)
        if found is None:
            names = ", ".join(h.name for h in self.hosts)
            raise InputError(f"no host {name} in this network (there is: {names})")
        return found

    def link(self, one: str, other: str) -> LinkPlan:
        found = next((link for link in self.links if {link.a, link.b} == {one, other}), None)
        if found is None:
            raise InputError(f"no link between {one} and {other} in this network")
        return found

    def links_of(self, host: str) -> Iterator[LinkPlan]:
        return (link for link in self.links if host in (link.a, link.b))

    def address(self, host: str) -> str:
        """The address a host is known by: that of its first link."""
        self.host(host)
        return next(self.links_of(host)).address(host)

    def path(self, source: str, destination: str) -> list[LinkPlan]:
        """The links from one host of the chain to another, in the order a packet meets them."""
        order = [h.name for h in self.hosts]
        start, end = order.index(self.host(source).name), order.index(self.host(destination).name)
        names = order[start : end + 1] if start <= end else order[end : start + 1][::-1]
        return [self.link(a, b) for a, b in pairwise(names)]

    def directions(
        self, source: str, destination: str
    ) -> list[tuple[LinkPlan, str, DirectionPlan]]:
        """(link, sending host, direction) for each hop on the way from one host to another."""
        hops, at = [], source
        for link in self.path(source, destination):
            hops.append((link, at, link.up if at == link.a else link.down))
            at = link.peer(at)
        return hops

    def describe(self) -> Iterator[str]:
        """The plan as text, one fact a line."""
        yield f"plan {self.name}"
        yield "hosts"
        for host in self.hosts:
            role = "routes" if host.forwards else "end host"
            yield f"  {host.name:<7} {host.place:<10} {role}"
        for link in self.links:
            kinds = "+".join(link.kinds)
            through = f"  through the waiting host {link.waiter}" if link.waiter else ""
            yield f"link {link.number}: {link.a} - {link.b}  {link.subnet}  {kinds}{through}"
            for arrow, direction, sender in (("->", link.up, link.a), ("<-", link.down, link.b)):
                yield f"  {arrow} {link.interface(sender)} {link.address(sender)} {link.mac(sender)}"
                yield f"     {direction.netem}"
                yield from (f"     {line}" for line in describe(direction.elements))
        yield "routes"
        for route in self.routes:
            yield f"  {route.host:<7} {route.subnet:<14} via {route.via}"


def chain_routes(chain: Iterable[str], links: Iterable[LinkPlan]) -> Iterator[RoutePlan]:
    """Routes that let every host of a chain reach every link's subnet by its left or right neighbour.

    `links[i]` joins the chain's hosts i and i + 1.
    """
    names, hops = list(chain), list(links)
    for position, host in enumerate(names):
        for number, hop in enumerate(hops):
            if number > position:
                yield RoutePlan(host, hop.subnet, names[position + 1])
            elif number < position - 1:
                yield RoutePlan(host, hop.subnet, names[position - 1])
