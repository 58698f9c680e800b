"""How fast a pool is being emptied, and when it will be empty."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, inf

from topo.errors import InputError


class ConsumptionRate:
    """Measured consumption: the bits of the recent past, older ones weighing e^(-age / `time_constant_s`).

    Needs one number of memory however many requests come. Times are any clock's, in s; a clock that
    goes back counts as standing still.
    """

    def __init__(self, time_constant_s: float, start_s: float) -> None:
        if not time_constant_s > 0:
            raise InputError(f"time constant {time_constant_s} s: must be positive")
        self.time_constant_s = time_constant_s
        self._start_s = self._at_s = start_s
        self._weighed_bits = 0.0

    def record(self, bits: float, now_s: float) -> None:
        """`bits` were consumed at `now_s`."""
        self._advance(now_s)
        self._weighed_bits += bits

    def record_steadily(self, bits: float, now_s: float) -> None:
        """`bits` were consumed at an even rate from the last record (or the start) to `now_s`."""
        elapsed_s = now_s - self._at_s
        self._advance(now_s)
        if elapsed_s > 0:
            self._weighed_bits -= (
                bits * self.time_constant_s / elapsed_s * expm1(-elapsed_s / self.time_constant_s)
            )

    def bits_per_s(self, now_s: float) -> float:
        """The rate at `now_s`, unbiased from the start on; 0 before any time has gone by.

        A steady stream shows its own rate, however short the time it has been watched.
        """
        now_s = max(now_s, self._at_s)
        watched_s = -self.time_constant_s * expm1(-(now_s - self._start_s) / self.time_constant_s)
        if not watched_s:
            return 0.0
        return self._weighed_bits * exp(-(now_s - self._at_s) / self.time_constant_s) / watched_s

    def _advance(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._weighed_bits *= exp(-(now_s - self._at_s) / self.time_constant_s)
            self._at_s = now_s


@dataclass(frozen=True)
class Forecast:
    """What becomes of a pool if it is emptied at the measured rate and nothing is added."""

    level_bits: float
    rate_bits_per_s: float
    low_water_in_s: float
    """0 if the pool is below its low-water mark already, infinite if nothing is consumed."""
    exhausted_in_s: float
    """0 if it is empty already."""

    @property
    def is_low(self) -> bool:
        return self.low_water_in_s == 0


def forecast(level_bits: float, rate_bits_per_s: float, low_water_bits: float = 0.0) -> Forecast:
    """When a pool of `level_bits` will be low and when empty, at that rate; times in s from now."""

    def until(mark_bits: float) -> float:
        if level_bits <= mark_bits:
            return 0.0
        return (level_bits - mark_bits) / rate_bits_per_s if rate_bits_per_s > 0 else inf

    return Forecast(level_bits, rate_bits_per_s, until(low_water_bits), until(0.0))
