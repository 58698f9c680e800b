"""How many secret bits a block of raw key holds: decoy-state BB84 with finite statistics.

Lim, Curty, Walenta, Xu, Zbinden, PRA 89, 022307 (2014), two decoys, key from all three intensities.
Counts are bounded either as there (Hoeffding) or intensity by intensity with the multiplicative
Chernoff bound of Sidhu et al., npj Quantum Information 8, 18 (2022), which is tighter.

What Lim et al. assume holds here too: phase-randomised pulses of exactly the stated intensities,
independent of the basis, and attacks within a fixed-length analysis. Later proofs (Wiesemann et
al., arXiv:2405.16578) find its treatment of acceptance incomplete; no more than Lim's is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, factorial, floor, log, log2, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.source import Bb84Parameters, Bound

Counts = NDArray[np.float64]

_ERROR_TERMS = 21
"""Into how many parts Lim et al. split the secrecy failure probability."""


@dataclass(frozen=True, eq=False)
class BasisCounts:
    """Sifted detections n_k and errors m_k of one basis, by intensity; shape (3,) each."""

    detections: Counts
    errors: Counts

    @classmethod
    def of(cls, detections: ArrayLike, errors: ArrayLike) -> BasisCounts:
        """From anything that makes two arrays of three numbers."""
        return cls(np.asarray(detections, np.float64), np.asarray(errors, np.float64))


@dataclass(frozen=True)
class KeyLength:
    """The secret key length of one basis and the bounds that led to it (all in bits or counts)."""

    bits: float
    """Before rounding down; not positive when there is no key."""
    vacuum_events: float
    """s_0: lower bound on vacuum contributions to the raw key."""
    single_photon_events: float
    """s_1: lower bound on single-photon contributions to the raw key."""
    test_single_photon_events: float
    """s_1 of the other basis."""
    test_single_photon_errors: float
    """v_1: upper bound on single-photon errors in the other basis."""
    phase_error: float
    """phi: upper bound on the phase error rate of the raw key's single photons."""

    @property
    def whole_bits(self) -> int:
        """The key length: rounded down, 0 when there is no key."""
        return max(0, floor(self.bits))


def binary_entropy(p: float) -> float:
    """h(p) in bits."""
    return 0.0 if p in (0, 1) else -p * log2(p) - (1 - p) * log2(1 - p)


def fixed_cost_bits(eps_secrecy: float, eps_correctness: float) -> float:
    """Bits a block pays whatever its size: 6 log2(21/eps_sec) + log2(2/eps_cor)."""
    return 6 * log2(_ERROR_TERMS / eps_secrecy) + log2(2 / eps_correctness)


def secret_key_length(
    key: BasisCounts, test: BasisCounts, parameters: Bb84Parameters, leakage_bits: float
) -> KeyLength:
    """Secret bits in the raw key of basis `key`, the phase error bounded by basis `test`.

    `leakage_bits` is what error correction disclosed. To key both bases, call twice with the bases
    exchanged: the failure probabilities then add. Source: Lim et al. (2014), eqs. 1 to 5.
    """
    decoys = _Decoys(parameters)
    vacuum, single = decoys.events(key.detections)
    _, test_single = decoys.events(test.detections)
    test_errors = decoys.single_photon_errors(test.errors)
    phase_error = 0.5
    if single > 0 and test_single > 0:
        rate = test_errors / test_single
        phase_error = min(0.5, rate + _gamma(parameters.eps_secrecy, rate, test_single, single))
    bits = (
        vacuum
        + single * (1 - binary_entropy(phase_error))
        - leakage_bits
        - fixed_cost_bits(parameters.eps_secrecy, parameters.eps_correctness)
    )
    return KeyLength(bits, vacuum, single, test_single, test_errors, phase_error)


def hoeffding(counts: Counts, eps: float) -> tuple[Counts, Counts]:
    """How far below and above its mean each count may lie: sqrt(n/2 ln 1/eps), n the total."""
    delta = np.full(3, sqrt(counts.sum() / 2 * log(1 / eps)))
    return delta, delta


