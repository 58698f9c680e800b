"""Detections against the binomial law, the published pass and what detectors do to them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from quantum.bb84.detections import Detections, simulate
from quantum.bb84.eavesdropper import Eavesdropper
from quantum.bb84.source import JINAN1, MICIUS_2017, Bb84Parameters
from quantum.detector import gate_fraction, live_fraction
from quantum.optics import (
    JINAN1_TYPICAL,
    CalibratedDownlink,
    Downlink,
    click_probability,
    error_probability,
)
from quantum.optics import MICIUS_2017 as MICIUS_LINK
from topo.errors import InputError
from topo.space.passes import Pass, circular_pass

SECONDS = circular_pass(500, 49, 20).window(-2, 2)
P_MISMATCH = 1e-4
"""Chance that a statistical test below fails by bad luck; the seeds are fixed."""


PLAIN = CalibratedDownlink(
    name="plain",
    reference_range_km=645,
    diffraction_dB=30,
    receiver_dB=0,
    pointing_dB=0,
    atmosphere_dB_per_airmass=0,
    residual_dB=0,
    noise_per_gate=1e-6,
    misalignment=0.01,
)


def detect(seed: int, **changes: object) -> Detections:
    parameters = dataclasses.replace(MICIUS_2017, **changes)  # type: ignore[arg-type]
    return simulate(SECONDS, MICIUS_LINK, parameters, np.random.default_rng(seed))


def laws(pass_: Pass, link: Downlink, parameters: Bb84Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Click probability and QBER by slot and intensity, from the channel model."""
    eta = link.transmittance(pass_.range_km, pass_.elevation_deg)[:, None]
    mu = np.array(parameters.intensities)
    click = click_probability(eta, mu, link.vacuum_yield)
    wrong = error_probability(eta, mu, link.vacuum_yield, link.misalignment)
    return click, wrong / click


def test_counts_have_binomial_mean_and_variance() -> None:
    """200 seeds: by slot and intensity, the mean by a z-test, the variance by chi-square."""
    parameters = dataclasses.replace(MICIUS_2017, pulse_rate_hz=1e6)
    click, _ = laws(SECONDS, MICIUS_LINK, parameters)
    p = np.array(parameters.intensity_probabilities) * click
    seeds = 200
    counts = np.array(
        [
            simulate(SECONDS, MICIUS_LINK, parameters, np.random.default_rng(seed)).clicks
            for seed in range(seeds)
        ]
    )
    # In one slot the vacuum clicks too seldom for a normal approximation.
    mean, variance = 1e6 * p[:, :2], 1e6 * (p * (1 - p))[:, :2]
    bright = counts[..., :2]
    z = (bright.mean(axis=0) - mean) / np.sqrt(variance / seeds)
    assert (2 * stats.norm.sf(np.abs(z)) > P_MISMATCH).all()
    spread = ((bright - mean) ** 2).sum(axis=0) / variance
    assert (stats.chi2.sf(spread, seeds) > P_MISMATCH).all()
    assert (stats.chi2.cdf(spread, seeds) > P_MISMATCH).all()

    # Each intensity over all slots, the vacuum too.
    total = counts.sum(axis=1)
    mean, variance = 1e6 * p.sum(axis=0), 1e6 * (p * (1 - p)).sum(axis=0)
    spread = ((total - mean) ** 2 / variance).sum(axis=0)
    assert (stats.chi2.sf(spread, seeds) > P_MISMATCH).all()
    assert (stats.chi2.cdf(spread, seeds) > P_MISMATCH).all()


def test_every_pulse_of_a_slot_has_one_intensity() -> None:
    found = detect(1)
    assert (found.pulses.sum(axis=1) == 100_000_000).all()
    shares = found.pulses.sum(axis=0) / found.pulses.sum()
    np.testing.assert_allclose(shares, MICIUS_2017.intensity_probabilities, atol=1e-4)


