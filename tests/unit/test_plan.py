"""The plan's own arithmetic: addresses, names, paths, queues, and its text."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from topo.errors import InputError
from topo.links.delays import Fixed, FrameWait, Propagation, Retransmission
from topo.links.netem import NetemSpec
from topo.plan import (
    DirectionPlan,
    HostPlan,
    LinkPlan,
    Plan,
    RoutePlan,
    chain_routes,
    interface_name,
)

UP = DirectionPlan(
    (Propagation(delay_ms=122.958), FrameWait(period_ms=13.4), Fixed(delay_ms=13.5)),
    5_000_000,
    loss=0.01,
)
DOWN = DirectionPlan((Propagation(delay_ms=122.958),), 20_000_000)


def link(number: int, a: str, b: str, middle: bool = False) -> LinkPlan:
    return LinkPlan(number, a, b, UP, DOWN, ("user",), middle=middle)


def chain(*names: str) -> Plan:
    hosts = tuple(HostPlan(name, "Shanghai", name not in (names[0], names[-1])) for name in names)
    links = tuple(link(i, a, b) for i, (a, b) in enumerate(pairwise(names)))
    return Plan("chain", hosts, links, tuple(chain_routes(names, links)))


def test_a_links_addresses_can_be_read_off_its_number() -> None:
    third = link(3, "VSAT", "HTS")
    assert third.subnet == "10.0.3.0/24"
    assert [third.address(host) for host in ("VSAT", "HTS")] == ["10.0.3.1", "10.0.3.2"]
    assert [third.mac(h) for h in ("VSAT", "HTS")] == ["02:00:0a:00:03:01", "02:00:0a:00:03:02"]
    assert [third.interface(h) for h in ("VSAT", "HTS")] == ["VSAT-HTS", "HTS-VSAT"]
    assert (third.peer("VSAT"), third.peer("HTS")) == ("HTS", "VSAT")


def test_only_a_link_with_a_middle_has_a_host_there() -> None:
    assert link(3, "VSAT", "HTS").waiter is None
    assert link(3, "VSAT", "HTS", middle=True).waiter == "W3"


def test_the_kernels_fifteen_characters() -> None:
    assert interface_name("ABCDEFG", "HIJKLMN") == "ABCDEFG-HIJKLMN"
    with pytest.raises(InputError, match="ABCDEFG-HIJKLMNO is longer than the kernel's 15"):
        interface_name("ABCDEFG", "HIJKLMNO")


def test_the_kernel_and_the_waiting_process_share_a_direction() -> None:
    assert UP.netem == NetemSpec(delay_ns=136_458_000, rate_bps=5_000_000, loss=0.01)
    assert UP.waits == (FrameWait(period_ms=13.4),)
    assert DOWN.waits == ()


def test_serialisation_counts_what_the_tunnel_adds() -> None:
    *before, rate = UP.with_serialisation(overhead_bytes=62)
    assert tuple(before) == UP.elements
    assert rate.mean_ms(98) == pytest.approx(8 * (98 + 62) / 5e3)


def test_a_path_is_the_chain_between_its_ends_either_way() -> None:
    plan = chain("A", "B", "C", "D")
    assert [hop.number for hop in plan.path("A", "D")] == [0, 1, 2]
    assert [hop.number for hop in plan.path("D", "B")] == [2, 1]
    assert plan.path("B", "B") == []
    there = [(hop.number, sender, d) for hop, sender, d in plan.directions("B", "D")]
    assert there == [(1, "B", UP), (2, "C", UP)]
    back = [(hop.number, sender, d) for hop, sender, d in plan.directions("D", "B")]
    assert back == [(2, "D", DOWN), (1, "C", DOWN)]


def test_a_host_is_known_by_its_first_link() -> None:
    plan = chain("A", "B", "C")
    assert [plan.address(host) for host in "ABC"] == ["10.0.0.1", "10.0.0.2", "10.0.1.2"]
    assert [hop.number for hop in plan.links_of("B")] == [0, 1]


def test_routes_of_a_chain() -> None:
    plan = chain("A", "B", "C", "D")
    assert set(plan.routes) == {
        RoutePlan("A", "10.0.1.0/24", "B"),
        RoutePlan("A", "10.0.2.0/24", "B"),
        RoutePlan("B", "10.0.2.0/24", "C"),
        RoutePlan("C", "10.0.0.0/24", "B"),
        RoutePlan("D", "10.0.1.0/24", "C"),
        RoutePlan("D", "10.0.0.0/24", "C"),
    }
    assert len(set(plan.routes)) == len(plan.routes)


def test_what_is_not_in_the_plan_is_named() -> None:
    plan = chain("A", "B", "C")
    with pytest.raises(InputError, match=r"no host X in this network \(there is: A, B, C\)"):
        plan.host("X")
    with pytest.raises(InputError, match="no host X"):
        plan.address("X")
    with pytest.raises(InputError, match="no host X"):
        plan.path("A", "X")
    with pytest.raises(InputError, match="no link between A and C"):
        plan.link("A", "C")
    assert plan.link("C", "B") is plan.link("B", "C")


def test_the_printed_plan() -> None:
    up = DirectionPlan((Propagation(delay_ms=122.958), UP.elements[1]), 5_000_000, loss=0.01)
    late = DirectionPlan((Retransmission(probability=0.5, min_ms=1, max_ms=2),), 8_000)
    hosts = (HostPlan("UE", "Shanghai", False), HostPlan("gNB", "Shanghai", True))
    only = LinkPlan(0, "UE", "gNB", up, late, ("radio", "user"))
    plan = Plan("tiny/plain", hosts, (only,), (RoutePlan("UE", "10.0.1.0/24", "gNB"),))
    assert list(replace(plan, links=(replace(only, middle=True),)).describe())[4] == (
        "link 0: UE - gNB  10.0.0.0/24  radio+user  through the waiting host W0"
    )
    assert "\n".join(plan.describe()) == (
        "plan tiny/plain\n"
        "hosts\n"
        "  UE      Shanghai   end host\n"
        "  gNB     Shanghai   routes\n"
        "link 0: UE - gNB  10.0.0.0/24  radio+user\n"
        "  -> UE-gNB 10.0.0.1 02:00:0a:00:00:01\n"
        "     netem delay 122.958 ms rate 5 Mbit/s limit 1000 loss 1.000%\n"
        "     propagation 122.958 ms: mean 122.958 ms, sd 0.000 ms "
        "[netem, physics: Photonics 12, 1182, equation (1)]\n"
        "     frame every 13.4 ms, phase unknown: mean 6.700 ms, sd 3.868 ms "
        "[waiting, assumed: TDMA return channel (ETSI EN 301 545-2): one slot a frame]\n"
        "  <- gNB-UE 10.0.0.2 02:00:0a:00:00:02\n"
        "     netem delay 0.000 ms rate 0.008 Mbit/s limit 1000\n"
        "     retransmission of 50 % for 1 to 2 ms: mean 0.750 ms, sd 0.777 ms "
        "[waiting, assumed: 3GPP TS 38.321 section 5.4.2 (HARQ), TS 38.322 section 5.3 (RLC ARQ)]\n"
        "routes\n"
        "  UE      10.0.1.0/24    via gNB"
    )
