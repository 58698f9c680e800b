"""When arms begin on a virtual clock: on a timetable, so that one run's clock is another's to the nanosecond.

Waiting for the next slot costs nothing there; beginning when the arm before has ended would carry every small
difference of one arm into the next.
"""

from __future__ import annotations

import math

from topo.scenario import Scenario

SLOT_S = 600
"""Slots are multiples of this, seconds."""


def slot_s(scenario: Scenario) -> int:
    """Virtual seconds set aside for one arm of a scenario, many more than it takes."""
    intervals_ms = [arm.interval_ms or scenario.probe.interval_ms for arm in scenario.arms.values()]
    probing_s = (scenario.probe.count * max(intervals_ms) + scenario.probe.timeout_ms) / 1e3
    goodput = scenario.iperf
    transfers_s = 2 * goodput.tcp_s + goodput.udp_s if goodput else 0.0
    return SLOT_S * math.ceil(1 + 2 * (probing_s + transfers_s) / SLOT_S)