def test_clicked_pulses_are_distinct_ordered_and_in_their_slot() -> None:
    found = detect(2)
    index = found.receiver.pulse_index
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(np.bincount(index // 100_000_000), found.clicks.sum(axis=1))
    inside = index % 100_000_000 / 1e8
    assert stats.kstest(inside, "uniform").pvalue > P_MISMATCH


def test_a_slot_may_click_on_most_of_its_pulses() -> None:
    bright = dataclasses.replace(PLAIN, noise_per_gate=0.9)
    parameters = dataclasses.replace(MICIUS_2017, pulse_rate_hz=1000)
    found = simulate(SECONDS, bright, parameters, np.random.default_rng(3))
    assert (np.diff(found.receiver.pulse_index) > 0).all()
    assert len(found.receiver.bit) == pytest.approx(4500, abs=100)


@pytest.mark.parametrize("stolen", [0.0, 0.2, 1.0])
def test_qber_by_intensity_and_intercept_resend(stolen: float) -> None:
    """Intercepting a share p of the pulses adds p/4, less what was random already."""
    found = simulate(
        SECONDS,
        JINAN1_TYPICAL,
        JINAN1,
        np.random.default_rng(4),
        eavesdropper=Eavesdropper(stolen),
    )
    _, qber = laws(SECONDS, JINAN1_TYPICAL, JINAN1)
    alice, bob = found.sender, found.receiver
    matched = alice.basis == bob.basis
    for k in range(3):
        these = matched & (alice.intensity == k)
        expected = np.average(qber[:, k], weights=found.clicks[:, k])
        if k < 2:  # vacuum clicks have no photon to steal
            expected += stolen / 2 * (0.5 - expected)
        errors = np.mean(alice.bit[these] != bob.bit[these])
        assert abs(errors - expected) < 4 * np.sqrt(expected * (1 - expected) / these.sum())
    differ = np.mean(alice.bit[~matched] != bob.bit[~matched])
    assert differ == pytest.approx(0.5, abs=2 / np.sqrt((~matched).sum()))


def test_biased_bases() -> None:
    found = detect(5, basis_x_probability=0.9)
    for end in (found.sender, found.receiver):
        n = len(end.basis)
        assert np.mean(end.basis == 0) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / n))


def test_intensities_are_mixed_within_a_slot() -> None:
    """Neighbours carry independent intensities: the key's order says nothing of them."""
    labels = detect(6).sender.intensity
    signal = (labels == 0).astype(float)
    lag1 = np.corrcoef(signal[:-1], signal[1:])[0, 1]
    assert abs(lag1) < 4 / np.sqrt(len(signal))


@pytest.fixture(scope="module")
def micius() -> Detections:
    pass_ = circular_pass(500, 49, 20)
    return simulate(pass_, MICIUS_LINK, MICIUS_2017, np.random.default_rng(2016))


def test_the_micius_pass_of_2016(micius: Detections) -> None:
    """Liao et al., Nature 549, 43 (2017), 273 s; sifted bits are those of the signal state."""
    signal = micius.sifted[..., 0].sum(axis=1)
    assert len(micius.receiver.bit) == pytest.approx(3_551_136, rel=0.05)
    assert signal.sum() == pytest.approx(1_671_072, rel=0.05)
    assert micius.errors[..., 0].sum() / signal.sum() == pytest.approx(0.011, abs=0.002)
    range_km = circular_pass(500, 49, 20).range_km
    assert signal[range_km < 650].mean() == pytest.approx(12e3, rel=0.15)
    assert signal[range_km > 1180].mean() == pytest.approx(1e3, rel=0.15)


