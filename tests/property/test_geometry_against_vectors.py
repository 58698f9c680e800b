"""Geometry against plain Cartesian vectors, for any places."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from topo.space.geometry import (
    R_EARTH_KM,
    distance_km,
    elevation_deg,
    great_circle_km,
    slant_range_km,
)

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 360)
radii = st.floats(R_EARTH_KM, 400_000)
points = st.tuples(latitudes, longitudes, radii)

MILLIMETRE_KM = 1e-6


def cartesian_km(lat_deg: float, lon_deg: float, radius_km: float) -> NDArray[np.float64]:
    lat, lon = np.radians([lat_deg, lon_deg])
    return radius_km * np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


@given(points, points)
def test_distance_is_the_length_of_the_difference(
    p: tuple[float, float, float], q: tuple[float, float, float]
) -> None:
    vector = cartesian_km(*p) - cartesian_km(*q)
    assert abs(distance_km(*p, *q) - np.linalg.norm(vector)) < MILLIMETRE_KM
    assert distance_km(*p, *q) == distance_km(*q, *p)


@given(latitudes, longitudes, points)
def test_elevation_is_the_angle_above_the_tangent_plane(
    lat: float, lon: float, satellite: tuple[float, float, float]
) -> None:
    station = cartesian_km(lat, lon, R_EARTH_KM)
    sight = cartesian_km(*satellite) - station
    length = float(np.linalg.norm(sight))
    if length < 1.0:
        return  # the direction to a satellite that touches the antenna is not defined
    sine = float(sight @ station) / length / R_EARTH_KM
    assert abs(np.sin(np.radians(elevation_deg(lat, lon, *satellite))) - sine) < 1e-8


@given(st.tuples(latitudes, longitudes), points)
def test_slant_range_lies_between_altitude_and_the_way_through_the_earth(
    place: tuple[float, float], satellite: tuple[float, float, float]
) -> None:
    radius_km = satellite[2]
    slant_km = slant_range_km(*place, *satellite)
    assert radius_km - R_EARTH_KM - MILLIMETRE_KM <= slant_km
    assert slant_km <= radius_km + R_EARTH_KM + MILLIMETRE_KM


@given(*[st.tuples(latitudes, longitudes)] * 3)
def test_great_circle_is_a_metric(
    p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]
) -> None:
    assert great_circle_km(*p, *q) == great_circle_km(*q, *p)
    assert great_circle_km(*p, *r) <= (
        great_circle_km(*p, *q) + great_circle_km(*q, *r) + MILLIMETRE_KM
    )
    # haversine loses half the digits at the antipode: metres there, so a looser bound
    chord_km = distance_km(*p, R_EARTH_KM, *q, R_EARTH_KM)
    arc_km = 2 * R_EARTH_KM * np.arcsin(min(1.0, chord_km / 2 / R_EARTH_KM))
    assert abs(great_circle_km(*p, *q) - arc_km) < 1e-3
