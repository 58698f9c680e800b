"""Dead time and afterpulses: what becomes of clicks in detectors that remember the click before."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantum.detector import Detector

Indices = NDArray[np.int64]


class Registered(NamedTuple):
    """The clicks that a receiver writes down, by ascending gate; shape (registered,) each."""

    gate: Indices
    origin: Indices
    """Which of the given clicks it is, or goes back to, being an afterpulse of it."""
    afterpulse: NDArray[np.bool_]


class _Candidates(NamedTuple):
    """Clicks that come about unless a dead time or a lost parent prevents it; shape (n,) each."""

    gate: Indices
    which: NDArray[np.uint8]
    """The detector."""
    parent: Indices
    """Which candidate this is an afterpulse of, -1 for none."""
    origin: Indices

    def at(self, index: Indices) -> _Candidates:
        """Some of them."""
        return _Candidates(
            self.gate[index], self.which[index], self.parent[index], self.origin[index]
        )

    def joined(self, more: _Candidates) -> _Candidates:
        """These and then more."""
        return _Candidates(
            np.concatenate([self.gate, more.gate]),
            np.concatenate([self.which, more.which]),
            np.concatenate([self.parent, more.parent]),
            np.concatenate([self.origin, more.origin]),
        )


def register(
    rng: np.random.Generator,
    detector: Detector,
    pulse_rate_hz: float,
    *,
    gates: int,
    gate: Indices,
    which: NDArray[np.uint8],
) -> Registered:
    """Lose clicks to dead time and add afterpulses, over a stretch of `gates` gates.

    `gate` (distinct, ascending) and `which` detector, shape (n,), are the clicks that detectors
    without memory would make. A registered click blinds its detector for `dead_time_s`, which lost
    clicks do not prolong. With `afterpulse_probability` it also makes its detector click again in a
    gate that is dead time and an exponential delay of mean `trap_lifetime_s` away. Afterpulses are
    clicks like others, with afterpulses of their own. One that falls into a gate with a click is
    one with it, one beyond the end of the stretch is left out; clicks between gates are not
    modelled. Each detector's clicks are walked in time order, but only those that something
    before could have changed: the cost grows with these.
    """
    # A gate at just the end of the dead time is live; rounding must not make it one gate more.
    dead_gates = max(1, ceil(detector.dead_time_s * pulse_rate_hz * (1 - 1e-12)))
    delay_gates = detector.trap_lifetime_s * pulse_rate_hz
    clicks = _Candidates(gate, which, np.full(len(gate), -1), np.arange(len(gate)))
    generation = clicks
    while len(generation.gate):
        traps = np.flatnonzero(rng.random(len(generation.gate)) < detector.afterpulse_probability)
        delay = rng.standard_exponential(len(traps)) * delay_gates
        later = generation.gate[traps] + dead_gates + delay.astype(np.int64)
        traps, later = traps[later < gates], later[later < gates]
        first = len(clicks.gate) - len(generation.gate)
        generation = _Candidates(
            later, generation.which[traps], first + traps, generation.origin[traps]
        )
        clicks = clicks.joined(generation)
    if len(clicks.gate) > len(gate):
        clicks = _in_time_order(clicks)
    kept = np.diff(clicks.gate, prepend=-1) > 0
    for each in range(detector.detectors):
        mine = np.flatnonzero(clicks.which == each)
        _walk(clicks, mine, dead_gates, kept)
    return Registered(clicks.gate[kept], clicks.origin[kept], clicks.parent[kept] >= 0)


def _in_time_order(clicks: _Candidates) -> _Candidates:
    """The same by ascending gate, afterpulses after what they fall upon."""
    order = np.argsort(clicks.gate, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ordered = clicks.at(order)
    return ordered._replace(parent=np.where(ordered.parent < 0, -1, place[ordered.parent]))


def _walk(clicks: _Candidates, mine: Indices, dead_gates: int, kept: NDArray[np.bool_]) -> None:
    """Strike out in `kept` which of one detector's clicks `mine` are not registered, in place."""
    gate, parent = clicks.gate[mine], clicks.parent[mine]
    # All others have no click within a dead time before them, and no parent to lose.
    close = np.diff(gate, prepend=-dead_gates) < dead_gates
    last = -dead_gates
    for index in np.flatnonzero(close | (parent >= 0) | ~kept[mine]).tolist():
        if index and kept[mine[index - 1]]:
            last = gate[index - 1]
        # Where the click before was struck out, `last` is still the one registered before that.
        orphan = parent[index] >= 0 and not kept[parent[index]]
        if orphan or gate[index] - last < dead_gates:
            kept[mine[index]] = False
