"""Downlinks: presets against published anchors, and the physics of changing one thing."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quantum.background import sky_radiance
from quantum.beam import Beam
from quantum.detector import Detector
from quantum.downlink import SET_BY_HAND
from quantum.optics import (
    JINAN1_CLEAR,
    JINAN1_TYPICAL,
    MICIUS_2017,
    PRESETS,
    CalibratedDownlink,
    Downlink,
    PhysicalDownlink,
    airmass,
    click_probability,
    error_probability,
    preset,
)
from topo.errors import InputError
from topo.space.passes import circular_pass

BUDGET = CalibratedDownlink(
    name="budget",
    reference_range_km=1200.0,
    diffraction_dB=22.0,
    receiver_dB=10.97,
    pointing_dB=0.0,
    atmosphere_dB_per_airmass=3.36,
    residual_dB=0.20,
    noise_per_gate=1e-6,
    misalignment=0.0085,
)
"""Micius as two fitted numbers and a published budget: an independent model of the same pass."""


def loss_dB(link: Downlink, range_km: float = 600.0, elevation_deg: float = 60.0) -> float:
    return float(link.loss_dB(range_km, airmass(elevation_deg)))


# Presets


def test_the_micius_loss_over_its_pass() -> None:
    """22 + 20 log10(L/1200 km) + 10.97 + 3.36 X + 0.20, which the published rates demand."""
    xinglong = circular_pass(500, 49, 20)
    x = airmass(xinglong.elevation_deg)
    np.testing.assert_allclose(
        MICIUS_2017.loss_dB(xinglong.range_km, x),
        22 + 20 * np.log10(xinglong.range_km / 1200) + 10.97 + 3.36 * x + 0.20,
        atol=0.02,
    )


@pytest.mark.parametrize(
    ("range_km", "elevation_deg", "published_bit_s"), [(645, 49, 12e3), (1200, 20, 1e3)]
)
def test_the_micius_rates(range_km: float, elevation_deg: float, published_bit_s: float) -> None:
    """Sifted signal bits per second: Liao et al. (2017)."""
    eta = MICIUS_2017.transmittance(range_km, elevation_deg)
    rate = 100e6 * 0.5 * 0.5 * click_probability(eta, 0.8, MICIUS_2017.vacuum_yield)
    assert float(rate) == pytest.approx(published_bit_s, rel=0.1)


def test_the_terms_of_micius_are_the_published_ones() -> None:
    """22 dB of diffraction at 1200 km, pointing below 3 dB, 3 to 8 dB of air, 16 % and 50 %."""
    terms = {name: float(term) for name, term in MICIUS_2017.loss_terms_dB(1200, 20).items()}
    assert terms["diffraction"] == pytest.approx(22, abs=0.1)
    assert 0 < terms["pointing"] < 3
    assert 3 < terms["atmosphere"] < 8
    assert terms["optics"] + terms["detector"] == pytest.approx(10.97, abs=0.01)
    assert terms["gate"] < 0.01
    assert 0 <= terms["residual"] < 5


def test_the_jinan_zenith_losses() -> None:
    assert float(JINAN1_CLEAR.loss_dB(513, 1)) == pytest.approx(37.0, abs=0.01)
    assert float(JINAN1_TYPICAL.loss_dB(513, 1)) == pytest.approx(38.9, abs=0.01)
    assert float(JINAN1_TYPICAL.loss_dB(1026, 2)) == pytest.approx(38.9 + 6.0206 + 1.0, abs=0.03)


@pytest.mark.parametrize(
    ("name", "vacuum_yield"),
    [("micius2017", 1e-6), ("jinan1-clear", 4e-7), ("jinan1-typical", 4e-7)],
)
def test_the_noise_of_a_preset_adds_up(name: str, vacuum_yield: float) -> None:
    link = preset(name)
    terms = link.noise_terms()
    assert link.vacuum_yield == pytest.approx(vacuum_yield, rel=1e-3)
    assert sum(float(term) for term in terms.values()) == pytest.approx(vacuum_yield, rel=1e-3)
    assert float(terms["dark"]) == pytest.approx(4 * 25 * link.detector.gate_s, rel=1e-6)
    assert min(float(term) for term in terms.values()) > 0


def test_every_number_of_a_preset_says_where_it_comes_from() -> None:
    known = ("published", "reported", "assumed", "fitted", "computed")
    for link in PRESETS.values():
        assert isinstance(link, PhysicalDownlink)
        numbers = {field.name for field in dataclasses.fields(link)}
        numbers -= {"name", "provenance", "beam", "detector"}
        numbers |= {f"beam.{field.name}" for field in dataclasses.fields(Beam)}
        numbers |= {f"detector.{field.name}" for field in dataclasses.fields(Detector)}
        assert set(link.provenance) == numbers
        for source in link.provenance.values():
            assert source.startswith(known)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="jinan1-clear, jinan1-typical, micius2017"):
        preset("jinan2")


# Losses along a pass


def test_a_link_that_makes_light_is_refused() -> None:
    link = MICIUS_2017.changed(residual_dB=-40)
    with pytest.raises(InputError, match=r"a loss of -\d+\.\d dB is a gain"):
        link.transmittance([2000.0, 500.0], [10.0, 90.0])


@pytest.mark.parametrize("link", [*PRESETS.values(), BUDGET], ids=lambda link: str(link.name))
def test_the_terms_add_up_along_a_pass(link: Downlink) -> None:
    beijing = circular_pass(511, 77.9, 10)
    terms = link.loss_terms_dB(beijing.range_km, beijing.elevation_deg)
    total = sum(terms.values())
    assert all(term.shape == beijing.range_km.shape for term in terms.values())
    np.testing.assert_allclose(
        10 ** (-total / 10), link.transmittance(beijing.range_km, beijing.elevation_deg)
    )
    assert np.argmin(total) == np.argmax(beijing.elevation_deg)


def test_arguments_broadcast() -> None:
    ranges, elevations = np.array([[500.0], [1000.0]]), np.array([30.0, 60.0, 90.0])
    assert MICIUS_2017.transmittance(ranges, elevations).shape == (2, 3)
    assert {term.shape for term in BUDGET.loss_terms_dB(ranges, elevations).values()} == {(2, 3)}
    assert MICIUS_2017.transmittance(500, 90).shape == ()


# One thing changed


def test_a_telescope_twice_as_wide_gains_6_dB_and_sees_4_times_the_sky() -> None:
    wide = JINAN1_CLEAR.changed(receiver_m=0.56)
    assert loss_dB(JINAN1_CLEAR) - loss_dB(wide) == pytest.approx(6.02, abs=0.05)
    assert float(wide.sky_rate_hz()) == pytest.approx(4 * float(JINAN1_CLEAR.sky_rate_hz()))


def test_a_telescope_wider_than_the_beam_gains_no_more() -> None:
    narrow = MICIUS_2017.changed(receiver_m=20.0)
    assert float(narrow.loss_terms_dB(500, 60)["diffraction"]) < 0.1
    assert loss_dB(narrow, 500) - loss_dB(narrow.changed(receiver_m=40.0), 500) < 0.1


def test_a_beam_twice_as_wide_costs_6_dB_and_points_more_easily() -> None:
    wide = JINAN1_CLEAR.changed(divergence_urad=10.0)
    assert wide.divergence_urad == pytest.approx(10.0)
    before, after = (link.loss_terms_dB(600, 60) for link in (JINAN1_CLEAR, wide))
    assert float(after["diffraction"] - before["diffraction"]) == pytest.approx(6.02, abs=0.05)
    assert after["pointing"] < before["pointing"]
    assert after["residual"] == before["residual"]


def test_the_wavelength_moves_diffraction_scintillation_and_photons() -> None:
    """Twice the wavelength: a beam twice as wide, and twice the photons in a watt of sky."""
    infrared = JINAN1_CLEAR.changed(wavelength_nm=1700.0)
    assert infrared.divergence_urad == pytest.approx(2 * JINAN1_CLEAR.divergence_urad)
    assert float(infrared.sky_rate_hz() / JINAN1_CLEAR.sky_rate_hz()) == pytest.approx(2)
    before, after = (link.loss_terms_dB(600, 60) for link in (JINAN1_CLEAR, infrared))
    assert float(after["diffraction"] - before["diffraction"]) == pytest.approx(6.02, abs=0.05)


def test_jitter_costs_its_mean() -> None:
    """w^2/(w^2 + 4 sigma^2 L^2): half the light at sigma = theta/2."""
    link = JINAN1_CLEAR.changed(jitter_urad=JINAN1_CLEAR.divergence_urad / 2)
    assert float(link.loss_terms_dB(600, 60)["pointing"]) == pytest.approx(3.0103, abs=1e-4)
    steady = JINAN1_CLEAR.changed(jitter_urad=0.0)
    assert float(steady.loss_terms_dB(600, 60)["pointing"]) == 0


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"field_of_view_urad": 50.0}, 1 / 4),
        ({"filter_nm": 1.0}, 1 / 5),
        ({"gate_s": 0.5e-9}, 1 / 2),
        ({"sky_W_m2_sr_um": sky_radiance("moon")}, 10),
        ({"optics_efficiency": 0.125}, 1 / 2),
        ({"receiver_obscuration": 0.5}, 3 / 4),
    ],
)
def test_what_the_sky_gives_a_gate(change: dict[str, float], factor: float) -> None:
    before, after = (
        float(link.noise_terms()["sky"]) for link in (JINAN1_CLEAR, JINAN1_CLEAR.changed(**change))
    )
    assert after == pytest.approx(factor * before, rel=1e-4)


def test_a_short_gate_is_quieter_and_loses_what_jitters_out_of_it() -> None:
    short = JINAN1_CLEAR.changed(gate_s=0.25e-9)
    assert short.vacuum_yield == pytest.approx(JINAN1_CLEAR.vacuum_yield / 4, rel=1e-4)
    lost = short.loss_terms_dB(600, 60)["gate"] - JINAN1_CLEAR.loss_terms_dB(600, 60)["gate"]
    assert float(lost) > 1


def test_daylight_drowns_the_signal() -> None:
    day = JINAN1_CLEAR.changed(sky_W_m2_sr_um=sky_radiance("day"))
    signal = day.transmittance(513, 90) * 0.8
    assert day.vacuum_yield > float(signal)


def test_a_sky_brighter_to_the_horizon() -> None:
    link = JINAN1_CLEAR.changed(sky_airmass_exponent=1.0)
    high, low = link.noise_terms([90.0, 30.0])["sky"]
    assert low / high == pytest.approx(float(airmass(30)), rel=1e-3)
    assert link.vacuum_yield_at([90.0, 30.0])[1] > link.vacuum_yield
    np.testing.assert_array_equal(
        JINAN1_CLEAR.vacuum_yield_at([90.0, 30.0]), JINAN1_CLEAR.vacuum_yield
    )


def test_what_was_changed_says_so() -> None:
    link = MICIUS_2017.changed(receiver_m=0.5, gate_s=1e-9, divergence_urad=9.0)
    by_hand = {name for name, source in link.provenance.items() if source == SET_BY_HAND}
    assert by_hand == {"receiver_m", "detector.gate_s", "beam.quality"}
    assert MICIUS_2017.detector.gate_s == 2e-9


def test_a_part_can_be_changed_as_a_whole() -> None:
    link = MICIUS_2017.changed(detector=Detector(efficiency=1.0), gate_s=3e-9)
    assert link.detector == Detector(efficiency=1.0, gate_s=3e-9)
    assert link == replace(MICIUS_2017, detector=link.detector)
    of_detector = {name for name in link.provenance if name.startswith("detector")}
    assert of_detector == {"detector", "detector.gate_s"}


def test_a_given_noise_sets_the_rest_beyond_dark_and_sky() -> None:
    noisy = JINAN1_CLEAR.changed(vacuum_yield=1e-6, gate_s=0.5e-9)
    assert noisy.vacuum_yield == pytest.approx(1e-6, rel=1e-9)
    assert float(noisy.noise_terms()["dark"]) == pytest.approx(5e-8, rel=1e-6)
    with pytest.raises(InputError, match="dark counts and sky alone"):
        JINAN1_CLEAR.changed(vacuum_yield=1e-7)
    assert BUDGET.changed(vacuum_yield=2e-6).vacuum_yield == pytest.approx(2e-6, rel=1e-9)


def test_an_unknown_change_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no reciever_m; it has .*divergence_urad.*receiver_m"):
        MICIUS_2017.changed(reciever_m=1.0)


# Fading


def test_fading_grows_to_the_horizon_and_with_a_smaller_telescope() -> None:
    rng = np.random.default_rng(11)

    def spread(link: Downlink, elevation_deg: float) -> float:
        return float(link.fading(np.full(2000, elevation_deg), 1.0, rng).std())

    steady = JINAN1_CLEAR.changed(jitter_urad=0.0)
    assert spread(steady, 15) > 3 * spread(steady, 75)
    assert spread(steady, 30) > 3 * spread(steady.changed(receiver_m=1.0), 30)
    assert spread(JINAN1_CLEAR, 75) > 2 * spread(steady, 75)
    assert spread(BUDGET, 15) == 0


def test_fading_does_not_change_the_mean() -> None:
    factors = JINAN1_CLEAR.fading(np.full(4000, 40.0), 1.0, np.random.default_rng(12))
    assert factors.shape == (4000,)
    assert factors.mean() == pytest.approx(1, abs=4 * factors.std() / np.sqrt(4000))


# A link budget in dB


def test_a_calibrated_link_is_its_budget() -> None:
    range_km, x = np.array([645.0, 1200.0]), np.array([1.32, 2.9])
    np.testing.assert_allclose(
        BUDGET.loss_dB(range_km, x), 22 + 20 * np.log10(range_km / 1200) + 10.97 + 3.36 * x + 0.20
    )
    assert BUDGET.vacuum_yield == pytest.approx(1e-6, rel=1e-9)
    assert loss_dB(BUDGET.changed(receiver_dB=8.0)) == pytest.approx(loss_dB(BUDGET) - 2.97)


# Probabilities


def test_click_probability_against_lim_2014() -> None:
    """Lim's D_k: 10 % receiver, 100 km at 0.2 dB/km, two detectors of 6e-7, intensity 0.5."""
    anchor = click_probability(0.1 * 10 ** (-100 * 0.2 / 10), 0.5, 2 * 6e-7)
    assert float(anchor) == pytest.approx(5.010744e-4, rel=1e-6)


