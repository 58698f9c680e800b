"""What both ends of a BB84 link agree on before the pass: source and security parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import inf, isclose
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from topo.errors import InputError

BASES = ("X", "Z")
"""Names of the bases; a basis in an array is its index here."""

LEAST_EPS = 1e-30
"""Failure probabilities must lie above: the hash of `quantum.bb84.verification` promises no less."""

Bound = Literal["chernoff", "hoeffding", "asymptotic"]
"""How counts are bounded against fluctuations, see `quantum.bb84.finite_key`."""


@dataclass(frozen=True)
class Bb84Parameters:
    """Decoy-state BB84 with a signal and one or two decoys, both bases keyed."""

    pulse_rate_hz: float
    intensities: tuple[float, ...]
    """Mean photon numbers at the telescope's output: mu1 > mu2 > mu3, where mu3 may be the vacuum,
    or mu1 > mu2 for the one-decoy protocol."""
    intensity_probabilities: tuple[float, ...]
    """How often each is sent; they sum to 1."""
    basis_x_probability: float = 0.5
    """How often each end takes the X basis; other than 1/2 it is efficient BB84."""
    eps_secrecy: float = 1e-9
    """Secrecy failure probability of the key from one basis."""
    eps_correctness: float = 1e-15
    """Probability that the two ends' keys differ, from one basis."""
    max_qber: float = 0.11
    """Above this error rate a pass is abandoned: 1 - 2 h(QBER) is negative beyond 11 %."""
    bound: Bound = "chernoff"
    """Of which "asymptotic" is the limit of long blocks, for comparison: no secure key length."""

    def __post_init__(self) -> None:
        self._check_intensities()
        if not 1 <= self.pulse_rate_hz < inf:
            raise InputError(f"pulse_rate_hz {self.pulse_rate_hz}: must be at least 1, and finite")
        if self.bound not in get_args(Bound):
            raise InputError(f"bound {self.bound!r}: must be one of {', '.join(get_args(Bound))}")
        for name, least in (
            ("basis_x_probability", 0.0),
            ("eps_secrecy", LEAST_EPS),
            ("eps_correctness", LEAST_EPS),
        ):
            if not least < getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: must lie between {least:g} and 1")
        if not 0 < self.max_qber <= 0.5:
            raise InputError(f"max_qber {self.max_qber}: must lie in (0, 0.5]")

    def _check_intensities(self) -> None:
        mu, count = self.intensities, len(self.intensities)
        if count not in (2, 3):
            raise InputError(f"intensities {mu}: must be two or three numbers")
        if len(self.intensity_probabilities) != count:
            raise InputError(
                f"intensity_probabilities {self.intensity_probabilities}: must be as many as the "
                f"intensities, {count}"
            )
        if not mu[0] < inf:
            raise InputError(f"intensities: mu1 = {mu[0]:g} must be finite")
        for number, (brighter, weaker) in enumerate(pairwise(mu), 1):
            if not brighter > weaker:
                raise InputError(
                    f"intensities: mu{number + 1} = {weaker:g} must be below "
                    f"mu{number} = {brighter:g}"
                )
        if not mu[-1] >= 0:
            raise InputError(f"intensities: mu{count} = {mu[-1]:g} must be 0 or more")
        if count == 2 and not mu[1] > 0:
            raise InputError("intensities: mu2 = 0 leaves no decoy to bound single photons by")
        if count == 3 and not mu[0] > mu[1] + mu[2]:
            raise InputError(
                f"intensities: mu1 = {mu[0]:g} must be above mu2 + mu3 = {mu[1] + mu[2]:g}, or the "
                "decoys bound nothing"
            )
        for number, probability in enumerate(self.intensity_probabilities, 1):
            if not 0 < probability < 1:
                raise InputError(
                    f"intensity_probabilities: p{number} = {probability:g} must lie between 0 and 1"
                )
        total = sum(self.intensity_probabilities)
        if not isclose(total, 1.0, abs_tol=1e-9):
            raise InputError(f"intensity_probabilities: they sum to {total:g}, must sum to 1")


Settings = TypeVar("Settings")
"""A frozen dataclass of numbers, words and tuples of numbers."""


def changed(settings: Settings, assignments: Iterable[str]) -> Settings:
    """The same settings with some changed, each given as ``name=value``, all at once.

    A tuple is given as numbers between commas: ``intensities=0.7,0.1,0``. Works on `Bb84Parameters`,
    `quantum.bb84.eavesdropper.Eavesdropper` and the like. Raises `InputError` for a name that is not
    there, for what is not a number where one is due, and for whatever the settings themselves
    refuse.
    """
    kind = type(settings).__name__
    present = {field.name: getattr(settings, field.name) for field in fields(settings)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise InputError(f"{assignment!r}: must be name=value")
        if name not in present:
            raise InputError(f"{kind} has no {name}: there are {', '.join(present)}")
        try:
            new[name] = _parsed(value, present[name])
        except ValueError:
            example = present[name]
            shown = ",".join(map(str, example)) if isinstance(example, tuple) else example
            raise InputError(f"{name}={value}: must be like {name}={shown}") from None
    return replace(settings, **new)  # type: ignore[type-var]


def _parsed(value: str, like: object) -> object:
    """A value of the same type; `ValueError` where it is none."""
    if isinstance(like, tuple):
        return tuple(float(part) for part in value.split(","))
    return type(like)(value) if isinstance(like, int | float) else value


MICIUS_2017 = Bb84Parameters(
    pulse_rate_hz=100e6,
    intensities=(0.8, 0.1, 0.0),
    intensity_probabilities=(0.5, 0.25, 0.25),
)
"""Published: Liao et al., Nature 549, 43 (2017)."""

JINAN1 = Bb84Parameters(
    pulse_rate_hz=625e6,
    intensities=(0.8, 0.1, 0.0),
    intensity_probabilities=(0.5, 0.25, 0.25),
)
"""The rate is reported second-hand; intensities are unpublished, those of Micius are assumed.
(625 MHz x 50 % x 0.8 agrees with the reported 250 million signal photons a second.)"""

PRESETS: Mapping[str, Bb84Parameters] = MappingProxyType(
    {"micius2017": MICIUS_2017, "jinan1-clear": JINAN1, "jinan1-typical": JINAN1}
)
"""The source that goes with each optical preset of the same name."""
