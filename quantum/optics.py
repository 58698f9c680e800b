"""What clicks, and with which satellites: detection probabilities and the downlinks of real missions.

`preset` gives a mission's downlink, made of physical parts; `Downlink.changed` alters one of them.
What is published, what is assumed and what was fitted to a published rate stands beside every
number, in the link's `provenance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.atmosphere import airmass
from quantum.background import sky_radiance
from quantum.beam import Beam
from quantum.detector import Detector
from quantum.downlink import CalibratedDownlink, Downlink, PhysicalDownlink
from topo.errors import InputError

__all__ = [
    "JINAN1_CLEAR",
    "JINAN1_TYPICAL",
    "MICIUS_2017",
    "PRESETS",
    "CalibratedDownlink",
    "Downlink",
    "PhysicalDownlink",
    "airmass",
    "click_probability",
    "error_probability",
    "preset",
]

FloatArray = NDArray[np.float64]


def click_probability(
    transmittance: ArrayLike, mean_photons: ArrayLike, vacuum_yield: ArrayLike
) -> FloatArray:
    """Probability that a gate clicks: 1 - (1 - Y0) exp(-eta mu), a union, so never above 1.

    Arguments broadcast. Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005), with the exact union in
    place of their Y0 + 1 - exp(-eta mu).
    """
    reached = -np.asarray(transmittance, dtype=np.float64) * np.asarray(mean_photons)
    return np.asarray(1 - (1 - np.asarray(vacuum_yield)) * np.exp(reached))


def error_probability(
    transmittance: ArrayLike,
    mean_photons: ArrayLike,
    vacuum_yield: ArrayLike,
    misalignment: float,
) -> FloatArray:
    """Probability that a gate clicks wrongly, bases agreeing: Y0/2 + e_d (1 - exp(-eta mu)).

    Divide by `click_probability` for the QBER. Arguments broadcast. Source: Ma et al. (2005).
    """
    reached = -np.asarray(transmittance, dtype=np.float64) * np.asarray(mean_photons)
    return np.asarray(np.asarray(vacuum_yield) / 2 - misalignment * np.expm1(reached))


_LIAO_2017 = "published, Liao et al., Nature 549, 43 (2017)"
_FWHM = 2.3548  # of a Gaussian, in standard deviations


def _spad(gate_s: float) -> Detector:
    """A silicon avalanche diode of Micius's station."""
    return Detector(
        efficiency=0.5,
        dark_rate_hz=25.0,
        dead_time_s=50e-9,
        jitter_s=350e-12 / _FWHM,
        gate_s=gate_s,
        detectors=4,
    )


_USUAL = {
    "high_wind_m_s": "assumed: the usual Hufnagel-Valley profile; moves no mean",
    "ground_cn2": "assumed: the usual Hufnagel-Valley profile; moves no mean",
    "fading_correlation_s": "assumed: about 10 ms; moves no mean",
    "sky_airmass_exponent": "assumed: the sky alike all over",
    "detector.dead_time_s": "assumed: usual for silicon avalanche diodes",
    "detector.afterpulse_probability": "assumed: none but what the misalignment holds",
    "detector.trap_lifetime_s": "assumed: of no effect without afterpulses",
}

MICIUS_2017 = PhysicalDownlink(
    name="micius2017",
    beam=Beam(wavelength_nm=848.6, aperture_m=0.30, waist_m=0.10).with_divergence(7.35),
    jitter_urad=0.85,
    receiver_m=1.0,
    optics_efficiency=0.16,
    detector=_spad(gate_s=2e-9),
    misalignment=0.0085,
    extinction_dB_per_airmass=1.9,
    field_of_view_urad=100.0,
    filter_nm=5.0,
    sky_W_m2_sr_um=sky_radiance("moonless"),
    residual_dB_per_airmass=1.47,
    residual_noise_hz=242.0,
    provenance=MappingProxyType(
        {
            **_USUAL,
            "beam.wavelength_nm": _LIAO_2017,
            "beam.aperture_m": f"{_LIAO_2017}: 300 mm Cassegrain",
            "beam.waist_m": "assumed: a third of the aperture; only its ratio to the quality counts",
            "beam.obscuration": "assumed: none; only its part in the divergence counts",
            "beam.quality": (
                "computed: gives 7.35 urad half-angle, 22 dB at 1200 km as published (Liao et al. 2017; "
                "their divergence of about 10 urad is wider than its 8.7 urad full width at half maximum)"
            ),
            "jitter_urad": (
                f"{_LIAO_2017}: tracking to about 1.2 urad, taken as the error of both axes together; "
                "a loss below 3 dB"
            ),
            "receiver_m": _LIAO_2017,
            "receiver_obscuration": "assumed: inside the published loss of the optics",
            "optics_efficiency": f"{_LIAO_2017}: about 16 % with fibre coupling",
            "misalignment": (
                "fitted to the published mean QBER of 1.1 %; the published contrast of 280:1 sets "
                "its floor at 0.36 %"
            ),
            "extinction_dB_per_airmass": (
                f"{_LIAO_2017}: 3 to 8 dB at 1200 km (2.9 airmasses) with turbulence; the middle"
            ),
            "field_of_view_urad": "assumed",
            "filter_nm": "assumed",
            "sky_W_m2_sr_um": "assumed: a moonless sky away from cities",
            "residual_dB": "fitted to the published rates: none needed",
            "residual_dB_per_airmass": (
                "fitted to the published 12 kb/s at 645 km and 1 kb/s at 1200 km; the fibre coupling "
                "that turbulence costs is in it"
            ),
            "residual_noise_hz": (
                "fitted: what brings the noise to 1e-6 per gate, itself assumed (dark counts and this "
                "sky make 5e-7)"
            ),
            "detector.efficiency": _LIAO_2017,
            "detector.dark_rate_hz": f"{_LIAO_2017}: below 25 Hz each",
            "detector.jitter_s": f"{_LIAO_2017}: 350 ps, taken for a full width at half maximum",
            "detector.gate_s": _LIAO_2017,
            "detector.detectors": _LIAO_2017,
        }
    ),
)


