"""Cloud over the stations: an explicit assumption, seeded, not a forecast.

ASSUMPTION. A station's sky is clear or overcast for a whole night. Every night, with probability
`persistence`, the weather of the night before goes on; otherwise it is drawn afresh and is clear
with the station's clear-sky probability. That is the two-state Markov chain with

    P(clear | clear) = p + r (1 - p),    P(clear | overcast) = p (1 - r),

stationary share of clear nights p and correlation r from one night to the next. Stations are
independent of each other. No climatology stands behind the numbers: give those of your stations.

Written in the way above, tonight's sky is that of the latest night with a fresh draw, so that it
depends on nothing but seed, station and night, and not on which nights were asked for before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np

from topo.errors import InputError

DEFAULT_PERSISTENCE: Final = 0.4
"""Correlation of the sky from one night to the next. Assumed."""


@dataclass(frozen=True)
class CloudModel:
    """Which nights are clear. Raises `InputError` for an impossible probability."""

    seed: int
    clear_probability: float = 1.0
    """Share of clear nights of a station that has none of its own."""
    persistence: float = DEFAULT_PERSISTENCE
    """Correlation from one night to the next, in [0, 1)."""
    of_station: Mapping[str, float] = field(default_factory=dict)
    """Shares of clear nights by the station's name."""

    def __post_init__(self) -> None:
        shares = {"clear-sky probability": self.clear_probability}
        shares |= {f"clear-sky probability of {name}": p for name, p in self.of_station.items()}
        for what, value in shares.items():
            if not 0 <= value <= 1:
                raise InputError(f"{what} {value:g}: from 0 to 1")
        if not 0 <= self.persistence < 1:
            raise InputError(f"persistence of clouds {self.persistence:g}: from 0 to below 1")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: not below 0")

    def is_clear(self, station: str, night: date) -> bool:
        """Whether that night (named by its evening) is clear over the station."""
        probability = self.of_station.get(station, self.clear_probability)
        number = night.toordinal()
        while True:
            persists, sky = self._draws(station, number)
            if persists >= self.persistence or number == 1:  # before the first night of all is none
                return sky < probability
            number -= 1

    def describe(self) -> str:
        """The assumption in one line, for whoever reads a result."""
        shares = [f"{name} {p:g}" for name, p in self.of_station.items()]
        named = f" ({', '.join(shares)})" if shares else ""
        return (
            f"cloud is ASSUMED: a night is clear or overcast as a whole, two-state Markov chain, share of clear "
            f"nights {self.clear_probability:g}{named}, night-to-night correlation {self.persistence:g}, "
            f"seed {self.seed}"
        )

    def _draws(self, station: str, number: int) -> tuple[float, float]:
        """Two uniform numbers that belong to this seed, station and night."""
        rng = np.random.default_rng((self.seed, number, *station.encode()))
        first, second = rng.random(2)
        return float(first), float(second)
