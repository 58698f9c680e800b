"""With what probability a pulse clicks, and how, given all that stands between the ends."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.eavesdropper import Eavesdropper, forwarding, split_gain
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.detector import Detector, gate_fraction, leaked_fraction

FloatArray = NDArray[np.float64]


class Kind(IntEnum):
    """Kinds of click. `RIGHT` and `WRONG` are said of the bit if both ends' bases are the same."""

    RIGHT = 0
    WRONG = 1
    KNOWN_RIGHT = 2
    """Right, and the eavesdropper knows the sender's bit."""
    KNOWN_WRONG = 3
    TRIGGERED = 4
    """The eavesdropper fired a blinded detector: right and known, always in the blinded basis."""
    UNBLINDED_RIGHT = 5
    """While one basis is blinded, a background click, always in the other basis."""
    UNBLINDED_WRONG = 6


WRONG = np.isin(list(Kind), [Kind.WRONG, Kind.KNOWN_WRONG, Kind.UNBLINDED_WRONG]).astype(np.uint8)
"""By kind: 1 where the receiver's bit is not the sender's."""
KNOWN = np.isin(list(Kind), [Kind.KNOWN_RIGHT, Kind.KNOWN_WRONG, Kind.TRIGGERED])
"""By kind: whether the eavesdropper knows the sender's bit once the bases are announced."""


def background_probability(
    transmittance: FloatArray,
    vacuum_yield: ArrayLike,
    parameters: Bb84Parameters,
    detector: Detector,
) -> FloatArray:
    """Probability that a gate clicks without its own pulse, shape of `transmittance`.

    Y0, and photons that jitter brought from the pulses beside it.
    """
    leaked = leaked_fraction(detector, 1 / parameters.pulse_rate_hz) / gate_fraction(detector)
    mean_photons = np.dot(parameters.intensities, parameters.intensity_probabilities)
    quiet = (1 - np.asarray(vacuum_yield)) * np.exp(-transmittance * leaked * mean_photons)
    return np.asarray(1 - quiet)


def click_law(
    transmittance: FloatArray,
    background: FloatArray,
    misalignment: float,
    parameters: Bb84Parameters,
    eavesdropper: Eavesdropper,
) -> FloatArray:
    """Probabilities that a pulse clicks, by slot, intensity and kind; shape (slots, K, kinds).

    `transmittance` and `background` (of `background_probability`) have shape (slots,). A gate
    clicks with 1 - (1 - Y0) exp(-eta mu); a background click is right half the time, a photon
    of the source but for `misalignment`, so that errors come to Y0/2 + e_d (1 - Y0)(1 - exp(-eta
    mu)). Two detectors that fire in one gate count as one click of a random bit, which changes this
    by terms of order (eta mu)^2 e_d only. Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005), with the
    exact union; attacks as `Eavesdropper` describes them.
    """
    mu = np.array(parameters.intensities)
    noise = background[:, np.newaxis] * np.ones_like(mu)
    photon = -np.expm1(-transmittance[:, np.newaxis] * mu)
    law = np.zeros((*photon.shape, len(Kind)))

    def add(right: Kind, wrong: Kind, probability: FloatArray, error: float) -> None:
        law[..., right] += (1 - error) * probability
        law[..., wrong] += error * probability

    resent = eavesdropper.intercept_resend_fraction
    split = eavesdropper.photon_number_splitting_fraction
    blinded = eavesdropper.blinding_fraction
    alone = max(0.0, 1 - eavesdropper.attacked)

    # Background is there whatever happens to the pulse, and comes first where both click.
    add(Kind.RIGHT, Kind.WRONG, (1 - blinded) * noise, 0.5)
    add(Kind.RIGHT, Kind.WRONG, alone * (1 - noise) * photon, misalignment)
    if resent:
        half = resent / 2 * (1 - noise) * photon
        add(Kind.KNOWN_RIGHT, Kind.KNOWN_WRONG, half, misalignment)
        add(Kind.RIGHT, Kind.WRONG, half, 0.5)
    if split:
        better = forwarding(photon[:, :1], float(mu[0]))
        forwarded = split * (1 - noise) * split_gain(better, mu)
        add(Kind.KNOWN_RIGHT, Kind.KNOWN_WRONG, forwarded, misalignment)
    if blinded:
        p_x = parameters.basis_x_probability
        share = p_x if eavesdropper.blinded_basis == BASES[0] else 1 - p_x
        unblinded = (1 - share) * noise
        add(Kind.UNBLINDED_RIGHT, Kind.UNBLINDED_WRONG, blinded * unblinded, 0.5)
        law[..., Kind.TRIGGERED] = blinded * (1 - unblinded) * share * photon
    return law
