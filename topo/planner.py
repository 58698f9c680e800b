"""From a scenario and one of its arms to a plan: which host is where, how long each hop takes, who routes what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from topo.errors import InputError
from topo.links.delays import DelayElement, Fixed, Propagation
from topo.plan import DirectionPlan, HostPlan, LinkPlan, Plan, RoutePlan, chain_routes
from topo.scenario import Architecture, Arm, Line, LinkKind, Place, Scenario, Session, Site
from topo.space.geometry import great_circle_km, light_time_ms, propagation_delay_ms

CHAINS: dict[Architecture, tuple[tuple[str, Place], ...]] = {
    "satellite-relay": (
        ("UE", "user"),
        ("gNB", "user"),
        ("EG-U", "user"),
        ("VSAT", "user"),
        ("HTS", "satellite"),
        ("GS", "gateway"),
        ("EG-N", "core"),
        ("5GC", "core"),
        ("DN", "core"),
    ),
    "transparent": (
        ("UE", "user"),
        ("HTS", "satellite"),
        ("GS", "gateway"),
        ("gNB", "gateway"),
        ("EG-U", "gateway"),
        ("EG-N", "core"),
        ("5GC", "core"),
        ("DN", "core"),
    ),
    "regenerative": (
        ("UE", "user"),
        ("gNB", "satellite"),
        ("EG-U", "satellite"),
        ("HTS", "satellite"),
        ("GS", "gateway"),
        ("EG-N", "core"),
        ("5GC", "core"),
        ("DN", "core"),
    ),
}
"""The hosts of each architecture from the UE to the DN, and where they stand (paper, section 2.2, figures 1 to 4)."""

KEY_SITES = {"KMS-U": "EG-U", "KMS-N": "EG-N"}
"""The key management sites, each on a link of its own to the gateway it serves (paper, section 3.1)."""

REFRACTIVE_INDEX = 1.468
"""Group index of single-mode fibre at 1550 nm (ITU-T G.652 fibre, typical)."""


LONG_QUEUE_NS = 1_000_000
"""A delay in the UE's own queue above which TCP would feel it."""


@dataclass(frozen=True)
class _Hop:
    a: str
    b: str
    from_place: Place
    to_place: Place

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        return tuple(self._kinds())

    def _kinds(self) -> Iterator[LinkKind]:
        places = {self.from_place, self.to_place}
        if self.a == "UE":
            yield "radio"
        if places == {"user", "satellite"}:
            yield "user"
        elif places == {"satellite", "gateway"}:
            yield "feeder"
        elif len(places) == 2:
            yield "line"
        elif self.a != "UE":
            yield "local"


def chain(architecture: Architecture) -> list[str]:
    """The names of the hosts from the UE to the DN."""
    return [name for name, _ in CHAINS[architecture]]


def build_plan(scenario: Scenario, arm_name: str) -> Plan:
    """The network of one arm of a scenario.

    The four arms of one scenario differ in the session's waits and, where there is a tunnel, in the gateways'
    processing time and the two KMS hosts. Raises `InputError` for an arm that the scenario has not got or whose
    ends are not two hosts of its architecture that can reach each other.
    """
    if arm_name not in scenario.arms:
        raise InputError(
            f"no arm {arm_name} in {scenario.name} (there is: {', '.join(scenario.arms)})"
        )
    arm = scenario.arms[arm_name]
    placed = CHAINS[scenario.architecture]
    hops = [_Hop(a, b, pa, pb) for (a, pa), (b, pb) in pairwise(placed)]
    links = [_link(scenario, arm, number, hop) for number, hop in enumerate(hops)]
    ends = (placed[0][0], placed[-1][0])
    hosts = [
        HostPlan(
            name,
            _place(scenario, place),
            forwards=name not in ends,
            checks_sources=arm.tunnel and name in KEY_SITES.values(),
        )
        for name, place in placed
    ]
    routes = list(chain_routes(chain(scenario.architecture), links))
    if arm.tunnel:
        routes = [
            route for route in routes if not _would_bypass(scenario.architecture, route, links)
        ]
        places = dict(placed)
        for number, (kms, gateway) in enumerate(KEY_SITES.items()):
            hosts.append(HostPlan(kms, _place(scenario, places[gateway]), forwards=False))
            local = DirectionPlan((), _bps(scenario.links.local.rate_up_mbps))
            links.append(LinkPlan(number, kms, gateway, local, local, ("keys",), net="10.1"))
    _check_ends(scenario, arm_name)
    return Plan(f"{scenario.name}/{arm_name}", tuple(hosts), tuple(links), tuple(routes))


def _check_ends(scenario: Scenario, arm_name: str) -> None:
    """Raise `InputError` unless an arm's ends are two hosts of the chain, neither of them cut off by the tunnel."""
    arm, names = scenario.arms[arm_name], chain(scenario.architecture)
    if arm.source == arm.destination:
        raise InputError(f"arm {arm_name}: source and destination are both {arm.source}")
    for end in (arm.source, arm.destination):
        if end not in names:
            raise InputError(
                f"arm {arm_name}: no host {end} to probe (there is: {', '.join(names)})"
            )
        if arm.tunnel and end in between_gateways(scenario.architecture)[1:-1]:
            raise InputError(f"arm {arm_name}: {end} is between the gateways, outside the tunnel")