def test_the_vacuum_clicks_at_random() -> None:
    assert float(click_probability(1e-3, 0.0, 4e-7)) == pytest.approx(4e-7)
    assert float(error_probability(1e-3, 0.0, 4e-7, 0.01)) == pytest.approx(2e-7)
    clicks = click_probability(1e-3, 0.0, np.array([1e-7, 4e-7]))
    np.testing.assert_allclose(clicks, [1e-7, 4e-7])


def test_a_click_is_never_more_than_certain() -> None:
    assert float(click_probability(1.0, 50.0, 0.5)) <= 1


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("receiver_m", 0.0),
        ("optics_efficiency", 1.2),
        ("misalignment", 0.6),
        ("extinction_dB_per_airmass", -1.0),
        ("jitter_urad", float("nan")),
        ("receiver_obscuration", 1.0),
        ("field_of_view_urad", 0.0),
        ("filter_nm", -5.0),
        ("sky_W_m2_sr_um", -1e-5),
        ("fading_correlation_s", 0.0),
        ("residual_noise_hz", -1.0),
        ("efficiency", 0.0),
        ("gate_s", 0.0),
        ("wavelength_nm", -850.0),
        ("divergence_urad", 1.0),
    ],
)
def test_impossible_downlinks_are_refused(name: str, value: float) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=name):
        MICIUS_2017.changed(**wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reference_range_km", 0),
        ("noise_per_gate", -1e-9),
        ("receiver_dB", -1),
        ("misalignment", 1),
    ],
)
def test_impossible_budgets_are_refused(name: str, value: float) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=name):
        replace(BUDGET, **wrong)


@pytest.mark.parametrize("link", [MICIUS_2017, BUDGET], ids=["physical", "calibrated"])
def test_impossible_geometry_is_refused(link: Downlink) -> None:
    with pytest.raises(InputError, match="below the horizon"):
        link.transmittance(1200, -5)
    with pytest.raises(InputError, match="range_km"):
        link.transmittance(0, 45)
