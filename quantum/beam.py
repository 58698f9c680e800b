"""How a telescope's beam spreads, and what a receiver far away catches of it.

The beam is a Gaussian cut off by the telescope's aperture and, in the middle, by its secondary
mirror. Far away, or focused on the receiver, its amplitude is the Fraunhofer integral

    A(v) = 2 Int_gamma^1 exp(-alpha^2 x^2) J0(v x) x dx,     v = k a_T theta

with alpha = a_T/w0 and gamma the linear obscuration, and a receiver of radius a_R catches

    F(u) = alpha^2 Int_0^u A(v)^2 v dv / T,                  u = k a_T a_R / L

of the light that leaves the telescope, a share T of the laser's. F has no other argument, so that
its integral is done once for a telescope and interpolated along a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import ceil, exp, inf, log2, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.special import j0, roots_legendre

from topo.errors import InputError

FloatArray = NDArray[np.float64]

_MAX_ARGUMENT = 256.0
"""u beyond which a receiver is so near or wide that the far-field picture makes no sense."""


@dataclass(frozen=True)
class Beam:
    """A truncated Gaussian beam, focused on the receiver or far from it."""

    wavelength_nm: float
    aperture_m: float
    """Diameter of the telescope that sends it."""
    waist_m: float
    """Radius at which the intensity in that aperture has fallen to 1/e^2."""
    obscuration: float = 0.0
    """Diameter of the secondary mirror over that of the aperture."""
    quality: float = 1.0
    """How many times wider than its diffraction limit the beam spreads (M^2 of a Gaussian)."""

    def __post_init__(self) -> None:
        for name in ("wavelength_nm", "aperture_m", "waist_m"):
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"beam: {name} {getattr(self, name)} must be positive")
        if not 0 <= self.obscuration < 1:
            raise InputError(f"beam: obscuration {self.obscuration} is not in [0, 1)")
        if not 1 <= self.quality < inf:
            raise InputError(
                f"beam: quality {self.quality} must be 1 (the diffraction limit) or more"
            )

    @property
    def truncation(self) -> float:
        """alpha = a_T/w0: the aperture's radius over the beam's."""
        return self.aperture_m / 2 / self.waist_m

    @property
    def launched(self) -> float:
        """T: share of the laser's power that leaves the telescope, the rest being clipped."""
        return _launched(self.truncation, self.obscuration)

    @property
    def divergence_urad(self) -> float:
        """1/e^2 half-angle of the Gaussian of the same power and far-field intensity on axis.

        Of a beam hardly truncated it is M^2 lambda/(pi w0).
        """
        on_axis = _on_axis(self.truncation, self.obscuration)
        return 1e6 * self.quality * sqrt(2 / on_axis) / self._edge_phase

    def with_divergence(self, divergence_urad: float) -> Beam:
        """The same telescope with the beam quality that gives this 1/e^2 half-angle."""
        limit_urad = replace(self, quality=1.0).divergence_urad
        if not limit_urad * (1 - 1e-9) <= divergence_urad < inf:
            raise InputError(
                f"divergence_urad {divergence_urad}: the diffraction limit of this telescope is "
                f"{limit_urad:.3g} urad; take a wider waist_m or a shorter wavelength_nm"
            )
        return replace(self, quality=max(1.0, divergence_urad / limit_urad))

    def collected(
        self, range_km: ArrayLike, receiver_m: float, receiver_obscuration: float = 0.0
    ) -> FloatArray:
        """Share of the launched light that a receiver of that diameter catches, beam on its centre.

        `range_km` of any shape. Numeric Fraunhofer integral, to about 1e-8.
        """
        u = self._argument(range_km, receiver_m)
        caught = self._encircled(u)
        if receiver_obscuration:
            caught = caught - self._encircled(receiver_obscuration * u)
        return caught

    def collected_on_axis(
        self, range_km: ArrayLike, receiver_m: float, receiver_obscuration: float = 0.0
    ) -> FloatArray:
        """The same as intensity on the axis times the receiver's area, at most 1.

        Times `launched`: A_t A_r/(lambda L)^2 (2/alpha^2) [exp(-alpha^2) - exp(-gamma^2 alpha^2)]^2.
        Source: Klein and Degnan, Applied Optics 13, 2134 (1974).
        """
        u = self._argument(range_km, receiver_m)
        on_axis = _on_axis(self.truncation, self.obscuration)
        return np.minimum(1.0, on_axis * u**2 * (1 - receiver_obscuration**2))

    @property
    def _edge_phase(self) -> float:
        """k a_T: phase per radian at the aperture's edge."""
        return pi * self.aperture_m / (self.wavelength_nm * 1e-9)

    def _argument(self, range_km: ArrayLike, receiver_m: float) -> FloatArray:
        range_m = 1e3 * np.asarray(range_km, dtype=np.float64)
        if not np.all(range_m > 0):
            raise InputError(f"range_km {np.min(range_m) / 1e3:g}: must be positive")
        u = self._edge_phase * receiver_m / 2 / (self.quality * range_m)
        if np.any(u > _MAX_ARGUMENT):
            raise InputError(
                f"range_km {np.min(range_m) / 1e3:g}: too near for the far field of this beam"
            )
        return np.asarray(u)

    def _encircled(self, u: FloatArray) -> FloatArray:
        alpha, gamma = self.truncation, self.obscuration
        doublings = max(0, ceil(log2(np.max(u, initial=1.0))))
        correction = _encircled_over_on_axis(alpha, gamma, doublings)
        return np.asarray(_on_axis(alpha, gamma) * u**2 * correction(u))