def chernoff(counts: Counts, eps: float) -> tuple[Counts, Counts]:
    """The same by the multiplicative Chernoff bound, from each count alone (Sidhu et al. 2022)."""
    beta = log(1 / eps)
    below = beta / 2 + np.sqrt(2 * beta * counts + beta**2 / 4)
    above = beta + np.sqrt(2 * beta * counts + beta**2)
    return below, above


_BOUNDS = {"hoeffding": hoeffding, "chernoff": chernoff}


class _Decoys:
    """Decoy-state bounds for one set of intensities."""

    def __init__(self, parameters: Bb84Parameters) -> None:
        self._mu = np.array(parameters.intensities)
        self._p = np.array(parameters.intensity_probabilities)
        self._eps = parameters.eps_secrecy / _ERROR_TERMS
        self._bound: Bound = parameters.bound

    def tau(self, photons: int) -> float:
        """Probability that a pulse has that many photons, over all intensities."""
        poisson = np.exp(-self._mu) * self._mu**photons / factorial(photons)
        return float((poisson * self._p).sum())

    def bounds(self, counts: Counts) -> tuple[Counts, Counts]:
        """n-_k and n+_k: counts bounded and scaled by e^mu_k / p_k."""
        below, above = _BOUNDS[self._bound](counts, self._eps)
        scale = np.exp(self._mu) / self._p
        return scale * (counts - below), scale * (counts + above)

    def events(self, detections: Counts) -> tuple[float, float]:
        """Lower bounds on vacuum and single-photon events among the detections, at least 0."""
        mu1, mu2, mu3 = self._mu
        low, high = self.bounds(detections)
        vacuum = max(0.0, self.tau(0) * (mu2 * low[2] - mu3 * high[1]) / (mu2 - mu3))
        multi = (mu2**2 - mu3**2) / mu1**2 * (high[0] - vacuum / self.tau(0))
        single = self.tau(1) * mu1 * (low[1] - high[2] - multi)
        single /= mu1 * (mu2 - mu3) - mu2**2 + mu3**2
        return float(vacuum), max(0.0, float(single))

    def single_photon_errors(self, errors: Counts) -> float:
        """Upper bound on errors of single photons; never more than there are errors at all."""
        _, mu2, mu3 = self._mu
        low, high = self.bounds(errors)
        bound = self.tau(1) * (high[1] - low[2]) / (mu2 - mu3)
        return float(np.clip(bound, 0.0, errors.sum()))


def _gamma(eps: float, rate: float, test: float, key: float) -> float:
    """By how much the key's phase error may exceed the test's error rate (random sampling)."""
    if not 0 < rate < 1:
        return 0.5  # the formula has no value there: no key
    size = test * key * (1 - rate) * rate
    inside = (test + key) / size * _ERROR_TERMS**2 / eps**2
    return sqrt((test + key) * (1 - rate) * rate / (test * key * log(2)) * log2(inside))


@dataclass(frozen=True)
class Asymptotic:
    """What infinitely many pulses would give (Ma, Qi, Zhao, Lo, PRA 72, 012326, 2005)."""

    single_photon_yield: float
    """Y1, lower bound."""
    single_photon_error: float
    """e1, upper bound."""
    bits_per_signal_pulse: float


def asymptotic_rate(
    signal: tuple[float, float, float],
    decoy: tuple[float, float, float],
    vacuum_gain: float,
    efficiency: float = 1.16,
    sifting: float = 0.5,
) -> Asymptotic:
    """Key rate of vacuum + weak decoy BB84; `signal` and `decoy` are (mean photons, gain, QBER).

    R = q (-Q_mu f h(E_mu) + Q_1 (1 - h(e_1))), with the bounds of Ma et al. on Q_1 and e_1.
    """
    mu, gain, qber = signal
    nu, decoy_gain, decoy_qber = decoy
    single = (
        mu
        / (mu * nu - nu**2)
        * (
            decoy_gain * exp(nu)
            - gain * exp(mu) * nu**2 / mu**2
            - (mu**2 - nu**2) / mu**2 * vacuum_gain
        )
    )
    error = (decoy_qber * decoy_gain * exp(nu) - vacuum_gain / 2) / (single * nu)
    single_gain = mu * exp(-mu) * single
    rate = sifting * (
        -gain * efficiency * binary_entropy(qber) + single_gain * (1 - binary_entropy(error))
    )
    return Asymptotic(single, error, rate)
