"""Equations of the repeater links: published identities, and vectors of an independent trial of the same model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from quantum.beam import gaussian_share
from quantum.repeaters import links
from quantum.repeaters.links import (
    atmosphere_efficiency,
    best_ground_chain,
    bsm_werner,
    car_one_sided,
    car_paper,
    chain_probability,
    chain_werner,
    cloud_transmittance,
    downlink_efficiency,
    fibre_efficiency,
    fidelity,
    free_space_flat,
    free_space_gaussian,
    geometric_efficiency,
    ground_chain,
    ground_probability,
    ground_werner,
    optimal_truncation,
    pointing_efficiency,
    qber,
    secret_fraction,
    secret_key_rate_bit_s,
    sky_radiance,
    space_link,
    space_probability,
    space_werner,
    spatial_filter_efficiency,
    split_distance_km,
    station_werners,
    stray_probability,
    stray_rate_hz,
    werner_of_fidelity,
)
from quantum.repeaters.parameters import LABEL, Parameters
from topo.errors import InputError

P = Parameters()


def with_werner(werner: float, **changes: Any) -> Parameters:
    return P.changed(source_werner=werner, memory_werner=werner, **changes)


def test_ground_links_of_the_trial() -> None:
    probability = ground_probability([50, 100, 150, 200], P)
    assert probability == pytest.approx([0.810000, 0.7960035, 0.2697931, 0.03215021], rel=5e-7)
    assert ground_werner(P) == pytest.approx(0.96059601, abs=1e-12)
    assert secret_fraction(ground_werner(P), P) == pytest.approx(0.69810966, abs=5e-9)


def test_best_fibre_chains_of_the_trial() -> None:
    chain = best_ground_chain([100, 155, 300, 500], P)
    assert chain.segments.tolist() == [1, 2, 3, 4]
    assert chain.skp == pytest.approx([0.5556977, 0.1608452, 0.04039692, 2.573229e-3], rel=5e-7)
    assert chain.probability[1] == pytest.approx(0.3280432, rel=5e-7)
    assert chain.label == LABEL


def test_satellite_links_of_the_trial() -> None:
    assert space_werner(1, 1, P) == pytest.approx(0.95099005, abs=5e-9)
    assert secret_fraction(space_werner(1, 1, P), P) == pytest.approx(0.64135959, abs=5e-9)
    zenith = downlink_efficiency(700, 90, 23, 0, P)
    assert space_probability(zenith, zenith, P) == pytest.approx(0.1335057, rel=5e-7)


@pytest.mark.parametrize(
    ("range_km", "elevation_deg", "efficiency"),
    [
        (868.4, 51.46, 2.0124e-2),
        (993.6, 41.70, 1.5190e-2),
        (1486.8, 22.33, 6.3896e-3),
        (1076.0, 37.00, 1.2845e-2),
        (1837.8, 14.93, 3.9139e-3),
    ],
)
def test_downlinks_of_the_trial(range_km: float, elevation_deg: float, efficiency: float) -> None:
    # To the digits of range and elevation.
    assert downlink_efficiency(range_km, elevation_deg, 23, 0, P) == pytest.approx(
        efficiency, rel=3e-4
    )


def test_telescope_of_the_trial() -> None:
    assert P.beam.waist_m == pytest.approx(0.1339286, abs=5e-8)
    assert P.divergence_urad == pytest.approx(3.683906, abs=5e-7)
    assert pointing_efficiency(P) == pytest.approx(0.8629735, abs=5e-8)
    collected = geometric_efficiency([500, 700, 1000, 2000], P)
    assert collected == pytest.approx([0.07528784, 0.03841217, 0.01882196, 0.004705490], rel=5e-7)


def test_air_of_the_trial() -> None:
    through = atmosphere_efficiency([90, 45, 30], [23, 10, 5], [0, 0.5, 0.9], P)
    assert through == pytest.approx([0.9483086, 0.4207213, 0.05619538], rel=5e-7)


def test_stray_light_of_the_trial() -> None:
    assert P.filter_nm == pytest.approx(0.0801, abs=5e-5)
    assert P.window_s == 100e-12
    radiance = sky_radiance(100, P)
    assert radiance == pytest.approx(5.285372, rel=5e-7)
    assert stray_rate_hz(radiance, P) == pytest.approx(5.096746e6, rel=5e-7)
    assert stray_probability(stray_rate_hz(radiance, P), P) == pytest.approx(5.1e-4, abs=5e-6)


def test_on_axis_efficiency_is_a_gaussian_beam_times_its_truncation() -> None:
    # [D_r^2/(2 theta^2 l^2)] [exp(-a^2) - exp(-g^2 a^2)]^2 with theta = lambda a/(pi D_t/2), an identity.
    for gamma in (0.0, 0.2, 0.4):
        p = P.changed(transmitter_obscuration=gamma)
        a = optimal_truncation(gamma)
        theta = 1550e-9 * a / (np.pi * 0.15)
        clipped = (np.exp(-(a**2)) - np.exp(-((gamma * a) ** 2))) ** 2
        expected = 1 / (2 * theta**2 * 1000e3**2) * clipped
        assert geometric_efficiency(1000, p) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("gamma", "gain"), [(0.0, 0.8145), (0.2, 0.7088), (0.3, 0.5971), (0.4, 0.4694)]
)
def test_transmitter_gain_of_klein_and_degnan(gamma: float, gain: float) -> None:
    p = P.changed(transmitter_obscuration=gamma)
    apertures_m2 = np.pi * 0.15**2 * np.pi * 0.5**2
    reference = apertures_m2 / (1550e-9 * 1000e3) ** 2
    assert geometric_efficiency(1000, p) / reference == pytest.approx(gain, abs=5e-5)


def test_receiver_obscuration_takes_its_area() -> None:
    shaded = geometric_efficiency(1000, P.changed(receiver_obscuration=0.3))
    assert shaded == pytest.approx(0.91 * geometric_efficiency(1000, P))


def test_generic_free_space_channel() -> None:
    assert free_space_flat([100, 1000], 10, 1.0) == pytest.approx([0.25, 0.0025])
    assert free_space_flat(10, 10, 1.0) == 1
    assert free_space_gaussian(1e4, 10, 1.0) == pytest.approx(1 / (2 * 0.1**2 * 1e6), rel=1e-3)
    assert free_space_gaussian(1000, 10, 1.0) == gaussian_share(1.0, 10.0)


def test_fibre_loses_its_decibels() -> None:
    assert fibre_efficiency([0, 50, 100], P) == pytest.approx([1, 0.1, 0.01])
    assert fibre_efficiency(50, P.changed(detour=1.2)) == pytest.approx(10**-1.2)


def test_werner_states() -> None:
    assert fidelity([0, 0.5, 1]) == pytest.approx([0.25, 0.625, 1])
    werner = np.linspace(0, 1, 11)
    assert werner_of_fidelity(fidelity(werner)) == pytest.approx(werner)
    assert qber([1, 0.9]) == pytest.approx([0, 0.05])


@pytest.mark.parametrize(("inefficiency", "limit"), [(1.16, 0.80379), (1.0, 0.77994)])
def test_key_ends_at_the_published_werner_parameter(inefficiency: float, limit: float) -> None:
    p = P.changed(correction_inefficiency=inefficiency)
    assert secret_fraction(limit - 1e-5, p) == 0
    assert 0 < secret_fraction(limit + 1e-5, p) < 1e-3
    assert secret_fraction(1.0, p) == 1
    assert secret_fraction(-0.5, p) == 0  # worse than random is no key either


def test_secret_fraction_has_its_switches() -> None:
    full = secret_fraction(0.95, P)
    assert secret_fraction(0.95, P.changed(sifting=0.5)) == pytest.approx(full / 2)
    # 1 - f h(Q) with h(0.025) = 0.168661 bits.
    correction = secret_fraction(0.95, P.changed(secret_fraction="correction_only"))
    assert correction == pytest.approx(1 - 1.16 * 0.168661, abs=1e-6)
    assert full == pytest.approx(1 - 2.16 * 0.168661, abs=2e-6)
    assert secret_key_rate_bit_s(0.1, P) == 1e9


def test_chain_joins_links_with_swaps() -> None:
    assert chain_probability([0.5, 0.4, 0.3], P) == pytest.approx(0.5**2 * 0.06)
    assert chain_probability([0.7], P) == pytest.approx(0.7)
    assert chain_werner([0.9, 0.8], P.changed(bsm_werner=0.95)) == pytest.approx(0.684)
    three = ground_chain(300, 3, P)
    assert three.probability == pytest.approx(
        chain_probability([ground_probability(100, P)] * 3, P)
    )
    assert three.werner == pytest.approx(ground_werner(P) ** 3)


def test_many_modes_and_few_photons_keep_their_digits() -> None:
    # (1 - 1e-20)^1000 is 1 in floating point; the probability is 1000 x 1e-20 nevertheless.
    p = P.changed(memory_efficiency=1.0, source_efficiency=1.0, bsm_efficiency=1.0)
    assert ground_probability(1000, p) == pytest.approx(1000 * 1e-20, rel=1e-9)
    perfect = p.changed(modes=1.0)
    assert ground_probability(0, perfect) == 1


def test_sources_outside_the_attempts_count_once() -> None:
    inside, outside = P, P.changed(source_in_attempt="outside")
    far = 400.0  # one mode of many succeeds at most: both are the same there
    assert ground_probability(far, outside) == pytest.approx(
        ground_probability(far, inside), rel=1e-4
    )
    assert ground_probability(0, inside) == pytest.approx(0.81)
    assert ground_probability(0, outside) == pytest.approx(0.81 * 0.81)
    assert space_probability(1, 1, outside) == pytest.approx(0.81 * 0.9**3)


@pytest.mark.parametrize(
    ("changes", "split_km"),
    [
        ({}, 155),
        ({"werner": 0.995}, 150),
        ({"werner": 1.0}, 145),
        ({"werner": 0.98}, 171),
        ({"modes": 2000}, 170),
        ({"modes": 5000}, 190),
        ({"bsm_efficiency": 0.9}, 151),
        ({"memory_efficiency": 0.7}, 167),
        ({"memory_efficiency": 0.95}, 152),
        ({"fibre_dB_km": 0.17}, 182),
        ({"fibre_dB_km": 0.25}, 124),
        ({"modes": 500}, 140),
        ({"modes": 100, "bsm_efficiency": 0.9}, 101),
    ],
)
def test_fibre_splits_in_two_where_the_trial_has_it(
    changes: dict[str, float], split_km: float
) -> None:
    numbers = dict(changes)
    p = with_werner(numbers.pop("werner", 0.99)).changed(**numbers)
    distance = np.arange(50, 400, 0.25)
    first = distance[np.argmax(best_ground_chain(distance, p).segments > 1)]
    assert first == pytest.approx(split_km, abs=1.0)
    assert split_distance_km(p) == pytest.approx(first, abs=2.0)


def test_three_segments_from_276_km() -> None:
    distance = np.arange(200, 400, 0.25)
    first = distance[np.argmax(best_ground_chain(distance, P).segments > 2)]
    assert first == pytest.approx(276, abs=1)


def test_more_than_five_segments_are_never_taken_with_the_default_fidelity() -> None:
    assert best_ground_chain(np.linspace(0, 3000, 301), P).segments.max() == 5
    assert best_ground_chain(3000.0, with_werner(1.0)).segments > 5


def test_one_mode_never_splits() -> None:
    p = P.changed(modes=1.0)
    assert best_ground_chain(np.linspace(0, 300, 61), p).segments.max() == 1


def test_without_key_there_is_one_segment_and_no_split() -> None:
    p = with_werner(0.9)
    chain = best_ground_chain([1.0, 500.0], p)
    assert chain.segments.tolist() == [1, 1]
    assert chain.skp.tolist() == [0, 0]
    assert split_distance_km(p) == np.inf
    assert split_distance_km(P.changed(source_efficiency=0.0)) == np.inf


def test_stray_light_in_the_two_models() -> None:
    assert bsm_werner([np.inf, 3, 1, 0]) == pytest.approx([1, 0.5, 0, 0])
    assert car_paper(0.1, [0, 0.01]) == pytest.approx([np.inf, 1000])
    assert car_one_sided(0.01, [0, 0.009], P) == pytest.approx([np.inf, 2])


@pytest.mark.parametrize(
    ("model", "elevation_deg", "irradiance", "werner"),
    [
        ("paper", 90, 500, 0.9999),
        ("paper", 15, 500, 0.994),
        ("one_sided", 90, 100, 0.965),
        ("one_sided", 30, 100, 0.894),
    ],
)
def test_daylight_of_the_trial(
    model: str, elevation_deg: float, irradiance: float, werner: float
) -> None:
    """What one station's BSM keeps, the satellite 700 km above a sphere of 6371 km."""
    p = P.changed(car_model=model)
    sine = np.sin(np.radians(elevation_deg))
    range_km = np.sqrt((6371 * sine) ** 2 + 7071**2 - 6371**2) - 6371 * sine
    efficiency = downlink_efficiency(range_km, elevation_deg, 23, 0, p)
    stray = stray_probability(stray_rate_hz(sky_radiance(irradiance, p), p), p)
    probability = space_probability(efficiency, efficiency, p)
    at_a, _ = station_werners(probability, (efficiency, efficiency), (stray, stray), p)
    assert at_a == pytest.approx(werner, abs=5e-4)


