"""What infinitely many pulses would give: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005)."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from quantum.bb84.finite_key import binary_entropy


@dataclass(frozen=True)
class Gain:
    """What one intensity shows at the receiver."""

    mean_photons: float
    gain: float
    """Q: probability that a pulse clicks."""
    qber: float
    """E: probability that a click is wrong."""

    @property
    def clicks(self) -> float:
        """Q e^mu."""
        return self.gain * exp(self.mean_photons)

    @property
    def errors(self) -> float:
        """E Q e^mu."""
        return self.qber * self.clicks


@dataclass(frozen=True)
class Asymptotic:
    """Bounds on the single photons, and the key they make."""

    vacuum_yield: float
    """Y0, lower bound."""
    single_photon_yield: float
    """Y1, lower bound."""
    single_photon_gain: float
    """Q1 = mu e^-mu Y1: clicks of single photons, per signal pulse."""
    single_photon_error: float
    """e1, upper bound."""
    bits_per_signal_pulse: float


def vacuum_and_weak_decoy(
    signal: Gain,
    decoy: Gain,
    vacuum_yield: float,
    *,
    efficiency: float = 1.16,
    sifting: float = 0.5,
) -> Asymptotic:
    """Key rate with one weak decoy and the vacuum, whose clicks are wrong by half (eqs. 34 to 42)."""
    return two_decoys(
        signal, decoy, Gain(0.0, vacuum_yield, 0.5), efficiency=efficiency, sifting=sifting
    )


def two_decoys(
    signal: Gain,
    decoy: Gain,
    weaker: Gain,
    *,
    efficiency: float = 1.16,
    sifting: float = 0.5,
) -> Asymptotic:
    """Key rate with two weak decoys nu1 > nu2, nu1 + nu2 < mu (eqs. 18, 21, 25, 35).

    R = q (-Q_mu f h(E_mu) + Q_1 (1 - h(e_1))) per signal pulse; without single photons it is
    -q Q_mu f h(E_mu).
    """
    mu, nu1, nu2 = signal.mean_photons, decoy.mean_photons, weaker.mean_photons
    vacuum = max((nu1 * weaker.clicks - nu2 * decoy.clicks) / (nu1 - nu2), 0.0)
    single = decoy.clicks - weaker.clicks
    single -= (nu1**2 - nu2**2) / mu**2 * (signal.clicks - vacuum)
    single *= mu / (mu * (nu1 - nu2) - nu1**2 + nu2**2)
    error = 0.5
    if single > 0:
        error = min((decoy.errors - weaker.errors) / ((nu1 - nu2) * single), 0.5)
    single_gain = mu * exp(-mu) * max(single, 0.0)
    corrected = signal.gain * efficiency * binary_entropy(signal.qber)
    rate = sifting * (single_gain * (1 - binary_entropy(max(error, 0.0))) - corrected)
    return Asymptotic(vacuum, single, single_gain, error, rate)
