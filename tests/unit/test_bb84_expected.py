"""Expected counts against the simulation they are the means of, and the key computed from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantum.bb84 import source
from quantum.bb84.detections import simulate
from quantum.bb84.expected import (
    counts_at,
    cumulative_key_bits,
    expected_key,
    key_of,
    slot_counts,
)
from quantum.bb84.source import Bb84Parameters
from quantum.detector import IDEAL, Detector
from quantum.optics import preset
from topo.space.passes import Pass, circular_pass

LINK = preset("jinan1-clear")
BEIJING = circular_pass(511, 77.9, 10)
AT_CULMINATION = BEIJING.window(-5, 6)
BIASED = Bb84Parameters(625e6, (0.7, 0.12, 0.01), (0.8, 0.12, 0.08), basis_x_probability=0.85)


@pytest.mark.parametrize(
    "detector",
    [
        IDEAL,
        Detector(dead_time_s=2e-6),
        Detector(afterpulse_probability=0.05, dead_time_s=1e-7),
        Detector(afterpulse_probability=0.05, dead_time_s=2e-6, detectors=2),
        Detector(jitter_s=6e-10, gate_s=1e-9),
    ],
    ids=["ideal", "dead time", "afterpulses", "two detectors", "jitter"],
)
def test_the_simulation_scatters_about_what_is_expected(detector: Detector) -> None:
    """4 sigma of Poisson counts and, for detector memory's first order, 1 in 1000."""
    link = replace(LINK, detector=replace(detector, efficiency=0.5))
    expected = slot_counts(AT_CULMINATION, link, BIASED).summed(np.ones(12))
    seen = simulate(AT_CULMINATION, link, BIASED, np.random.default_rng(5))
    for name in ("clicks", "sifted", "errors"):
        mean = getattr(expected, name)[0]
        drawn = getattr(seen, name).sum(axis=0)
        assert mean.shape == drawn.shape
        assert np.abs(drawn - mean).max() > 0
        assert (np.abs(drawn - mean) < 4 * np.sqrt(mean) + 1e-3 * mean).all(), name


def test_a_sky_that_brightens_to_the_horizon_counts_there() -> None:
    flat = LINK.changed(sky_W_m2_sr_um=1e-3)
    steep = flat.changed(sky_airmass_exponent=2.0)
    even, low = (
        slot_counts(BEIJING, link, BIASED).errors.sum(axis=(1, 2)) for link in (flat, steep)
    )
    assert low[0] > 2 * even[0]
    middle = len(even) // 2
    assert low[middle] == pytest.approx(even[middle], rel=0.05)  # airmass squared is 1.046 there


def test_the_bases_share_the_clicks_as_their_bias_says() -> None:
    counts = slot_counts(BEIJING, LINK, BIASED)
    ideal = counts_at(LINK.transmittance(700.0, 45.0)[None], 1.0, BIASED, 1e-6, 0.01, IDEAL)
    in_x, in_z = ideal.sifted[0].sum(axis=-1)
    assert in_x / in_z == pytest.approx((0.85 / 0.15) ** 2)
    assert in_x + in_z == pytest.approx((0.85**2 + 0.15**2) * ideal.clicks.sum())
    assert counts.clicks.shape == (len(BEIJING.t_s), 3)
    assert counts.errors.shape == counts.sifted.shape == (len(BEIJING.t_s), 2, 3)


@pytest.mark.parametrize(("name", "Mbit"), [("jinan1-typical", 0.59), ("jinan1-clear", 1.07)])
def test_the_published_key_of_a_jinan_pass(name: str, Mbit: float) -> None:
    """arXiv:2408.10994 and Nature 640, 47 (2025); the zenith losses were fitted to these."""
    key = expected_key(BEIJING, preset(name), source.PRESETS[name])
    assert key.secret_bits == pytest.approx(Mbit * 1e6, rel=0.1)


def test_the_key_grows_as_one_block_and_ends_as_the_whole_pass() -> None:
    counts = slot_counts(BEIJING, LINK, source.JINAN1)
    key = cumulative_key_bits(counts, source.JINAN1)
    assert key[0] == 0
    assert key[-1] == pytest.approx(expected_key(BEIJING, LINK, source.JINAN1).secret_bits)
    # Seconds keyed one by one would pay for their statistics each: 448 of the best give less.
    best = key_of(counts, source.JINAN1, slot=int(np.argmax(counts.clicks[:, 0])))
    assert len(key) * best.secret_bits < 0.5 * key[-1]


def test_more_leakage_and_fewer_keyed_bases_are_less_key() -> None:
    one = expected_key(BEIJING, LINK, source.JINAN1, keyed=("X",))
    both = expected_key(BEIJING, LINK, source.JINAN1)
    leaky = expected_key(BEIJING, LINK, source.JINAN1, efficiency=1.5)
    assert both.secret_bits == pytest.approx(2 * one.secret_bits)
    assert leaky.secret_bits < both.secret_bits
    assert set(one.lengths) == {"X"}
    assert set(one.qber) == {"X", "Z"}


def test_a_link_that_lets_nothing_through_has_no_key() -> None:
    dark = counts_at(np.zeros(10), 1.0, source.JINAN1, 0.0, 0.01, IDEAL)
    key = key_of(dark.summed(np.ones(10)), source.JINAN1)
    assert key.secret_bits == 0
    assert key.qber == {"X": 0.5, "Z": 0.5}


def test_slots_used_in_part_count_in_part() -> None:
    counts = slot_counts(AT_CULMINATION, LINK, source.JINAN1)
    half = counts.summed(np.full(12, 0.5))
    assert half.sifted == pytest.approx(counts.sifted.sum(axis=0)[None] / 2)
    last = Pass(BEIJING.t_s[-1:], BEIJING.elevation_deg[-1:], BEIJING.range_km[-1:])
    only = slot_counts(BEIJING, LINK, source.JINAN1).summed(np.arange(len(BEIJING.t_s)) == 448)
    assert only.clicks == pytest.approx(slot_counts(last, LINK, source.JINAN1).clicks)
