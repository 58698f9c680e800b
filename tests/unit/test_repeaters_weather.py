"""Sun, daylight and synthetic weather of the hybrid network."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files

import numpy as np
import pytest
from skyfield.api import load, load_file, wgs84

from quantum.repeaters.cities import City, pair_distances_km, pair_indices, read_cities
from quantum.repeaters.weather import (
    CLIMATES,
    HourlyWeather,
    clear_sky_irradiance_W_m2,
    diffuse_irradiance_W_m2,
    steady_weather,
    sun_elevation_deg,
    synthetic_weather,
)
from topo.errors import InputError

CITIES = read_cities()[:8]
START_S = 1_704_067_200.0
"""2024-01-01T00:00 UTC."""


def hourly(**changes: object) -> HourlyWeather:
    numbers: dict[str, object] = {
        "unix_s": START_S + 3600.0 * np.arange(3),
        "cloud": np.array([[0.0], [1.0], [0.5]]),
        "visibility_km": np.array([[10.0], [40.0], [10.0]]),
        "irradiance_W_m2": np.array([[0.0], [100.0], [200.0]]),
        "cities": CITIES[:1],
        "description": "test.json",
    }
    return HourlyWeather(**(numbers | changes))  # type: ignore[arg-type]


def test_sun_stands_where_skyfield_has_it() -> None:
    de421 = load_file(str(files("skyfield_data") / "data" / "de421.bsp"))
    scale = load.timescale(builtin=True)
    times = START_S + 86_400.0 * 47 * np.arange(8) + 3600.0 * np.arange(8) * 3
    ours = sun_elevation_deg(CITIES, times)
    assert ours.shape == (8, 8)
    for row, moment in enumerate(times):
        time = scale.from_datetime(datetime.fromtimestamp(moment, UTC))
        for column, city in enumerate(CITIES):
            place = de421["earth"] + wgs84.latlon(city.latitude_deg, city.longitude_deg)
            altitude, _, _ = place.at(time).observe(de421["sun"]).apparent().altaz()
            assert ours[row, column] == pytest.approx(altitude.degrees, abs=0.01)


def test_new_years_noon_in_zurich_is_as_pvlib_has_it() -> None:
    zurich = [City("Zürich", "CH", 47.3769, 8.5417)]
    times = START_S + 3600.0 * np.arange(24)
    elevation = sun_elevation_deg(zurich, times)[:, 0]
    assert elevation.max() == pytest.approx(19.3, abs=0.3)
    # pvlib's clear-sky models say 280 to 304 W/m2; this one is its `haurwitz`.
    assert clear_sky_irradiance_W_m2(elevation).max() == pytest.approx(300, abs=8)
    assert np.all(clear_sky_irradiance_W_m2(elevation[:7]) == 0)


def test_clouds_dim_the_day_and_make_it_diffuse() -> None:
    clear = clear_sky_irradiance_W_m2(30.0)
    assert clear == pytest.approx(1098 * 0.5 * np.exp(-0.118))
    assert diffuse_irradiance_W_m2(30.0, [0.0, 1.0]) == pytest.approx([0.3 * clear, 0.25 * clear])
    assert diffuse_irradiance_W_m2([-5.0, 0.0], 0.5).tolist() == [0, 0]


def test_between_hours_weather_is_interpolated() -> None:
    now = hourly().at(START_S + np.array([0.0, 1800.0, 3600.0, 5400.0, 7200.0, 10_799.0]))
    assert now.cloud[:, 0].tolist() == [0, 0.5, 1, 0.75, 0.5, 0.5]
    assert now.visibility_km[:, 0] == pytest.approx([10, 20, 40, 20, 10, 10])
    assert now.irradiance_W_m2[:, 0] == pytest.approx([0, 50, 100, 150, 200, 200])


def test_means_of_the_hour_before_hold_in_its_middle() -> None:
    now = hourly(irradiance_offset_s=-1800.0).at(START_S + np.array([0.0, 1800.0, 3600.0]))
    assert now.irradiance_W_m2[:, 0] == pytest.approx([50, 100, 150])


def test_a_day_of_24_hours_has_1440_minutes() -> None:
    day = hourly(
        unix_s=START_S + 3600.0 * np.arange(24),
        cloud=np.zeros((24, 1)),
        visibility_km=np.full((24, 1), 9.0),
        irradiance_W_m2=np.zeros((24, 1)),
    )
    assert day.at(START_S + 60.0 * np.arange(1440)).cloud.shape == (1440, 1)


def test_a_leap_year_has_all_its_minutes() -> None:
    hours = 366 * 24
    year = synthetic_weather(CITIES[:2], START_S, hours, seed=1)
    leap_day = year.at(START_S + 86_400.0 * 59 + 60.0 * np.arange(1440))
    assert leap_day.cloud.shape == (1440, 2)
    last = year.at(np.array([START_S + hours * 3600.0 - 60.0]))
    assert np.all(np.isfinite(last.visibility_km))


@pytest.mark.parametrize("moment", [START_S - 1.0, START_S + 3 * 3600.0])
def test_other_days_are_refused(moment: float) -> None:
    with pytest.raises(InputError, match="covers 2024-01-01 00:00 to 2024-01-01 03:00 UTC"):
        hourly().at(np.array([moment]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cloud": np.array([[0.0], [50.0], [0.0]])}, "cloud cover"),
        ({"visibility_km": np.array([[0.0], [5.0], [5.0]])}, "visibility"),
        ({"cloud": np.zeros((2, 1))}, "arrays must be"),
        ({"unix_s": START_S + np.array([0.0, 3600.0, 3600.0])}, "must rise"),
        ({"irradiance_W_m2": np.full((3, 1), np.nan)}, "irradiance"),
    ],
)
def test_impossible_weather_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hourly(**changes)


def test_the_same_seed_gives_the_same_weather() -> None:
    one, same, other = (synthetic_weather(CITIES, START_S, 24, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(one.cloud, same.cloud)
    assert np.array_equal(one.visibility_km, same.visibility_km)
    assert not np.array_equal(one.cloud, other.cloud)
    longer = synthetic_weather(CITIES, START_S, 48, seed=7)
    assert np.allclose(longer.cloud[:25], one.cloud, rtol=0, atol=1e-12)


def test_synthetic_weather_says_so() -> None:
    for climate in CLIMATES:
        assert synthetic_weather(
            CITIES, START_S, 1, seed=0, climate=climate
        ).description.startswith("SYNTHETIC")


def test_synthetic_weather_has_its_distribution_and_correlations() -> None:
    cities = read_cities()[:12]
    weather = synthetic_weather(cities, START_S, 12_000, seed=3, climate="winter")
    # Beta(0.45, 0.25): mean a/(a+b), variance ab/((a+b)^2 (a+b+1)).
    assert weather.cloud.mean() == pytest.approx(0.45 / 0.7, abs=0.02)
    assert weather.cloud.var() == pytest.approx(0.45 * 0.25 / (0.7**2 * 1.7), abs=0.01)
    log_visibility = np.log(weather.visibility_km)
    assert np.exp(np.median(log_visibility)) == pytest.approx(15, rel=0.02)
    correlation = np.corrcoef(log_visibility.T)
    first, second = pair_indices(12)
    expected = np.exp(-pair_distances_km(cities) / 400)
    assert correlation[first, second] == pytest.approx(expected, abs=0.07)
    standard = log_visibility - log_visibility.mean()
    for hours in (1, 6, 12):
        memory = (standard[hours:] * standard[:-hours]).mean() / standard.var()
        assert memory == pytest.approx(np.exp(-hours / 6), abs=0.03)


def test_two_cities_in_one_place_have_one_weather() -> None:
    twice = [City("A", "X", 47.0, 8.0), City("B", "X", 47.0, 8.0)]
    weather = synthetic_weather(twice, START_S, 24, seed=2)
    assert weather.cloud[:, 0] == pytest.approx(weather.cloud[:, 1], abs=1e-6)


def test_a_clear_climate_is_clear_and_its_days_are_bright() -> None:
    now = synthetic_weather(CITIES, START_S, 24, seed=0, climate="clear").at(
        START_S + 3600.0 * np.array([0.0, 12.0])
    )
    assert not now.cloud.any()
    assert np.all(now.visibility_km == pytest.approx(23))
    assert not now.irradiance_W_m2[0].any()
    assert now.irradiance_W_m2[1].max() > 50
    assert not now.at_night().irradiance_W_m2.any()


def test_steady_weather_takes_one_number_or_one_for_each_city() -> None:
    now = steady_weather(CITIES[:2], cloud=[0.1, 0.9], visibility_km=5.0).at(np.zeros(3))
    assert now.cloud.tolist() == [[0.1, 0.9]] * 3
    assert now.visibility_km.shape == now.irradiance_W_m2.shape == (3, 2)
    assert not now.irradiance_W_m2.any()
    with pytest.raises(InputError, match="cloud cover"):
        steady_weather(CITIES, cloud=40)


def test_unknown_climates_and_impossible_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="climate 'wet': there are clear, mid, winter"):
        synthetic_weather(CITIES, START_S, 24, seed=0, climate="wet")
    with pytest.raises(InputError, match="at least one"):
        synthetic_weather(CITIES, START_S, 0, seed=0)
    with pytest.raises(InputError, match="seed -1"):
        synthetic_weather(CITIES, START_S, 1, seed=-1)
