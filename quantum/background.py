"""Light that nobody sent: how many photons of the sky a receiver sees."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, pi
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import Boltzmann, Planck, Stefan_Boltzmann, speed_of_light

from topo.errors import InputError

FloatArray = NDArray[np.float64]

SUN_K = 5778.0
"""Temperature of the black body that the sunlight's spectrum is taken for."""

SKY_RADIANCE_W_M2_SR_UM: Mapping[str, float] = MappingProxyType(
    {
        "moonless": 1.5e-5,
        "city": 1.5e-4,
        "moon": 1.5e-3,
        "bright-city": 1.5e-3,
        "day-overcast": 30.3,
        "day": 42.58,
        "day-bright": 122.3,
    }
)
"""Spectral radiance of the sky at 850 nm, in W m^-2 sr^-1 um^-1.

The nights are assumed: moonless and full moon as Ntanos et al., Photonics 8, 544 (2021), section
4.2.2, have them for 1550 nm (ITU-R P.1621-2 has 1e-6 to 2e-6 for "night"), a city 10 to 100 times
the moonless sky. The days are published: ITU-R P.1621-2, table 1, at 850 nm.
"""


def sky_radiance(name: str) -> float:
    """The radiance of that kind of sky; `InputError` lists the names when there is none."""
    try:
        return SKY_RADIANCE_W_M2_SR_UM[name]
    except KeyError:
        raise InputError(
            f"sky {name!r}: there are {', '.join(sorted(SKY_RADIANCE_W_M2_SR_UM))}"
        ) from None


def photon_rate_hz(
    radiance_W_m2_sr_um: ArrayLike,
    *,
    receiver_m: float,
    field_of_view_urad: float,
    filter_nm: float,
    wavelength_nm: float,
    receiver_obscuration: float = 0.0,
) -> FloatArray:
    """Photons of the sky per second at the aperture: B A Omega dlambda lambda/(h c).

    `field_of_view_urad` is the full angle of a cone, Omega = pi (FOV/2)^2. Shape of the radiance.
    Source: ITU-R P.1621-2, section 3.1, equation (1).
    """
    radiance = np.asarray(radiance_W_m2_sr_um, dtype=np.float64)
    if not np.all((radiance >= 0) & (radiance < inf)):
        raise InputError(f"radiance_W_m2_sr_um {np.min(radiance):g}: must be 0 or more")
    for name, value in (
        ("receiver_m", receiver_m),
        ("field_of_view_urad", field_of_view_urad),
        ("filter_nm", filter_nm),
        ("wavelength_nm", wavelength_nm),
    ):
        if not 0 < value < inf:
            raise InputError(f"background: {name} {value} must be positive")
    area_m2 = pi / 4 * receiver_m**2 * (1 - receiver_obscuration**2)
    solid_angle_sr = pi / 4 * (field_of_view_urad * 1e-6) ** 2
    power_W = radiance * area_m2 * solid_angle_sr * filter_nm * 1e-3
    return np.asarray(power_W * wavelength_nm * 1e-9 / (Planck * speed_of_light))


def daylight_radiance(irradiance_W_m2: ArrayLike, wavelength_nm: float) -> FloatArray:
    """Spectral radiance of a daylit sky in W m^-2 sr^-1 um^-1: Lambertian, of the Sun's colour.

    `irradiance_W_m2` is what falls on level ground, all wavelengths together, of any shape. The
    level is the irradiance over pi, the spectrum that of a black body of 5778 K:
    (G/pi) pi B_lambda(T) / (sigma T^4).
    """
    irradiance = np.asarray(irradiance_W_m2, dtype=np.float64)
    if not np.all(irradiance >= 0):
        raise InputError(f"irradiance_W_m2 {np.min(irradiance):g}: must be 0 or more")
    wavelength_m = wavelength_nm * 1e-9
    exponent = Planck * speed_of_light / (wavelength_m * Boltzmann * SUN_K)
    planck_W_m3_sr = 2 * Planck * speed_of_light**2 / wavelength_m**5 / np.expm1(exponent)
    return np.asarray(irradiance * planck_W_m3_sr * 1e-6 / (Stefan_Boltzmann * SUN_K**4))
