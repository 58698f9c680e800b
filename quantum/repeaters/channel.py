"""How much light gets through: fibre, and the free-space channel from a satellite to a telescope.

Diffraction, extinction and pointing are those of `quantum.beam` and `quantum.atmosphere`, which the
satellite key distribution of this project uses too. Arrays broadcast, results are float64 arrays;
*text*, *guess* and *verbatim* as in `quantum.repeaters.werner`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.atmosphere import visibility_extinction_per_km
from quantum.beam import gaussian_radius_m, gaussian_share, mean_pointing, offset_pointing
from quantum.repeaters.parameters import Parameters
from topo.errors import InputError

Floats = NDArray[np.float64]

VISIBILITY_KM: Final = (0.05, 100.0)
"""Range that visibilities are clipped to: beyond it the extinction model says nothing."""


def fibre_efficiency(length_km: ArrayLike, p: Parameters) -> Floats:
    """Efficiency of a fibre between places that far apart: 10^(-alpha L/10), L times the detour.

    Equation (2): text; the detour is 1 there.
    """
    loss_dB = p.fibre_dB_km * p.detour * np.asarray(length_km, dtype=np.float64)
    return np.asarray(10 ** (-loss_dB / 10))


def free_space_flat(range_km: ArrayLike, divergence_urad: float, receiver_m: float) -> Floats:
    """Share caught of a beam that lights a disc evenly: min(1, (D/(2 theta L))^2).

    `divergence_urad` is the half-angle. Equation (4): text; illustrative, the network does not use it.
    """
    spot_m = 2e-3 * divergence_urad * np.asarray(range_km, dtype=np.float64)
    return np.asarray(np.minimum(1.0, (receiver_m / spot_m) ** 2))


def free_space_gaussian(range_km: ArrayLike, divergence_urad: float, receiver_m: float) -> Floats:
    """Share caught of a Gaussian beam: 1 - exp(-2 (D/2)^2/(theta L)^2). Equation (4): guess, a check."""
    return gaussian_share(receiver_m, gaussian_radius_m(range_km, divergence_urad))


def geometric_efficiency(range_km: ArrayLike, p: Parameters) -> Floats:
    """Share of the satellite's light that enters the telescope, on axis in the far field.

    A_t A_r/(lambda l)^2 (2/alpha^2) [exp(-alpha^2) - exp(-gamma^2 alpha^2)]^2, clipping at the
    transmitter included, alpha the optimal truncation (equation (12): guess, Klein and Degnan 1974).
    Equation (13): text, verbatim up to the normalisation in Klein and Degnan.
    """
    caught = p.beam.collected_on_axis(range_km, p.receiver_m, p.receiver_obscuration)
    return np.asarray(p.beam.launched * caught)


def pointing_efficiency(p: Parameters) -> float:
    """What the pointing error leaves: exp(-2 theta_p^2/theta_d^2), or its mean over jitter.

    Equation (14): guess, Degnan's gain.
    """
    if p.pointing_model == "jitter":
        return mean_pointing(p.divergence_urad, p.pointing_urad)
    return float(offset_pointing(p.divergence_urad, p.pointing_urad))


def cloud_transmittance(cloud: ArrayLike, elevation_deg: ArrayLike, p: Parameters) -> Floats:
    """What clouds let through at a cloud cover in [0, 1], by `cloud_model`. All of them guesses.

    * `linear`: 1 - C. The mean over clear and opaque sky; overcast is dark.
    * `floor`: the same, at least `cloud_floor`.
    * `kasten_czeplak`: 1 - 0.75 C^3.4, what clouds leave of global irradiance (Solar Energy 24, 177
      (1980)): 6 dB when overcast.
    * `exp`: exp(-tau C), tau the `cloud_depth`.
    * `degnan_cirrus`: 1 - C + C exp(-0.14 (t sec Z)^2): what is covered is thin cirrus, `cirrus_km`
      thick (its transmittance verbatim in Degnan, 1993).
    """
    cover = np.asarray(cloud, dtype=np.float64)
    if not np.all((cover >= 0) & (cover <= 1)):  # NaN too
        raise InputError("cloud cover: shares from 0 to 1 (divide per cent by 100)")
    match p.cloud_model:
        case "linear":
            through = 1 - cover
        case "floor":
            through = np.maximum(1 - cover, p.cloud_floor)
        case "kasten_czeplak":
            through = 1 - 0.75 * cover**3.4
        case "exp":
            through = np.exp(-p.cloud_depth * cover)
        case "degnan_cirrus":
            slant_km = p.cirrus_km / np.sin(np.radians(elevation_deg))
            through = 1 - cover + cover * np.exp(-0.14 * slant_km**2)
    return np.asarray(through)


def atmosphere_efficiency(
    elevation_deg: ArrayLike, visibility_km: ArrayLike, cloud: ArrayLike, p: Parameters
) -> Floats:
    """What air and clouds let through: cloud factor times exp(-beta(V, lambda) m sec Z).

    Visibility in km, clipped to `VISIBILITY_KM`; cloud cover in [0, 1]; elevations above the horizon.
    Equation (15): the exponential is text and verbatim in Degnan (1993), the cloud factor a guess.
    """
    visibility = np.clip(np.asarray(visibility_km, dtype=np.float64), *VISIBILITY_KM)
    beta = visibility_extinction_per_km(visibility, p.wavelength_nm, p.extinction_model)
    air = np.exp(-beta * p.scale_height_km / np.sin(np.radians(elevation_deg)))
    return np.asarray(cloud_transmittance(cloud, elevation_deg, p) * air)


def spatial_filter_efficiency(p: Parameters) -> float:
    """Signal that the field of view leaves: 1 - exp(-FOV^2/(8 sigma_p^2)); 1 unless `spatial_filter`.

    Verbatim in Qrackling's model of a tracking camera; whether the paper has it is a guess.
    """
    if not p.spatial_filter or p.pointing_urad == 0:
        return 1.0
    return float(-np.expm1(-(p.field_of_view_urad**2) / (8 * p.pointing_urad**2)))


def vacuum_efficiency(range_km: ArrayLike, p: Parameters) -> Floats:
    """eta_geo eta_point eta_coup of one downlink, and its spatial filter: all but air and clouds; any shape. Text."""
    everywhere = pointing_efficiency(p) * p.coupling_efficiency * spatial_filter_efficiency(p)
    return np.asarray(everywhere * geometric_efficiency(range_km, p))


def downlink_efficiency(
    range_km: ArrayLike,
    elevation_deg: ArrayLike,
    visibility_km: ArrayLike,
    cloud: ArrayLike,
    p: Parameters,
) -> Floats:
    """eta_tot = eta_geo eta_point eta_atm eta_coup of one downlink; arguments broadcast. Text."""
    air = atmosphere_efficiency(elevation_deg, visibility_km, cloud, p)
    return np.asarray(vacuum_efficiency(range_km, p) * air)
