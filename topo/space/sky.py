"""The Sun and the Moon over a station, the satellite in sunlight or shadow, and what counts as night.

Positions are those of the JPL ephemeris DE421, which the package `skyfield-data` carries, so nothing
is ever fetched; its range is 1899 to 2053. Elevations are geometric, of the centre of the disc.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skyfield.api import load_file
from skyfield.errors import EphemerisRangeError
from skyfield.framelib import itrs
from skyfield.nutationlib import iau2000b_radians

from topo.errors import InputError
from topo.space.frames import skyfield_time
from topo.space.stations import WGS84_RADIUS_KM

Floats = NDArray[np.float64]

NIGHT_SUN_DEG: Final = -12.0
"""It is night for the optical link while the Sun is below this elevation at the station.

The end of nautical twilight. The sky then puts about 0.008 lx on the ground (AMS Glossary of Meteorology), a
fortieth of what a high full Moon does (0.3 lx), and a station that receives on moonlit nights takes no harm from it.
Six degrees more of Sun (civil twilight, 2 to 3.5 lx) would be ten full Moons.
"""


@dataclass(frozen=True)
class Sky:
    """What the sky is like during one pass."""

    sun_elevation_deg: float
    """At culmination, seen from the station."""
    highest_sun_deg: float
    """Highest of its elevations at rise, culmination and set."""
    moon_elevation_deg: float
    """At culmination."""
    moon_illumination: float
    """Share of the Moon's disc that is lit, in [0, 1]."""
    sunlit_fraction: float
    """Share of the pass during which the satellite itself is in sunlight, in [0, 1]."""

    def is_dark(self, sun_below_deg: float = NIGHT_SUN_DEG) -> bool:
        """Whether the Sun stays below that elevation for all of the pass."""
        return self.highest_sun_deg < sun_below_deg


def night_of(instant: datetime, longitude_deg: float) -> date:
    """The night an instant belongs to, named by its evening: noon to noon of local mean solar time."""
    east_deg = longitude_deg - 360.0 if longitude_deg > 180.0 else longitude_deg
    solar = instant + timedelta(hours=east_deg / 15.0)
    return (solar - timedelta(hours=12.0)).date()


def sun_and_moon(unix_s: ArrayLike) -> tuple[Floats, Floats]:
    """Earth-fixed apparent positions of the Sun and the Moon from the Earth's centre, in km.

    Each of shape (3, n) for instants of shape (n,). Raises `InputError` outside the ephemeris.
    """
    time = skyfield_time(np.atleast_1d(unix_s))
    # The nutation series of 77 terms is good to a milliarcsecond, and twenty times as quick as that of 1365.
    time._nutation_angles_radians = iau2000b_radians(time)
    bodies = _ephemeris()
    try:
        earth = bodies["earth"].at(time)
        sun, moon = (earth.observe(bodies[name]).apparent() for name in ("sun", "moon"))
    except EphemerisRangeError as error:
        raise InputError(f"no position of the Sun for these dates: {error}") from error
    return sun.frame_xyz(itrs).km, moon.frame_xyz(itrs).km


def moon_illumination(sun_km: Floats, moon_km: Floats) -> Floats:
    """Share of the Moon's disc that is lit, seen from the Earth's centre; positions (3, n), result (n,).

    (1 + cos i) / 2 with the phase angle i between Earth and Sun at the Moon (Meeus, Astronomical
    Algorithms, 48.1).
    """
    to_sun = sun_km - moon_km
    cos_phase = -(moon_km * to_sun).sum(axis=0) / (
        np.linalg.norm(moon_km, axis=0) * np.linalg.norm(to_sun, axis=0)
    )
    share: Floats = (1.0 + cos_phase) / 2.0
    return share


def is_sunlit(position_km: Floats, sun_km: Floats) -> NDArray[np.bool_]:
    """Whether satellites are in sunlight: the Sun a point, the Earth a sphere of its equatorial radius.

    Both positions of shape (3, ...), in one frame; result (...).
    """
    toward_sun = sun_km / np.linalg.norm(sun_km, axis=0)
    along = (position_km * toward_sun).sum(axis=0)
    aside = np.linalg.norm(position_km - along * toward_sun, axis=0)
    lit: NDArray[np.bool_] = (along > 0) | (aside > WGS84_RADIUS_KM)
    return lit


@cache
def _ephemeris() -> Any:
    # By its path, since skyfield_data's own function warns of tables of the Earth's rotation that are not used here.
    return load_file(str(Path(str(files("skyfield_data"))) / "data" / "de421.bsp"))
