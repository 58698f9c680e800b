"""What both ends of a BB84 link agree on before the pass: source and security parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from types import MappingProxyType
from typing import Literal

from topo.errors import InputError

BASES = ("X", "Z")
"""Names of the bases; a basis in an array is its index here."""

Bound = Literal["chernoff", "hoeffding"]
"""How counts are bounded against fluctuations, see `quantum.bb84.finite_key`."""


@dataclass(frozen=True)
class Bb84Parameters:
    """Decoy-state BB84 with a signal and two weaker intensities, both bases keyed."""

    pulse_rate_hz: float
    intensities: tuple[float, float, float]
    """Mean photon numbers mu1 > mu2 > mu3 at the telescope's output; mu3 may be the vacuum."""
    intensity_probabilities: tuple[float, float, float]
    """How often each is sent; they sum to 1."""
    basis_x_probability: float = 0.5
    """How often each end takes the X basis."""
    eps_secrecy: float = 1e-9
    """Secrecy failure probability of the key from one basis."""
    eps_correctness: float = 1e-15
    """Probability that the two ends' keys differ, from one basis."""
    max_qber: float = 0.11
    """Above this error rate a pass is abandoned: 1 - 2 h(QBER) is negative beyond 11 %."""
    bound: Bound = "chernoff"

    def __post_init__(self) -> None:
        mu1, mu2, mu3 = self.intensities
        if not (mu1 > mu2 + mu3 and mu2 > mu3 >= 0):
            raise InputError(
                f"intensities {self.intensities}: must be mu1 > mu2 + mu3 and mu2 > mu3 >= 0"
            )
        if min(self.intensity_probabilities) <= 0 or not isclose(
            sum(self.intensity_probabilities), 1.0, abs_tol=1e-9
        ):
            raise InputError(
                f"intensity_probabilities {self.intensity_probabilities}: "
                "must be positive and sum to 1"
            )
        if not self.pulse_rate_hz >= 1:
            raise InputError(f"pulse_rate_hz {self.pulse_rate_hz}: must be at least 1")
        if self.bound not in ("chernoff", "hoeffding"):
            raise InputError(f"bound {self.bound!r}: must be 'chernoff' or 'hoeffding'")
        for name in ("basis_x_probability", "eps_secrecy", "eps_correctness"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: must lie between 0 and 1")
        if not 0 < self.max_qber <= 0.5:
            raise InputError(f"max_qber {self.max_qber}: must lie in (0, 0.5]")


MICIUS_2017 = Bb84Parameters(
    pulse_rate_hz=100e6,
    intensities=(0.8, 0.1, 0.0),
    intensity_probabilities=(0.5, 0.25, 0.25),
)
"""Published: Liao et al., Nature 549, 43 (2017)."""

JINAN1 = Bb84Parameters(
    pulse_rate_hz=625e6,
    intensities=(0.8, 0.1, 0.0),
    intensity_probabilities=(0.5, 0.25, 0.25),
)
"""The rate is reported second-hand; intensities are unpublished, those of Micius are assumed.
(625 MHz x 50 % x 0.8 agrees with the reported 250 million signal photons a second.)"""

PRESETS: Mapping[str, Bb84Parameters] = MappingProxyType(
    {"micius2017": MICIUS_2017, "jinan1-clear": JINAN1, "jinan1-typical": JINAN1}
)
"""The source that goes with each optical preset of the same name."""