def _jinan1(
    name: str, *, residual_dB: float, zenith_loss_dB: float, secret_Mbit: float
) -> PhysicalDownlink:
    """Jinan-1 over a portable station, its zenith loss at 513 km fitted to a published key."""
    as_micius = "assumed as on Micius"
    return PhysicalDownlink(
        name=name,
        beam=Beam(wavelength_nm=850.0, aperture_m=0.20, waist_m=0.067).with_divergence(5.0),
        jitter_urad=1.6,
        receiver_m=0.28,
        optics_efficiency=0.25,
        detector=_spad(gate_s=1e-9),
        misalignment=0.006,
        extinction_dB_per_airmass=1.0,
        field_of_view_urad=100.0,
        filter_nm=5.0,
        sky_W_m2_sr_um=sky_radiance("city"),
        residual_dB=residual_dB,
        residual_noise_hz=106.0,
        provenance=MappingProxyType(
            {
                **_USUAL,
                "beam.wavelength_nm": "reported second-hand: the 850 nm class",
                "beam.aperture_m": "assumed: nothing published",
                "beam.waist_m": "assumed: a third of the aperture",
                "beam.obscuration": "assumed: none",
                "beam.quality": "assumed: gives 5 urad half-angle, nothing published",
                "jitter_urad": "assumed: costs 1.5 dB, the middle of 1 to 2 dB",
                "receiver_m": "reported: the portable station of 28 cm",
                "receiver_obscuration": "assumed: none",
                "optics_efficiency": "assumed: 20 to 30 %",
                "misalignment": "assumed: 0.5 to 1 %",
                "extinction_dB_per_airmass": "assumed: clear sky, 1 to 1.5 dB",
                "field_of_view_urad": "assumed",
                "filter_nm": "assumed",
                "sky_W_m2_sr_um": "assumed: moonless, over a city",
                "residual_dB": (
                    f"fitted: a zenith loss of {zenith_loss_dB} dB at 513 km gives the published "
                    f"{secret_Mbit} Mbit of secret key from one 448 s pass "
                    "(arXiv:2408.10994; Li et al., Nature 640, 47 (2025))"
                ),
                "residual_dB_per_airmass": "assumed: none",
                "residual_noise_hz": (
                    "fitted: what brings the noise to 4e-7 per gate, itself assumed (dark counts and "
                    "this sky make 2.9e-7)"
                ),
                "detector.efficiency": as_micius,
                "detector.dark_rate_hz": as_micius,
                "detector.jitter_s": as_micius,
                "detector.detectors": as_micius,
                "detector.gate_s": "assumed: pulses come every 1.6 ns",
            }
        ),
    )


JINAN1_CLEAR = _jinan1("jinan1-clear", residual_dB=3.21, zenith_loss_dB=37.0, secret_Mbit=1.07)
JINAN1_TYPICAL = _jinan1("jinan1-typical", residual_dB=5.11, zenith_loss_dB=38.9, secret_Mbit=0.59)

PRESETS: Mapping[str, Downlink] = MappingProxyType(
    {link.name: link for link in (MICIUS_2017, JINAN1_CLEAR, JINAN1_TYPICAL)}
)


def preset(name: str) -> Downlink:
    """The downlink of that name; `InputError` lists the names when there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InputError(
            f"optical preset {name!r}: there are {', '.join(sorted(PRESETS))}"
        ) from None
