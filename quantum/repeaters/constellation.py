"""Satellites of a hybrid network: one that hangs in the sky, circular orbits in planes, element sets.

A constellation says where its satellites are, Earth-fixed, and on which Earth its stations stand:
made-up ones on a sphere of 6371 km, those of element sets on the WGS 84 ellipsoid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.repeaters.cities import EARTH_KM, City, directions
from topo.errors import InputError
from topo.space.frames import EARTH_ROTATION_RAD_S
from topo.space.orbit import MAX_AGE_DAYS, Satellite
from topo.space.passes import EARTH_GM_KM3_S2
from topo.space.stations import WGS84_RADIUS_KM, Station
from topo.space.tle import find_tle_file, read_tles

Floats = NDArray[np.float64]

J2: Final = 1.08262668e-3
"""Of the Earth's flattening: it turns orbital planes."""
J2000_S: Final = 946_728_000.0
"""2000-01-01T12:00 UTC: when the ascending nodes of made-up orbits stand at their longitudes."""


class Constellation(Protocol):
    """Satellites that a network can use."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the satellites, in the order of `positions_km`."""

    @property
    def ellipsoid(self) -> bool:
        """Whether its stations stand on the WGS 84 ellipsoid; otherwise on a sphere of `EARTH_KM`."""

    def positions_km(self, unix_s: ArrayLike) -> Floats:
        """Earth-fixed positions, shape (3, satellites, n), at instants of shape (n,)."""


@dataclass(frozen=True)
class FixedSatellite:
    """One satellite at rest above a place: the paper's first case hangs it 700 km above Zurich."""

    latitude_deg: float = 47.3769
    longitude_deg: float = 8.5417
    altitude_km: float = 700.0
    ellipsoid: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        _check_altitude(self.altitude_km)
        City("below the fixed satellite", "", self.latitude_deg, self.longitude_deg)

    @property
    def names(self) -> tuple[str, ...]:
        return ("fixed",)

    def positions_km(self, unix_s: ArrayLike) -> Floats:
        up = directions([City("below", "", self.latitude_deg, self.longitude_deg)])
        at = (EARTH_KM + self.altitude_km) * up
        return np.broadcast_to(at[:, :, np.newaxis], (3, 1, np.size(unix_s)))


@dataclass(frozen=True)
class Walker:
    """Circular orbits in evenly spread planes, `satellites` in all; 0 is a sky without any.

    By default the planes are polar, as in the paper, which has up to 30 satellites.

    A `star` spreads its ascending nodes over 180 degrees (polar planes), a `delta` over 360. Where the
    satellites do not fill all planes evenly, the first planes have one more; a plane spreads its own
    evenly. Neighbouring planes are `phasing` x 360/`satellites` degrees apart along the track. The
    Earth's flattening turns the planes (at 98.19 degrees and 700 km with the Sun).
    """

    satellites: int = 25
    planes: int = 1
    altitude_km: float = 700.0
    inclination_deg: float = 90.0
    pattern: Literal["star", "delta"] = "star"
    phasing: float = 0.0
    first_node_deg: float = 0.0
    """Longitude of the first plane's ascending node at `J2000_S`."""
    first_anomaly_deg: float = 0.0
    """How far beyond that node its first satellite is then."""
    ellipsoid: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.satellites < 0:
            raise InputError(f"constellation: {self.satellites} satellites: 0 or more")
        if self.planes < 1:
            raise InputError(f"constellation: {self.planes} planes: at least one")
        if not 0 <= self.inclination_deg <= 180:
            raise InputError(
                f"constellation: inclination {self.inclination_deg:g}: 0 to 180 degrees"
            )
        if self.pattern not in ("star", "delta"):
            raise InputError(f"constellation: pattern {self.pattern!r}: star or delta")
        _check_altitude(self.altitude_km)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            f"p{plane + 1}s{slot + 1}"
            for plane, size in enumerate(self._sizes)
            for slot in range(size)
        )

    @property
    def period_s(self) -> float:
        """Time of one revolution."""
        return float(2 * np.pi / self._motion_rad_s)

    @property
    def _motion_rad_s(self) -> float:
        return float(np.sqrt(EARTH_GM_KM3_S2 / (EARTH_KM + self.altitude_km) ** 3))

    @property
    def _sizes(self) -> list[int]:
        """Satellites of each plane."""
        planes = min(self.planes, max(self.satellites, 1))
        even, more = divmod(self.satellites, planes)
        return [even + (plane < more) for plane in range(planes)]

    def positions_km(self, unix_s: ArrayLike) -> Floats:
        sizes = self._sizes
        plane = np.repeat(np.arange(len(sizes)), sizes)
        slot = np.concatenate([np.arange(size) / max(size, 1) for size in sizes])
        spread_deg = 180.0 if self.pattern == "star" else 360.0
        node = np.radians(self.first_node_deg + spread_deg * plane / len(sizes))
        step = self.phasing / max(self.satellites, 1) * plane
        anomaly = np.radians(self.first_anomaly_deg) + 2 * np.pi * (slot + step)

        elapsed_s = np.asarray(unix_s, dtype=np.float64) - J2000_S
        tilt = np.radians(self.inclination_deg)
        flattening = 1.5 * J2 * (WGS84_RADIUS_KM / (EARTH_KM + self.altitude_km)) ** 2
        drift_rad_s = -flattening * self._motion_rad_s * np.cos(tilt) - EARTH_ROTATION_RAD_S
        along = anomaly[:, np.newaxis] + self._motion_rad_s * elapsed_s
        east = node[:, np.newaxis] + drift_rad_s * elapsed_s
        x, y = np.cos(along), np.sin(along) * np.cos(tilt)
        return (EARTH_KM + self.altitude_km) * np.stack(
            [
                x * np.cos(east) - y * np.sin(east),
                x * np.sin(east) + y * np.cos(east),
                np.sin(along) * np.sin(tilt) + np.zeros_like(east),
            ]
        )


