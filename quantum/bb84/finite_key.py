"""How many secret bits a block of raw key holds: decoy-state BB84 with finite statistics.

Two decoys: Lim, Curty, Walenta, Xu, Zbinden, PRA 89, 022307 (2014). One decoy: Rusca, Boaron,
Gruenenfelder, Martin, Zbinden, APL 112, 171104 (2018). Key from all intensities. Counts are bounded
either as there (Hoeffding) or intensity by intensity with the multiplicative Chernoff bound of Sidhu
et al., npj Quantum Information 8, 18 (2022), which is tighter; or not at all, which gives the limit of
long blocks.

What Lim et al. assume holds here too: phase-randomised pulses of exactly the stated intensities,
independent of the basis, and attacks within a fixed-length analysis. Later proofs (Wiesemann et
al., arXiv:2405.16578) find its treatment of acceptance incomplete; no more than Lim's is claimed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import factorial, floor, log, log2, sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.source import Bb84Parameters, Bound

Counts = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BasisCounts:
    """Sifted detections n_k and errors m_k of one basis, by intensity; shape (K,) each."""

    detections: Counts
    errors: Counts

    @classmethod
    def of(cls, detections: ArrayLike, errors: ArrayLike) -> BasisCounts:
        """From anything that makes two arrays of K numbers."""
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
    private_bits: float
    """s_0 + s_1 (1 - h(phi)): bits of the raw key that the quantum channel gave nobody else."""
    leakage_bits: float
    """What error correction disclosed of them."""
    fixed_cost_bits: float
    """What the failure probabilities cost, whatever the block's size."""

    @property
    def whole_bits(self) -> int:
        """The key length: rounded down, 0 when there is no key."""
        return max(0, floor(self.bits))


def binary_entropy(p: float) -> float:
    """h(p) in bits."""
    return 0.0 if p in (0, 1) else -p * log2(p) - (1 - p) * log2(1 - p)


def fixed_cost_bits(eps_secrecy: float, eps_correctness: float, *, decoys: int = 2) -> float:
    """Bits a block pays whatever its size: 6 log2(21/eps_sec) + log2(2/eps_cor).

    With one decoy 19 takes the place of 21.
    """
    terms = _METHODS[decoys].error_terms
    return 6 * log2(terms / eps_secrecy) + log2(2 / eps_correctness)


def secret_key_length(
    key: BasisCounts, test: BasisCounts, parameters: Bb84Parameters, leakage_bits: float
) -> KeyLength:
    """Secret bits in the raw key of basis `key`, the phase error bounded by basis `test`.

    `leakage_bits` is what error correction disclosed (before it is known: `quantum.bb84.leakage`).
    To key both bases, call twice with the bases exchanged: the failure probabilities then add. As
    many intensities as counts: three are two decoys (Lim et al. 2014, eqs. 1 to 5), two are one decoy
    (Rusca et al. 2018), which makes use of the errors of `key` too.
    """
    decoys = _METHODS[len(parameters.intensities) - 1](parameters)
    asymptotic = parameters.bound == "asymptotic"
    vacuum, single = decoys.events(key)
    _, test_single = decoys.events(test)
    test_errors = decoys.single_photon_errors(test.errors)
    phase_error = 0.5
    if single > 0 and test_single > 0:
        rate = test_errors / test_single
        if not asymptotic:
            eps = parameters.eps_secrecy / decoys.error_terms
            rate += sampling_deviation(eps, rate, test_single, single)
        phase_error = min(0.5, rate)
    private_bits = vacuum + single * (1 - binary_entropy(phase_error))
    cost_bits = (
        0.0
        if asymptotic
        else fixed_cost_bits(
            parameters.eps_secrecy,
            parameters.eps_correctness,
            decoys=len(parameters.intensities) - 1,
        )
    )
    return KeyLength(
        private_bits - leakage_bits - cost_bits,
        vacuum,
        single,
        test_single,
        test_errors,
        phase_error,
        private_bits,
        leakage_bits,
        cost_bits,
    )


def hoeffding(counts: Counts, eps: float) -> tuple[Counts, Counts]:
    """How far below and above its mean each count may lie: sqrt(n/2 ln 1/eps), n the total."""
    delta = np.full(len(counts), _hoeffding_deviation(counts.sum(), eps))
    return delta, delta


