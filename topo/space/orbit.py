"""Where a satellite is: SGP4 from two-line elements, in Earth-fixed coordinates."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sgp4.api import SGP4_ERRORS, Satrec

from topo.errors import InputError
from topo.space.frames import DAY_S, julian_utc, teme_to_earth_fixed, utc
from topo.space.tle import Tle

Floats = NDArray[np.float64]

MAX_AGE_DAYS: Final = 30.0
"""How far from their epoch elements are used unless the caller says otherwise.

Element sets of low orbits are good to about a kilometre at their epoch, and drag that nobody foresaw carries the
satellite along its track by an error that grows with the square of time: after a month a pass may come a minute off.
"""


class Satellite:
    """A satellite on the orbit of an element set (SGP4, WGS 72 constants as the elements are made with)."""

    def __init__(self, tle: Tle) -> None:
        self.tle = tle
        self._satrec = Satrec.twoline2rv(tle.line1, tle.line2)
        if self._satrec.error:
            raise InputError(f"{tle.place}: {tle.name}: no orbit: {_reason(self._satrec.error)}")

    def __repr__(self) -> str:
        return f"Satellite({self.name!r})"

    @property
    def name(self) -> str:
        return self.tle.name

    @property
    def period_s(self) -> float:
        """Time of one revolution."""
        return DAY_S / self.tle.revolutions_per_day

    def state(self, unix_s: ArrayLike) -> tuple[Floats, Floats]:
        """Earth-fixed position in km and velocity in km/s, shape (3, n), at instants of shape (n,).

        The velocity is that against the turning Earth. Raises `InputError` where SGP4 has no answer,
        as for an orbit that has decayed by then.
        """
        instants = np.atleast_1d(np.asarray(unix_s, np.float64))
        errors, position, velocity = self._satrec.sgp4_array(*julian_utc(instants))
        if errors.any():
            first = int(np.argmax(errors != 0))
            raise InputError(
                f"{self.tle.place}: {self.name} at {utc(instants[first]):%Y-%m-%d %H:%M} UTC: "
                f"SGP4 has no position: {_reason(int(errors[first]))}; take elements nearer to that date"
            )
        return teme_to_earth_fixed(position.T, velocity.T, instants)

    def check_age(self, start_s: float, end_s: float, max_age_days: float = MAX_AGE_DAYS) -> None:
        """Raise `InputError` unless the elements are good for all of [start, end].

        Instants are seconds since 1970 UTC.
        """
        epoch_s = self.tle.epoch.timestamp()
        farthest_s = max(start_s, end_s, key=lambda instant: abs(instant - epoch_s))
        age_days = abs(farthest_s - epoch_s) / DAY_S
        if age_days > max_age_days:
            raise InputError(
                f"{self.tle.place}: {self.name} has elements of {self.tle.epoch:%Y-%m-%d}, and "
                f"{utc(farthest_s):%Y-%m-%d} is {age_days:.0f} days from that: SGP4 is trusted for "
                f"{max_age_days:g}; take elements of nearer that date, or allow a greater age"
            )


def _reason(code: int) -> str:
    return str(SGP4_ERRORS.get(code, f"SGP4 error {code}"))