def _launched(alpha: float, gamma: float) -> float:
    return exp(-2 * (gamma * alpha) ** 2) - exp(-2 * alpha**2)


def _on_axis(alpha: float, gamma: float) -> float:
    """F(u)/u^2 for u -> 0: alpha^2 A(0)^2 / 2T."""
    amplitude = (exp(-((gamma * alpha) ** 2)) - exp(-(alpha**2))) / alpha**2
    return alpha**2 * amplitude**2 / 2 / _launched(alpha, gamma)


@cache
def _encircled_over_on_axis(alpha: float, gamma: float, doublings: int) -> CubicSpline:
    """F(u) over its on-axis approximation for u in [0, 2^doublings]: smooth, even, 1 at 0."""
    u_max = 2.0**doublings
    cells = max(64, 16 * 2**doublings)
    v_nodes, v_weights = roots_legendre(3)
    edges = np.linspace(0, u_max, cells + 1)
    half = u_max / cells / 2
    v = (edges[:-1, np.newaxis] + half * (1 + v_nodes)).ravel()

    # Beyond seven beam radii there is no amplitude left to integrate.
    outer = min(1.0, gamma + 7 / alpha)
    x, x_weights = roots_legendre(48 + int(u_max))
    x = gamma + (outer - gamma) * (1 + x) / 2
    field = (outer - gamma) * x_weights * x * np.exp(-((alpha * x) ** 2))
    amplitude = np.concatenate([j0(np.outer(part, x)) @ field for part in np.array_split(v, 16)])

    rings = (amplitude**2 * v).reshape(cells, 3) @ v_weights * half
    encircled = alpha**2 * np.cumsum(rings) / _launched(alpha, gamma)
    ratio = np.concatenate([[1.0], encircled / (_on_axis(alpha, gamma) * edges[1:] ** 2)])
    return CubicSpline(edges, ratio, bc_type=("clamped", "not-a-knot"))


def optimal_truncation(obscuration: float) -> float:
    """alpha = a_T/w0 that puts most light on the axis: 1.12 - 1.30 gamma^2 + 2.12 gamma^4.

    Source: Klein and Degnan (1974), for obscurations up to 0.4.
    """
    if not 0 <= obscuration <= 0.4:
        raise InputError(f"obscuration {obscuration}: the optimum is known for 0 to 0.4 only")
    return 1.12 - 1.30 * obscuration**2 + 2.12 * obscuration**4


def gaussian_radius_m(
    range_km: ArrayLike, divergence_urad: float, waist_m: float = 0.0
) -> FloatArray:
    """1/e^2 radius w(L) = sqrt(w0^2 + (theta L)^2) of an untruncated Gaussian beam."""
    spread_m = divergence_urad * 1e-3 * np.asarray(range_km, dtype=np.float64)
    return np.asarray(np.hypot(waist_m, spread_m))


def gaussian_share(aperture_m: float, radius_m: ArrayLike) -> FloatArray:
    """Share of a centred Gaussian beam of 1/e^2 radius w inside an aperture: 1 - exp(-2 a^2/w^2).

    At the receiver it is the geometric efficiency, at the transmitter what is not clipped.
    """
    return np.asarray(-np.expm1(-2 * (aperture_m / 2 / np.asarray(radius_m)) ** 2))


def mean_pointing(divergence_urad: float, jitter_urad: float) -> float:
    """Mean of the on-axis intensity under Gaussian jitter: w^2/(w^2 + 4 sigma^2 L^2).

    `jitter_urad` is the standard deviation of each axis. The range cancels, w being theta L. Of a
    truncated beam, with the divergence of `Beam.divergence_urad`, it is 0 to 3 % too low.
    """
    return divergence_urad**2 / (divergence_urad**2 + 4 * jitter_urad**2)


def offset_pointing(divergence_urad: float, offset_urad: ArrayLike) -> FloatArray:
    """Intensity off the axis of a Gaussian beam over that on it: exp(-2 theta_p^2/theta_d^2)."""
    return np.asarray(np.exp(-2 * (np.asarray(offset_urad) / divergence_urad) ** 2))