def chernoff(counts: Counts, eps: float) -> tuple[Counts, Counts]:
    """The same by the multiplicative Chernoff bound, from each count alone (Sidhu et al. 2022)."""
    beta = log(1 / eps)
    below = beta / 2 + np.sqrt(2 * beta * counts + beta**2 / 4)
    above = beta + np.sqrt(2 * beta * counts + beta**2)
    return below, above


def asymptotic(counts: Counts, eps: float) -> tuple[Counts, Counts]:
    """No deviation: counts are their means, as in blocks without end."""
    none = np.zeros(len(counts))
    return none, none


def sampling_deviation(eps: float, rate: float, test: float, key: float) -> float:
    """By how much the error rate of `key` events may exceed that of `test` events, save with eps.

    Random sampling without replacement; gamma of Lim et al. (2014) with eps = eps_sec / 21, whose
    first logarithm is natural and whose second is to base 2. 1/2, and so no key, where the formula has
    no value.
    """
    if not 0 < rate < 1:
        return 0.5
    size = test * key * (1 - rate) * rate
    inside = (test + key) / size / eps**2
    return sqrt((test + key) * (1 - rate) * rate / (test * key * log(2)) * max(0.0, log2(inside)))


def _hoeffding_deviation(total: float, eps: float) -> float:
    return sqrt(total / 2 * log(1 / eps))


_BOUNDS = {"hoeffding": hoeffding, "chernoff": chernoff, "asymptotic": asymptotic}


class _Decoys(ABC):
    """Decoy-state bounds for one set of intensities."""

    error_terms: ClassVar[int]
    """Into how many parts the secrecy failure probability is split."""

    def __init__(self, parameters: Bb84Parameters) -> None:
        self._mu = np.array(parameters.intensities)
        self._p = np.array(parameters.intensity_probabilities)
        self._eps = parameters.eps_secrecy / self.error_terms
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

    @abstractmethod
    def events(self, basis: BasisCounts) -> tuple[float, float]:
        """Lower bounds on vacuum and single-photon events among the detections, at least 0."""

    def single_photon_errors(self, errors: Counts) -> float:
        """Upper bound on errors of single photons; never more than there are errors at all."""
        bright, weak = len(self._mu) - 2, len(self._mu) - 1
        low, high = self.bounds(errors)
        bound = self.tau(1) * (high[bright] - low[weak]) / (self._mu[bright] - self._mu[weak])
        return float(np.clip(bound, 0.0, errors.sum()))


class _TwoDecoys(_Decoys):
    """Lim et al. (2014), eqs. 2 to 4."""

    error_terms = 21

    def events(self, basis: BasisCounts) -> tuple[float, float]:
        mu1, mu2, mu3 = self._mu
        low, high = self.bounds(basis.detections)
        vacuum = max(0.0, self.tau(0) * (mu2 * low[2] - mu3 * high[1]) / (mu2 - mu3))
        multi = (mu2**2 - mu3**2) / mu1**2 * (high[0] - vacuum / self.tau(0))
        single = self.tau(1) * mu1 * (low[1] - high[2] - multi)
        single /= mu1 * (mu2 - mu3) - mu2**2 + mu3**2
        return float(vacuum), max(0.0, float(single))


class _OneDecoy(_Decoys):
    """Rusca et al. (2018), eqs. A17 to A22: half the vacuum's clicks are errors, which bounds them."""

    error_terms = 19

    def events(self, basis: BasisCounts) -> tuple[float, float]:
        mu1, mu2 = self._mu
        total = float(basis.detections.sum())
        low, high = self.bounds(basis.detections)
        _, errors = self.bounds(basis.errors)
        spread = 0.0 if self._bound == "asymptotic" else _hoeffding_deviation(total, self._eps)
        most_vacuum = min(2 * (self.tau(0) * float(errors.min()) + spread), total)
        vacuum = max(0.0, self.tau(0) * (mu1 * low[1] - mu2 * high[0]) / (mu1 - mu2))
        multi = mu2**2 / mu1**2 * high[0] + (1 - mu2**2 / mu1**2) * most_vacuum / self.tau(0)
        single = self.tau(1) * mu1 * (low[1] - multi) / (mu2 * (mu1 - mu2))
        return float(vacuum), max(0.0, float(single))


_METHODS: dict[int, type[_Decoys]] = {1: _OneDecoy, 2: _TwoDecoys}
"""By the number of decoys."""
