"""The control arm: the same hosts and constants, and nothing that varies."""

from __future__ import annotations

import pytest

from experiments.control import CONTROL, CONTROL_PROBES, control_of
from topo.errors import InputError
from topo.links.delays import waiting
from topo.planner import build_plan
from topo.scenario import Arm, Link, Links, Scenario, find, load

SCENARIOS = [load(find(name)) for name in ("paper", "transparent", "regenerative", "leo")]
on_every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)


@on_every_scenario
def test_nothing_in_it_varies(scenario: Scenario) -> None:
    lossy = scenario.links.model_copy(update={"feeder": Link(loss_up=0.1, loss_down=0.2)})
    control = control_of(scenario.model_copy(update={"links": lossy}))
    for link in build_plan(control, CONTROL).links:
        for direction in (link.up, link.down):
            assert waiting(direction.elements) == ()
            assert all(element.variance_ms2() == 0 for element in direction.elements)
            assert direction.loss == 0
    assert control.probe.jitter_ms == 0


@on_every_scenario
def test_the_rest_is_the_scenarios(scenario: Scenario) -> None:
    control = control_of(scenario)
    plan, of_arm = build_plan(control, CONTROL), build_plan(scenario, "plain")
    assert [host.name for host in plan.hosts] == [host.name for host in of_arm.hosts]
    for one, other in zip(plan.links, of_arm.links, strict=True):
        assert (one.a, one.b, one.kinds) == (other.a, other.b, other.kinds)
        assert (one.up.rate_bps, one.down.rate_bps) == (other.up.rate_bps, other.down.rate_bps)
    for name in Links.model_fields:
        before, after = getattr(scenario.links, name), getattr(control.links, name)
        assert type(after) is type(before)
        for way in ("up", "down"):
            constants = tuple(e for e in getattr(before, way) if e.realised_by == "netem")
            assert getattr(after, way) == constants
    assert control.links.line.delay_ms == scenario.links.line.delay_ms
    assert control.links.line.detour == scenario.links.line.detour
    assert (control.sites, control.satellite) == (scenario.sites, scenario.satellite)


def test_it_is_one_plain_arm_of_a_few_probes() -> None:
    paper = SCENARIOS[0]
    control = control_of(paper)
    assert list(control.arms) == [CONTROL]
    arm = control.arms[CONTROL]
    assert (arm.source, arm.destination, arm.tunnel, arm.session) == ("UE", "DN", False, None)
    assert (control.sessions, control.iperf) == ({}, None)
    assert control.probe.count == CONTROL_PROBES
    few = paper.model_copy(update={"probe": paper.probe.model_copy(update={"count": 3})})
    assert control_of(few).probe.count == 3


def test_its_probes_are_as_long_and_as_patient_as_the_scenarios() -> None:
    paper = SCENARIOS[0]
    probe = paper.probe.model_copy(update={"payload_bytes": 1000, "timeout_ms": 9000.0})
    control = control_of(paper.model_copy(update={"probe": probe}))
    assert (control.probe.payload_bytes, control.probe.timeout_ms) == (1000, 9000.0)


def test_the_scenario_it_comes_from_stays_as_it_was() -> None:
    paper = load(find("paper"))
    before = paper.model_dump()
    control_of(paper)
    assert paper.model_dump() == before
    assert before["iperf"] is not None
    assert before["links"]["user"]["up"]


def test_its_name_is_taken() -> None:
    paper = SCENARIOS[0]
    arms = {**paper.arms, CONTROL: Arm(title="mine")}
    with pytest.raises(InputError, match=r"arms\.control: the name is taken"):
        control_of(paper.model_copy(update={"arms": arms}))
