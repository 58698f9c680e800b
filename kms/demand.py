"""What a pair of stations consumes, and the level of the pool they share, over days."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kms.alarms import Alarm, AlarmKind
from kms.forecast import ConsumptionRate, Forecast, forecast
from topo.errors import InputError

DAY_S = 86400.0


@dataclass(frozen=True)
class Demand:
    """The key that a pair of stations needs. `InputError` for what cannot be."""

    pair: tuple[str, str]
    bits_per_s: float
    """From the start on. An IPsec tunnel that takes 256 bits every 10 minutes needs 0.43 bit/s."""
    steps: tuple[tuple[float, float], ...] = ()
    """Later rates: (days from the start, bits per second), by time."""
    priority: int = 0
    """For the policy `priority`: greater goes first."""
    low_water_bits: float = 100_000.0
    """Below this an alarm sounds."""
    initial_bits: float = 0.0
    """What the pool holds at the start."""

    def __post_init__(self) -> None:
        if len(set(self.pair)) != 2:
            raise InputError(f"demand {self.name}: a pair has two stations")
        days = [day for day, _ in self.steps]
        if days != sorted(set(days)) or any(not day > 0 for day in days):
            raise InputError(f"demand {self.name}: its steps must come one after the other")
        values = (self.bits_per_s, *(rate for _, rate in self.steps))
        for value in (*values, self.low_water_bits, self.initial_bits):
            if not 0 <= value < float("inf"):
                raise InputError(f"demand {self.name}: {value:g}: must not be negative")

    @property
    def name(self) -> str:
        return "–".join(self.pair)


@dataclass
class Outage:
    """A time without key."""

    start: datetime
    end: datetime | None = None
    """None while it lasts."""


@dataclass
class PairPool:
    """The pool of one pair: emptied steadily, filled by relays, watched.

    Between two calls the level is a chain of straight lines; `levels` holds its corners.
    """

    demand: Demand
    start: datetime
    rate_over_s: float = DAY_S
    """Time constant of the measured consumption."""
    levels: list[tuple[datetime, float]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    relayed_bits: int = 0
    consumed_bits: float = 0.0
    refused_bits: float = 0.0
    """Asked for while the pool was empty."""

    def __post_init__(self) -> None:
        self._level = self.demand.initial_bits
        self._now_s = 0.0
        self._rate = ConsumptionRate(self.rate_over_s, 0.0)
        self._is_low = False
        self._note()
        self._watch()

    @property
    def level_bits(self) -> float:
        return self._level

    def advance(self, now: datetime) -> None:
        """Let the consumers take what they ask for until `now`."""
        for until_s, rate in self._stretches((now - self.start).total_seconds()):
            self._consume(until_s, rate)

    def add(self, bits: int, now: datetime) -> None:
        """A relay has brought `bits`."""
        self.advance(now)
        self._note()
        self._level += bits
        self.relayed_bits += bits
        self._note()
        self._is_low = self._is_low and self._level < self.demand.low_water_bits
        if bits and self.outages and self.outages[-1].end is None:
            self.outages[-1].end = now

    def forecast(self) -> Forecast:
        """When the pool will be low and when empty, at the rate measured up to now.

        What is asked of an empty pool counts as consumption: it would have been.
        """
        rate = self._rate.bits_per_s(self._now_s)
        return forecast(self._level, rate, self.demand.low_water_bits)

    def _stretches(self, until_s: float) -> Iterator[tuple[float, float]]:
        """The times from now on during which the rate does not change: (end, bits per second)."""
        ends = [DAY_S * day for day, _ in self.demand.steps]
        rates = [self.demand.bits_per_s, *(rate for _, rate in self.demand.steps)]
        while self._now_s < until_s:
            at = bisect_right(ends, self._now_s)
            yield min([until_s, *ends[at : at + 1]]), rates[at]

    def _consume(self, until_s: float, rate: float) -> None:
        """Take at an even rate until then, stopping at the low-water mark and at the ground."""
        asked = rate * (until_s - self._now_s)
        self._rate.record_steadily(asked, until_s)
        for mark in (self.demand.low_water_bits, 0.0):
            if self._level > mark >= self._level - asked:
                step_s = (self._level - mark) / rate
                self.consumed_bits += self._level - mark
                asked -= self._level - mark
                self._level = mark
                self._now_s += step_s
                self._note()
                self._watch()
        served = min(asked, self._level)
        self.consumed_bits += served
        self.refused_bits += asked - served
        self._level -= served
        self._now_s = until_s
        self._note()
        self._watch()

    def _watch(self) -> None:
        """Sound the alarms that the level calls for, once each time it falls."""
        low = self.demand.low_water_bits
        if self._level <= low and not self._is_low and low > 0:
            self._is_low = True
            self._sound(AlarmKind.LOW_WATER, f"{self._level:.0f} bits left, mark {low:.0f}")
        if self._level <= 0 and not (self.outages and self.outages[-1].end is None):
            self.outages.append(Outage(self._now))
            self._sound(AlarmKind.EXHAUSTED, "no key left")

    def _sound(self, kind: AlarmKind, detail: str) -> None:
        self.alarms.append(Alarm(kind, self._now, self.demand.name, detail))

    def _note(self) -> None:
        corner = (self._now, self._level)
        if not self.levels or self.levels[-1] != corner:
            self.levels.append(corner)

    @property
    def _now(self) -> datetime:
        return self.start + timedelta(seconds=self._now_s)
