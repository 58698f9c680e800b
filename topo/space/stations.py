"""Ground stations on the WGS 84 ellipsoid: where they are and which way is up. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topo.errors import InputError

Floats = NDArray[np.float64]

WGS84_RADIUS_KM: Final = 6378.137
"""Equatorial radius of the WGS 84 ellipsoid, exact."""
WGS84_FLATTENING: Final = 1 / 298.257223563
"""Of the WGS 84 ellipsoid, exact."""
WGS84_E2: Final = WGS84_FLATTENING * (2 - WGS84_FLATTENING)
"""First eccentricity squared."""
LOWEST_M: Final = -500.0
"""The deepest open ground, at the Dead Sea, is some 430 m below the sea."""
HIGHEST_M: Final = 9000.0
"""The highest ground, Mount Everest, is 8849 m above the sea."""


@dataclass(frozen=True)
class Station:
    """A place on the ground, geodetic (WGS 84): degrees north and east, metres above the ellipsoid.

    Raises `InputError` for one that is not on the Earth's surface.
    """

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0

    def __post_init__(self) -> None:
        for value, low, high, what in (
            (self.latitude_deg, -90.0, 90.0, "latitude {:g}: degrees from -90 to 90"),
            (self.longitude_deg, -180.0, 360.0, "longitude {:g}: degrees from -180 to 360"),
            (
                self.altitude_m,
                LOWEST_M,
                HIGHEST_M,
                "altitude {:g} m is inside the Earth or above all ground: "
                f"metres above the WGS 84 ellipsoid, {LOWEST_M:g} to {HIGHEST_M:g}",
            ),
        ):
            if not low <= value <= high:  # written so that NaN is out
                raise InputError(f"station {self.name}: {what.format(value)}")

    @cached_property
    def position_km(self) -> Floats:
        """Earth-fixed position, shape (3,)."""
        lat, lon = np.radians((self.latitude_deg, self.longitude_deg))
        normal_km = WGS84_RADIUS_KM / np.sqrt(1 - WGS84_E2 * np.sin(lat) ** 2)
        height_km = self.altitude_m / 1e3
        out: Floats = np.array(
            [
                (normal_km + height_km) * np.cos(lat) * np.cos(lon),
                (normal_km + height_km) * np.cos(lat) * np.sin(lon),
                (normal_km * (1 - WGS84_E2) + height_km) * np.sin(lat),
            ]
        )
        return out

    @cached_property
    def east_north_up(self) -> Floats:
        """Rows: the Earth-fixed unit vectors east, north and up (the ellipsoid's normal), shape (3, 3)."""
        lat, lon = np.radians((self.latitude_deg, self.longitude_deg))
        return np.array(
            [
                [-np.sin(lon), np.cos(lon), 0.0],
                [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
                [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
            ]
        )

    def look_at(self, position_km: Floats) -> tuple[Floats, Floats, Floats]:
        """Azimuth (degrees from north by east), elevation (degrees) and range (km) of points in space.

        `position_km` is Earth-fixed, shape (3, ...); each result has shape (...). No refraction, no
        light time.
        """
        away = np.tensordot(self.east_north_up, _from(self.position_km, position_km), axes=1)
        east, north, up = away
        along = np.hypot(east, north)
        azimuth_deg = np.degrees(np.arctan2(east, north)) % 360.0
        return azimuth_deg, np.degrees(np.arctan2(up, along)), np.hypot(along, up)


def below(position_km: Floats) -> tuple[Floats, Floats, Floats]:
    """Latitude and longitude (degrees, WGS 84) of the ground below points in space, and height in km.

    `position_km` is Earth-fixed, shape (3, ...), away from the Earth's centre; each result has shape
    (...), longitudes in [-180, 180). Fixed-point iteration (Vallado, Fundamentals of Astrodynamics,
    algorithm 12), good to a millimetre from the ground up.
    """
    x, y, z = position_km
    equatorial_km = np.hypot(x, y)
    lat = np.arctan2(z, equatorial_km * (1 - WGS84_E2))
    for _ in range(6):  # each round gains more than two digits
        normal_km = WGS84_RADIUS_KM / np.sqrt(1 - WGS84_E2 * np.sin(lat) ** 2)
        lat = np.arctan2(z + normal_km * WGS84_E2 * np.sin(lat), equatorial_km)
    # Height along the normal, in a form that serves at the poles too.
    height_km = (
        equatorial_km * np.cos(lat)
        + z * np.sin(lat)
        - WGS84_RADIUS_KM * np.sqrt(1 - WGS84_E2 * np.sin(lat) ** 2)
    )
    longitude_deg = (np.degrees(np.arctan2(y, x)) + 180.0) % 360.0 - 180.0
    return np.degrees(lat), longitude_deg, height_km


def _from(origin_km: Floats, position_km: Floats) -> Floats:
    return position_km - origin_km.reshape((3,) + (1,) * (position_km.ndim - 1))
