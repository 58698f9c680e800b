"""The optical downlink: how many of the satellite's photons become clicks on the ground.

The loss is a sum of named terms (dB). What is published, what is assumed and what was fitted to a
published rate stands beside every number, in `Downlink.provenance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topo.errors import InputError

FloatArray = NDArray[np.float64]


def airmass(elevation_deg: ArrayLike) -> FloatArray:
    """Relative optical airmass at an elevation; 1 at the zenith, 38 at the horizon.

    Source: Kasten and Young, Applied Optics 28, 4735 (1989).
    """
    elevation = np.asarray(elevation_deg, dtype=np.float64)
    return np.asarray(
        1 / (np.sin(np.radians(elevation)) + 0.50572 * (elevation + 6.07995) ** -1.6364)
    )


def click_probability(
    transmittance: ArrayLike, mean_photons: ArrayLike, vacuum_yield: float
) -> FloatArray:
    """Probability that a gate clicks: 1 - (1 - Y0) exp(-eta mu), a union, so never above 1.

    Arguments broadcast. Source: Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005), with the exact union in
    place of their Y0 + 1 - exp(-eta mu).
    """
    reached = -np.asarray(transmittance, dtype=np.float64) * np.asarray(mean_photons)
    return np.asarray(1 - (1 - vacuum_yield) * np.exp(reached))


def error_probability(
    transmittance: ArrayLike,
    mean_photons: ArrayLike,
    vacuum_yield: float,
    misalignment: float,
) -> FloatArray:
    """Probability that a gate clicks wrongly, bases agreeing: Y0/2 + e_d (1 - exp(-eta mu)).

    Divide by `click_probability` for the QBER. Arguments broadcast. Source: Ma et al. (2005).
    """
    reached = -np.asarray(transmittance, dtype=np.float64) * np.asarray(mean_photons)
    return np.asarray(vacuum_yield / 2 - misalignment * np.expm1(reached))


@dataclass(frozen=True)
class Downlink:
    """A calibrated optical channel from one satellite telescope to one ground receiver."""

    name: str
    reference_range_km: float
    """Range at which `diffraction_dB` holds; it grows with the square of the range (far field)."""
    diffraction_dB: float
    """Beam spread against the receiving aperture."""
    receiver_dB: float
    """Receiver optics and detector efficiency."""
    pointing_dB: float
    """Mean pointing loss."""
    atmosphere_dB_per_airmass: float
    """Extinction, and turbulence where it grows with airmass."""
    residual_dB: float
    """What the published rate demands beyond the terms above."""
    vacuum_yield: float
    """Y0: probability per gate of a click without a photon of the source (all detectors)."""
    misalignment: float
    """e_d: probability that a photon of the source clicks in the wrong detector."""
    provenance: Mapping[str, str] = field(repr=False)
    """Where each number above comes from."""

    def __post_init__(self) -> None:
        if not self.reference_range_km > 0:
            raise InputError(f"{self.name}: reference_range_km must be positive")
        if not 0 <= self.vacuum_yield < 1:
            raise InputError(f"{self.name}: vacuum_yield {self.vacuum_yield} is not in [0, 1)")
        if not 0 <= self.misalignment <= 0.5:
            raise InputError(f"{self.name}: misalignment {self.misalignment} is not in [0, 0.5]")

    def loss_dB(self, range_km: ArrayLike, airmass: ArrayLike) -> FloatArray:
        """Mean end-to-end loss, source to click, in dB; arguments broadcast."""
        spread_dB = 20 * np.log10(np.asarray(range_km) / self.reference_range_km)
        return np.asarray(
            self.diffraction_dB
            + spread_dB
            + self.receiver_dB
            + self.pointing_dB
            + self.atmosphere_dB_per_airmass * np.asarray(airmass)
            + self.residual_dB
        )

    def transmittance(self, range_km: ArrayLike, elevation_deg: ArrayLike) -> FloatArray:
        """Mean probability that a photon of the source clicks; arguments broadcast.

        Fading does not enter: at such losses mean counts depend on the mean transmittance only.
        """
        return np.asarray(10 ** (-self.loss_dB(range_km, airmass(elevation_deg)) / 10))


_LIAO_2017 = "published, Liao et al., Nature 549, 43 (2017)"

MICIUS_2017 = Downlink(
    name="micius2017",
    reference_range_km=1200.0,
    diffraction_dB=22.0,
    receiver_dB=10.97,
    pointing_dB=0.0,
    atmosphere_dB_per_airmass=3.36,
    residual_dB=0.20,
    vacuum_yield=1e-6,
    misalignment=0.0085,
    provenance=MappingProxyType(
        {
            "reference_range_km": _LIAO_2017,
            "diffraction_dB": f"{_LIAO_2017}: 22 dB at 1200 km",
            "receiver_dB": f"{_LIAO_2017}: optics 16 % with fibre coupling, detectors 50 %",
            "pointing_dB": "published below 3 dB; here inside the two fitted terms",
            "atmosphere_dB_per_airmass": (
                "fitted to the published 12 kb/s at 645 km and 1 kb/s at 1200 km; holds the fibre "
                "coupling loss from turbulence too"
            ),
            "residual_dB": "fitted to the same two rates",
            "vacuum_yield": (
                "assumed, top of the plausible 2e-7 to 1e-6 per 2 ns gate; the published dark rate "
                "(4 x 25 Hz) alone is 2e-7"
            ),
            "misalignment": (
                "fitted to the published mean QBER of 1.1 %; the published contrast of 280:1 sets "
                "its floor at 0.36 %"
            ),
        }
    ),
)


def _jinan1(name: str, zenith_loss_dB: float, secret_Mbit: float) -> Downlink:
    """Jinan-1 over a portable station, its zenith loss at 513 km fitted to a published key."""
    diffraction_dB, receiver_dB, pointing_dB, atmosphere_dB = 22.3, 9.03, 1.5, 1.0
    return Downlink(
        name=name,
        reference_range_km=513.0,
        diffraction_dB=diffraction_dB,
        receiver_dB=receiver_dB,
        pointing_dB=pointing_dB,
        atmosphere_dB_per_airmass=atmosphere_dB,
        residual_dB=zenith_loss_dB - diffraction_dB - receiver_dB - pointing_dB - atmosphere_dB,
        vacuum_yield=4e-7,
        misalignment=0.006,
        provenance=MappingProxyType(
            {
                "reference_range_km": "computed: a 500 km orbit near the zenith",
                "diffraction_dB": (
                    "computed: 28 cm receiver (reported) in a beam of 5 urad half-angle (assumed)"
                ),
                "receiver_dB": "assumed: optics 25 %, detectors 50 % as on Micius",
                "pointing_dB": "assumed: 1 to 2 dB",
                "atmosphere_dB_per_airmass": "assumed: clear sky, 1 to 1.5 dB",
                "residual_dB": (
                    f"fitted: a zenith loss of {zenith_loss_dB} dB gives the published "
                    f"{secret_Mbit} Mbit of secret key from one 448 s pass "
                    "(arXiv:2408.10994; Li et al., Nature 640, 47 (2025))"
                ),
                "vacuum_yield": "assumed, per 1 ns gate",
                "misalignment": "assumed: 0.5 to 1 %",
            }
        ),
    )


JINAN1_CLEAR = _jinan1("jinan1-clear", zenith_loss_dB=37.0, secret_Mbit=1.07)
JINAN1_TYPICAL = _jinan1("jinan1-typical", zenith_loss_dB=38.9, secret_Mbit=0.59)

PRESETS: Mapping[str, Downlink] = MappingProxyType(
    {link.name: link for link in (MICIUS_2017, JINAN1_CLEAR, JINAN1_TYPICAL)}
)


def preset(name: str) -> Downlink:
    """The calibrated downlink of that name; `InputError` lists the names when there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InputError(
            f"optical preset {name!r}: there are {', '.join(sorted(PRESETS))}"
        ) from None