class ElementSets:
    """The satellites of a file of two-line elements, moved by SGP4."""

    ellipsoid = True

    def __init__(self, satellites: Sequence[Satellite], max_age_days: float = MAX_AGE_DAYS) -> None:
        self._satellites, self._max_age_days = tuple(satellites), max_age_days

    @classmethod
    def read(cls, name: str | Path, max_age_days: float = MAX_AGE_DAYS) -> ElementSets:
        """Those of a file, or of a shipped one by its name; `InputError` with file and line."""
        return cls([Satellite(tle) for tle in read_tles(find_tle_file(str(name)))], max_age_days)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(satellite.name for satellite in self._satellites)

    def positions_km(self, unix_s: ArrayLike) -> Floats:
        """As of any constellation; raises `InputError` further than `max_age_days` from the elements."""
        instants = np.asarray(unix_s, dtype=np.float64)
        for satellite in self._satellites:
            satellite.check_age(instants.min(), instants.max(), self._max_age_days)
        return np.stack([satellite.state(instants)[0] for satellite in self._satellites], axis=1)


@dataclass(frozen=True)
class Ground:
    """Where cities are in space: Earth-fixed positions in km and unit vectors upwards, each (3, n)."""

    position_km: Floats
    up: Floats


def ground(cities: Sequence[City], ellipsoid: bool) -> Ground:
    """The cities on the WGS 84 ellipsoid at sea level, or on a sphere of `EARTH_KM`."""
    if not ellipsoid:
        up = directions(cities)
        return Ground(EARTH_KM * up, up)
    stations = [Station(city.name, city.latitude_deg, city.longitude_deg) for city in cities]
    return Ground(
        np.stack([station.position_km for station in stations], axis=1),
        np.stack([station.east_north_up[2] for station in stations], axis=1),
    )


def look(place: Ground, position_km: ArrayLike) -> tuple[Floats, Floats]:
    """Range (km) and elevation (degrees) of satellites (3, satellites, n) from every place.

    Each of shape (n, satellites, places).
    """
    satellite = np.moveaxis(np.asarray(position_km, dtype=np.float64), (0, 2), (2, 0))
    # Dot products only: as quick as a matrix product, and no array three times the result's size.
    radius_sq = (satellite**2).sum(axis=-1)[..., np.newaxis]
    from_centre_sq = (place.position_km**2).sum(axis=0)
    distance_sq = radius_sq + from_centre_sq - 2 * (satellite @ place.position_km)
    distance_km = np.sqrt(np.maximum(distance_sq, 0.0))
    height_km = satellite @ place.up - (place.position_km * place.up).sum(axis=0)
    sine = np.clip(height_km / np.maximum(distance_km, 1e-9), -1.0, 1.0)
    return distance_km, np.degrees(np.arcsin(sine))


def _check_altitude(altitude_km: float) -> None:
    if not 100 <= altitude_km <= 50_000:
        raise InputError(f"satellite altitude {altitude_km:g} km: from 100 to 50000")
