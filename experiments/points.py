"""Where captures are taken in an architecture, and which of them must show nothing but ESP."""

from __future__ import annotations

from topo.plan import Plan
from topo.planner import between_gateways, chain
from topo.scenario import Arm, Scenario


def capture_points(scenario: Scenario, plan: Plan, arm: Arm) -> dict[str, str]:
    """Point name -> interface to capture on, each named after its host and the host at the other end.

    `ue` is the UE's own interface, where a probe's RTT can be recomputed; left out when another host probes.
    `satellite` is the satellite's interface towards the user. `outer`, where the satellite hop is not between the
    gateways, is EG-N's interface towards EG-U.
    """
    points = {}
    if arm.source == "UE":
        points["ue"] = _towards(scenario, plan, "UE", +1)
    points["satellite"] = _towards(scenario, plan, "HTS", -1)
    if arm.tunnel and not _satellite_is_inside(scenario):
        points["outer"] = _towards(scenario, plan, "EG-N", -1)
    return points


def sealed_point(scenario: Scenario) -> str:
    """The capture point of an arm with a tunnel at which nothing protected may be seen."""
    return "satellite" if _satellite_is_inside(scenario) else "outer"


def _satellite_is_inside(scenario: Scenario) -> bool:
    """Whether the satellite's link towards the user lies between the gateways."""
    names = chain(scenario.architecture)
    inside = between_gateways(scenario.architecture)
    return {"HTS", names[names.index("HTS") - 1]} <= set(inside)


def _towards(scenario: Scenario, plan: Plan, host: str, step: int) -> str:
    names = chain(scenario.architecture)
    return plan.link(host, names[names.index(host) + step]).interface(host)
