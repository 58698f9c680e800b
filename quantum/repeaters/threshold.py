"""From what distance on pairs of cities turn to satellites."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.repeaters.parameters import LABEL
from topo.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogNormal:
    """A log-normal distribution of distances in km, scaled by how many pairs it stands for."""

    count: int
    mu: float
    """Mean of ln(distance/km)."""
    sigma: float
    """Standard deviation of it."""

    def density(self, distance_km: ArrayLike) -> Floats:
        """Pairs per km at a distance."""
        d = np.asarray(distance_km, dtype=np.float64)
        z = (np.log(d) - self.mu) / self.sigma
        return np.asarray(self.count * np.exp(-(z**2) / 2) / (d * self.sigma * sqrt(2 * np.pi)))


@dataclass(frozen=True)
class Threshold:
    """The distance d_th where satellites take over, and the two fits whose crossing it is."""

    distance_km: float | None
    """None where the fits do not cross, or one of them is missing."""
    ground: LogNormal | None
    """Pairs with key over fibre alone; None for fewer than two."""
    space: LogNormal | None
    """Pairs whose path uses a satellite; None for fewer than two."""
    reason: str = ""
    """Why there is no distance."""
    label: str = LABEL


def fit(distance_km: ArrayLike) -> LogNormal | None:
    """Log-normal distribution of largest likelihood; None for fewer than two different distances."""
    d = np.asarray(distance_km, dtype=np.float64)
    d = d[d > 0]
    if d.size < 2 or d.min() == d.max():
        return None
    return LogNormal(d.size, float(np.log(d).mean()), float(np.log(d).std()))


def threshold(ground_km: ArrayLike, space_km: ArrayLike) -> Threshold:
    """Where the count-weighted fit of satellite pairs rises above that of fibre pairs.

    Arguments are the distances of the pairs. Both fits are log-normal, scaled by their counts;
    the crossing is the one root of a quadratic in ln(distance) at which satellites take over.
    Source: the paper's text for the fits and the crossing; weighting by counts is a guess (unweighted
    the threshold is 100 to 200 km larger).
    """
    ground, space = fit(ground_km), fit(space_km)
    if ground is None or space is None:
        lacking = "fibre" if ground is None else "satellite"
        return Threshold(None, ground, space, f"fewer than two pairs use {lacking} links")
    # ln(space density/ground density) = a x^2 + b x + c with x = ln(distance).
    a = (ground.sigma**-2 - space.sigma**-2) / 2
    b = space.mu / space.sigma**2 - ground.mu / ground.sigma**2
    c = (
        log(space.count * ground.sigma / (ground.count * space.sigma))
        + ((ground.mu / ground.sigma) ** 2 - (space.mu / space.sigma) ** 2) / 2
    )
    crossing = _rising_root(a, b, c)
    if crossing is None:
        return Threshold(None, ground, space, "one of the fits is above the other at all distances")
    return Threshold(exp(crossing), ground, space)


def _rising_root(a: float, b: float, c: float) -> float | None:
    """The root of a x^2 + b x + c at which it turns positive; None where it does not."""
    discriminant = b**2 - 4 * a * c
    if discriminant <= 0:
        return None
    # 2 a x + b = +sqrt(discriminant) there, written so that a = 0 is no special case.
    if b > 0:
        return -2 * c / (b + sqrt(discriminant))
    return (sqrt(discriminant) - b) / (2 * a) if a else None


def by_use(distance_km: ArrayLike, uses_space: ArrayLike, has_key: ArrayLike) -> Threshold:
    """The threshold of pairs with key, told apart by whether they use a satellite; arrays (pairs,)."""
    distance = np.asarray(distance_km, dtype=np.float64)
    space = np.asarray(uses_space, dtype=bool)
    key = np.asarray(has_key, dtype=bool)
    if not distance.shape == space.shape == key.shape:
        raise InputError("threshold: distances, uses and keys must be of one length")
    return threshold(distance[key & ~space], distance[key & space])
