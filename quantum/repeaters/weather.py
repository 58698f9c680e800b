"""Cloud, visibility and daylight over the cities, minute by minute.

A `Weather` answers `at(unix_s)` with `Conditions`, arrays (minutes, cities). There are

* `steady_weather`: the same all the time, and dark unless told otherwise (the paper's first case),
* `synthetic_weather`: SYNTHETIC, seeded, correlated in space and time; for want of a network,
* `weather_files.read_weather`: what a weather service recorded or forecast.

The sky's brightness is taken from its diffuse irradiance, given or modelled from Sun and cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtr

from quantum.repeaters.cities import City, directions, pair_distances_km, pair_indices
from topo.errors import InputError
from topo.space.frames import utc
from topo.space.sky import sun_and_moon

Floats = NDArray[np.float64]

CLEAR_VISIBILITY_KM: Final = 23.0
"""Of a clear standard atmosphere, and where nothing is known."""
CORRELATION_KM: Final = 400.0
"""Distance over which synthetic weather forgets."""
CORRELATION_H: Final = 6.0
"""Time over which it does. Assumed."""
MEDIAN_VISIBILITY_KM: Final = 15.0
"""Of synthetic weather that is not clear."""
VISIBILITY_SPREAD: Final = 0.5
"""Standard deviation of its logarithm. Assumed."""
CLIMATES: Final[Mapping[str, tuple[float, float] | None]] = MappingProxyType(
    {"clear": None, "mid": (0.6, 0.6), "winter": (0.45, 0.25)}
)
"""Cloud cover of synthetic weather: the two parameters of its beta distribution; None: no cloud."""


@dataclass(frozen=True)
class Conditions:
    """The sky over every city at every instant: arrays (minutes, cities)."""

    cloud: Floats
    """Cover, in [0, 1]."""
    visibility_km: Floats
    irradiance_W_m2: Floats
    """Diffuse irradiance of level ground, all wavelengths: how bright the sky is; 0 at night."""

    def at_night(self) -> Conditions:
        """The same clouds without daylight."""
        return Conditions(self.cloud, self.visibility_km, np.zeros_like(self.irradiance_W_m2))


class Weather(Protocol):
    """Where conditions come from."""

    @property
    def description(self) -> str:
        """One line for whoever reads a result; says SYNTHETIC if it is."""

    def at(self, unix_s: ArrayLike) -> Conditions:
        """Conditions at instants (minutes,)."""


@dataclass(frozen=True)
class SteadyWeather:
    """Weather that does not change; arrays (cities,)."""

    cloud: Floats
    visibility_km: Floats
    irradiance_W_m2: Floats
    description: str

    def at(self, unix_s: ArrayLike) -> Conditions:
        shape = (np.size(unix_s), len(self.cloud))
        return Conditions(
            np.broadcast_to(self.cloud, shape),
            np.broadcast_to(self.visibility_km, shape),
            np.broadcast_to(self.irradiance_W_m2, shape),
        )


def steady_weather(
    cities: Sequence[City],
    cloud: ArrayLike = 0.0,
    visibility_km: ArrayLike = CLEAR_VISIBILITY_KM,
    irradiance_W_m2: ArrayLike = 0.0,
) -> SteadyWeather:
    """One sky for all time, numbers or one for each city; a clear night unless told otherwise."""
    shape = (len(cities),)
    cover, visibility, light = (
        np.broadcast_to(np.asarray(value, dtype=np.float64), shape)
        for value in (cloud, visibility_km, irradiance_W_m2)
    )
    _check(cover, visibility, light, "steady weather")
    means = f"cloud {cover.mean():.2g}, visibility {visibility.mean():.3g} km"
    return SteadyWeather(
        cover, visibility, light, f"steady weather: {means}, {light.mean():.3g} W/m2 of sky light"
    )


@dataclass(frozen=True)
class HourlyWeather:
    """Weather known at some instants, usually hourly; arrays (instants, cities).

    Between them cloud and irradiance are interpolated linearly, visibility in its logarithm. The last
    values hold for one more step, so that a file of 24 hours covers a day.
    """

    unix_s: Floats
    cloud: Floats
    visibility_km: Floats
    irradiance_W_m2: Floats | None
    """Diffuse; None: modelled from Sun and cloud (`diffuse_irradiance_W_m2`)."""
    cities: tuple[City, ...]
    description: str
    irradiance_offset_s: float = 0.0
    """When irradiances hold, after their instant: -1800 for means of the hour before."""
    notes: tuple[str, ...] = field(default=())
    """What was missing and what was taken for it."""

    def __post_init__(self) -> None:
        expected = (len(self.unix_s), len(self.cities))
        light = self.cloud if self.irradiance_W_m2 is None else self.irradiance_W_m2
        for what in (self.cloud, self.visibility_km, light):
            if what.shape != expected or not len(self.unix_s):
                raise InputError(f"{self.description}: arrays must be {expected}, not {what.shape}")
        if not np.all(np.diff(self.unix_s) > 0):
            raise InputError(f"{self.description}: its instants must rise")
        _check(self.cloud, self.visibility_km, np.maximum(light, 0), self.description)

    @property
    def end_s(self) -> float:
        """Until when the last values hold."""
        step_s = self.unix_s[-1] - self.unix_s[-2] if len(self.unix_s) > 1 else 3600.0
        return float(self.unix_s[-1] + step_s)

    def at(self, unix_s: ArrayLike) -> Conditions:
        """Conditions at instants (minutes,); raises `InputError` for any that the weather lacks."""
        instants = np.asarray(unix_s, dtype=np.float64)
        first_s, last_s = instants.min(), instants.max()
        if first_s < self.unix_s[0] or last_s >= self.end_s:
            have, want = (
                f"{utc(float(a)):%Y-%m-%d %H:%M} to {utc(float(b)):%Y-%m-%d %H:%M}"
                for a, b in ((self.unix_s[0], self.end_s), (first_s, last_s))
            )
            raise InputError(f"{self.description}: covers {have} UTC, not {want}: get those days")
        cloud = self._between(self.cloud, instants)
        visibility = np.exp(self._between(np.log(self.visibility_km), instants))
        if self.irradiance_W_m2 is None:
            light = diffuse_irradiance_W_m2(sun_elevation_deg(self.cities, instants), cloud)
        else:
            light = self._between(self.irradiance_W_m2, instants - self.irradiance_offset_s)
        return Conditions(cloud, visibility, light)

    def _between(self, values: Floats, instants: Floats) -> Floats:
        """Linear interpolation in time of all cities at once; the ends hold beyond."""
        last = len(self.unix_s) - 1
        before = np.clip(np.searchsorted(self.unix_s, instants, side="right") - 1, 0, last)
        after = np.minimum(before + 1, last)
        step_s = np.where(after > before, self.unix_s[after] - self.unix_s[before], 1.0)
        share = np.clip((instants - self.unix_s[before]) / step_s, 0.0, 1.0)[:, np.newaxis]
        return np.asarray((1 - share) * values[before] + share * values[after])


def synthetic_weather(
    cities: Sequence[City], start_s: float, hours: int, *, seed: int, climate: str = "mid"
) -> HourlyWeather:
    """SYNTHETIC weather: no forecast, no record; the same for the same seed, cities, start and climate.

    Gaussian fields with the correlation exp(-d/400 km) exp(-t/6 h), one for cloud cover, of the beta
    distribution of that climate, one for visibility, log-normal about 15 km. `hours` more of it
    begin like `hours` fewer. Daylight is modelled from Sun and cloud. Raises `InputError` for an
    unknown climate.
    """
    if climate not in CLIMATES:
        raise InputError(f"climate {climate!r}: there are {', '.join(CLIMATES)}")
    if hours < 1:
        raise InputError(f"synthetic weather of {hours} hours: at least one")
    if seed < 0:
        raise InputError(f"seed {seed}: not below 0")
    shape = (hours + 1, len(cities))
    beta = CLIMATES[climate]
    if beta is None:
        cloud, visibility = np.zeros(shape), np.full(shape, CLEAR_VISIBILITY_KM)
    else:
        root = _correlation_root(cities)
        cloud_rng, visibility_rng = np.random.default_rng(seed).spawn(2)
        cloud = betaincinv(*beta, ndtr(_field(root, shape, cloud_rng)))
        log_visibility = VISIBILITY_SPREAD * _field(root, shape, visibility_rng)
        visibility = MEDIAN_VISIBILITY_KM * np.exp(log_visibility)
    return HourlyWeather(
        np.asarray(start_s + 3600.0 * np.arange(hours + 1), dtype=np.float64),
        np.clip(cloud, 0.0, 1.0),
        visibility,
        None,
        tuple(cities),
        f"SYNTHETIC weather, climate {climate}, seed {seed}: no forecast, no record",
    )


def _correlation_root(cities: Sequence[City]) -> Floats:
    """A with A A^T the correlation of all cities; also where two are in one place."""
    n = len(cities)
    a, b = pair_indices(n)
    correlation = np.eye(n)
    correlation[a, b] = correlation[b, a] = np.exp(-pair_distances_km(cities) / CORRELATION_KM)
    values, vectors = np.linalg.eigh(correlation)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _field(root: Floats, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Standard Gaussian field, (hours, cities): first-order Gauss-Markov in time."""
    memory = exp(-1 / CORRELATION_H)
    fresh = rng.standard_normal(shape) @ root.T
    out = np.empty(shape)
    out[0] = fresh[0]
    for hour in range(1, shape[0]):
        out[hour] = memory * out[hour - 1] + sqrt(1 - memory**2) * fresh[hour]
    return out


