"""What a pass will bring before it is flown: expected counts, and the key they would make.

The means of what `quantum.bb84.detections` draws, nobody listening. Counts are sums of
probabilities over pulses and slots, detector memory to first order in its effect. The finite key is
that of the mean counts. Keys of simulated passes scatter about it without bias: by 1 % for a full
Jinan-1 pass, by 2 % once its source is optimised, for then a few dozen errors of decoys in the
rarer basis bound the phase error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.bb84.click_law import WRONG, background_probability, click_law
from quantum.bb84.eavesdropper import NOBODY
from quantum.bb84.finite_key import BasisCounts, KeyLength, secret_key_length
from quantum.bb84.leakage import EFFICIENCY, efficiency_leakage_bits
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.detector import Detector, live_fraction
from quantum.optics import Downlink
from topo.space.passes import Pass

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SlotCounts:
    """Expected counts by slot, and by basis and intensity where the shape says so."""

    clicks: FloatArray
    """Detections, shape (slots, K)."""
    sifted: FloatArray
    """Of these, in the same basis at both ends; shape (slots, 2, K)."""
    errors: FloatArray
    """Of the sifted, with different bits; shape (slots, 2, K)."""

    def summed(self, used: ArrayLike) -> SlotCounts:
        """Sums over slots, each taken as far as it is used; `used` has shape (slots,) or (n, slots).

        The result has one slot, or n.
        """
        share = np.atleast_2d(np.asarray(used, dtype=np.float64))
        return SlotCounts(*(np.tensordot(share, of, 1) for of in self._all))

    def where(self, used: NDArray[np.bool_]) -> SlotCounts:
        """The same in used slots, 0 elsewhere; `used` has shape (slots,)."""
        clicks, sifted, errors = self._all
        return SlotCounts(
            clicks * used[:, None], sifted * used[:, None, None], errors * used[:, None, None]
        )

    def cumulated(self) -> SlotCounts:
        """Sums over all slots up to each."""
        return SlotCounts(*(of.cumsum(axis=0) for of in self._all))

    def of_block(self, slot: int) -> dict[str, BasisCounts]:
        """n_k and m_k of one slot by basis, as the key length takes them."""
        return {
            basis: BasisCounts(self.sifted[slot, index], self.errors[slot, index])
            for index, basis in enumerate(BASES)
        }

    @property
    def _all(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.clicks, self.sifted, self.errors


@dataclass(frozen=True)
class ExpectedKey:
    """The finite key of a pass's expected counts."""

    sifted_bits: Mapping[str, float]
    """By basis."""
    qber: Mapping[str, float]
    """By basis, over all intensities; 1/2 where nothing is sifted."""
    lengths: Mapping[str, KeyLength]
    """By keyed basis."""

    @property
    def secret_bits(self) -> float:
        """Secret bits of all keyed bases, before rounding down; a basis without key costs none."""
        return sum(max(0.0, length.bits) for length in self.lengths.values())


def slot_counts(pass_: Pass, downlink: Downlink, parameters: Bb84Parameters) -> SlotCounts:
    """Expected counts of every slot of a pass."""
    eta = downlink.transmittance(pass_.range_km, pass_.elevation_deg)
    return counts_at(
        eta,
        pass_.slot_s,
        parameters,
        downlink.vacuum_yield_at(pass_.elevation_deg),
        downlink.misalignment,
        downlink.detector,
    )


