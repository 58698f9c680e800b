"""What an attacker does to the pulses on their way: three attacks, each on a share of the pulses.

A pulse suffers one attack at most. What an attack does to the clicks is worked out in
`quantum.bb84.click_law`; how much of the key it gives away only the simulation can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.source import BASES
from topo.errors import InputError

FloatArray = NDArray[np.float64]

_BISECTIONS = 60
"""Halves [0, 1] down to the last bit of a double."""


@dataclass(frozen=True)
class Eavesdropper:
    """Which attacks are on, and on what share of the pulses. The shares sum to at most 1."""

    intercept_resend_fraction: float = 0.0
    """Pulses measured in a random basis and sent anew as measured, as bright as they were.

    Half of them are measured in the wrong basis, and half of the bits resent so come out wrong: a
    share p of the pulses adds p/4 to the QBER, less what was random already. The attacker knows the
    bits measured in the right basis. Gains and decoy yields stay as they are.
    """
    photon_number_splitting_fraction: float = 0.0
    """Pulses whose photons are counted without touching their polarisation.

    A single photon is blocked. Of more, one is kept until the bases are announced and then measured
    without error; the rest travel on over a channel so good that the *signal* clicks as often as
    ever. Decoys then click too seldom, for they hold fewer photons: the bound on single photons
    falls. The QBER stays. Source: Brassard, Luetkenhaus, Mor, Sanders, PRL 85, 1330 (2000); Hwang,
    PRL 91, 057901 (2003).
    """
    blinding_fraction: float = 0.0
    """Pulses during which bright light holds both detectors of `blinded_basis` in linear mode.

    Neither photons nor dark counts fire them then. The attacker takes every pulse, measures it in
    that basis and makes the detector of her outcome fire with a brighter flash, as often as photons
    would have fired it. So the blinded basis counts as before, with fewer errors and no background;
    all its bits are known; the other basis is left with background alone. The proof of security
    knows nothing of it: a small share shows only in unequal counts and errors of the bases. Source:
    Lydersen et al., Nature Photonics 4, 686 (2010); against passive basis choice Gerhardt et al.,
    Nature Communications 2, 349 (2011). That the light can be steered to one basis alone is an
    assumption about the receiver's beam splitter.
    """
    blinded_basis: Literal["X", "Z"] = "Z"
    """Whose detectors are blinded while `blinding_fraction` is not 0."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}: must lie in [0, 1]")
        if self.attacked > 1 + 1e-12:
            raise InputError(f"{' + '.join(_SHARES)} is {self.attacked:g}: must be at most 1")
        if self.blinded_basis not in BASES:
            raise InputError(f"blinded_basis {self.blinded_basis!r}: must be one of {BASES}")

    @property
    def attacked(self) -> float:
        """Share of the pulses that suffer any attack."""
        return float(sum(getattr(self, name) for name in _SHARES))


_SHARES = (
    "intercept_resend_fraction",
    "photon_number_splitting_fraction",
    "blinding_fraction",
)

NOBODY = Eavesdropper()


def split_gain(forwarded: ArrayLike, mean_photons: ArrayLike) -> FloatArray:
    """Probability that a split pulse clicks: sum over n >= 2 of P(n) (1 - (1 - forwarded)^(n-1)).

    P(n) is Poisson of mean `mean_photons`; each of the n - 1 photons that travel on clicks with
    probability `forwarded`. Arguments broadcast.
    """
    lost = 1 - np.asarray(forwarded, dtype=np.float64)
    mu = np.asarray(mean_photons, dtype=np.float64)
    several = -np.expm1(-mu) - mu * np.exp(-mu)
    # sum over n >= 2 of P(n) lost^(n-1); its limit at lost = 0 is 0.
    none = np.exp(-mu) * (np.expm1(mu * lost) - mu * lost)
    return np.asarray(several - np.divide(none, lost, out=np.zeros_like(none), where=lost > 0))


def forwarding(gain: ArrayLike, signal_photons: float) -> FloatArray:
    """How well the attacker must forward split photons for a signal to click with that gain.

    Inverse of `split_gain` in its first argument, shape of `gain`; 1 where even a perfect channel
    gives less, and the signal's gain then falls too.
    """
    wanted = np.asarray(gain, dtype=np.float64)
    low, high = np.zeros_like(wanted), np.ones_like(wanted)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = split_gain(middle, signal_photons) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high
