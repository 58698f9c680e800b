"""What the air does to light from a satellite: extinction, and the twinkling of turbulence."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topo.errors import InputError

FloatArray = NDArray[np.float64]

HIGH_WIND_M_S = 21.0
"""Root mean square wind at 5 to 20 km in the usual Hufnagel-Valley profile."""
GROUND_CN2 = 1.7e-14
"""Cn2 at the ground in that profile, m^(-2/3)."""


def airmass(elevation_deg: ArrayLike) -> FloatArray:
    """Relative optical airmass at an elevation; 1 at the zenith, 38 at the horizon.

    Source: Kasten and Young, Applied Optics 28, 4735 (1989).
    """
    elevation = np.asarray(elevation_deg, dtype=np.float64)
    if np.any(elevation < 0):
        raise InputError(f"elevation_deg {np.min(elevation):g}: below the horizon")
    return np.asarray(
        1 / (np.sin(np.radians(elevation)) + 0.50572 * (elevation + 6.07995) ** -1.6364)
    )


def visibility_extinction_per_km(
    visibility_km: ArrayLike, wavelength_nm: float, model: Literal["kim", "kruse"] = "kim"
) -> FloatArray:
    """Extinction coefficient of haze at sea level: 3.912/V (lambda/550 nm)^-q(V), in 1/km.

    `visibility_km` of any shape. Along the zenith multiply by a scale height of about 1.2 km.
    Sources for q: Kruse, McGlauchlin, McQuistan (1962); Kim, McArthur, Korevaar (2001).
    """
    visibility = np.asarray(visibility_km, dtype=np.float64)
    if not np.all(visibility > 0):
        raise InputError(f"visibility_km {np.min(visibility):g}: must be positive")
    if model == "kim":
        hazy = [
            np.zeros_like(visibility),
            visibility - 0.5,
            0.16 * visibility + 0.34,
        ]
        exponent = np.select(
            [visibility <= 0.5, visibility <= 1, visibility <= 6, visibility <= 50],
            [*hazy, 1.3],
            1.6,
        )
    elif model == "kruse":
        exponent = np.select(
            [visibility <= 6, visibility <= 50], [0.585 * np.cbrt(visibility), 1.3], 1.6
        )
    else:
        raise InputError(f"extinction model {model!r}: must be 'kim' or 'kruse'")
    return np.asarray(3.912 / visibility * (wavelength_nm / 550) ** -exponent)


def hufnagel_valley_cn2(
    height_m: ArrayLike, high_wind_m_s: float = HIGH_WIND_M_S, ground_cn2: float = GROUND_CN2
) -> FloatArray:
    """Strength of turbulence Cn2 at a height above ground, in m^(-2/3).

    Source: ITU-R P.1621, section 5.1.1 (the Hufnagel-Valley profile).
    """
    h = np.asarray(height_m, dtype=np.float64)
    jet_stream = 0.00594 * (high_wind_m_s / 27) ** 2 * (1e-5 * h) ** 10 * np.exp(-h / 1000)
    return np.asarray(jet_stream + 2.7e-16 * np.exp(-h / 1500) + ground_cn2 * np.exp(-h / 100))


def log_irradiance_variance(
    elevation_deg: ArrayLike,
    wavelength_nm: float,
    receiver_m: float = 0.0,
    *,
    high_wind_m_s: float = HIGH_WIND_M_S,
    ground_cn2: float = GROUND_CN2,
    station_m: float = 0.0,
) -> FloatArray:
    """Variance of ln(power) that turbulence gives a downlink, in Np^2; shape of `elevation_deg`.

    2.25 k^(7/6) sec^(11/6)(zeta) Int Cn2(h) (h - h0)^(5/6) dh for a point, reduced by what a
    telescope of diameter `receiver_m`, standing `station_m` above ground, averages over. This is
    the theory of weak fluctuations: beyond about 1 Np^2 (a point receiver below some 20 deg) it
    says too much.

    Source: ITU-R P.1622, section 4.1, equations (4a) and (6) to (8).
    """
    elevation = np.asarray(elevation_deg, dtype=np.float64)
    if not np.all(elevation > 0):
        raise InputError(f"elevation_deg {np.min(elevation):g}: must be above the horizon")
    for name, value in (("wavelength_nm", wavelength_nm), ("ground_cn2", ground_cn2)):
        if not value > 0:
            raise InputError(f"turbulence: {name} {value} must be positive")
    for name, value in (("high_wind_m_s", high_wind_m_s), ("station_m", station_m)):
        if not value >= 0:
            raise InputError(f"turbulence: {name} {value} must be 0 or more")
    profile = (high_wind_m_s, ground_cn2, station_m)
    wavenumber = 2 * np.pi / (wavelength_nm * 1e-9)
    sine = np.sin(np.radians(elevation))
    scintillation = _moment(5 / 6, *profile)
    point = 2.25 * wavenumber ** (7 / 6) * scintillation / sine ** (11 / 6)
    height_m = (_moment(2.0, *profile) / scintillation) ** (6 / 7)
    speckles = receiver_m**2 * sine / (wavelength_nm * 1e-9 * height_m)
    return np.asarray(point / (1 + 1.1 * speckles ** (7 / 6)))


@cache
def _moment(power: float, high_wind_m_s: float, ground_cn2: float, station_m: float) -> float:
    """Int Cn2(h) (h - h0)^power dh from the station at h0 upwards."""
    log_height = np.linspace(np.log(1e-3), np.log(1e5), 4001)
    above_m = np.exp(log_height)
    cn2 = hufnagel_valley_cn2(station_m + above_m, high_wind_m_s, ground_cn2)
    return float(np.trapezoid(cn2 * above_m ** (power + 1), log_height))