def counts_at(  # noqa: PLR0917 (what a link is, in the order light meets it)
    transmittance: ArrayLike,
    slot_s: float,
    parameters: Bb84Parameters,
    vacuum_yield: ArrayLike,
    misalignment: float,
    detector: Detector,
) -> SlotCounts:
    """Expected counts of slots at given transmittances and vacuum yields, shape (slots,) each.

    One vacuum yield serves all slots.
    """
    eta = np.asarray(transmittance, dtype=np.float64)
    background = background_probability(eta, vacuum_yield, parameters, detector)
    law = click_law(eta, background, misalignment, parameters, NOBODY)
    pulses = parameters.pulse_rate_hz * slot_s * np.array(parameters.intensity_probabilities)
    clicks = pulses * law.sum(axis=-1)
    wrong = pulses * (law @ WRONG)
    share = np.array([parameters.basis_x_probability, 1 - parameters.basis_x_probability])
    live, after = _memory(clicks.sum(axis=-1), share, slot_s, detector)
    # Shapes (slots, 2, K): by receiver's basis and intensity.
    by_basis = share[:, np.newaxis] * clicks[:, np.newaxis] * live[..., np.newaxis]
    wrong_by_basis = share[:, np.newaxis] * wrong[:, np.newaxis] * live[..., np.newaxis]
    # An afterpulse meets whatever pulse comes by, and its bit says nothing of that pulse's.
    stray = after[..., np.newaxis] * np.array(parameters.intensity_probabilities)
    agree = share[:, np.newaxis]
    return SlotCounts(
        (by_basis + stray).sum(axis=1),
        agree * (by_basis + stray),
        agree * (wrong_by_basis + stray / 2),
    )


def _memory(
    clicks: FloatArray, share: FloatArray, slot_s: float, detector: Detector
) -> tuple[FloatArray, FloatArray]:
    """Share of clicks that find their detector live, and afterpulses; shape (slots, 2), by basis.

    `clicks` of an ideal receiver have shape (slots,), `share` falls to each basis. A click has
    p + p^2 + ... = p / (1 - p) afterpulses after it.
    """
    per_click = detector.afterpulse_probability / (1 - detector.afterpulse_probability)
    by_basis = clicks[:, np.newaxis] * share
    # With two detectors every basis is seen by the same pair.
    at_a_pair = by_basis if detector.detectors == 4 else clicks[:, np.newaxis] * np.ones(2)
    live = live_fraction(detector, (1 + per_click) * at_a_pair / 2 / slot_s)
    return live, per_click * live * by_basis


def key_of(
    counts: SlotCounts,
    parameters: Bb84Parameters,
    *,
    slot: int = 0,
    efficiency: float = EFFICIENCY,
    keyed: Sequence[str] = BASES,
) -> ExpectedKey:
    """The finite key of the expected counts of one slot (sum over slots first), from `keyed` bases.

    A basis that is not keyed still bounds the other's phase error.
    """
    block = counts.of_block(slot)
    other = dict(zip(BASES, reversed(BASES), strict=True))
    total = {basis: float(of.detections.sum()) for basis, of in block.items()}
    qber = {
        basis: float(of.errors.sum()) / total[basis] if total[basis] else 0.5
        for basis, of in block.items()
    }
    lengths = {
        basis: secret_key_length(
            block[basis],
            block[other[basis]],
            parameters,
            efficiency_leakage_bits(total[basis], qber[basis], efficiency),
        )
        for basis in keyed
    }
    return ExpectedKey(total, qber, lengths)


def expected_key(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    *,
    efficiency: float = EFFICIENCY,
    keyed: Sequence[str] = BASES,
) -> ExpectedKey:
    """The finite key that a pass is expected to yield."""
    counts = slot_counts(pass_, downlink, parameters).summed(np.ones(len(pass_.t_s)))
    return key_of(counts, parameters, efficiency=efficiency, keyed=keyed)


def cumulative_key_bits(
    counts: SlotCounts, parameters: Bb84Parameters, *, efficiency: float = EFFICIENCY
) -> FloatArray:
    """Secret bits had the pass ended with each slot, shape (slots,).

    The block is all of the pass up to there, not a sum over seconds: finite statistics forbid that.
    """
    so_far = counts.cumulated()
    return np.array(
        [
            key_of(so_far, parameters, slot=slot, efficiency=efficiency).secret_bits
            for slot in range(len(so_far.clicks))
        ]
    )