def test_no_link_has_key_by_a_bright_day_in_the_strict_model() -> None:
    p = P.changed(car_model="one_sided")
    efficiency = downlink_efficiency(700, 90, 23, 0, p)
    stray = stray_probability(stray_rate_hz(sky_radiance(500, p), p), p)
    assert space_link(efficiency, efficiency, stray, stray, p).skp == 0


def test_each_station_has_its_own_stray_light() -> None:
    dark, bright = 0.0, 1e-3
    one = space_link(0.02, 0.02, dark, bright, P)
    other = space_link(0.02, 0.02, bright, dark, P)
    both = space_link(0.02, 0.02, bright, bright, P)
    assert one.werner == pytest.approx(float(other.werner))
    assert both.werner < one.werner < space_link(0.02, 0.02, dark, dark, P).werner


def test_powers_of_the_werner_parameters_are_switches() -> None:
    p = P.changed(ground_powers=(1, 1, 1), space_powers=(1, 1, 1), bsm_werner=0.98)
    assert ground_werner(p) == pytest.approx(0.99**2 * 0.98)
    assert space_werner(0.9, 0.8, p) == pytest.approx(0.99**2 * 0.72 * 0.98**2)


def test_cloud_models() -> None:
    cover = np.array([0.0, 0.5, 1.0])

    def through(model: str, **changes: float) -> list[float]:
        p = P.changed(cloud_model=model, **changes)
        return list(cloud_transmittance(cover, 90, p))

    assert through("linear") == [1, 0.5, 0]
    assert through("floor", cloud_floor=0.1) == [1, 0.5, 0.1]
    assert through("kasten_czeplak") == pytest.approx([1, 1 - 0.75 * 0.5**3.4, 0.25])
    assert through("exp", cloud_depth=2.0) == pytest.approx([1, np.exp(-1), np.exp(-2)])
    cirrus = np.exp(-0.14 * 1.341**2)
    assert through("degnan_cirrus") == pytest.approx([1, (1 + cirrus) / 2, cirrus])
    low = cloud_transmittance(1.0, 30, P.changed(cloud_model="degnan_cirrus"))
    assert low == pytest.approx(np.exp(-0.14 * (2 * 1.341) ** 2))


