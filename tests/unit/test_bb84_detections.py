"""Detections against the law of a pulse-by-pulse simulation; sifting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from quantum.bb84 import sifting
from quantum.bb84.detections import Detections, Eavesdropper, simulate
from quantum.bb84.source import JINAN1, MICIUS_2017, Bb84Parameters
from quantum.optics import JINAN1_TYPICAL, Downlink, click_probability, error_probability
from quantum.optics import MICIUS_2017 as MICIUS_LINK
from topo.errors import InputError, ProtocolError
from topo.space.passes import Pass, circular_pass

SECONDS = circular_pass(500, 49, 20).window(-2, 2)
P_MISMATCH = 1e-4
"""Chance that a statistical test below fails by bad luck; the seeds are fixed."""


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
    )[..., :2]  # the vacuum clicks too seldom at this rate for a normal approximation
    mean, variance = 1e6 * p[:, :2], 1e6 * (p * (1 - p))[:, :2]
    z = (counts.mean(axis=0) - mean) / np.sqrt(variance / seeds)
    assert (2 * stats.norm.sf(np.abs(z)) > P_MISMATCH).all()
    spread = ((counts - mean) ** 2).sum(axis=0) / variance
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
    bright = dataclasses.replace(MICIUS_LINK, vacuum_yield=0.9)
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


def test_sifting_keeps_what_both_measured_alike() -> None:
    found = detect(7)
    said = sifting.announce(found.receiver)
    reply = sifting.reply(found.sender, said)
    alice, bob = (sifting.raw_keys(end, reply) for end in (found.sender, found.receiver))
    matched = found.sender.basis == found.receiver.basis
    assert sum(len(key.bits) for key in bob.values()) == matched.sum()
    for index, basis in enumerate("XZ"):
        mine = matched & (found.sender.basis == index)
        np.testing.assert_array_equal(alice[basis].bits, found.sender.bit[mine])
        np.testing.assert_array_equal(bob[basis].bits, found.receiver.bit[mine])
        np.testing.assert_array_equal(bob[basis].intensity, found.sender.intensity[mine])
        assert bob[basis].counts.sum() == mine.sum()


def test_announcing_a_click_costs_near_its_entropy() -> None:
    """Rice coding of clicks of probability p: at most 4 % above h(p)/p bits each."""
    found = detect(8)
    said = sifting.announce(found.receiver)
    p = len(said.basis) / 5e8
    entropy = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)) / p
    assert entropy < said.size_bits / len(said.basis) - 1 < 1.04 * entropy


def test_a_reply_that_does_not_fit_is_refused() -> None:
    found = detect(9)
    said = sifting.announce(found.receiver)
    reply = sifting.reply(found.sender, said)
    elsewhere = dataclasses.replace(said, pulse_index=said.pulse_index + 1)
    with pytest.raises(ProtocolError, match="not sent"):
        sifting.reply(found.sender, elsewhere)
    more = dataclasses.replace(reply, kept=np.ones_like(reply.kept))
    with pytest.raises(ProtocolError, match="does not fit"):
        sifting.raw_keys(found.receiver, more)
    odd = dataclasses.replace(reply, intensity=reply.intensity + np.uint8(1))
    with pytest.raises(ProtocolError, match="does not exist"):
        sifting.raw_keys(found.receiver, odd)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intensities", (0.1, 0.8, 0.0)),
        ("intensities", (0.8, 0.1, 0.1)),
        ("intensities", (0.8, 0.5, 0.4)),
        ("intensities", (0.8, 0.1, -0.1)),
        ("intensity_probabilities", (0.5, 0.25, 0.2)),
        ("intensity_probabilities", (1.0, 0.0, 0.0)),
        ("basis_x_probability", 1.0),
        ("pulse_rate_hz", 0.0),
        ("eps_secrecy", 0.0),
        ("max_qber", 0.0),
        ("bound", "guess"),
    ],
)
def test_impossible_parameters_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        dataclasses.replace(MICIUS_2017, **{name: value})  # type: ignore[arg-type]


def test_an_eavesdropper_takes_no_more_than_everything() -> None:
    with pytest.raises(InputError, match="intercept_resend_fraction"):
        Eavesdropper(1.1)
