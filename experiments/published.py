"""The figures published in Huang et al., "Quantum-Enhanced Security Framework for Next-Generation
Space-Terrestrial Networks", *Photonics* 2025, 12, 1182, doi:10.3390/photonics12121182.

Every RTT in milliseconds, n = 100 probes a session, one session an arm. The paper prints no
standard deviations, so a difference between two arms can be tested only through the spread its
jitter implies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from experiments.summary import RttFigures

CITATION: Final = "Huang et al., Photonics 2025, 12, 1182"


@dataclass(frozen=True, slots=True)
class PublishedArm:
    """One measured session of the paper."""

    path: str
    """Between which nodes the RTT was measured."""
    n: int
    """Probes."""
    rtt: RttFigures
    """Minimum, mean, maximum (equation 3) and mean jitter (equation 5)."""
    source: str
    """Figure and section."""


PROBES: Final = 100
"""Probes of each session: minimum and maximum are those of as many."""

ARMS: Final[dict[str, PublishedArm]] = {
    "satellite": PublishedArm(
        path="VSAT - 5GC entry",
        n=PROBES,
        rtt=RttFigures(min_ms=562, mean_ms=576, max_ms=586, jitter_ms=6),
        source="section 4, figures 12a and 14",
    ),
    "plain": PublishedArm(
        path="UE - DN, no IPsec",
        n=PROBES,
        rtt=RttFigures(min_ms=600, mean_ms=660, max_ms=765, jitter_ms=38),
        source="section 4, figures 12b and 14",
    ),
    "encrypted": PublishedArm(
        path="UE - DN, quantum-keyed IPsec",
        n=PROBES,
        rtt=RttFigures(min_ms=617, mean_ms=665, max_ms=713, jitter_ms=19),
        source="section 4, figures 12c and 14",
    ),
}
"""Arm name -> what the paper measured. `encrypted_same_radio` has no published counterpart."""

# Abstract and section 4: the two claims.
ENCRYPTION_OVERHEAD_MS: Final = 5.0
ENCRYPTION_OVERHEAD_PERCENT: Final = 0.75
JITTER_REDUCTION_PERCENT: Final = 50.0
VOICE_MOS_ABOVE: Final = 4.0

# Section 4: the theoretical budget (equations 1, 2 and 6), rounded as printed.
VSAT_TO_HTS_MS: Final = 123.0
HTS_TO_GS_MS: Final = 124.0
SATELLITE_ONE_WAY_MS: Final = 247.0
LEASED_LINE_ONE_WAY_MS: Final = 20.0
VSAT_TO_DN_ONE_WAY_MS: Final = 267.0
THEORETICAL_RTT_MS: Final = 534.0