def sun_elevation_deg(cities: Sequence[City], unix_s: ArrayLike) -> Floats:
    """Geometric elevation of the Sun over every city, shape (minutes, cities)."""
    instants = np.atleast_1d(np.asarray(unix_s, dtype=np.float64))
    sun_km, _ = sun_and_moon(instants)
    sine = (sun_km / np.linalg.norm(sun_km, axis=0)).T @ directions(cities)
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))))


def clear_sky_irradiance_W_m2(sun_elevation_deg: ArrayLike) -> Floats:
    """Global irradiance of level ground under a clear sky; 0 while the Sun is down.

    1098 sin(h) exp(-0.059/sin(h)). Source: Haurwitz, Journal of Meteorology 2, 154 (1945), with the
    coefficients that pvlib has.
    """
    sine = np.maximum(np.sin(np.radians(sun_elevation_deg)), 1e-3)
    up = np.asarray(sun_elevation_deg) > 0
    return np.where(up, 1098.0 * sine * np.exp(-0.059 / sine), 0.0)


def diffuse_irradiance_W_m2(sun_elevation_deg: ArrayLike, cloud: ArrayLike) -> Floats:
    """Diffuse irradiance of level ground under a cloud cover in [0, 1]; arguments broadcast.

    Clear sky times 1 - 0.75 C^3.4, of which 0.3 + 0.7 C^2 is diffuse. Source: Kasten and Czeplak,
    Solar Energy 24, 177 (1980).
    """
    cover = np.asarray(cloud, dtype=np.float64)
    all_of_it = clear_sky_irradiance_W_m2(sun_elevation_deg) * (1 - 0.75 * cover**3.4)
    return np.asarray(all_of_it * (0.3 + 0.7 * cover**2))


def _check(cloud: Floats, visibility_km: Floats, light: Floats, what: str) -> None:
    if not np.all((cloud >= 0) & (cloud <= 1)):
        raise InputError(f"{what}: cloud cover must be from 0 to 1")
    if not np.all(visibility_km > 0):
        raise InputError(f"{what}: visibility must be above 0 km")
    if not np.all((light >= 0) & (light < np.inf)):
        raise InputError(f"{what}: irradiance must be 0 W/m2 or more")
