"""Optics against published anchors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from quantum.optics import (
    JINAN1_CLEAR,
    JINAN1_TYPICAL,
    MICIUS_2017,
    PRESETS,
    airmass,
    click_probability,
    error_probability,
    preset,
)
from topo.errors import InputError


@pytest.mark.parametrize(
    ("elevation_deg", "expected"),
    [(90, 1.0), (60, 1.1547), (30, 1.994), (0, 37.92)],
)
def test_airmass_of_kasten_and_young(elevation_deg: float, expected: float) -> None:
    """The secant high up, 38 at the horizon where the secant fails."""
    assert float(airmass(elevation_deg)) == pytest.approx(expected, rel=2e-3)


def test_the_micius_loss_formula() -> None:
    range_km, x = np.array([645.0, 1200.0]), np.array([1.32, 2.9])
    np.testing.assert_allclose(
        MICIUS_2017.loss_dB(range_km, x),
        22 + 20 * np.log10(range_km / 1200) + 10.97 + 3.36 * x + 0.20,
    )


@pytest.mark.parametrize(
    ("range_km", "elevation_deg", "published_bit_s"), [(645, 49, 12e3), (1200, 20, 1e3)]
)
def test_the_micius_rates(range_km: float, elevation_deg: float, published_bit_s: float) -> None:
    """Sifted signal bits per second: Liao et al. (2017)."""
    eta = MICIUS_2017.transmittance(range_km, elevation_deg)
    rate = 100e6 * 0.5 * 0.5 * click_probability(eta, 0.8, MICIUS_2017.vacuum_yield)
    assert float(rate) == pytest.approx(published_bit_s, rel=0.1)


def test_the_jinan_zenith_losses() -> None:
    assert float(JINAN1_CLEAR.loss_dB(513, 1)) == pytest.approx(37.0)
    assert float(JINAN1_TYPICAL.loss_dB(513, 1)) == pytest.approx(38.9)
    assert float(JINAN1_TYPICAL.loss_dB(1026, 2)) == pytest.approx(38.9 + 6.0206 + 1.0)


def test_click_probability_against_lim_2014() -> None:
    """Lim's D_k: 10 % receiver, 100 km at 0.2 dB/km, two detectors of 6e-7, intensity 0.5."""
    anchor = click_probability(0.1 * 10 ** (-100 * 0.2 / 10), 0.5, 2 * 6e-7)
    assert float(anchor) == pytest.approx(5.010744e-4, rel=1e-6)


def test_the_vacuum_clicks_at_random() -> None:
    assert float(click_probability(1e-3, 0.0, 4e-7)) == pytest.approx(4e-7)
    assert float(error_probability(1e-3, 0.0, 4e-7, 0.01)) == pytest.approx(2e-7)


def test_a_click_is_never_more_than_certain() -> None:
    assert float(click_probability(1.0, 50.0, 0.5)) <= 1


def test_every_number_of_a_preset_says_where_it_comes_from() -> None:
    for link in PRESETS.values():
        numbers = {field.name for field in dataclasses.fields(link)} - {"name", "provenance"}
        assert set(link.provenance) == numbers
        for source in link.provenance.values():
            assert source.startswith(("published", "assumed", "fitted", "computed"))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="jinan1-clear, jinan1-typical, micius2017"):
        preset("jinan2")


@pytest.mark.parametrize(
    ("name", "value"), [("reference_range_km", 0), ("vacuum_yield", -1e-9), ("misalignment", 0.6)]
)
def test_impossible_downlinks_are_refused(name: str, value: float) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=name):
        dataclasses.replace(MICIUS_2017, **wrong)