def test_cloud_cover_in_per_cent_is_refused() -> None:
    with pytest.raises(InputError, match="shares from 0 to 1"):
        cloud_transmittance([0.2, 50], 90, P)


def test_visibility_is_clipped_to_what_the_law_holds_for() -> None:
    assert atmosphere_efficiency(90, 1e4, 0, P) == atmosphere_efficiency(90, 100, 0, P)
    assert atmosphere_efficiency(90, 0.0, 0, P) == atmosphere_efficiency(90, 0.05, 0, P)


def test_pointing_and_field_of_view() -> None:
    jitter = P.changed(pointing_model="jitter")
    assert pointing_efficiency(jitter) == pytest.approx(1 / (1 + 4 / P.divergence_urad**2))
    assert spatial_filter_efficiency(P) == 1
    narrow = P.changed(spatial_filter=True, field_of_view_urad=4.0, pointing_urad=2.0)
    assert spatial_filter_efficiency(narrow) == pytest.approx(1 - np.exp(-0.5))


def test_every_equation_can_be_had_by_name() -> None:
    for name in links.__all__:
        assert getattr(links, name).__doc__


def test_every_parameter_says_where_it_is_from() -> None:
    marks = ("paper", "literature", "guess", "fitted", "assumed")
    origins = Parameters.origins()
    assert set(origins) == {own.name for own in fields(Parameters)}
    assert all(origin.startswith(marks) for origin in origins.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bsm_efficiency": 1.2}, "bsm_efficiency 1.2: from 0 to 1"),
        ({"modes": 0}, "modes 0: 1 or more"),
        ({"wavelength_nm": -1.0}, "wavelength_nm -1.0: must be positive"),
        ({"transmitter_obscuration": 0.5}, "from 0 to 0.4"),
        ({"car_model": "strict"}, "one of paper, one_sided"),
        ({"cloud_model": "none"}, "kasten_czeplak"),
        ({"ground_powers": (2, 2)}, "three whole numbers"),
        ({"mask_deg": 90.0}, "below 90"),
        ({"max_segments": 0}, "at least 1"),
        ({"detour": float("nan")}, "1 or more"),
        ({"rate_hz": "fast"}, "must be a number"),
        ({"eta_s": 0.9}, "source_efficiency"),
    ],
)
def test_impossible_parameters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="repeater parameter") as refused:
        P.changed(**changes)
    assert message in str(refused.value)


def test_impossible_distances_are_refused() -> None:
    with pytest.raises(InputError, match="distance_km"):
        best_ground_chain([-1.0], P)
    with pytest.raises(InputError, match="segments"):
        ground_chain(100.0, 0, P)
