"""The numbers of a hybrid repeater network, each with where it comes from.

Table 1 of the paper this models (Photonics 11, 268 (2024)) is not available. What its text gives is
marked *paper*; the rest is literature or a guess, chosen so that the network splits its fibre links
near 150 km and turns to satellites near 500 km as the paper reports: calibrated, not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf, pi
from typing import Annotated, Any, Final, Literal, Self, get_args, get_type_hints

from scipy.constants import speed_of_light

from quantum.beam import Beam, optimal_truncation
from topo.errors import InputError

LABEL: Final = "calibrated, not verified against the paper's Table 1"
"""What every result of a hybrid network says of itself."""

CarModel = Literal["paper", "one_sided"]
CloudModel = Literal["linear", "floor", "kasten_czeplak", "exp", "degnan_cirrus"]
PointingModel = Literal["offset", "jitter"]
SecretFraction = Literal["bbm92", "correction_only"]
ExtinctionModel = Literal["kim", "kruse"]
SourceEfficiency = Literal["inside", "outside"]


@dataclass(frozen=True)
class Parameters:
    """Everything the links of a hybrid network are made of; `origins` says where each number is from.

    Raises `InputError` for a number out of its range or a switch that does not exist.
    """

    # The chain.
    rate_hz: Annotated[float, "paper: the rate R of the repeater chain"] = 10e9
    modes: Annotated[float, "fitted: with the efficiencies, splits links near 150 km"] = 1000.0
    """M: multiplexed modes of one attempt."""
    source_efficiency: Annotated[float, "guess: expected in 10 to 20 years"] = 0.9
    memory_efficiency: Annotated[float, "guess: expected in 10 to 20 years"] = 0.9
    """Of storing and retrieving together."""
    bsm_efficiency: Annotated[float, "guess: linear optics; the detectors are in it"] = 0.5
    source_werner: Annotated[float, "guess: 0.985 to 0.995 give the paper's threshold"] = 0.99
    memory_werner: Annotated[float, "guess: 0.985 to 0.995 give the paper's threshold"] = 0.99
    bsm_werner: Annotated[float, "guess: the BSM is perfect but for stray light"] = 1.0
    source_in_attempt: Annotated[SourceEfficiency, "paper's words: per attempt"] = "inside"
    """Whether the sources count in every mode (`inside`) or once, after all modes (`outside`)."""
    ground_powers: Annotated[tuple[int, int, int], "guess: every element degrades once"] = (2, 2, 1)
    """Powers of the Werner parameters of sources, memories and BSM in a fibre link; (1, 1, 1) is milder."""
    space_powers: Annotated[tuple[int, int, int], "guess: every element degrades once"] = (3, 2, 1)
    """The same in a satellite link; the last is the power of each of its two stations' BSM."""
    max_segments: Annotated[int, "assumed: more than 5 yield no key with the Werner defaults"] = 64
    """Most elementary links that a fibre between two cities is cut into."""

    # Key.
    correction_inefficiency: Annotated[float, "literature: error correction, 1.0 to 1.22"] = 1.16
    secret_fraction: Annotated[SecretFraction, "literature: entanglement-based BB84"] = "bbm92"
    sifting: Annotated[float, "assumed: biased bases; 0.5 for even ones moves no threshold"] = 1.0

    # Fibre.
    fibre_dB_km: Annotated[float, "literature: standard fibre; 0.17 is ultra-low loss"] = 0.2
    detour: Annotated[float, "paper: none; 1.2 to 1.4 is usual"] = 1.0
    """Length of a fibre over the distance between its ends."""

    # Downlink.
    wavelength_nm: Annotated[float, "guess: goes into the fibre as it is"] = 1550.0
    transmitter_m: Annotated[float, "literature: low orbits (Commun. Phys. 5 (2022))"] = 0.3
    transmitter_obscuration: Annotated[float, "guess: an off-axis telescope; 0.3 is usual"] = 0.0
    receiver_m: Annotated[float, "literature: 0.8 to 1 m (Commun. Phys. 5 (2022))"] = 1.0
    receiver_obscuration: Annotated[float, "guess: an off-axis telescope; 0.3 is usual"] = 0.0
    pointing_urad: Annotated[float, "assumed: typical of fine pointing"] = 1.0
    """Pointing error, half-angle: offset, or standard deviation of each axis (`pointing_model`)."""
    pointing_model: Annotated[PointingModel, "paper: a half-angle error"] = "offset"
    coupling_efficiency: Annotated[float, "paper: the optimistic assumption"] = 1.0
    scale_height_km: Annotated[float, "literature: Degnan's aerosol scale height"] = 1.2
    extinction_model: Annotated[ExtinctionModel, "literature: Kim et al. (2001)"] = "kim"
    cloud_model: Annotated[CloudModel, "guess: the least certain term of all"] = "linear"
    cloud_floor: Annotated[float, "guess: 0.01 to 0.1; of the model `floor`"] = 0.01
    cloud_depth: Annotated[float, "guess: optical depth of full cover; of the model `exp`"] = 3.0
    cirrus_km: Annotated[float, "literature: Degnan; of the model `degnan_cirrus`"] = 1.341
    mask_deg: Annotated[float, "guess: lowest elevation; 5 gives the same"] = 10.0

    # Stray light.
    field_of_view_urad: Annotated[float, "paper; taken for the full angle"] = 50.0
    jitter_ps: Annotated[float, "guess: of the detectors"] = 50.0
    car_model: Annotated[CarModel, "guess: of the form that the paper's words describe"] = "paper"
    night_radiance_W_m2_sr_um: Annotated[float, "assumed: none; 1.5e-5 is a moonless sky"] = 0.0
    """Floor under the radiance of the sky."""
    spatial_filter: Annotated[bool, "assumed: the field of view cuts no signal"] = False
    """Whether the field of view also cuts off what wandering aim puts outside it."""

    def __post_init__(self) -> None:
        for own in fields(self):
            _check(own.name, getattr(self, own.name))

    @property
    def filter_nm(self) -> float:
        """Width of the spectral filter: lambda^2/c times the rate of the chain."""
        return self.wavelength_nm**2 * self.rate_hz / speed_of_light * 1e-9

    @property
    def window_s(self) -> float:
        """tau: the time in which a detector cannot tell photons apart, jitter or clock."""
        return max(self.jitter_ps * 1e-12, 1 / self.rate_hz)

    @property
    def beam(self) -> Beam:
        """What leaves the satellite: its waist puts most light on the axis (Klein and Degnan, 1974)."""
        truncation = optimal_truncation(self.transmitter_obscuration)
        return Beam(
            wavelength_nm=self.wavelength_nm,
            aperture_m=self.transmitter_m,
            waist_m=self.transmitter_m / 2 / truncation,
            obscuration=self.transmitter_obscuration,
        )

    @property
    def divergence_urad(self) -> float:
        """theta_d = lambda/(pi w0), half-angle."""
        return 1e-3 * self.wavelength_nm / (pi * self.beam.waist_m)

    @classmethod
    def origins(cls) -> Mapping[str, str]:
        """Where each default is from: the paper, literature, a guess, a fit or an assumption."""
        hints = get_type_hints(cls, include_extras=True)
        return {own.name: hints[own.name].__metadata__[0] for own in fields(cls)}

    def changed(self, **changes: Any) -> Self:
        """The same network with some numbers changed. Raises `InputError` for an unknown name."""
        known = [own.name for own in fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"repeater parameter {name!r}: there are {', '.join(known)}")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, for a summary."""
        return asdict(self)


_SWITCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "source_in_attempt": get_args(SourceEfficiency),
    "secret_fraction": get_args(SecretFraction),
    "pointing_model": get_args(PointingModel),
    "extinction_model": get_args(ExtinctionModel),
    "cloud_model": get_args(CloudModel),
    "car_model": get_args(CarModel),
}
_SHARES: Final = {
    "source_efficiency",
    "memory_efficiency",
    "bsm_efficiency",
    "source_werner",
    "memory_werner",
    "bsm_werner",
    "coupling_efficiency",
    "sifting",
    "cloud_floor",
}
_NOT_NEGATIVE: Final = {
    "fibre_dB_km",
    "pointing_urad",
    "cloud_depth",
    "cirrus_km",
    "jitter_ps",
    "night_radiance_W_m2_sr_um",
    "scale_height_km",
}


def _check(name: str, value: Any) -> None:
    """Raise `InputError` unless the value is one that this parameter can have."""
    place = f"repeater parameter {name} {value!r}"
    if name in _SWITCHES:
        _demand(value in _SWITCHES[name], f"{place}: one of {', '.join(_SWITCHES[name])}")
    elif name in ("ground_powers", "space_powers"):
        good = len(value) == 3 and all(isinstance(power, int) and power >= 0 for power in value)
        _demand(good, f"{place}: three whole numbers, 0 or more: source, memory, BSM")
    elif name == "spatial_filter":
        _demand(isinstance(value, bool), f"{place}: true or false")
    elif name == "max_segments":
        _demand(isinstance(value, int) and value >= 1, f"{place}: a whole number, at least 1")
    elif not isinstance(value, int | float):
        raise InputError(f"{place}: must be a number")
    elif name in _SHARES:
        _demand(0 <= value <= 1, f"{place}: from 0 to 1")
    elif name.endswith("_obscuration"):
        _demand(0 <= value <= 0.4, f"{place}: from 0 to 0.4")
    elif name in ("detour", "correction_inefficiency", "modes"):
        _demand(1 <= value < inf, f"{place}: 1 or more")
    elif name == "mask_deg":
        _demand(0 < value < 90, f"{place}: degrees above 0 and below 90")
    elif name in _NOT_NEGATIVE:
        _demand(0 <= value < inf, f"{place}: 0 or more")
    else:
        _demand(0 < value < inf, f"{place}: must be positive")


def _demand(good: bool, otherwise: str) -> None:
    if not good:
        raise InputError(otherwise)
