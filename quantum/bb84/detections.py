"""The quantum part of a pass, simulated at detection level: what both ends hold when it is over.

A pass at 625 MHz is 3e11 pulses of which a few million click. The clicks are drawn directly, and
the result has exactly the law of a pulse-by-pulse simulation: pulses of each intensity per slot are
multinomial, clicks among them binomial, clicked pulses a uniform subset of the slot, and which of
them carried which intensity is exchangeable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.source import Bb84Parameters
from quantum.optics import Downlink, click_probability, error_probability
from topo.errors import InputError
from topo.space.passes import Pass

Bits = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Eavesdropper:
    """What an attacker does to the pulses on their way."""

    intercept_resend_fraction: float = 0.0
    """Share p of pulses measured in a random basis and sent anew: adds p/4 to the QBER."""

    def __post_init__(self) -> None:
        if not 0 <= self.intercept_resend_fraction <= 1:
            raise InputError(
                f"intercept_resend_fraction {self.intercept_resend_fraction}: must lie in [0, 1]"
            )


NOBODY = Eavesdropper()


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
    """Both ends' records of a pass, and the tallies that only a simulation can see."""

    sender: SenderRecord
    receiver: ReceiverRecord
    pulses: Indices
    """Pulses sent, shape (slots, 3): by slot and intensity."""
    clicks: Indices
    """Pulses detected, shape (slots, 3)."""


def simulate(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    rng: np.random.Generator,
    *,
    eavesdropper: Eavesdropper = NOBODY,
    progress: Callable[[float], None] = lambda done: None,
) -> Detections:
    """Draw every detection of a pass, in time order, with both ends' bases and bits.

    `progress` hears the share done, slot by slot. Time and memory grow with detections, not pulses.
    """
    pulses_per_slot = round(parameters.pulse_rate_hz * pass_.slot_s)
    eta = downlink.transmittance(pass_.range_km, pass_.elevation_deg)[:, np.newaxis]
    mu = np.array(parameters.intensities)
    click = click_probability(eta, mu, downlink.vacuum_yield)
    wrong = error_probability(eta, mu, downlink.vacuum_yield, downlink.misalignment)
    qber = np.divide(wrong, click, out=np.full_like(click, 0.5), where=click > 0)
    # Half of what is intercepted is resent in the wrong basis, and is then a coin toss.
    qber += eavesdropper.intercept_resend_fraction / 2 * (0.5 - qber)

    pulses = rng.multinomial(
        pulses_per_slot, parameters.intensity_probabilities, size=len(pass_.t_s)
    )
    clicks = rng.binomial(pulses, click)

    pulse_index, intensity, flip_probability = [], [], []
    for slot, counts in enumerate(clicks):
        labels = np.repeat(np.arange(3, dtype=np.uint8), counts)
        rng.shuffle(labels)
        intensity.append(labels)
        flip_probability.append(qber[slot, labels])
        pulse_index.append(
            slot * pulses_per_slot + _random_subset(rng, pulses_per_slot, len(labels))
        )
        progress((slot + 1) / len(clicks))

    sender, receiver = _draw_bits(
        rng,
        parameters.basis_x_probability,
        np.concatenate(pulse_index),
        np.concatenate(intensity),
        np.concatenate(flip_probability),
    )
    return Detections(sender, receiver, pulses, clicks)


def _draw_bits(
    rng: np.random.Generator,
    basis_x_probability: float,
    pulse_index: Indices,
    intensity: Bits,
    flip_probability: NDArray[np.float64],
) -> tuple[SenderRecord, ReceiverRecord]:
    """Bases and bits of both ends for the given clicks."""
    n = len(pulse_index)
    sender_basis = (rng.random(n) >= basis_x_probability).astype(np.uint8)
    receiver_basis = (rng.random(n) >= basis_x_probability).astype(np.uint8)
    sender_bit = rng.integers(0, 2, n, np.uint8)
    flipped = sender_bit ^ (rng.random(n) < flip_probability)
    coin = rng.integers(0, 2, n, np.uint8)
    receiver_bit = np.where(sender_basis == receiver_basis, flipped, coin)
    return (
        SenderRecord(pulse_index, sender_basis, sender_bit, intensity),
        ReceiverRecord(pulse_index.copy(), receiver_basis, receiver_bit),
    )


def _random_subset(rng: np.random.Generator, population: int, size: int) -> Indices:
    """A uniformly random subset of range(population), ascending; quick when size << population."""
    subset = np.unique(rng.integers(0, population, size))
    while len(subset) < size:
        more = rng.integers(0, population, size - len(subset))
        subset = np.unique(np.concatenate([subset, more]))
    return subset
