"""From scenario to plan: the paper's three architectures, who reaches whom, and what the tunnel cuts off."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations
from math import acos, cos, radians, sin
from typing import Any

import pytest

from topo.errors import InputError
from topo.links.delays import Fixed, FrameWait, Propagation, SchedulingRequest
from topo.plan import LinkPlan, Plan
from topo.planner import KEY_SITES, between_gateways, build_plan, chain
from topo.scenario import Architecture, Arm, Line, Link, Scenario, Session, Waits, find, load

SCENARIOS = {
    load(find(name)).architecture: load(find(name))
    for name in ("paper", "transparent", "regenerative")
}
PLACES: dict[Architecture, str] = {
    "satellite-relay": "UE@user gNB@user EG-U@user VSAT@user HTS@satellite GS@gateway EG-N@core 5GC@core DN@core",
    "transparent": "UE@user HTS@satellite GS@gateway gNB@gateway EG-U@gateway EG-N@core 5GC@core DN@core",
    "regenerative": "UE@user gNB@satellite EG-U@satellite HTS@satellite GS@gateway EG-N@core 5GC@core DN@core",
}
"""Section 2.2 of the paper, figures 1 to 3; the gateways are at the exit of the gNB and the entrance of the core."""
KINDS: dict[Architecture, str] = {
    "satellite-relay": "radio local local user feeder line local local",
    "transparent": "radio+user feeder local local line local local",
    "regenerative": "radio+user local local feeder line local local",
}
ARCHITECTURES = sorted(PLACES)
on_every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def plan_of(architecture: str, **arm: Any) -> Plan:
    """The plan of one arm, without a session, over a shipped scenario of that architecture."""
    scenario = next(s for a, s in SCENARIOS.items() if a == architecture)
    return build_plan(with_arm(scenario, **arm), "only")


def with_arm(scenario: Scenario, **arm: Any) -> Scenario:
    return scenario.model_copy(update={"arms": {"only": Arm(title="only", **arm)}})


# -- forwarding, followed by hand ------------------------------------------------------------------


def next_hop(plan: Plan, host: str, destination: IPv4Address) -> str | None:
    """Who a host hands a packet to: a neighbour on the same subnet, else its route's; None without a route."""
    for link in plan.links_of(host):
        if destination in IPv4Network(link.subnet):
            return next(end for end in (link.a, link.b) if link.address(end) == str(destination))
    routes = [r for r in plan.routes if r.host == host and destination in IPv4Network(r.subnet)]
    assert len(routes) <= 1, f"{host} has two ways to {destination}"
    return routes[0].via if routes else None


def journey(plan: Plan, source: str, destination: IPv4Address) -> Iterator[str]:
    """The hosts a packet visits; it ends where it is delivered or where nobody knows the way."""
    at: str | None = source
    for _ in plan.hosts:
        if at is None:
            return
        yield at
        if destination in {IPv4Address(link.address(at)) for link in plan.links_of(at)}:
            return
        assert at == source or plan.host(at).forwards
        at = next_hop(plan, at, destination)
    pytest.fail(f"packets from {source} to {destination} go round in circles")


def addresses(plan: Plan, host: str) -> list[IPv4Address]:
    return [IPv4Address(link.address(host)) for link in plan.links_of(host)]


def between(names: list[str], one: str, other: str) -> list[str]:
    start, end = names.index(one), names.index(other)
    return names[start : end + 1] if start < end else names[end : start + 1][::-1]


# -- the chains ------------------------------------------------------------------------------------


@on_every_architecture
@pytest.mark.parametrize("tunnel", [False, True])
def test_the_chain_is_the_papers(architecture: Architecture, tunnel: bool) -> None:
    scenario, plan = SCENARIOS[architecture], plan_of(architecture, tunnel=tunnel)
    names = {"satellite": scenario.satellite.name} | {
        place: getattr(scenario.sites, place).name for place in ("user", "gateway", "core")
    }
    wanted = [host.split("@") for host in PLACES[architecture].split()]
    of_chain = plan.hosts[: len(wanted)]
    assert [(h.name, h.place) for h in of_chain] == [(h, names[place]) for h, place in wanted]
    assert ["+".join(link.kinds) for link in plan.links if "keys" not in link.kinds] == KINDS[
        architecture
    ].split()
    assert [h.name for h in of_chain if not h.forwards] == ["UE", "DN"]


