"""The optical downlink: how many of a satellite's photons become clicks on the ground, and what else clicks.

Two ways to describe one. `PhysicalDownlink` is made of parts (telescopes, sky, detectors), so that
any of them can be changed and the rest follows. `CalibratedDownlink` is a link budget in dB, for a
link known by its measured losses. Either way the loss is a sum of named terms, and where every
number comes from stands beside it in `provenance`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.atmosphere import GROUND_CN2, HIGH_WIND_M_S, airmass, log_irradiance_variance
from quantum.background import photon_rate_hz
from quantum.beam import Beam, mean_pointing
from quantum.detector import IDEAL, Detector, dark_probability, gate_fraction
from quantum.fading import fading_factors, pointing_index
from topo.errors import InputError

FloatArray = NDArray[np.float64]

SET_BY_HAND = "set by hand"
"""Provenance of a number that `Downlink.changed` replaced."""


class Downlink(ABC):
    """An optical channel from a satellite's telescope to the clicks on the ground.

    Its input is light of the source's mean photon numbers leaving the telescope.
    """

    name: str
    misalignment: float
    """e_d: probability that a photon of the source clicks in the wrong detector."""
    detector: Detector
    _DERIVED: ClassVar[tuple[str, ...]] = ()
    """Names that `changed` takes besides those of the fields."""
    provenance: Mapping[str, str]
    """Where each number comes from: published, reported, computed, assumed or fitted.

    Numbers of a part stand under `part.field`.
    """

    @abstractmethod
    def _loss_terms_dB(self, range_km: FloatArray, airmass: FloatArray) -> dict[str, FloatArray]:
        """The terms of the loss, each broadcast to the shape of both arguments together."""

    @abstractmethod
    def noise_terms(self, elevation_deg: ArrayLike = 90.0) -> dict[str, FloatArray]:
        """Probability per gate of a click without a photon of the source, by cause; shape as given."""

    @abstractmethod
    def fading(
        self, elevation_deg: ArrayLike, slot_s: float, rng: np.random.Generator
    ) -> FloatArray:
        """Random factors of mean 1 on the transmittance of consecutive slots, shape (slots,)."""

    def loss_terms_dB(self, range_km: ArrayLike, elevation_deg: ArrayLike) -> dict[str, FloatArray]:
        """The mean loss by cause, in dB; arguments broadcast. Their sum is the loss."""
        distance, x = np.broadcast_arrays(
            np.asarray(range_km, dtype=np.float64), airmass(elevation_deg)
        )
        return self._loss_terms_dB(distance, x)

    def loss_dB(self, range_km: ArrayLike, airmass: ArrayLike) -> FloatArray:
        """Mean end-to-end loss, telescope to click, in dB; arguments broadcast."""
        distance, x = np.broadcast_arrays(
            np.asarray(range_km, dtype=np.float64), np.asarray(airmass, dtype=np.float64)
        )
        return np.asarray(sum(self._loss_terms_dB(distance, x).values()))

    def transmittance(self, range_km: ArrayLike, elevation_deg: ArrayLike) -> FloatArray:
        """Mean probability that a photon of the source clicks; arguments broadcast.

        Fading does not enter: at such losses mean counts depend on the mean transmittance only.
        Raises `InputError` for a link that would make light.
        """
        loss_dB = self.loss_dB(range_km, airmass(elevation_deg))
        if np.any(loss_dB < 0):
            raise InputError(
                f"{self.name}: a loss of {np.min(loss_dB):.1f} dB is a gain, which no link has; "
                "see its residual_dB"
            )
        return np.asarray(10 ** (-loss_dB / 10))

    def vacuum_yield_at(self, elevation_deg: ArrayLike) -> FloatArray:
        """Y0: probability per gate of a click without a photon of the source, in any detector."""
        quiet = [1 - term for term in self.noise_terms(elevation_deg).values()]
        return np.asarray(1 - np.prod(quiet, axis=0))

    @property
    def vacuum_yield(self) -> float:
        """Y0 towards the zenith, and anywhere else unless the sky's brightness varies."""
        return float(self.vacuum_yield_at(90.0))

    def changed(self, **changes: Any) -> Self:
        """The same link with some numbers changed, its own, its parts', or a part as a whole.

        ``link.changed(receiver_m=0.6, gate_s=0.5e-9)``. What was changed says so in `provenance`.
        Raises `InputError` for a name that is nowhere in the link.
        """
        own: dict[str, Any] = {}
        provenance = dict(self.provenance)
        owners = self._owners()
        for name, value in changes.items():
            if name not in owners:
                known = ", ".join(sorted([*owners, *self._DERIVED]))
                raise InputError(f"{self.name}: there is no {name}; it has {known}")
            part = owners[name]
            if part:
                own[part] = replace(own.get(part, getattr(self, part)), **{name: value})
            else:
                own[name] = value
                provenance = {k: v for k, v in provenance.items() if not k.startswith(f"{name}.")}
            provenance[f"{part}.{name}" if part else name] = SET_BY_HAND
        own["provenance"] = MappingProxyType(provenance)
        return replace(self, **own)  # type: ignore[type-var]  # both subclasses are dataclasses

    def _owners(self) -> dict[str, str]:
        """Every number's name, and the part it belongs to ('' for the link itself)."""
        owners: dict[str, str] = {}
        for own in fields(self):  # type: ignore[arg-type]
            part = getattr(self, own.name)
            if is_dataclass(part):
                owners |= {inner.name: own.name for inner in fields(part)}
            if own.name not in ("name", "provenance"):
                owners[own.name] = ""
        return owners

    def _check(self, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()) -> None:
        """Refuse numbers out of their range, and a misalignment worse than a coin."""
        for name in positive:
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"{self.name}: {name} {getattr(self, name)} must be positive")
        for name in not_negative:
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{self.name}: {name} {getattr(self, name)} must be 0 or more")
        if not 0 <= self.misalignment <= 0.5:
            raise InputError(f"{self.name}: misalignment {self.misalignment} is not in [0, 0.5]")