def _place(scenario: Scenario, place: Place) -> str:
    return scenario.satellite.name if place == "satellite" else _site(scenario, place).name


def _site(scenario: Scenario, place: Place) -> Site:
    site: Site = getattr(scenario.sites, place)
    return site


def _link(scenario: Scenario, arm: Arm, number: int, hop: _Hop) -> LinkPlan:
    session = scenario.sessions[arm.session] if arm.session else Session()
    kinds = [getattr(scenario.links, kind) for kind in hop.kinds]
    up: list[DelayElement] = [*_geometry(scenario, hop)]
    down = list(up)
    for kind, link in zip(hop.kinds, kinds, strict=True):
        up += link.up
        down += link.down
        if kind != "local":
            up += getattr(session, kind).up
            down += getattr(session, kind).down
    # Sealing happens before the gateway's outer link, opening after it: both are put on that link.
    if arm.tunnel and _is_outer(scenario.architecture, hop):
        processing = Fixed(
            delay_ms=scenario.gateways.processing_us / 1e3,
            basis="calibrated",
            source="gateway processing, measured natively by `qntn bench gateways`",
        )
        count = sum(name in ("EG-U", "EG-N") for name in (hop.a, hop.b))
        up += [processing] * count
        down += [processing] * count
    upward = DirectionPlan(
        tuple(up),
        min(_bps(link.rate_up_mbps) for link in kinds),
        _either(link.loss_up for link in kinds),
    )
    downward = DirectionPlan(
        tuple(down),
        min(_bps(link.rate_down_mbps) for link in kinds),
        _either(link.loss_down for link in kinds),
    )
    long_from_the_ue = hop.a == "UE" and upward.netem.delay_ns > LONG_QUEUE_NS
    middle = bool(upward.waits or downward.waits or long_from_the_ue)
    return LinkPlan(number, hop.a, hop.b, upward, downward, hop.kinds, middle=middle)


def _is_outer(architecture: Architecture, hop: _Hop) -> bool:
    """Whether a hop lies between the two gateways and touches one of them."""
    inside = between_gateways(architecture)
    return hop.a in inside and hop.b in inside and bool({"EG-U", "EG-N"} & {hop.a, hop.b})


def between_gateways(architecture: Architecture) -> list[str]:
    """The hosts from EG-U to EG-N, both included."""
    names = chain(architecture)
    return names[names.index("EG-U") : names.index("EG-N") + 1]


def _would_bypass(architecture: Architecture, route: RoutePlan, links: list[LinkPlan]) -> bool:
    """Whether a route could carry protected traffic past the tunnel.

    Nobody between the gateways knows the way to what they protect, so that even before the gateways run, and after
    one has crashed, nothing of it is on the outer links in clear.
    """
    inside = between_gateways(architecture)
    if route.host not in inside:
        return False
    protected = {link.subnet for link in links if not {link.a, link.b} <= set(inside)}
    return route.subnet in protected and route.via in inside


def _geometry(scenario: Scenario, hop: _Hop) -> Iterator[DelayElement]:
    """The propagation of a hop, from where its two ends are."""
    if hop.from_place == hop.to_place:
        return
    ground = [place for place in (hop.from_place, hop.to_place) if place != "satellite"]
    sites = [_site(scenario, place) for place in ground]
    if len(sites) == 1:
        (site,), sat = sites, scenario.satellite
        delay = propagation_delay_ms(
            site.latitude_deg,
            site.longitude_deg,
            sat.latitude_deg,
            sat.longitude_deg,
            sat.orbit_radius_km,
        )
        yield Propagation(delay_ms=float(delay))
        return
    yield _ground_line(scenario.links.line, sites[0], sites[1])


def _ground_line(line: Line, one: Site, other: Site) -> DelayElement:
    if line.delay_ms is not None:
        return Fixed(delay_ms=line.delay_ms, source=f"leased line {one.name} - {other.name}")
    route_km = line.detour * float(
        great_circle_km(
            one.latitude_deg, one.longitude_deg, other.latitude_deg, other.longitude_deg
        )
    )
    return Propagation(
        delay_ms=float(light_time_ms(route_km * REFRACTIVE_INDEX)),
        source=f"great circle {one.name} - {other.name} in fibre, {route_km:.0f} km",
    )


def _bps(rate_mbps: float) -> int:
    """The rate in bit/s, as a multiple of 8: netem counts bytes."""
    return max(8, round(rate_mbps * 1e6 / 8) * 8)


def _either(losses: Iterator[float]) -> float:
    """The probability that at least one of independent losses happens."""
    kept = 1.0
    for loss in losses:
        kept *= 1.0 - loss
    return round(1.0 - kept, 9)