@on_every_architecture
@pytest.mark.parametrize("tunnel", [False, True])
def test_addresses_names_and_interfaces_are_unique(architecture: str, tunnel: bool) -> None:
    plan = plan_of(architecture, tunnel=tunnel)
    ends = [(link, end) for link in plan.links for end in (link.a, link.b)]
    for what in (
        [host.name for host in plan.hosts],
        [link.subnet for link in plan.links],
        [link.address(end) for link, end in ends],
        [link.mac(end) for link, end in ends],
        [link.interface(end) for link, end in ends],
        [link.waiter for link in plan.links if link.waiter],
    ):
        assert len(set(what)) == len(what)
    assert all(int(link.mac(end)[:2], 16) & 3 == 2 for link, end in ends)  # local, unicast
    assert not {link.waiter for link in plan.links} & {host.name for host in plan.hosts}


@on_every_architecture
def test_without_a_tunnel_everybody_reaches_everybody_along_the_chain(
    architecture: Architecture,
) -> None:
    plan, names = plan_of(architecture), chain(architecture)
    assert [host.name for host in plan.hosts] == names
    for source, destination in permutations(names, 2):
        for address in addresses(plan, destination):
            assert list(journey(plan, source, address)) == between(names, source, destination)


@on_every_architecture
def test_with_a_tunnel_each_side_still_reaches_all_of_itself(architecture: Architecture) -> None:
    plan, names = plan_of(architecture, tunnel=True), chain(architecture)
    near, far = names[: names.index("EG-U") + 1], names[names.index("EG-N") :]
    for side in (near, far):
        for source, destination in permutations(side, 2):
            for address in set(addresses(plan, destination)) & protected(plan, architecture):
                way = list(journey(plan, source, address))
                assert way == between(names, source, destination)


def protected(plan: Plan, architecture: Architecture) -> set[IPv4Address]:
    """Every address of the chain but those on the links between the gateways."""
    inside = set(between_gateways(architecture))
    links = [link for link in plan.links if not {link.a, link.b} <= inside]
    return {
        IPv4Address(link.address(end))
        for link in links
        for end in (link.a, link.b)
        if "keys" not in link.kinds
    }


