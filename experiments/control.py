"""The control arm: it measures the run itself. The same chain of hosts, and nothing in it that varies."""

from __future__ import annotations

from topo.errors import InputError
from topo.scenario import Arm, Link, Links, Probe, Scenario

CONTROL = "control"
CONTROL_PROBES = 20
CONTROL_INTERVAL_MS = 200.0


def control_of(scenario: Scenario) -> Scenario:
    """The scenario's control: its hosts and constants, no waits and no losses, one arm, a few probes.

    Raises `InputError` where the scenario has an arm of that name itself.
    """
    if CONTROL in scenario.arms:
        raise InputError(
            f"arms.{CONTROL}: the name is taken, by the arm that measures the run itself"
        )

    def quiet(link: Link) -> Link:
        return link.model_copy(
            update={
                "up": tuple(e for e in link.up if e.realised_by == "netem"),
                "down": tuple(e for e in link.down if e.realised_by == "netem"),
                "loss_up": 0.0,
                "loss_down": 0.0,
            }
        )

    links = {name: quiet(getattr(scenario.links, name)) for name in Links.model_fields}
    probe = Probe(
        count=min(CONTROL_PROBES, scenario.probe.count),
        interval_ms=CONTROL_INTERVAL_MS,
        payload_bytes=scenario.probe.payload_bytes,
        timeout_ms=scenario.probe.timeout_ms,
    )
    return scenario.model_copy(
        update={
            "links": scenario.links.model_copy(update=links),
            "sessions": {},
            "arms": {CONTROL: Arm(title="control: the same hosts, no waits")},
            "probe": probe,
            "iperf": None,
        }
    )
