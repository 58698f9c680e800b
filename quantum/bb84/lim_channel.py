"""The channel of Lim et al. (2014) and of SatQuMA: counts of a block from efficiencies.

A second model beside `quantum.optics`, for comparison with what others publish: a dark count happens
in either detector, and afterpulses go with every detection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.finite_key import BasisCounts
from quantum.bb84.source import BASES, Bb84Parameters

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LimChannel:
    """What spoils the detections."""

    extraneous: float
    """p_ec: probability of a count without a photon of the source, per detector and pulse."""
    misalignment: float
    """Probability that a photon of the source goes to the wrong detector."""
    afterpulse: float = 0.0
    """p_ap: probability that a detection is followed by another."""

    def detection_probability(self, efficiency: ArrayLike, mean_photons: ArrayLike) -> FloatArray:
        """D_k = (1 + p_ap)(1 - (1 - 2 p_ec) e^(-eta mu_k)); arguments broadcast."""
        dark = np.exp(-np.asarray(efficiency, np.float64) * np.asarray(mean_photons))
        return np.asarray((1 + self.afterpulse) * (1 - (1 - 2 * self.extraneous) * dark))

    def error_probability(self, efficiency: ArrayLike, mean_photons: ArrayLike) -> FloatArray:
        """e_k = p_ec + p_ap D_k / 2 + e_mis (1 - e^(-eta mu_k)), per pulse; arguments broadcast."""
        reached = np.asarray(efficiency, np.float64) * np.asarray(mean_photons)
        after = self.afterpulse * self.detection_probability(efficiency, mean_photons) / 2
        return np.asarray(self.extraneous + after - self.misalignment * np.expm1(-reached))

    def block(
        self,
        efficiency: ArrayLike,
        parameters: Bb84Parameters,
        *,
        slot_s: float = 1.0,
        pooled_errors: bool = False,
    ) -> dict[str, BasisCounts]:
        """Expected counts by basis, summed over slots; `efficiency` has shape (slots,).

        With `pooled_errors` a slot's errors are shared among the intensities as its detections are,
        which is SatQuMA's convention; else each intensity has its own.
        """
        eta = np.asarray(efficiency, np.float64)[:, np.newaxis]
        mu = np.array(parameters.intensities)
        sent = parameters.pulse_rate_hz * slot_s * np.array(parameters.intensity_probabilities)
        detections = sent * self.detection_probability(eta, mu)
        errors = sent * self.error_probability(eta, mu)
        if pooled_errors:
            rate = errors.sum(axis=1, keepdims=True) / detections.sum(axis=1, keepdims=True)
            errors = rate * detections
        p_x = parameters.basis_x_probability
        return {
            basis: BasisCounts(share * detections.sum(axis=0), share * errors.sum(axis=0))
            for basis, share in zip(BASES, (p_x**2, (1 - p_x) ** 2), strict=True)
        }
