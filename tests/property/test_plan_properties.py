"""Any chain, any scenario: routes that get nearer, addresses of one owner each, a plan that is as the links say."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from topo.links.delays import Element, Fixed, FrameWait, Retransmission
from topo.plan import DirectionPlan, HostPlan, LinkPlan, Plan, chain_routes
from topo.planner import build_plan, chain
from topo.scenario import Arm, Link, Scenario, Session, Waits, find, load

NOTHING = DirectionPlan((), 8)
PAPER = load(find("paper"))

delays_ms = st.floats(0, 1000, allow_nan=False)
elements: st.SearchStrategy[Element] = st.one_of(
    st.builds(Fixed, delay_ms=delays_ms),
    st.builds(FrameWait, period_ms=st.floats(0.001, 1000)),
    st.builds(
        Retransmission,
        probability=st.floats(0, 1),
        min_ms=st.floats(0, 10),
        max_ms=st.floats(10, 100),
    ),
)
several = st.lists(elements, max_size=3).map(tuple)
waits = st.builds(Waits, up=several, down=several)
links = st.builds(
    Link,
    up=several,
    down=several,
    rate_up_mbps=st.floats(1e-6, 100_000),
    rate_down_mbps=st.floats(1e-6, 100_000),
    loss_up=st.floats(0, 1),
    loss_down=st.floats(0, 1),
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """The paper's places in any architecture, with any links, under any session."""
    architecture = draw(st.sampled_from(["satellite-relay", "transparent", "regenerative"]))
    kinds = PAPER.links.model_copy(
        update={name: draw(links) for name in ("radio", "user", "feeder", "local")}
    )
    session = Session(radio=draw(waits), user=draw(waits), feeder=draw(waits), line=draw(waits))
    arm = Arm(title="any", session="any", tunnel=draw(st.booleans()))
    return PAPER.model_copy(
        update={
            "architecture": architecture,
            "links": kinds,
            "sessions": {"any": session},
            "arms": {"any": arm},
        }
    )


@given(st.integers(2, 40))
def test_every_route_of_a_chain_goes_to_the_neighbour_that_is_nearer(length: int) -> None:
    names = [f"h{i}" for i in range(length)]
    hops = [LinkPlan(i, a, b, NOTHING, NOTHING) for i, (a, b) in enumerate(pairwise(names))]
    subnets = {hop.subnet: i for i, hop in enumerate(hops)}

    def distance(host: str, subnet: str) -> int:
        """Hops to the nearer end of a link."""
        at, link = names.index(host), subnets[subnet]
        return max(link - at, at - link - 1, 0)

    routes = list(chain_routes(names, hops))
    for route in routes:
        assert abs(names.index(route.via) - names.index(route.host)) == 1
        assert distance(route.via, route.subnet) == distance(route.host, route.subnet) - 1
    # One way to each subnet that is not its own, and no other.
    ways = Counter((route.host, route.subnet) for route in routes)
    assert set(ways.values()) <= {1}
    assert set(ways) == {(h, s) for h in names for s in subnets if distance(h, s) > 0}


@given(st.integers(2, 40))
def test_every_address_of_a_chain_has_one_owner(length: int) -> None:
    names = [f"h{i}" for i in range(length)]
    hops = tuple(LinkPlan(i, a, b, NOTHING, NOTHING) for i, (a, b) in enumerate(pairwise(names)))
    plan = Plan("chain", tuple(HostPlan(name, "", True) for name in names), hops, ())
    ends = [(hop, host) for hop in plan.links for host in (hop.a, hop.b)]
    assert len({hop.address(host) for hop, host in ends}) == len(ends)
    assert len({hop.mac(host) for hop, host in ends}) == len(ends)
    assert len({hop.interface(host) for hop, host in ends}) == len(ends)


@given(scenarios())
def test_a_plan_has_what_the_links_and_the_session_say(scenario: Scenario) -> None:
    plan = build_plan(scenario, "any")
    session = scenario.sessions["any"]
    for link in plan.links:
        if "keys" in link.kinds:
            continue
        kinds = [getattr(scenario.links, kind) for kind in link.kinds]
        added = [getattr(session, kind) for kind in link.kinds if kind != "local"]
        for direction, way in ((link.up, "up"), (link.down, "down")):
            said = Counter(e for of in kinds + added for e in getattr(of, way))
            assert said <= Counter(direction.elements)
            rate_mbps = min(getattr(kind, f"rate_{way}_mbps") for kind in kinds)
            assert direction.rate_bps % 8 == 0
            assert abs(direction.rate_bps - rate_mbps * 1e6) <= 8
            worst = max(getattr(kind, f"loss_{way}") for kind in kinds)
            assert worst - 1e-9 <= direction.loss <= 1
            assert direction.netem.delay_ns >= 0
        assert link.middle or not (link.up.waits or link.down.waits)


@given(scenarios())
def test_any_plan_can_be_printed_and_its_names_fit_the_kernel(scenario: Scenario) -> None:
    plan = build_plan(scenario, "any")
    text = "\n".join(plan.describe())
    for link in plan.links:
        for end in (link.a, link.b):
            assert len(link.interface(end)) <= 15
            assert f" {link.interface(end)} {link.address(end)} {link.mac(end)}" in text
    assert all(f"{host.name:<7} {host.place}" in text for host in plan.hosts)


@given(scenarios())
def test_the_way_back_is_the_way_there_reversed(scenario: Scenario) -> None:
    plan, names = build_plan(scenario, "any"), chain(scenario.architecture)
    there = plan.directions(names[0], names[-1])
    back = plan.directions(names[-1], names[0])
    assert [link for link, _, _ in there] == [link for link, _, _ in back][::-1]
    assert [direction for _, _, direction in there] == [link.up for link, _, _ in there]
    assert [direction for _, _, direction in back] == [link.down for link, _, _ in back]