@dataclass(frozen=True)
class PhysicalDownlink(Downlink):
    """A downlink made of its parts."""

    _DERIVED: ClassVar[tuple[str, ...]] = ("divergence_urad", "vacuum_yield")

    name: str
    beam: Beam
    """What leaves the satellite."""
    receiver_m: float
    """Diameter of the telescope on the ground."""
    optics_efficiency: float
    """Share of the light in that telescope that reaches the detectors."""
    detector: Detector
    misalignment: float
    """e_d: probability that a photon of the source clicks in the wrong detector."""
    extinction_dB_per_airmass: float
    """Absorption and scattering of the air towards the zenith."""
    jitter_urad: float = 0.0
    """Pointing error of the satellite, standard deviation of each axis."""
    receiver_obscuration: float = 0.0
    """Diameter of the ground telescope's secondary mirror over that of its aperture."""
    field_of_view_urad: float = 100.0
    """Full angle of the sky that the detectors see."""
    filter_nm: float = 5.0
    """Width of the spectral filter."""
    sky_W_m2_sr_um: float = 0.0
    """Spectral radiance of the sky at the zenith, see `quantum.background`."""
    sky_airmass_exponent: float = 0.0
    """n, where the sky brightens to the horizon as airmass^n; 0: alike all over."""
    high_wind_m_s: float = HIGH_WIND_M_S
    """Root mean square wind aloft, of the Hufnagel-Valley turbulence."""
    ground_cn2: float = GROUND_CN2
    """Turbulence at the ground, m^(-2/3)."""
    fading_correlation_s: float = 0.01
    """Time over which fades forget."""
    residual_dB: float = 0.0
    """Loss that a published rate demands beyond the other terms: fitted."""
    residual_dB_per_airmass: float = 0.0
    """The part of it that grows with airmass."""
    residual_noise_hz: float = 0.0
    """Clicks per second, of all detectors, beyond those of the dark and the sky."""
    provenance: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self._check(
            positive=("receiver_m", "field_of_view_urad", "filter_nm", "fading_correlation_s"),
            not_negative=(
                "extinction_dB_per_airmass",
                "jitter_urad",
                "sky_W_m2_sr_um",
                "high_wind_m_s",
                "ground_cn2",
                "residual_noise_hz",
            ),
        )
        if not 0 < self.optics_efficiency <= 1:
            raise InputError(
                f"{self.name}: optics_efficiency {self.optics_efficiency} is not in (0, 1]"
            )
        if not 0 <= self.receiver_obscuration < 1:
            raise InputError(
                f"{self.name}: receiver_obscuration {self.receiver_obscuration} is not in [0, 1)"
            )
        if not self.detector.efficiency > 0:
            raise InputError(f"{self.name}: a detector of efficiency 0 sees nothing")

    @property
    def divergence_urad(self) -> float:
        """1/e^2 half-angle of the beam; `changed(divergence_urad=...)` widens or narrows it."""
        return self.beam.divergence_urad

    def _loss_terms_dB(self, range_km: FloatArray, airmass: FloatArray) -> dict[str, FloatArray]:
        caught = self.beam.collected(range_km, self.receiver_m, self.receiver_obscuration)
        everywhere = {
            "pointing": mean_pointing(self.beam.divergence_urad, self.jitter_urad),
            "optics": self.optics_efficiency,
            "detector": self.detector.efficiency,
            "gate": gate_fraction(self.detector),
        }
        constant = {name: np.full(airmass.shape, _dB(eta)) for name, eta in everywhere.items()}
        return {
            "diffraction": _dB(caught),
            "pointing": constant["pointing"],
            "atmosphere": np.asarray(self.extinction_dB_per_airmass * airmass),
            "optics": constant["optics"],
            "detector": constant["detector"],
            "gate": constant["gate"],
            "residual": np.asarray(self.residual_dB + self.residual_dB_per_airmass * airmass),
        }

    def sky_rate_hz(self, elevation_deg: ArrayLike = 90.0) -> FloatArray:
        """Clicks per second that the sky causes in all detectors; shape of the argument."""
        photons = photon_rate_hz(
            self.sky_W_m2_sr_um * airmass(elevation_deg) ** self.sky_airmass_exponent,
            receiver_m=self.receiver_m,
            receiver_obscuration=self.receiver_obscuration,
            field_of_view_urad=self.field_of_view_urad,
            filter_nm=self.filter_nm,
            wavelength_nm=self.beam.wavelength_nm,
        )
        return photons * self.optics_efficiency * self.detector.efficiency

    def noise_terms(self, elevation_deg: ArrayLike = 90.0) -> dict[str, FloatArray]:
        """Probability per gate of a dark count, of a photon of the sky, of the fitted rest."""
        sky_hz = self.sky_rate_hz(elevation_deg)
        gate_s = self.detector.gate_s
        return {
            "dark": np.full(sky_hz.shape, dark_probability(self.detector)),
            "sky": np.asarray(-np.expm1(-sky_hz * gate_s)),
            "residual": np.full(sky_hz.shape, -np.expm1(-self.residual_noise_hz * gate_s)),
        }

    def fading(
        self, elevation_deg: ArrayLike, slot_s: float, rng: np.random.Generator
    ) -> FloatArray:
        """Turbulence, averaged over the receiver, times pointing; see `quantum.fading`."""
        variance = log_irradiance_variance(
            elevation_deg,
            self.beam.wavelength_nm,
            self.receiver_m,
            high_wind_m_s=self.high_wind_m_s,
            ground_cn2=self.ground_cn2,
        )
        index = pointing_index(self.beam.divergence_urad, self.jitter_urad)
        return fading_factors(variance, index, slot_s, rng, correlation_s=self.fading_correlation_s)

    def changed(self, **changes: Any) -> Self:
        """As for any `Downlink`, and two numbers that follow from others.

        `divergence_urad` sets the beam's quality, `vacuum_yield` the noise beyond dark and sky.
        """
        derived = {name: changes.pop(name) for name in self._DERIVED if name in changes}
        link = super().changed(**changes)
        if "divergence_urad" in derived:
            link = link.changed(
                quality=link.beam.with_divergence(derived["divergence_urad"]).quality
            )
        if "vacuum_yield" in derived:
            link = link.changed(residual_noise_hz=link._noise_beyond(derived["vacuum_yield"]))
        return link

    def _noise_beyond(self, vacuum_yield: float) -> float:
        """Clicks per second that the dark and the sky lack to that yield."""
        terms = self.noise_terms()
        known = float(1 - (1 - terms["dark"]) * (1 - terms["sky"]))
        if not known <= vacuum_yield < 1:
            raise InputError(
                f"{self.name}: vacuum_yield {vacuum_yield} is not in [{known:.3g}, 1), where dark "
                "counts and sky alone make the lower end: change dark_rate_hz, sky_W_m2_sr_um or gate_s"
            )
        return float(-np.log1p((known - vacuum_yield) / (1 - known)) / self.detector.gate_s)


