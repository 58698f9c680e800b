"""Where a ground station and a satellite are, how far apart, and how long light takes between them.

A spherical Earth and geocentric coordinates, as in the paper (Photonics 12, 1182, section 3.4):
latitudes and longitudes in degrees, distances from the Earth's centre in km. Every function takes
scalars or arrays that broadcast together and returns an array of the broadcast shape (a numpy
scalar for scalars), float64. `InputError` says which value is impossible.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topo.errors import InputError

C_KM_S: Final = 299792.458  # speed of light in vacuum, exact (SI); the paper below equation (6)
R_EARTH_KM: Final = 6378.0  # equatorial radius as the paper rounds it, below equation (6)
R_GEO_KM: Final = 42164.0  # radius of the geostationary orbit, the paper below equation (6)

Floats = NDArray[np.float64]


def slant_range_km(
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    sat_lat_deg: ArrayLike,
    sat_lon_deg: ArrayLike,
    orbit_radius_km: ArrayLike,
) -> Floats:
    """Distance from a place on the ground to a satellite, in km.

    `orbit_radius_km` counts from the Earth's centre. The satellite need not be above the horizon:
    ask `elevation_deg`. Source: equation (1) of the paper without its factor 1/c.
    """
    return distance_km(lat_deg, lon_deg, R_EARTH_KM, sat_lat_deg, sat_lon_deg, orbit_radius_km)


def propagation_delay_ms(
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    sat_lat_deg: ArrayLike,
    sat_lon_deg: ArrayLike,
    orbit_radius_km: ArrayLike,
) -> Floats:
    """One-way delay of light between a place on the ground and a satellite, in ms.

    Arguments as for `slant_range_km`. Source: equation (1) of the paper; (6) is its case on the
    equator.
    """
    return light_time_ms(
        slant_range_km(lat_deg, lon_deg, sat_lat_deg, sat_lon_deg, orbit_radius_km)
    )


def elevation_deg(
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    sat_lat_deg: ArrayLike,
    sat_lon_deg: ArrayLike,
    orbit_radius_km: ArrayLike,
) -> Floats:
    """Angle of a satellite above a place's horizon, in degrees: 90 overhead, negative when set.

    Arguments as for `slant_range_km`. The horizon is the sphere's tangent plane; no refraction.
    """
    orbit = _radius(orbit_radius_km, "orbit radius")
    h = _haversine(lat_deg, lon_deg, sat_lat_deg, sat_lon_deg)
    # In the plane through the centre, the place at (0, R): the satellite is `up` above the tangent
    # plane and `along` it. atan2 keeps full precision overhead, where an arcsine loses half of it.
    up = orbit * (1.0 - 2.0 * h) - R_EARTH_KM
    along = orbit * 2.0 * np.sqrt(h * (1.0 - h))
    return np.degrees(np.arctan2(up, along))


def great_circle_km(
    lat1_deg: ArrayLike, lon1_deg: ArrayLike, lat2_deg: ArrayLike, lon2_deg: ArrayLike
) -> Floats:
    """Shortest way over the ground between two places, in km, on a sphere of `R_EARTH_KM`."""
    h = _haversine(lat1_deg, lon1_deg, lat2_deg, lon2_deg)
    return 2.0 * R_EARTH_KM * np.arctan2(np.sqrt(h), np.sqrt(1.0 - h))


def distance_km(  # noqa: PLR0917 (two points of three coordinates each)
    lat1_deg: ArrayLike,
    lon1_deg: ArrayLike,
    radius1_km: ArrayLike,
    lat2_deg: ArrayLike,
    lon2_deg: ArrayLike,
    radius2_km: ArrayLike,
) -> Floats:
    """Straight-line distance between two points at any radius from the Earth's centre, in km.

    Serves ground to space and space to space alike; says nothing of the Earth in between.
    """
    r1, r2 = _radius(radius1_km, "radius"), _radius(radius2_km, "radius")
    h = _haversine(lat1_deg, lon1_deg, lat2_deg, lon2_deg)
    # The law of cosines of equation (1), with 1 - cos(gamma) written as 2 h: the same number, but
    # without the cancellation that costs metres when the two points are close.
    return np.sqrt((r1 - r2) ** 2 + 4.0 * r1 * r2 * h)


def light_time_ms(path_km: ArrayLike) -> Floats:
    """Time light takes along a path in vacuum, in ms."""
    return np.multiply(path_km, 1e3 / C_KM_S, dtype=np.float64)


def _haversine(
    lat1_deg: ArrayLike, lon1_deg: ArrayLike, lat2_deg: ArrayLike, lon2_deg: ArrayLike
) -> Floats:
    """sin²(γ/2) of the central angle γ between two directions, in [0, 1]."""
    lat1, lat2 = np.radians(_latitude(lat1_deg)), np.radians(_latitude(lat2_deg))
    dlon = np.radians(_longitude(lon2_deg) - _longitude(lon1_deg))
    h = np.sin((lat2 - lat1) / 2.0) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin(dlon / 2.0) ** 2
    at_most_one: Floats = np.minimum(h, 1.0)  # rounding may pass 1 by an ulp at the antipode
    return at_most_one


def _latitude(value_deg: ArrayLike) -> Floats:
    return _checked(value_deg, -90.0, 90.0, "latitude", "degrees from -90 to 90")


def _longitude(value_deg: ArrayLike) -> Floats:
    return _checked(value_deg, -180.0, 360.0, "longitude", "degrees from -180 to 360")


def _radius(value_km: ArrayLike, what: str) -> Floats:
    allowed = f"km from the Earth's centre, at least {R_EARTH_KM:g} (add it to an altitude)"
    return _checked(value_km, R_EARTH_KM, np.finfo(np.float64).max, what, allowed)


def _checked(value: ArrayLike, low: float, high: float, what: str, allowed: str) -> Floats:
    """The value as float64, or an `InputError` that shows the first impossible one."""
    array: Floats = np.asarray(value, dtype=np.float64)
    bad = ~((array >= low) & (array <= high))  # written so that NaN is bad
    if bad.any():
        count = f" ({np.count_nonzero(bad)} of {array.size} values)" if array.size > 1 else ""
        raise InputError(f"{what} {array[bad].flat[0]:g} is impossible{count}: {allowed}")
    return array
