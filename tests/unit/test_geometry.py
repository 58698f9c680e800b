"""Geometry against the paper, 3GPP's tables, and cases with closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topo.errors import InputError
from topo.space.geometry import (
    C_KM_S,
    R_EARTH_KM,
    R_GEO_KM,
    distance_km,
    elevation_deg,
    great_circle_km,
    light_time_ms,
    propagation_delay_ms,
    slant_range_km,
)

SHANGHAI, BEIJING, CHENGDU = (31.1, 121.5), (40.1, 116.5), (31.0, 103.6)
CHINASAT_26 = (0.0, 125.0, R_GEO_KM)
HALF_A_LAST_DIGIT_MS = 0.005


@pytest.mark.parametrize(("station", "delay_ms"), [(SHANGHAI, 122.96), (CHENGDU, 124.33)])
def test_delays_of_the_paper(station: tuple[float, float], delay_ms: float) -> None:
    """Photonics 12, 1182, equation (6) with the places of its figure 11."""
    assert abs(propagation_delay_ms(*station, *CHINASAT_26) - delay_ms) < HALF_A_LAST_DIGIT_MS


def test_round_trip_of_the_paper() -> None:
    one_way_ms = sum(float(propagation_delay_ms(*s, *CHINASAT_26)) for s in (SHANGHAI, CHENGDU))
    assert round(one_way_ms) == 247
    assert abs(2 * (one_way_ms + 20) - 534) < 1


@pytest.mark.parametrize(
    ("altitude_km", "elevation", "range_km", "delay_ms"),
    [
        (35786, 90, 35786, 119.286),
        (35786, 10, 40586, 135.286),
        (35786, 5, 41126.6, 137.088),
        (600, 90, 600, 2.0),
        (600, 10, 1932.24, 6.440),
        (600, 5, 2329.01, 7.763),
        (1500, 10, 3647.5, 12.158),
        (1500, 5, 4101.6, 13.672),
        (10000, 10, 14018.16, 46.727),
        (10000, 5, 14539.4, 48.464),
    ],
)
def test_geo_meo_leo_against_3gpp_tr_38_811(
    altitude_km: float, elevation: float, range_km: float, delay_ms: float
) -> None:
    """TR 38.811 tables 5.3.2.1-1 and 5.3.4.1-1 give range and one-way delay (at 3e5 km/s) by
    elevation; here the satellite is put where it has that elevation, and both must come back."""
    e = math.radians(elevation)
    orbit_km = R_EARTH_KM + altitude_km
    away_deg = 90 - elevation - math.degrees(math.asin(R_EARTH_KM * math.cos(e) / orbit_km))
    place = (0.0, 20.0, 0.0, 20.0 + away_deg, orbit_km)
    assert elevation_deg(*place) == pytest.approx(elevation, abs=1e-9)
    assert slant_range_km(*place) == pytest.approx(range_km, abs=0.15)
    assert propagation_delay_ms(*place) * C_KM_S / 3e5 == pytest.approx(delay_ms, abs=1e-3)


@pytest.mark.parametrize("altitude_km", [500.0, 8000.0, R_GEO_KM - R_EARTH_KM])
def test_overhead_horizon_and_antipode(altitude_km: float) -> None:
    orbit_km = R_EARTH_KM + altitude_km
    assert slant_range_km(0, 0, 0, 0, orbit_km) == pytest.approx(altitude_km, rel=1e-15)
    assert propagation_delay_ms(0, 0, 0, 0, orbit_km) == pytest.approx(altitude_km / C_KM_S * 1e3)
    assert elevation_deg(0, 0, 0, 0, orbit_km) == pytest.approx(90.0)

    horizon_deg = math.degrees(math.acos(R_EARTH_KM / orbit_km))
    tangent_km = math.sqrt(orbit_km**2 - R_EARTH_KM**2)
    assert slant_range_km(0, 0, horizon_deg, 0, orbit_km) == pytest.approx(tangent_km)
    assert elevation_deg(0, 0, horizon_deg, 0, orbit_km) == pytest.approx(0.0, abs=1e-9)
    assert elevation_deg(0, 0, horizon_deg + 0.1, 0, orbit_km) < 0

    assert slant_range_km(0, 0, 0, 180, orbit_km) == pytest.approx(orbit_km + R_EARTH_KM)
    assert elevation_deg(0, 0, 0, 180, orbit_km) == pytest.approx(-90.0)


def test_great_circles_with_closed_forms() -> None:
    quarter_km = math.pi / 2 * R_EARTH_KM
    assert great_circle_km(0, 10, 90, 200) == pytest.approx(quarter_km)
    assert great_circle_km(0, -45, 0, 45) == pytest.approx(quarter_km)
    assert great_circle_km(31.1, 121.5, -31.1, -58.5) == pytest.approx(2 * quarter_km)
    assert great_circle_km(31.1, 121.5, 31.1, 121.5) == 0
    # one metre apart: where the law of cosines would lose all digits
    metre_deg = math.degrees(1e-3 / R_EARTH_KM)
    assert great_circle_km(40, 10, 40 + metre_deg, 10) == pytest.approx(1e-3, rel=1e-6)


def test_cities_of_the_paper_against_the_law_of_cosines() -> None:
    (lat1, lon1), (lat2, lon2) = SHANGHAI, BEIJING
    cosine = math.sin(math.radians(lat1)) * math.sin(math.radians(lat2)) + math.cos(
        math.radians(lat1)
    ) * math.cos(math.radians(lat2)) * math.cos(math.radians(lon1 - lon2))
    assert great_circle_km(*SHANGHAI, *BEIJING) == pytest.approx(R_EARTH_KM * math.acos(cosine))


def test_space_to_space_distances_with_closed_forms() -> None:
    leo = R_EARTH_KM + 550
    assert distance_km(0, 0, leo, 0, 180, leo) == pytest.approx(2 * leo)
    assert distance_km(0, 0, leo, 0, 60, leo) == pytest.approx(leo)  # an equilateral triangle
    assert distance_km(0, 0, leo, 90, 0, leo) == pytest.approx(math.sqrt(2) * leo)
    assert distance_km(10, 20, leo, 10, 20, R_GEO_KM) == pytest.approx(R_GEO_KM - leo)


def test_arrays_broadcast_and_agree_with_scalars() -> None:
    latitudes = np.linspace(-60, 60, 5)[:, None]
    longitudes = np.array([100.0, 110.0, 125.0])
    table = propagation_delay_ms(latitudes, longitudes, *CHINASAT_26)
    assert table.shape == (5, 3)
    assert table.dtype == np.float64
    assert table[3, 1] == propagation_delay_ms(30.0, 110.0, *CHINASAT_26)
    assert isinstance(propagation_delay_ms(30.0, 110.0, *CHINASAT_26), np.float64)
    assert light_time_ms([C_KM_S, 0.0]).tolist() == [1000.0, 0.0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((95, 0, 0, 0, R_GEO_KM), "latitude 95 is impossible: degrees from -90 to 90"),
        ((0, 0, -90.5, 0, R_GEO_KM), "latitude -90.5"),
        ((math.nan, 0, 0, 0, R_GEO_KM), "latitude nan"),
        ((0, 1215, 0, 0, R_GEO_KM), "longitude 1215"),
        ((0, 0, 0, 0, 35786 / 10), "radius 3578.6 is impossible: km from the Earth's centre"),
        ((0, 0, 0, 0, math.inf), "radius inf"),
        (([0, 91, 92], 0, 0, 0, R_GEO_KM), r"latitude 91 is impossible \(2 of 3 values\)"),
        ((0, 0, 0, 0, [7000, 600]), r"radius 600 is impossible \(1 of 2 values\)"),
    ],
)
def test_impossible_places_are_named(place: tuple[float, ...], message: str) -> None:
    for compute in (slant_range_km, propagation_delay_ms, elevation_deg):
        with pytest.raises(InputError, match=message):
            compute(*place)
