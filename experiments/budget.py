"""The delay budget of an arm: hop by hop, and what n probes over it are expected to show."""

from __future__ import annotations

import math

from experiments.summary import DelayTerm, Prediction, RttFigures
from gateways.encapsulation import outer_length
from gateways.suites import SUITES
from topo.errors import InputError
from topo.links.delays import DelayElement, Fixed, Propagation
from topo.links.predictor import HopLine, ProbeSchedule, predict
from topo.plan import LinkPlan, Plan
from topo.planner import between_gateways
from topo.scenario import Arm, Scenario

ETHERNET_OCTETS = 14
IP_AND_ICMP_OCTETS = 28
PREDICTED_RUNS = 300
"""Simulated runs behind a prediction: a run-to-run deviation known to 4 %."""


def frame_octets(scenario: Scenario) -> int:
    """Length of a probe's Ethernet frame on a link outside the tunnel."""
    return ETHERNET_OCTETS + IP_AND_ICMP_OCTETS + scenario.probe.payload_bytes


def probe_schedule(scenario: Scenario, arm: Arm, start_ms: float | None = None) -> ProbeSchedule:
    """When the probes of an arm leave, and how long they are."""
    return ProbeSchedule(
        n=scenario.probe.count,
        interval_ms=arm.interval_ms or scenario.probe.interval_ms,
        jitter_ms=scenario.probe.jitter_ms,
        seed=scenario.seed,
        start_ms=start_ms,
        size_bytes=frame_octets(scenario),
    )


def in_tunnel(scenario: Scenario, link: LinkPlan) -> bool:
    """Whether a link lies between the two gateways."""
    inside = between_gateways(scenario.architecture)
    return link.a in inside and link.b in inside


def path_elements(
    scenario: Scenario, plan: Plan, arm: Arm, source: str, destination: str
) -> list[tuple[DelayElement, ...]]:
    """The elements of each hop one way, the serialisation of what is really sent there included."""
    inner = IP_AND_ICMP_OCTETS + scenario.probe.payload_bytes
    suite = SUITES[scenario.gateways.suite]
    overhead = outer_length(inner, suite) - inner if arm.tunnel else 0
    return [
        direction.with_serialisation(overhead if in_tunnel(scenario, link) else 0)
        for link, _, direction in plan.directions(source, destination)
    ]


def predicted(scenario: Scenario, plan: Plan, arm: Arm, runs: int = PREDICTED_RUNS) -> Prediction:
    """Expected figures of the arm's probes and their run-to-run deviations, by the delay laws alone."""
    there = path_elements(scenario, plan, arm, arm.source, arm.destination)
    back = path_elements(scenario, plan, arm, arm.destination, arm.source)
    expected = predict(there, back, probe_schedule(scenario, arm), runs=runs, seed=scenario.seed)
    figures = ("min_ms", "mean_ms", "max_ms", "jitter_ms")
    return Prediction(
        **{name: getattr(expected, name).mean for name in figures},
        sd=RttFigures(**{name: getattr(expected, name).sd for name in figures}),
    )


def planned_rtt_ns(scenario: Scenario, plan: Plan, arm: Arm) -> int:
    """The RTT of the arm's path if no element waits: constants and serialisation, in ns."""
    at_ns = 0
    ways = ((arm.source, arm.destination), (arm.destination, arm.source))
    for source, destination in ways:
        for elements in path_elements(scenario, plan, arm, source, destination):
            constant = [e for e in elements if e.realised_by == "netem"]
            at_ns = HopLine(constant, 0, "planned").out_ns(at_ns, frame_octets(scenario))
    return at_ns


def check_arm(scenario: Scenario, plan: Plan, name: str) -> None:
    """Raise `InputError` where an arm's settings cannot work together."""
    arm = scenario.arms[name]
    rtt_s = planned_rtt_ns(scenario, plan, arm) / 1e9
    if arm.tunnel and scenario.gateways.retransmit_s <= rtt_s:
        raise InputError(
            f"gateways.retransmit_s: {scenario.gateways.retransmit_s:g} s is not longer than the round trip of arm "
            f"{name}, {rtt_s:.3f} s: every control message would be sent twice"
        )


def budget(scenario: Scenario, plan: Plan, arm: Arm) -> tuple[DelayTerm, ...]:
    """Every element of the arm's round trip: what it is, what it adds, why its number is what it is."""
    terms: dict[tuple[str, str], DelayTerm] = {}
    ways = ((arm.source, arm.destination), (arm.destination, arm.source))
    for source, destination in ways:
        hops = plan.directions(source, destination)
        elements = path_elements(scenario, plan, arm, source, destination)
        for (link, _, _), of_hop in zip(hops, elements, strict=True):
            for element in of_hop:
                _add(terms, f"{link.a}-{link.b}", element, frame_octets(scenario))
    return tuple(terms.values())


def _add(
    terms: dict[tuple[str, str], DelayTerm], hop: str, element: DelayElement, size_bytes: int
) -> None:
    """Add one element's mean and variance to its term."""
    name = getattr(element, "kind", type(element).__name__).replace("_", " ")
    key = (hop, f"{name} {element.source}")
    mean, variance = element.mean_ms(size_bytes), element.variance_ms2(size_bytes)
    known = terms.get(key)
    if known is not None:
        mean += known.mean_ms
        variance += known.sd_ms**2
    terms[key] = DelayTerm(
        hop=hop,
        element=name,
        mean_ms=mean,
        sd_ms=math.sqrt(variance),
        basis=element.basis,
        source=element.source,
    )


def theoretical_rtt_ms(scenario: Scenario, plan: Plan) -> tuple[list[tuple[str, float]], float]:
    """Equation (2) of the paper: the one-way delay of each hop by geometry and ground line, and the RTT in ms."""
    hops = []
    for link in plan.links:
        if "keys" in link.kinds:
            continue
        physical = [e for e in link.up.elements if _is_theory(e)]
        hops.append((f"{link.a} - {link.b}", sum(e.mean_ms() for e in physical)))
    return hops, 2 * sum(delay for _, delay in hops)


def _is_theory(element: DelayElement) -> bool:
    """Propagation and the ground line; not what was calibrated or measured."""
    return isinstance(element, Propagation) or (
        isinstance(element, Fixed) and element.basis not in ("calibrated", "phenomenological")
    )
