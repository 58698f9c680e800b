"""Diffraction against SatQuMA, and against closed forms.

github.com/cnqo-qcomms/SatQuMA, commit f2b9229 (2025-06-20), MIT licence: the diffraction term of
four of its simulated passes, at six ranges each. SatQuMA integrates numerically by other means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quantum.beam import (
    Beam,
    gaussian_radius_m,
    gaussian_share,
    mean_pointing,
    offset_pointing,
    optimal_truncation,
)
from topo.errors import InputError

SATQUMA = {
    # wavelength, transmitter diameter, waist, receiver diameter: {range in km: share caught}
    "overhead": (
        Beam(810, 0.30, 0.15),
        1.2,
        {
            500.0: 0.368667574,
            642.3956: 0.241496121,
            948.7276: 0.118261875,
            1307.832: 0.06391304,
            1685.4323: 0.0389401573,
            2070.4243: 0.0259610587,
        },
    ),
    "30 degrees": (
        Beam(810, 0.30, 0.15),
        1.2,
        {
            909.4249: 0.128068986,
            982.8576: 0.110613868,
            1175.7682: 0.0785230682,
            1440.482: 0.0529590797,
            1743.9809: 0.0364124263,
            2075.0248: 0.0258474289,
        },
    ),
    "like Micius": (
        Beam(850, 0.30, 0.0365),
        1.0,
        {
            654.0426: 0.0210472128,
            764.3727: 0.0154536029,
            1026.2489: 0.00860275235,
            1353.8298: 0.00495235541,
            1708.9407: 0.00311090829,
            2076.574: 0.00210797092,
        },
    ),
    "like Jinan-1": (
        Beam(850, 0.20, 0.0365),
        0.28,
        {
            510.3327: 0.00273248124,
            650.4554: 0.0016828934,
            954.1729: 0.000782406751,
            1311.7506: 0.000414060671,
            1688.4349: 0.000249938654,
            2072.8277: 0.000165841753,
        },
    ),
}


@pytest.mark.parametrize("name", SATQUMA)
def test_diffraction(name: str) -> None:
    """To 1e-6; the printed ranges allow no better."""
    beam, receiver_m, published = SATQUMA[name]
    caught = beam.collected(list(published), receiver_m)
    np.testing.assert_allclose(caught, list(published.values()), rtol=1e-6)


def test_a_waist_far_inside_the_aperture_is_a_gaussian_beam() -> None:
    """theta = lambda/(pi w0), and 1 - exp(-2 a^2/w^2) with w = theta L."""
    beam = Beam(850, 0.4, 0.03)
    assert beam.divergence_urad == pytest.approx(0.850 / (np.pi * 0.03), rel=1e-9)
    assert beam.launched == pytest.approx(1.0)
    distance_km = np.array([100.0, 500.0, 2000.0])
    w_m = gaussian_radius_m(distance_km, beam.divergence_urad)
    np.testing.assert_allclose(
        beam.collected(distance_km, 3.0), gaussian_share(3.0, w_m), rtol=1e-8
    )


def test_near_the_telescope_a_gaussian_beam_is_as_wide_as_its_waist() -> None:
    assert float(gaussian_radius_m(0.0, 10.0, 0.05)) == 0.05
    assert float(gaussian_radius_m(5.0, 10.0, 0.12)) == pytest.approx(0.13)


def test_a_truncated_beam_spreads_wider_and_sends_less() -> None:
    """Waist as wide as the aperture: 1 - exp(-2) of the power leaves."""
    narrow, wide = Beam(850, 0.3, 0.15), Beam(850, 3.0, 0.15)
    assert narrow.launched == pytest.approx(1 - np.exp(-2))
    assert narrow.divergence_urad > wide.divergence_urad
    assert narrow.collected(1000, 0.5) < wide.collected(1000, 0.5)


@pytest.mark.parametrize("obscuration", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("waist_m", [0.1, 0.2, 5.0])
def test_what_a_wide_receiver_misses_are_the_rings_of_the_edges(
    obscuration: float, waist_m: float
) -> None:
    """1 - F(u) -> (4 alpha^2/pi u T) [exp(-2 alpha^2) + gamma exp(-2 gamma^2 alpha^2)].

    From the asymptote of J1; 2/(pi u) for the Airy pattern.
    """
    beam = Beam(850, 0.3, waist_m, obscuration)
    alpha, gamma = beam.truncation, obscuration
    edges = np.exp(-2 * alpha**2) + gamma * np.exp(-2 * (gamma * alpha) ** 2)
    for u in (50.0, 200.0):
        receiver_m = 2 * u * 1e6 * 850e-9 / (np.pi * 0.3)
        missed = 1 - float(beam.collected(1000, receiver_m))
        expected = 4 * alpha**2 / (np.pi * u * beam.launched) * edges
        assert missed == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("obscuration", "gain"), [(0, 0.8145), (0.2, 0.7088), (0.3, 0.5971)])
def test_the_gain_of_klein_and_degnan(obscuration: float, gain: float) -> None:
    """g_T = (2/alpha^2) [exp(-alpha^2) - exp(-gamma^2 alpha^2)]^2 at the optimal truncation."""
    alpha = optimal_truncation(obscuration)
    beam = Beam(1550, 0.3, 0.15 / alpha, obscuration)
    transmitter_m2, receiver_m2 = np.pi * 0.15**2, np.pi * 0.5**2
    unit = transmitter_m2 * receiver_m2 / (1550e-9 * 700e3) ** 2
    measured = float(beam.launched * beam.collected_on_axis(700, 1.0)) / unit
    assert measured == pytest.approx(gain, abs=6e-5)
    for other in (0.8 * alpha, 1.2 * alpha):
        worse = replace(beam, waist_m=0.15 / other)
        assert float(worse.launched * worse.collected_on_axis(700, 1.0)) / unit < measured


def test_klein_and_degnan_at_four_ranges() -> None:
    """30 cm to 1 m at 1550 nm, optimally truncated: computed elsewhere from their equation."""
    beam = Beam(1550, 0.3, 0.15 / 1.12)
    on_axis = beam.launched * beam.collected_on_axis([500, 700, 1000, 2000], 1.0)
    np.testing.assert_allclose(on_axis, [0.07528784, 0.03841217, 0.01882196, 0.00470549], rtol=1e-6)
    far = beam.collected(20_000, 1.0) / beam.collected_on_axis(20_000, 1.0)
    assert float(far) == pytest.approx(1, abs=1e-4)


def test_a_secondary_mirror_shades_its_share_of_the_receiver() -> None:
    beam = Beam(850, 0.3, 0.1)
    full, ring = beam.collected(1200, 1.0), beam.collected(1200, 1.0, 0.3)
    assert float(ring / full) == pytest.approx(1 - 0.3**2, rel=1e-2)
    assert float(full - ring) == pytest.approx(float(beam.collected(1200, 0.3)), rel=1e-9)


def test_beam_quality_widens_the_far_field() -> None:
    """M^2 = 2 at half the range is M^2 = 1 at the whole of it."""
    beam = Beam(850, 0.3, 0.1)
    wide = beam.with_divergence(2 * beam.divergence_urad)
    assert wide.quality == pytest.approx(2)
    assert float(wide.collected(600, 1.0)) == pytest.approx(float(beam.collected(1200, 1.0)))


def test_pointing() -> None:
    """The mean over jitter is that of the offset's loss; the offset's value from elsewhere."""
    assert float(offset_pointing(3.683906, 1.0)) == pytest.approx(0.8629735, rel=1e-6)
    assert mean_pointing(7.0, 0.0) == 1
    rng = np.random.default_rng(1)
    offset_urad = np.hypot(*rng.normal(0, 1.6, (2, 200_000)))
    sampled = offset_pointing(5.0, offset_urad)
    error = sampled.std() / np.sqrt(len(sampled))
    assert mean_pointing(5.0, 1.6) == pytest.approx(sampled.mean(), abs=4 * error)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"wavelength_nm": 0}, "wavelength_nm"),
        ({"aperture_m": -0.3}, "aperture_m"),
        ({"waist_m": float("nan")}, "waist_m"),
        ({"obscuration": 1.0}, "obscuration"),
        ({"quality": 0.9}, "quality"),
    ],
)
def test_impossible_beams_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        replace(Beam(850, 0.3, 0.1), **wrong)


def test_impossible_uses_of_a_beam_are_refused() -> None:
    beam = Beam(850, 0.3, 0.1)
    with pytest.raises(InputError, match="diffraction limit"):
        beam.with_divergence(1.0)
    with pytest.raises(InputError, match="range_km"):
        beam.collected([500.0, 0.0], 1.0)
    with pytest.raises(InputError, match="far field"):
        beam.collected(0.1, 1.0)
    with pytest.raises(InputError, match="obscuration"):
        optimal_truncation(0.5)