def outer_links(plan: Plan) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each gateway and the two ends of the link by which its sealed packets leave."""
    names = [host.name for host in plan.hosts]
    yield "EG-U", ("EG-U", names[names.index("EG-U") + 1])
    yield "EG-N", (names[names.index("EG-N") - 1], "EG-N")


@on_every_architecture
def test_with_a_tunnel_no_route_between_the_gateways_leads_to_what_it_protects(
    architecture: Architecture,
) -> None:
    plan, inside = plan_of(architecture, tunnel=True), between_gateways(architecture)
    secret = protected(plan, architecture)
    assert {IPv4Address(plan.address(end)) for end in ("UE", "DN")} <= secret
    for address in secret:
        for host in inside[1:-1]:
            assert next_hop(plan, host, address) is None
        # A gateway hands it to nobody but its own side: what goes to the other side goes into the tunnel.
        assert next_hop(plan, "EG-U", address) not in inside[1:]
        assert next_hop(plan, "EG-N", address) not in inside[:-1]


@on_every_architecture
def test_with_a_tunnel_what_is_for_the_other_side_comes_to_the_gateway(
    architecture: Architecture,
) -> None:
    """There its routes end; the gateway's own, into the tunnel, are not the plan's."""
    plan, names = plan_of(architecture, tunnel=True), chain(architecture)
    sides = {
        "EG-U": names[: names.index("EG-U") + 1],
        "EG-N": names[names.index("EG-N") :],
    }
    secret = protected(plan, architecture)
    for (gateway, side), (_, other) in permutations(sides.items()):
        for source in side:
            for address in secret & {a for host in other for a in addresses(plan, host)}:
                way = list(journey(plan, source, address))
                assert way == (between(names, source, gateway) if source != gateway else [gateway])


@on_every_architecture
def test_the_sealed_packets_find_their_way(architecture: Architecture) -> None:
    plan, inside = plan_of(architecture, tunnel=True), between_gateways(architecture)
    (_, near), (_, far) = outer_links(plan)
    far_end = IPv4Address(plan.link(*far).address("EG-N"))
    near_end = IPv4Address(plan.link(*near).address("EG-U"))
    assert list(journey(plan, "EG-U", far_end)) == inside
    assert list(journey(plan, "EG-N", near_end)) == inside[::-1]


@on_every_architecture
def test_a_key_site_is_reached_by_its_own_gateway_only(architecture: Architecture) -> None:
    plan = plan_of(architecture, tunnel=True)
    for kms, gateway in KEY_SITES.items():
        site = IPv4Address(plan.address(kms))
        reached = [h.name for h in plan.hosts if list(journey(plan, h.name, site))[-1] == kms]
        assert reached == [gateway, kms]
        assert plan.host(kms).place == plan.host(gateway).place
        assert not plan.host(kms).forwards


@on_every_architecture
def test_gateways_check_sources_only_where_there_is_a_tunnel(architecture: str) -> None:
    checking = [h.name for h in plan_of(architecture, tunnel=True).hosts if h.checks_sources]
    assert checking == ["EG-U", "EG-N"]
    assert not any(host.checks_sources for host in plan_of(architecture).hosts)


# -- delays, rates, losses -------------------------------------------------------------------------


def propagation_ms(plan: Plan) -> list[float]:
    """The propagation of every hop that has one, from the UE on; up and down are the same light."""
    found = []
    for link in plan.links:
        ways = [[e for e in d.elements if isinstance(e, Propagation)] for d in (link.up, link.down)]
        assert ways[0] == ways[1]
        found += [element.delay_ms for element in ways[0]]
    return found


@on_every_architecture
def test_the_two_satellite_hops_take_what_equation_6_says(architecture: str) -> None:
    assert [round(delay, 2) for delay in propagation_ms(plan_of(architecture))] == [122.96, 124.33]


def test_the_leased_line_takes_what_is_said() -> None:
    line = plan_of("satellite-relay").link("GS", "EG-N")
    assert line.up.elements == line.down.elements
    assert line.up.elements == (Fixed(delay_ms=20.0, source="leased line Chengdu - Beijing"),)


def test_a_line_of_unknown_delay_is_fibre_along_the_great_circle() -> None:
    paper = SCENARIOS["satellite-relay"]
    one, other = radians(31.0), radians(40.1)  # Chengdu and Beijing, 12.9 degrees apart
    cosine = sin(one) * sin(other) + cos(one) * cos(other) * cos(radians(116.5 - 103.6))
    fibre_ms = 1.468 * 6378.0 * acos(cosine) / 299.792458
    for detour in (1.0, 1.5):
        links = paper.links.model_copy(update={"line": Line(detour=detour)})
        plan = build_plan(paper.model_copy(update={"links": links}), "plain")
        (light,) = plan.link("GS", "EG-N").up.elements
        assert light.mean_ms() == pytest.approx(detour * fibre_ms)
        assert light.basis == "physics"
        assert "great circle Chengdu - Beijing in fibre" in light.source


def test_a_session_and_the_links_own_elements_are_both_on_a_hop() -> None:
    fixed, frame, request = (
        Fixed(delay_ms=1.0),
        FrameWait(period_ms=13.4),
        SchedulingRequest(period_ms=10.0),
    )
    base = SCENARIOS["transparent"]
    links = base.links.model_copy(
        update={"radio": Link(up=(fixed,)), "user": Link(up=(frame,), down=(fixed, frame))}
    )
    sessions = {"s": Session(radio=Waits(up=(request,)), user=Waits(down=(request,)))}
    scenario = with_arm(base, session="s").model_copy(update={"links": links, "sessions": sessions})
    hop = build_plan(scenario, "only").link("UE", "HTS")
    assert hop.up.elements[1:] == (fixed, request, frame)
    assert hop.down.elements[1:] == (fixed, frame, request)
    assert hop.middle
    assert not any(e in hop.up.elements for e in build_plan(scenario, "only").links[1].up.elements)


def test_a_hop_of_two_kinds_has_the_lower_rate_and_both_losses() -> None:
    base = SCENARIOS["regenerative"]
    radio = Link(rate_up_mbps=20, rate_down_mbps=50, loss_up=0.1, loss_down=0.02)
    user = Link(rate_up_mbps=100, rate_down_mbps=5, loss_up=0.2)
    links = base.links.model_copy(update={"radio": radio, "user": user})
    hop = build_plan(base.model_copy(update={"links": links}), "plain").link("UE", "gNB")
    assert (hop.up.rate_bps, hop.down.rate_bps) == (20_000_000, 5_000_000)
    assert (hop.up.loss, hop.down.loss) == (0.28, 0.02)


@pytest.mark.parametrize(("rate_mbps", "rate_bps"), [(0.1234567, 123_456), (1e-9, 8), (2.0, 2e6)])
def test_a_rate_is_whole_bytes_a_second(rate_mbps: float, rate_bps: int) -> None:
    base = SCENARIOS["satellite-relay"]
    links = base.links.model_copy(update={"feeder": Link(rate_up_mbps=rate_mbps)})
    hop = build_plan(base.model_copy(update={"links": links}), "plain").link("HTS", "GS")
    assert hop.up.rate_bps == rate_bps


def test_a_middle_holds_packets_back_where_they_wait_or_where_the_ue_would_queue_them() -> None:
    middles = {
        (s.name, arm): [f"{link.a}-{link.b}" for link in build_plan(s, arm).links if link.middle]
        for s in SCENARIOS.values()
        for arm in s.arms
    }
    assert middles["paper", "satellite"] == ["VSAT-HTS"]
    assert middles["paper", "plain"] == ["UE-gNB", "VSAT-HTS"]
    assert middles["transparent", "plain"] == ["UE-HTS"]
    assert middles["regenerative", "encrypted"] == ["UE-gNB"]
    # Nothing waits here, but the UE would be 123 ms of its own queue away from the satellite.
    assert [link.number for link in plan_of("transparent").links if link.middle] == [0]


@on_every_architecture
def test_each_gateway_takes_its_time_once_a_direction(architecture: str) -> None:
    plain, sealed = plan_of(architecture), plan_of(architecture, tunnel=True)
    took = 0
    for before, after in zip(plain.links, sealed.links, strict=False):
        for one, other in ((before.up, after.up), (before.down, after.down)):
            assert other.elements[: len(one.elements)] == one.elements
            added = other.elements[len(one.elements) :]
            assert all(e.mean_ms() == 0.06 and "gateway processing" in e.source for e in added)
            assert not added or {"EG-U", "EG-N"} & {after.a, after.b}
            took += len(added)
    assert took == 4


def test_arms_of_one_session_differ_in_the_tunnel_only() -> None:
    paper = SCENARIOS["satellite-relay"]
    plain, tunnel = build_plan(paper, "plain"), build_plan(paper, "encrypted_same_radio")
    waits: list[list[LinkPlan]] = [[*plan.links[: len(plain.links)]] for plan in (plain, tunnel)]
    for one, other in zip(*waits, strict=True):
        assert (one.up.waits, one.down.waits) == (other.up.waits, other.down.waits)
        assert (one.up.rate_bps, one.middle) == (other.up.rate_bps, other.middle)


# -- what cannot be planned ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ({"source": "DN"}, "source and destination are both DN"),
        ({"source": "HAPS"}, r"no host HAPS to probe \(there is: UE, gNB, EG-U, VSAT"),
        ({"destination": "KMS-U", "tunnel": True}, "no host KMS-U to probe"),
        ({"source": "W0"}, "no host W0 to probe"),
        ({"source": "VSAT", "tunnel": True}, "VSAT is between the gateways, outside the tunnel"),
        ({"destination": "GS", "tunnel": True}, "GS is between the gateways, outside the tunnel"),
    ],
)
def test_ends_that_cannot_reach_each_other(arm: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"arm only: {reason}"):
        plan_of("satellite-relay", **arm)


def test_a_gateway_may_be_an_end() -> None:
    assert plan_of("satellite-relay", source="EG-U", tunnel=True).links
    assert plan_of("satellite-relay", source="VSAT", destination="GS").links


def test_an_arm_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"no arm fast in leo \(there is: plain, encrypted\)"):
        build_plan(load(find("leo")), "fast")
