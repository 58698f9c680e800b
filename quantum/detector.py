"""Single-photon detectors: what a silicon avalanche diode adds to and takes from ideal counting.

Efficiency, gate and dark counts act on every pulse alike: `quantum.downlink` counts them in a
downlink's transmittance and vacuum yield. Dead time and afterpulses depend on the click before:
`quantum.bb84.detector_memory` acts them out click by click.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, expm1, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topo.errors import InputError


@dataclass(frozen=True)
class Detector:
    """The detectors of a polarisation analyser, all alike; by default they are ideal."""

    efficiency: float = 1.0
    """Probability that a photon on the diode starts an avalanche."""
    dark_rate_hz: float = 0.0
    """Avalanches per second without light, of one detector."""
    dead_time_s: float = 0.0
    """How long a detector is blind after a click; it is not prolonged by light on it."""
    afterpulse_probability: float = 0.0
    """Probability that a click makes the same detector fire in a later gate, by a trapped carrier."""
    trap_lifetime_s: float = 50e-9
    """Mean time from the end of the dead time to that click (exponential)."""
    jitter_s: float = 0.0
    """Standard deviation of the time from photon to click (Gaussian)."""
    gate_s: float = 1e-9
    """Width of the window around the expected arrival in which a click counts."""
    detectors: int = 4
    """4: two bits in each of two bases; 2: the two bits, whichever basis is set."""

    def __post_init__(self) -> None:
        if not 0 <= self.efficiency <= 1:
            raise InputError(f"detector: efficiency {self.efficiency} is not in [0, 1]")
        if not 0 <= self.afterpulse_probability < 1:
            raise InputError(
                f"detector: afterpulse_probability {self.afterpulse_probability} is not in [0, 1)"
            )
        for name in ("dark_rate_hz", "dead_time_s", "trap_lifetime_s", "jitter_s"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"detector: {name} {getattr(self, name)} must be 0 or more")
        if not 0 < self.gate_s < inf:
            raise InputError(f"detector: gate_s {self.gate_s} must be positive")
        if self.detectors not in (2, 4):
            raise InputError(f"detector: detectors {self.detectors} must be 2 or 4")

    @property
    def remembers(self) -> bool:
        """Whether a click changes what comes after it."""
        return self.dead_time_s > 0 or self.afterpulse_probability > 0


IDEAL = Detector()
"""Every photon clicks, nothing else does."""


def gate_fraction(detector: Detector) -> float:
    """Share of a pulse's clicks inside its gate: erf(t_g / (2 sqrt2 sigma)).

    Gaussian jitter of standard deviation sigma, the gate of width t_g centred on the pulse.
    """
    if not detector.jitter_s:
        return 1.0
    return erf(detector.gate_s / (2 * sqrt(2) * detector.jitter_s))


def leaked_fraction(detector: Detector, period_s: float) -> float:
    """Share of a pulse's clicks that jitter into the gates of other pulses, `period_s` apart.

    Sum over n = 1, 2, ... of erf((n T + t_g/2) / (sqrt2 sigma)) - erf((n T - t_g/2) / (sqrt2 sigma)).
    """
    if not detector.jitter_s:
        return 0.0
    unit_s, half_s = sqrt(2) * detector.jitter_s, detector.gate_s / 2
    gates = range(1, 2 + int(10 * detector.jitter_s / period_s))
    return sum(
        erf((n * period_s + half_s) / unit_s) - erf((n * period_s - half_s) / unit_s) for n in gates
    )


def dark_probability(detector: Detector) -> float:
    """Probability that any of the detectors fires in the dark during one gate: 1 - exp(-N r t_g).

    Its first order, N r t_g, is the usual rule: dark rate x gate x number of detectors.
    """
    return -expm1(-detector.detectors * detector.dark_rate_hz * detector.gate_s)


def live_fraction(detector: Detector, rate_hz: ArrayLike) -> NDArray[np.float64]:
    """Share of time a detector can click, when it would click at `rate_hz` were it never blind.

    1 / (1 + r tau) for a non-prolonged dead time, so that r' = r / (1 + r tau) is counted.
    `rate_hz` is of one detector, any shape. Source: Knoll, Radiation Detection and Measurement,
    section on dead time, non-paralyzable model.
    """
    return np.asarray(1 / (1 + np.asarray(rate_hz, dtype=np.float64) * detector.dead_time_s))