def test_tallies_agree_with_the_records(micius: Detections) -> None:
    slot = micius.receiver.pulse_index // 100_000_000
    basis, intensity = micius.sender.basis.astype(int), micius.sender.intensity
    matched = basis == micius.receiver.basis
    wrong = matched & (micius.sender.bit != micius.receiver.bit)
    cell = (slot * 2 + basis) * 3 + intensity
    for tally, which in ((micius.sifted, matched), (micius.errors, wrong)):
        np.testing.assert_array_equal(tally.ravel(), np.bincount(cell[which], minlength=tally.size))
    np.testing.assert_array_equal(
        micius.clicks.ravel(), np.bincount(slot * 3 + intensity, minlength=micius.clicks.size)
    )
    assert not micius.known.any()


def test_both_bits_and_both_ends_are_fair(micius: Detections) -> None:
    for bits in (micius.sender.bit, micius.receiver.bit, micius.receiver.basis):
        assert np.mean(bits) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(bits)))


def bright(**detector: float) -> tuple[Downlink, Bb84Parameters]:
    """500 clicks per millisecond at 1 GHz, most of them of the signal."""
    link = PLAIN.changed(**detector)
    return link, dataclasses.replace(MICIUS_2017, pulse_rate_hz=1e9)


MILLISECONDS = Pass(np.arange(50) * 1e-3, np.full(50, 90.0), np.full(50, 645.0), slot_s=1e-3)


def test_dead_time_takes_the_known_share() -> None:
    """r' = r / (1 + r tau), at one click in ten lost."""
    found = simulate(MILLISECONDS, *bright(dead_time_s=1e-6), np.random.default_rng(10))
    would = len(found.receiver.bit) + found.lost.sum()
    rate_hz = would / 0.05 / 4
    link, _ = bright(dead_time_s=1e-6)
    live = float(live_fraction(link.detector, rate_hz))
    assert 0.85 < live < 0.95
    share = len(found.receiver.bit) / would
    assert share == pytest.approx(live, abs=4 * np.sqrt(live * (1 - live) / would))
    which = found.receiver.basis * 2 + found.receiver.bit
    for each in range(4):
        # A thousand gates, but for the slots' ends, over which nothing is remembered.
        index = found.receiver.pulse_index[which == each]
        same_slot = np.diff(index // 1_000_000) == 0
        assert np.diff(index)[same_slot].min() >= 1000


def test_dead_time_of_two_detectors_spares_no_basis() -> None:
    found = simulate(
        MILLISECONDS, *bright(dead_time_s=1e-6, detectors=2), np.random.default_rng(11)
    )
    would = len(found.receiver.bit) + found.lost.sum()
    live = 1 / (1 + would / 0.05 / 2 * 1e-6)
    assert len(found.receiver.bit) / would == pytest.approx(live, abs=0.01)


def test_afterpulses_are_as_many_as_said_and_wrong_half_the_time() -> None:
    """p (1 + p + p^2 ...) for every click; their errors are those of coins."""
    clean = simulate(MILLISECONDS, *bright(), np.random.default_rng(12))
    found = simulate(MILLISECONDS, *bright(afterpulse_probability=0.2), np.random.default_rng(13))
    primary = len(found.receiver.bit) - found.afterpulses.sum()
    assert primary == pytest.approx(len(clean.receiver.bit), abs=5 * np.sqrt(2 * primary))
    assert found.afterpulses.sum() / primary == pytest.approx(0.25, abs=0.02)
    qber = found.errors.sum() / found.sifted.sum()
    before = clean.errors.sum() / clean.sifted.sum()
    assert qber == pytest.approx(before + (0.5 - before) * 0.2, abs=0.01)
    # They meet pulses of all intensities alike, unlike photons.
    more = found.clicks.sum(axis=0) - clean.clicks.sum(axis=0)
    assert more[2] == pytest.approx(0.25 * found.afterpulses.sum(), rel=0.15)


def test_every_gate_may_click_before_detectors_that_remember() -> None:
    link = dataclasses.replace(PLAIN, noise_per_gate=1 - 1e-12).changed(
        dead_time_s=8e-9, afterpulse_probability=0.5
    )
    found = simulate(
        Pass(np.zeros(1), np.full(1, 90.0), np.full(1, 645.0), slot_s=2e-6),
        link,
        dataclasses.replace(MICIUS_2017, pulse_rate_hz=1e9),
        np.random.default_rng(16),
    )
    assert found.clicks.sum() + found.lost.sum() == 2_000
    assert found.afterpulses.sum() == 0
    # A renewal: blind for seven gates after a click, then on average four until the next.
    assert found.clicks.sum() == pytest.approx(4 * 2_000 / 11, rel=0.05)


def test_jitter_leaks_into_the_gates_beside() -> None:
    """In the vacuum's gates only background and what leaked click."""
    link, source = bright(jitter_s=0.4e-9, gate_s=1e-9)
    pass_ = dataclasses.replace(MILLISECONDS, slot_s=10e-3)
    found = simulate(pass_, link, source, np.random.default_rng(14))
    # Neighbouring gates touch here: all that misses its gate is in another.
    missed = 1 - gate_fraction(link.detector)
    assert missed == pytest.approx(0.2113, abs=1e-4)
    mean_photons = 0.5 * 0.8 + 0.25 * 0.1
    expected = 1e-6 + 1e-3 * mean_photons * missed / (1 - missed)
    vacuum = found.clicks[:, 2].sum() / found.pulses[:, 2].sum()
    assert vacuum == pytest.approx(expected, abs=4 * np.sqrt(expected / found.pulses[:, 2].sum()))
    errors, sifted = found.errors[..., 2].sum(), found.sifted[..., 2].sum()
    assert errors / sifted == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(sifted))