@dataclass(frozen=True)
class CalibratedDownlink(Downlink):
    """A downlink known by its losses, in dB, and by its clicks in the dark."""

    _DERIVED: ClassVar[tuple[str, ...]] = ("vacuum_yield",)

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
    """What a published rate demands beyond the terms above."""
    noise_per_gate: float
    """Y0: probability per gate of a click without a photon of the source (all detectors)."""
    misalignment: float
    """e_d: probability that a photon of the source clicks in the wrong detector."""
    detector: Detector = IDEAL
    """For its dead time and afterpulses: efficiency, gate and dark counts are in the numbers above."""
    provenance: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self._check(
            positive=("reference_range_km",),
            not_negative=(
                "diffraction_dB",
                "receiver_dB",
                "pointing_dB",
                "atmosphere_dB_per_airmass",
            ),
        )
        if not 0 <= self.noise_per_gate < 1:
            raise InputError(f"{self.name}: noise_per_gate {self.noise_per_gate} is not in [0, 1)")

    def changed(self, **changes: Any) -> Self:
        """As for any `Downlink`; `vacuum_yield` is another name of `noise_per_gate`."""
        if "vacuum_yield" in changes:
            changes["noise_per_gate"] = changes.pop("vacuum_yield")
        return super().changed(**changes)

    def _loss_terms_dB(self, range_km: FloatArray, airmass: FloatArray) -> dict[str, FloatArray]:
        if not np.all(range_km > 0):
            raise InputError(f"range_km {np.min(range_km):g}: must be positive")
        spread_dB = 20 * np.log10(range_km / self.reference_range_km)
        return {
            "diffraction": np.asarray(self.diffraction_dB + spread_dB),
            "pointing": np.full(airmass.shape, self.pointing_dB),
            "atmosphere": np.asarray(self.atmosphere_dB_per_airmass * airmass),
            "receiver": np.full(airmass.shape, self.receiver_dB),
            "residual": np.full(airmass.shape, self.residual_dB),
        }

    def noise_terms(self, elevation_deg: ArrayLike = 90.0) -> dict[str, FloatArray]:
        """The one measured number, wherever the telescope points."""
        return {"measured": np.full(np.shape(elevation_deg), self.noise_per_gate)}

    def fading(
        self, elevation_deg: ArrayLike, slot_s: float, rng: np.random.Generator
    ) -> FloatArray:
        """Ones: a budget of mean losses knows nothing of fading."""
        return np.ones(np.shape(elevation_deg))


def _dB(efficiency: ArrayLike) -> FloatArray:
    return np.asarray(-10 * np.log10(efficiency))
