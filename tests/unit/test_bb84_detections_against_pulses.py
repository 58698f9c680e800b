"""The law of the detections against a simulation that sends every pulse and follows every photon."""

from __future__ import annotations

import dataclasses
import heapq
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from quantum.bb84.detections import Detections, simulate
from quantum.bb84.eavesdropper import NOBODY, Eavesdropper
from quantum.bb84.source import Bb84Parameters
from quantum.detector import Detector
from quantum.optics import CalibratedDownlink
from topo.space.passes import Pass

P_MISMATCH = 1e-3
"""Chance that a test below fails by bad luck; the seeds are fixed."""

ETA, Y0, E_D = 0.04, 2e-3, 0.03
LINK = CalibratedDownlink(
    name="bright",
    reference_range_km=1.0,
    diffraction_dB=float(-10 * np.log10(ETA)),
    receiver_dB=0.0,
    pointing_dB=0.0,
    atmosphere_dB_per_airmass=0.0,
    residual_dB=0.0,
    noise_per_gate=Y0,
    misalignment=E_D,
)
PULSES = 400_000
SOURCE = Bb84Parameters(PULSES, (0.8, 0.3, 0.05), (0.4, 0.35, 0.25), basis_x_probability=0.7)
ONE_SLOT = Pass(np.zeros(1), np.full(1, 90.0), np.ones(1))
DEAD_GATES, TRAP_GATES = 40, 30
MEMORY = Detector(
    dead_time_s=DEAD_GATES / PULSES,
    afterpulse_probability=0.3,
    trap_lifetime_s=TRAP_GATES / PULSES,
)
"""At a click of a detector every 200 gates or so: a fifth of the clicks is lost."""


@dataclass
class Pulses:
    """Every pulse of a slot, and what the receiver made of it; arrays of shape (pulses,)."""

    intensity: Any
    sender_basis: Any
    sender_bit: Any
    receiver_basis: Any
    receiver_bit: Any
    clicked: Any
    known: Any
    lost: int = 0
    afterpulses: int = 0

    def table(self) -> np.ndarray:
        """How many clicked by intensity, bases, bits alike; and how many did not click."""
        code = (self.intensity * 2 + self.sender_basis) * 2 + self.receiver_basis
        code = code * 2 + (self.sender_bit ^ self.receiver_bit)
        counts = np.bincount(code[self.clicked], minlength=24)
        return np.append(counts, np.count_nonzero(~self.clicked))


def splitting_transmittance() -> float:
    """How well split photons must travel, from the sum over photon numbers."""
    mu = SOURCE.intensities[0]
    n = np.arange(2, 30)
    poisson = np.exp(-mu) * mu**n / np.array([float(factorial(i)) for i in n])

    def excess(forwarded: float) -> float:
        return float((poisson * (1 - (1 - forwarded) ** (n - 1))).sum() - (1 - np.exp(-ETA * mu)))

    return float(optimize.brentq(excess, 0, 1, xtol=1e-14))


def send_every_pulse(rng: np.random.Generator, eve: Eavesdropper) -> Pulses:
    """One slot, photon by photon, with detectors that forget."""

    def choice(probability: float) -> np.ndarray:
        return (rng.random(PULSES) < probability).astype(int)

    intensity = rng.choice(3, PULSES, p=SOURCE.intensity_probabilities)
    photons = rng.poisson(np.array(SOURCE.intensities)[intensity])
    sender_basis, receiver_basis = (choice(1 - SOURCE.basis_x_probability) for _ in range(2))
    sender_bit = choice(0.5)
    shares = (
        eve.intercept_resend_fraction,
        eve.photon_number_splitting_fraction,
        eve.blinding_fraction,
    )
    attack = rng.choice(4, PULSES, p=(1 - sum(shares), *shares))
    resent, split, blinded = (attack == number for number in (1, 2, 3))

    travelling = np.where(split, np.maximum(photons - 1, 0), photons)
    arriving = rng.binomial(travelling, np.where(split, splitting_transmittance(), ETA))
    eve_basis = choice(0.5)
    spoilt = (sender_basis != receiver_basis) | (resent & (eve_basis != sender_basis))
    astray = rng.binomial(arriving, np.where(spoilt, 0.5, E_D))
    fired = [np.where(sender_bit == bit, arriving - astray, astray) > 0 for bit in (0, 1)]
    noise, noise_bit = rng.random(PULSES) < Y0, choice(0.5)

    # The flashes of an attacker who blinds go to the detector of her outcome, in her basis only.
    arm = "XZ".index(eve.blinded_basis)
    share = SOURCE.basis_x_probability if arm == 0 else 1 - SOURCE.basis_x_probability
    flash = blinded & (arriving > 0) & (rng.random(PULSES) < share)
    outcome = np.where(sender_basis == arm, sender_bit, choice(0.5))
    noise &= ~(blinded & (receiver_basis == arm))
    receiver_basis = np.where(flash, arm, receiver_basis)
    for bit in (0, 1):
        fired[bit] = np.where(blinded, flash & (outcome == bit), fired[bit])
        fired[bit] |= noise & (noise_bit == bit)

    double = fired[0] & fired[1]
    clicked = fired[0] | fired[1]
    receiver_bit = np.where(double, choice(0.5), fired[1])
    by_photon = clicked & ~noise
    known = by_photon & ((resent & (eve_basis == sender_basis)) | split | blinded)
    return Pulses(intensity, sender_basis, sender_bit, receiver_basis, receiver_bit, clicked, known)


