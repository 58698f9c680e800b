"""From how many pulses clicked to the clicks themselves: when, in which bases, with which bits."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from quantum.bb84.click_law import KNOWN, WRONG, Kind
from quantum.bb84.detector_memory import register
from quantum.bb84.source import Bb84Parameters
from quantum.detector import Detector

Bits = NDArray[np.uint8]
Indices = NDArray[np.int64]


_INTENSITY, _KIND = np.array(np.divmod(np.arange(256), len(Kind)), np.uint8)
"""What a label stands for that numbers kinds within intensities; quicker than a division."""


@dataclass(frozen=True, eq=False)
class DrawnClicks:
    """Clicks in time order, as only a simulation sees them; arrays of shape (clicks,)."""

    gate: Indices
    """Ascending."""
    intensity: Bits
    sender_basis: Bits
    sender_bit: Bits
    receiver_basis: Bits
    receiver_bit: Bits
    known: NDArray[np.bool_]
    """Whether the eavesdropper knows the sender's bit once the bases are announced."""

    def at(self, index: Indices) -> DrawnClicks:
        """Copies of some of them."""
        return DrawnClicks(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Which were sent and measured in the same basis."""
        return np.equal(self.sender_basis, self.receiver_basis)


def draw_clicks(
    rng: np.random.Generator,
    parameters: Bb84Parameters,
    counts: Indices,
    gates: int,
    blinded_basis: int,
) -> DrawnClicks:
    """Clicks in a stretch of `gates` gates, given how many there are.

    `counts` by intensity and `Kind`, shape (K, kinds). Without detector memory yet.
    """
    n = int(counts.sum())
    label = np.repeat(np.arange(counts.size, dtype=np.uint8), counts.ravel())
    gate, label = _placed(rng, gates, label)
    intensity, kind = _INTENSITY.take(label), _KIND.take(label)
    sender_basis, receiver_basis = (_bases(rng, parameters, n) for _ in range(2))
    if counts[:, Kind.TRIGGERED :].any():
        receiver_basis[kind == Kind.TRIGGERED] = blinded_basis
        receiver_basis[kind > Kind.TRIGGERED] = 1 - blinded_basis
    coins = rng.integers(0, 4, n, np.uint8)
    sender_bit = coins & np.uint8(1)
    differs = np.where(sender_basis == receiver_basis, WRONG[kind], coins >> 1)
    return DrawnClicks(
        gate, intensity, sender_basis, sender_bit, receiver_basis, sender_bit ^ differs, KNOWN[kind]
    )


def remember(
    rng: np.random.Generator,
    parameters: Bb84Parameters,
    detector: Detector,
    clicks: DrawnClicks,
    pulses: Indices,
) -> tuple[DrawnClicks, NDArray[np.bool_]]:
    """What detectors with dead time and afterpulses make of clicks, and which are afterpulses.

    `pulses` sent in the stretch by intensity, shape (K,). An afterpulse repeats the basis and bit
    of its detector against a pulse that did not click by itself, and so is right half the time.
    """
    by_basis = detector.detectors == 4
    written = register(
        rng,
        detector,
        parameters.pulse_rate_hz,
        gates=int(pulses.sum()),
        gate=clicks.gate,
        which=clicks.receiver_bit + by_basis * 2 * clicks.receiver_basis,
    )
    after = written.afterpulse
    made = replace(clicks.at(written.origin), gate=written.gate)
    n = int(np.count_nonzero(after))
    silent = pulses - np.bincount(clicks.intensity, minlength=len(pulses))
    share = silent / max(silent.sum(), 1)
    made.intensity[after] = rng.choice(len(share), n, p=share) if n else 0
    made.sender_basis[after] = _bases(rng, parameters, n)
    made.sender_bit[after] = rng.integers(0, 2, n, np.uint8)
    made.known[after] = False
    if not by_basis:
        made.receiver_basis[after] = _bases(rng, parameters, n)
    return made, after


def _placed(rng: np.random.Generator, gates: int, label: Bits) -> tuple[Indices, Bits]:
    """Puts every label into a gate of its own, uniformly; gates in order and the label in each.

    One number holds gate and label, so that one sort orders both.
    """
    entry = np.sort(rng.integers(0, gates, len(label)) << 8 | label)
    while (taken := np.diff(entry >> 8) == 0).any():
        # Of several labels in one gate the first stays, the others draw again.
        again = entry[1:][taken] & 0xFF | rng.integers(0, gates, np.count_nonzero(taken)) << 8
        entry = np.sort(np.concatenate([entry[:1], entry[1:][~taken], again]))
    return entry >> 8, entry.astype(np.uint8)


def _bases(rng: np.random.Generator, parameters: Bb84Parameters, n: int) -> Bits:
    """n choices of basis, as indices into `BASES`."""
    return (rng.random(n) >= parameters.basis_x_probability).view(np.uint8)
