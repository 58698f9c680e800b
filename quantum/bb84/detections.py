"""The quantum part of a pass, simulated at detection level: what both ends hold when it is over.

A pass at 625 MHz is 3e11 pulses of which a few million click. The clicks are drawn directly, and
the result has exactly the law of a pulse-by-pulse simulation: pulses of each intensity per slot are
multinomial, clicks of each kind among them multinomial, clicked pulses a uniform subset of the
slot, and which of them carried which intensity is exchangeable. What the click before does to a
click (dead time, afterpulses) is acted out on the clicks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.click_law import background_probability, click_law
from quantum.bb84.clicks import Bits, DrawnClicks, Indices, draw_clicks, remember
from quantum.bb84.eavesdropper import NOBODY, Eavesdropper
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.detector import Detector
from quantum.optics import Downlink
from topo.errors import InputError
from topo.space.passes import Pass

__all__ = ["Bits", "Detections", "Indices", "ReceiverRecord", "SenderRecord", "simulate"]

FloatArray = NDArray[np.float64]

MAX_DETECTIONS = 100_000_000
"""Of a pass: at some 100 bytes each, what a large machine holds."""


@dataclass(frozen=True, eq=False)
class SenderRecord:
    """What the satellite knows of the pulses that clicked. Arrays of shape (detections,)."""

    pulse_index: Indices
    basis: Bits
    bit: Bits
    intensity: Bits
    """Index into `Bb84Parameters.intensities`."""


@dataclass(frozen=True, eq=False)
class ReceiverRecord:
    """What the ground station knows of its clicks. Arrays of shape (detections,)."""

    pulse_index: Indices
    """Counted from the start of the pass, ascending."""
    basis: Bits
    bit: Bits


@dataclass(frozen=True, eq=False)
class Detections:
    """Both ends' records of a pass, and the tallies that only a simulation can see.

    Tallies are by slot, and by basis and intensity where the shape says so (K intensities). Dead
    time and afterpulses are in all of them.
    """

    sender: SenderRecord
    receiver: ReceiverRecord
    pulses: Indices
    """Pulses sent, shape (slots, K)."""
    clicks: Indices
    """Pulses detected, shape (slots, K)."""
    sifted: Indices
    """Of these, in the same basis at both ends; shape (slots, 2, K)."""
    errors: Indices
    """Of the sifted, with different bits; shape (slots, 2, K)."""
    known: Indices
    """Of the sifted, bits the eavesdropper knows; shape (slots, 2)."""
    lost: Indices
    """Clicks that dead time prevented, shape (slots,)."""
    afterpulses: Indices
    """Clicks that are afterpulses, shape (slots,)."""


def simulate(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    rng: np.random.Generator,
    *,
    eavesdropper: Eavesdropper = NOBODY,
    fading: ArrayLike | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Detections:
    """Draw every detection of a pass, in time order, with both ends' bases and bits.

    `fading`, shape (slots,), multiplies the mean transmittance of each slot. `progress` hears the
    share done, slot by slot. Time and memory grow with detections, not pulses. The receiver's basis
    does not depend on what clicks, as if a switch chose it pulse by pulse, so that background takes
    the basis bias too (the convention of Lim et al., PRA 89, 022307, 2014). Dead time and
    afterpulses do not reach over from one slot into the next. Raises `InputError` for fading that
    does not fit the pass, for gates that overlap, and for more than `MAX_DETECTIONS`.
    """
    detector = downlink.detector
    eta = _transmittance(pass_, downlink, fading)
    _check_gates(detector, parameters)
    vacuum_yield = downlink.vacuum_yield_at(pass_.elevation_deg)
    background = background_probability(eta, vacuum_yield, parameters, detector)
    law = click_law(eta, background, downlink.misalignment, parameters, eavesdropper)
    pulses_per_slot = round(parameters.pulse_rate_hz * pass_.slot_s)
    pulses = rng.multinomial(pulses_per_slot, parameters.intensity_probabilities, size=len(eta))
    silent = np.maximum(1 - law.sum(axis=-1, keepdims=True), 0.0)  # rounding may pass 0
    counts = rng.multinomial(pulses, np.concatenate([law, silent], axis=-1))[..., :-1]

    expected = float(counts.sum()) / (1 - detector.afterpulse_probability)
    if expected > MAX_DETECTIONS:
        raise InputError(
            f"{downlink.name}: some {expected:.1e} detections in {pass_.duration_s:.0f} s are more than the "
            f"{MAX_DETECTIONS:.0e} that are simulated; take a shorter pass, more loss, fewer pulses"
        )

    shape = (2, len(BASES), len(parameters.intensities))
    outcomes = np.zeros((len(eta), *shape), np.int64)
    clicked, known = np.zeros_like(pulses), np.zeros((len(eta), len(BASES)), np.int64)
    lost, afterpulses = np.zeros(len(eta), np.int64), np.zeros(len(eta), np.int64)
    found = []
    blinded_basis = BASES.index(eavesdropper.blinded_basis)
    for slot, drawn in enumerate(counts):
        clicks = draw_clicks(rng, parameters, drawn, pulses_per_slot, blinded_basis)
        if detector.remembers:
            clicks, after = remember(rng, parameters, detector, clicks, pulses[slot])
            afterpulses[slot] = np.count_nonzero(after)
            lost[slot] = drawn.sum() - np.count_nonzero(~after)
        matched = clicks.matched
        wrong = clicks.sender_bit ^ clicks.receiver_bit
        outcome = (wrong * 2 + clicks.receiver_basis) * np.uint8(shape[-1]) + clicks.intensity
        outcomes[slot] = np.bincount(outcome[matched], minlength=prod(shape)).reshape(shape)
        clicked[slot] = np.bincount(clicks.intensity, minlength=shape[-1])
        known[slot] = np.bincount(clicks.receiver_basis[matched & clicks.known], minlength=2)
        found.append(replace(clicks, gate=slot * pulses_per_slot + clicks.gate))
        progress((slot + 1) / len(counts))

    sender, receiver = _records(found)
    return Detections(
        sender,
        receiver,
        pulses,
        clicked,
        outcomes.sum(axis=1),
        outcomes[:, 1],
        known,
        lost,
        afterpulses,
    )


def _transmittance(pass_: Pass, downlink: Downlink, fading: ArrayLike | None) -> FloatArray:
    """Probability that a photon clicks, shape (slots,)."""
    mean = downlink.transmittance(pass_.range_km, pass_.elevation_deg)
    if fading is None:
        return mean
    factors = np.asarray(fading, dtype=np.float64)
    if factors.shape != mean.shape:
        raise InputError(f"fading: {factors.shape} factors for a pass of {len(mean)} slots")
    if not (factors >= 0).all():
        raise InputError("fading: every factor must be 0 or more")
    return np.minimum(mean * factors, 1.0)


def _check_gates(detector: Detector, parameters: Bb84Parameters) -> None:
    period_s = 1 / parameters.pulse_rate_hz
    if detector.gate_s > period_s * (1 + 1e-9):
        raise InputError(
            f"detector: gate_s {detector.gate_s:g} is longer than the {period_s:g} s from pulse to "
            "pulse; the gates would overlap"
        )


def _records(found: Sequence[DrawnClicks]) -> tuple[SenderRecord, ReceiverRecord]:
    """What each end knows of the clicks of all slots. Both hold the same array of indices."""

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(clicks, name) for clicks in found])

    index = joined("gate")
    index.flags.writeable = False
    return (
        SenderRecord(index, joined("sender_basis"), joined("sender_bit"), joined("intensity")),
        ReceiverRecord(index, joined("receiver_basis"), joined("receiver_bit")),
    )