def with_memory(rng: np.random.Generator, sent: Pulses) -> Pulses:
    """The same before detectors with dead time and afterpulses, gate after gate."""
    clicked, receiver_basis = sent.clicked.copy(), sent.receiver_basis.copy()
    receiver_bit = sent.receiver_bit.copy()
    dead_until, due = [0] * 4, [(int(gate), -1) for gate in np.flatnonzero(sent.clicked)]
    lost = afterpulses = 0
    heapq.heapify(due)
    while due:
        gate, fires = heapq.heappop(due)
        if fires >= 0:
            if clicked[gate] or sent.clicked[gate]:
                continue
            clicked[gate], receiver_basis[gate], receiver_bit[gate] = True, fires // 2, fires % 2
            which = fires
            afterpulses += 1
        else:
            which = 2 * receiver_basis[gate] + receiver_bit[gate]
        if gate < dead_until[which]:
            clicked[gate] = False
            lost += fires < 0
            afterpulses -= fires >= 0
            continue
        dead_until[which] = gate + DEAD_GATES
        if rng.random() < MEMORY.afterpulse_probability:
            later = gate + DEAD_GATES + int(rng.exponential(TRAP_GATES))
            if later < PULSES:
                heapq.heappush(due, (later, which))
    return dataclasses.replace(
        sent,
        clicked=clicked,
        receiver_basis=receiver_basis,
        receiver_bit=receiver_bit,
        lost=lost,
        afterpulses=afterpulses,
    )


def detected_table(found: Detections) -> np.ndarray:
    """The same table from the detections."""
    code = (found.sender.intensity.astype(int) * 2 + found.sender.basis) * 2 + found.receiver.basis
    code = code * 2 + (found.sender.bit ^ found.receiver.bit)
    return np.append(np.bincount(code, minlength=24), PULSES - len(code))


def detect(seed: int, eve: Eavesdropper, detector: Detector) -> Detections:
    link = dataclasses.replace(LINK, detector=detector)
    return simulate(ONE_SLOT, link, SOURCE, np.random.default_rng(seed), eavesdropper=eve)


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Two-sample chi-square over the cells that hold enough for it."""
    full = ours + theirs >= 10
    result = stats.chi2_contingency(np.array([ours[full], theirs[full]]))
    assert result.pvalue > P_MISMATCH, np.array([ours, theirs]).T


def assert_rates_alike(ours: int, theirs: int) -> None:
    """Two Poisson counts of the same thing."""
    assert abs(ours - theirs) <= 4 * np.sqrt(ours + theirs)


ATTACKS = [
    NOBODY,
    Eavesdropper(intercept_resend_fraction=1.0),
    Eavesdropper(photon_number_splitting_fraction=1.0),
    Eavesdropper(blinding_fraction=1.0, blinded_basis="X"),
    Eavesdropper(0.2, 0.3, 0.4, "Z"),
]
SEEDS = 2


@pytest.mark.parametrize("eve", ATTACKS, ids=["nobody", "resend", "split", "blind", "all"])
def test_clicks_bits_and_bases(eve: Eavesdropper) -> None:
    sent = [send_every_pulse(np.random.default_rng(seed), eve) for seed in range(SEEDS)]
    found = [detect(100 + seed, eve, Detector()) for seed in range(SEEDS)]
    assert_alike(
        sum(detected_table(one) for one in found),  # type: ignore[arg-type]
        sum(one.table() for one in sent),  # type: ignore[arg-type]
    )
    known = sum(
        np.count_nonzero(one.known & (one.sender_basis == one.receiver_basis)) for one in sent
    )
    assert_rates_alike(sum(int(one.known.sum()) for one in found), known)
    assert (known == 0) == (eve == NOBODY)


def test_dead_time_and_afterpulses() -> None:
    rng = np.random.default_rng(7)
    sent = [with_memory(rng, send_every_pulse(rng, NOBODY)) for _ in range(SEEDS)]
    found = [detect(200 + seed, NOBODY, MEMORY) for seed in range(SEEDS)]
    assert_alike(
        sum(detected_table(one) for one in found),  # type: ignore[arg-type]
        sum(one.table() for one in sent),  # type: ignore[arg-type]
    )
    lost, afterpulses = sum(one.lost for one in sent), sum(one.afterpulses for one in sent)
    assert_rates_alike(sum(int(one.lost.sum()) for one in found), lost)
    assert_rates_alike(sum(int(one.afterpulses.sum()) for one in found), afterpulses)
    clicks = sum(len(one.receiver.bit) for one in found)
    assert lost > 0.15 * clicks and afterpulses > 0.2 * clicks

    # The gaps between clicks of one detector, where memory shows: dead, then crowded.
    ours = [
        gaps(one.receiver.pulse_index, one.receiver.basis * 2 + one.receiver.bit) for one in found
    ]
    theirs = [
        gaps(np.flatnonzero(one.clicked), (one.receiver_basis * 2 + one.receiver_bit)[one.clicked])
        for one in sent
    ]
    bins = np.append(np.arange(0, 200, 5), 1e9)
    histograms = [np.histogram(np.concatenate(each), bins)[0] for each in (ours, theirs)]
    assert_alike(*histograms)
    assert np.concatenate(ours).min() == np.concatenate(theirs).min() == DEAD_GATES


def gaps(gate: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.concatenate([np.diff(gate[which == each]) for each in range(4)])
