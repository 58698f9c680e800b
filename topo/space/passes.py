"""Passes of a satellite over a ground station: elevation and slant range, second by second.

`circular_pass` is the analytic case: a circular orbit over an Earth that does not turn. Passes from
orbital elements (`topo.space.contacts`) give the same `Pass`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from topo.errors import InputError
from topo.space.geometry import R_EARTH_KM

EARTH_GM_KM3_S2 = 398_600.4418
"""Gravitational parameter of the Earth (WGS 84)."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over a station in slots of `slot_s`, each described by the geometry at its centre.

    All arrays have shape (slots,). `t_s` counts from culmination, so it is negative on the way up.
    """

    t_s: NDArray[np.float64]
    elevation_deg: NDArray[np.float64]
    range_km: NDArray[np.float64]
    slot_s: float = 1.0
    azimuth_deg: NDArray[np.float64] | None = None
    """From north by east; None where the pass is of no place on Earth."""
    culmination: datetime | None = None
    """The instant that `t_s` counts from; None where the pass is of no date."""

    @property
    def duration_s(self) -> float:
        """Time covered by the slots, in s."""
        return len(self.t_s) * self.slot_s

    def window(self, start_s: float, end_s: float) -> Pass:
        """The part of the pass whose slot centres lie in [start_s, end_s].

        Raises `InputError` when no slot does.
        """
        inside = (self.t_s >= start_s) & (self.t_s <= end_s)
        if not inside.any():
            raise InputError(
                f"window {start_s} s to {end_s} s: the pass runs from "
                f"{self.t_s[0]:.0f} s to {self.t_s[-1]:.0f} s of culmination"
            )
        return replace(
            self,
            t_s=self.t_s[inside],
            elevation_deg=self.elevation_deg[inside],
            range_km=self.range_km[inside],
            azimuth_deg=None if self.azimuth_deg is None else self.azimuth_deg[inside],
        )


def visibility_s(altitude_km: float, culmination_deg: float, mask_deg: float) -> float:
    """Time a circular orbit spends above the mask, in s, over an Earth that does not turn.

    The central angle psi between station and sub-satellite point obeys
    cos psi = cos psi_0 cos(omega t) (spherical Pythagoras), psi_0 at culmination. Raises
    `InputError` for a pass that does not rise above the mask.
    """
    if not altitude_km > 0:
        raise InputError(f"altitude {altitude_km} km: must be above the ground")
    if not 0 <= mask_deg < culmination_deg <= 90:
        raise InputError(
            f"culmination {culmination_deg} deg over a mask of {mask_deg} deg: "
            "must be 0 <= mask < culmination <= 90"
        )
    at_mask = _central_angle_rad(altitude_km, mask_deg)
    at_culmination = _central_angle_rad(altitude_km, culmination_deg)
    half_arc_rad = np.arccos(np.cos(at_mask) / np.cos(at_culmination))
    return float(2 * half_arc_rad / _mean_motion_rad_s(altitude_km))


def circular_pass(altitude_km: float, culmination_deg: float, mask_deg: float) -> Pass:
    """Elevation and slant range of a circular orbit's pass, every second, 0 s being culmination.

    The Earth does not turn and is a sphere: for 511 km, 77.9 deg, mask 10 deg this gives 449.6 s
    where the real pass of 22 November 2024 over Beijing took 448 s. Raises `InputError` for a pass
    that does not rise above the mask.
    """
    half_s = int(visibility_s(altitude_km, culmination_deg, mask_deg) / 2)
    t_s = np.arange(-half_s, half_s + 1, dtype=np.float64)
    orbit_km = R_EARTH_KM + altitude_km
    cos_psi = np.cos(_central_angle_rad(altitude_km, culmination_deg)) * np.cos(
        _mean_motion_rad_s(altitude_km) * t_s
    )
    range_km = np.sqrt(R_EARTH_KM**2 + orbit_km**2 - 2 * R_EARTH_KM * orbit_km * cos_psi)
    sin_elevation = (orbit_km * cos_psi - R_EARTH_KM) / range_km
    # Rounding can carry a zenith pass a hair above 1.
    elevation_deg = np.degrees(np.arcsin(np.minimum(sin_elevation, 1.0)))
    return Pass(t_s, elevation_deg, range_km)


def _central_angle_rad(altitude_km: float, elevation_deg: float) -> float:
    """Central angle between station and sub-satellite point at which the elevation is seen."""
    elevation_rad = np.radians(elevation_deg)
    ratio = R_EARTH_KM / (R_EARTH_KM + altitude_km)
    return float(np.arccos(ratio * np.cos(elevation_rad)) - elevation_rad)


def _mean_motion_rad_s(altitude_km: float) -> float:
    """Angular speed of a circular orbit (Kepler's third law)."""
    return float(np.sqrt(EARTH_GM_KM3_S2 / (R_EARTH_KM + altitude_km) ** 3))
