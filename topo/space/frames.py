"""Instants as seconds, and the turning Earth: the step from inertial to Earth-fixed coordinates.

Instants are float64 seconds of UTC since 1970, leap seconds not counted (POSIX time): good to a
microsecond, and one array type for everything vectorised. Time scales and the angle of the Earth
are skyfield's, with the tables that it carries, so nothing is ever fetched.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skyfield.api import load
from skyfield.sgp4lib import theta_GMST1982

Floats = NDArray[np.float64]

DAY_S: Final = 86_400.0
UNIX_EPOCH_JD: Final = 2_440_587.5
"""Julian date of 1970-01-01T00:00 UTC."""
EARTH_ROTATION_RAD_S: Final = 7.292115e-5
"""Angular speed of the Earth (WGS 84)."""


def utc(unix_s: float) -> datetime:
    """An instant as a datetime in UTC."""
    return datetime.fromtimestamp(unix_s, UTC)


@cache
def timescale() -> Any:
    """skyfield's time scale with its built-in tables of leap seconds and UT1."""
    return load.timescale(builtin=True)


def skyfield_time(unix_s: ArrayLike) -> Any:
    """Instants as a skyfield `Time` of the same shape."""
    days, seconds = np.divmod(np.asarray(unix_s, np.float64), DAY_S)
    return timescale().utc(1970, 1, 1 + days.astype(np.int64), 0, 0, seconds)


def julian_utc(unix_s: ArrayLike) -> tuple[Floats, Floats]:
    """Julian date in UTC, whole and fraction, as SGP4 wants it."""
    days, seconds = np.divmod(np.asarray(unix_s, np.float64), DAY_S)
    return UNIX_EPOCH_JD + days, seconds / DAY_S


def teme_to_earth_fixed(
    position_km: Floats, velocity_km_s: Floats, unix_s: Floats
) -> tuple[Floats, Floats]:
    """Turn SGP4's frame (true equator, mean equinox) into the Earth-fixed one.

    Positions and velocities of shape (3, n), instants of shape (n,). One turn by Greenwich mean
    sidereal time of 1982 (Vallado et al., AIAA 2006-6753, appendix C); polar motion, up to 15 m,
    is left out. Velocities are against the turning Earth.
    """
    time = skyfield_time(unix_s)
    angle, _ = theta_GMST1982(time.whole, time.ut1_fraction)
    cos, sin = np.cos(angle), np.sin(angle)
    position = _turned(position_km, cos, sin)
    velocity = _turned(velocity_km_s, cos, sin)
    velocity[0] += EARTH_ROTATION_RAD_S * position[1]
    velocity[1] -= EARTH_ROTATION_RAD_S * position[0]
    return position, velocity


def turned_with_the_earth(position_km: Floats, elapsed_s: Floats) -> Floats:
    """Earth-fixed coordinates, `elapsed_s` later, of what stands still among the stars."""
    angle = EARTH_ROTATION_RAD_S * elapsed_s
    return _turned(position_km, np.cos(angle), np.sin(angle))


def _turned(vectors: Floats, cos: Floats, sin: Floats) -> Floats:
    """The vectors (3, ...) in axes that have turned about z, counterclockwise."""
    x, y, z = vectors
    return np.stack([cos * x + sin * y, cos * y - sin * x, np.broadcast_to(z, np.shape(cos * x))])