def test_gates_that_overlap_are_refused() -> None:
    link, source = bright(gate_s=2e-9)
    with pytest.raises(InputError, match="gate_s 2e-09 is longer than the 1e-09 s"):
        simulate(MILLISECONDS, link, source, np.random.default_rng(1))


def test_more_detections_than_memory_holds_are_refused() -> None:
    """Before they are drawn."""
    link = JINAN1_TYPICAL.changed(residual_dB=JINAN1_TYPICAL.residual_dB - 30)
    with pytest.raises(InputError, match="detections in 449 s are more than the 1e"):
        simulate(circular_pass(511, 77.9, 10), link, JINAN1, np.random.default_rng(1))


def test_fading_scales_each_slot() -> None:
    factors = np.array([0.0, 1.0, 2.0, 0.5, 1.0])
    found = simulate(SECONDS, MICIUS_LINK, MICIUS_2017, np.random.default_rng(15), fading=factors)
    click, _ = laws(SECONDS, MICIUS_LINK, MICIUS_2017)
    expected = factors * (click[:, 0] - MICIUS_LINK.vacuum_yield) + MICIUS_LINK.vacuum_yield
    expected *= found.pulses[:, 0]
    assert (np.abs(found.clicks[:, 0] - expected) < 4 * np.sqrt(expected) + 4).all()


@pytest.mark.parametrize("fading", [[1.0], [1, 1, -1, 1, 1], [1, 1, float("nan"), 1, 1]])
def test_fading_that_does_not_fit_is_refused(fading: list[float]) -> None:
    with pytest.raises(InputError, match="fading"):
        simulate(SECONDS, MICIUS_LINK, MICIUS_2017, np.random.default_rng(1), fading=fading)


def test_progress_hears_every_slot() -> None:
    heard: list[float] = []
    simulate(SECONDS, PLAIN, MICIUS_2017, np.random.default_rng(1), progress=heard.append)
    assert heard == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_seed_repeats_its_detections() -> None:
    one, again, other = detect(7), detect(7), detect(8)
    np.testing.assert_array_equal(one.receiver.bit, again.receiver.bit)
    np.testing.assert_array_equal(one.sender.pulse_index, again.sender.pulse_index)
    assert not np.array_equal(one.clicks, other.clicks)
