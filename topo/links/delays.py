"""The elements a hop's delay is a sum of, each with its law, its unit, its basis and its source.

An element is inert configuration, checked as it is read. Two kinds of thing realise one:

* ``netem`` what the kernel's queue expresses exactly: propagation, fixed, serialise;
* ``waiting`` what needs an absolute clock, a seed or preserved order (`topo.links.waiting`).

`DelayElement.wait_ns` is the law itself: the wait of one packet that reaches the element at a given
time. A random element takes exactly one draw a packet, so that changing one element's numbers does
not shift another's luck. Times handed in are integer nanoseconds since the run's epoch; lengths are
those of Ethernet frames, header included, frame check sequence not (what netem and AF_PACKET see).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, pvariance
from typing import Annotated, ClassVar, Final, Literal

from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from topo.errors import InputError

Basis = Literal["physics", "calibrated", "assumed", "phenomenological"]
"""Why a number is what it is: a law of nature, a fit to measurements, a choice, a mere shape."""
RealisedBy = Literal["netem", "waiting"]

PING_FRAME_BYTES: Final = 98  # 14 Ethernet + 20 IPv4 + 8 ICMP + 56 of data: `ping` as it comes

Ms = Annotated[float, Field(strict=True, ge=0)]
PositiveMs = Annotated[float, Field(strict=True, gt=0)]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$")]


def ms_to_ns(ms: float) -> int:
    """Milliseconds as integer nanoseconds, rounded to nearest."""
    return round(ms * 1e6)


@dataclass
class ElementState:
    """What one element on one direction of a hop remembers from packet to packet (DRX only).

    The receiver is awake in [`awake_from_ns`, `awake_until_ns`).
    """

    awake_from_ns: int = 0
    awake_until_ns: int = 0


class DelayElement(BaseModel, ABC):
    """One term of a hop's delay."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    realised_by: ClassVar[RealisedBy] = "waiting"

    basis: Basis = "assumed"
    source: OneLine = ""

    @abstractmethod
    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        """Wait of a frame of `size_bytes` that gets here `at_ns` after the epoch, in ns, >= 0."""

    @abstractmethod
    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        """Expected wait in ms, for packets sparse and unrelated to any grid."""

    @abstractmethod
    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        """Variance of the wait in ms², on the same terms."""

    @abstractmethod
    def law(self) -> str:
        """The law with its numbers, in a few words."""


class _Constant(DelayElement):
    realised_by: ClassVar[RealisedBy] = "netem"
    delay_ms: Ms

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        return ms_to_ns(self.delay_ms)

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return self.delay_ms

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return 0.0


class Propagation(_Constant):
    """Light's time along the path."""

    kind: Literal["propagation"] = "propagation"
    basis: Basis = "physics"
    source: OneLine = "Photonics 12, 1182, equation (1)"

    def law(self) -> str:
        return f"propagation {self.delay_ms:g} ms"


class Fixed(_Constant):
    """A constant: processing, coding, a leased line."""

    kind: Literal["fixed"] = "fixed"

    def law(self) -> str:
        return f"fixed {self.delay_ms:g} ms"


class Serialise(DelayElement):
    """Putting a frame's bits on the line, one after the other."""

    realised_by: ClassVar[RealisedBy] = "netem"
    kind: Literal["serialise"] = "serialise"
    basis: Basis = "physics"
    source: OneLine = "frame length / bit rate"
    rate_mbps: Annotated[float, Field(strict=True, gt=0)]
    overhead_bytes: Annotated[int, Field(strict=True, ge=0)] = 0
    """Bytes the line adds to each frame: preamble, frame check sequence, encapsulation."""

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        return ms_to_ns(self.mean_ms(size_bytes))

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return 8.0 * (size_bytes + self.overhead_bytes) / (self.rate_mbps * 1e3)

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return 0.0

    def law(self) -> str:
        return f"serialise at {self.rate_mbps:g} Mbit/s, {self.overhead_bytes} bytes more a frame"


class _Grid(DelayElement):
    """Waiting for the next point of a periodic grid."""

    period_ms: PositiveMs
    phase_ms: float | None = None
    """Where the grid lies: its points are phase + k·period after the epoch. None: not known, and
    the wait is a uniform draw over one period, made anew for every packet."""

    @model_validator(mode="after")
    def _period_is_a_nanosecond_at_least(self) -> _Grid:
        if ms_to_ns(self.period_ms) < 1:
            raise ValueError("period_ms is below one nanosecond")
        return self

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        period_ns = ms_to_ns(self.period_ms)
        if self.phase_ms is None:
            return int(rng.random() * period_ns)
        return (ms_to_ns(self.phase_ms) - at_ns) % period_ns

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return self.period_ms / 2.0

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return self.period_ms**2 / 12.0

    def _grid(self) -> str:
        where = "phase unknown" if self.phase_ms is None else f"phase {self.phase_ms:g} ms"
        return f"every {self.period_ms:g} ms, {where}"


class FrameWait(_Grid):
    """Waiting for this terminal's slot in the next TDMA frame."""

    kind: Literal["frame_wait"] = "frame_wait"
    source: OneLine = "TDMA return channel (ETSI EN 301 545-2): one slot a frame"

    def law(self) -> str:
        return f"frame {self._grid()}"


class SchedulingRequest(_Grid):
    """Waiting for the next scheduling request occasion, then for the grant and its slot."""

    kind: Literal["scheduling_request"] = "scheduling_request"
    source: OneLine = "3GPP TS 38.321 section 5.4.4; occasions of SchedulingRequestResourceConfig"
    grant_delay_ms: Ms = 0.0

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        return super().wait_ns(at_ns, size_bytes, rng, state) + ms_to_ns(self.grant_delay_ms)

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return super().mean_ms() + self.grant_delay_ms

    def law(self) -> str:
        return f"scheduling request {self._grid()}, grant {self.grant_delay_ms:g} ms"


class Drx(DelayElement):
    """Discontinuous reception: asleep but for `on_ms` at the head of each cycle, and kept awake for
    `inactivity_ms` after each packet that passes.

    Each direction of a hop keeps its own state: an uplink packet does not wake the downlink.
    """

    kind: Literal["drx"] = "drx"
    source: OneLine = "3GPP TS 38.321 section 5.7: drx-LongCycle, onDurationTimer, InactivityTimer"
    cycle_ms: PositiveMs
    on_ms: PositiveMs
    inactivity_ms: Ms = 0.0
    phase_ms: float = 0.0
    """Cycles begin at phase + k·cycle after the epoch."""

    @model_validator(mode="after")
    def _on_fits_in_the_cycle(self) -> Drx:
        if self.on_ms > self.cycle_ms:
            raise ValueError(f"on_ms {self.on_ms:g} exceeds cycle_ms {self.cycle_ms:g}")
        if ms_to_ns(self.cycle_ms) < 1:
            raise ValueError("cycle_ms is below one nanosecond")
        return self

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        cycle_ns = ms_to_ns(self.cycle_ms)
        into_cycle_ns = (at_ns - ms_to_ns(self.phase_ms)) % cycle_ns
        awake = state.awake_from_ns <= at_ns < state.awake_until_ns
        wait_ns = 0 if awake or into_cycle_ns < ms_to_ns(self.on_ms) else cycle_ns - into_cycle_ns
        passes_ns = at_ns + wait_ns
        if not awake:
            state.awake_from_ns = passes_ns
        state.awake_until_ns = max(state.awake_until_ns, passes_ns + ms_to_ns(self.inactivity_ms))
        return wait_ns

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        """Expected wait in ms of packets further apart than the inactivity timer."""
        return (self.cycle_ms - self.on_ms) ** 2 / (2.0 * self.cycle_ms)

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        """Variance in ms² of the wait of packets further apart than the inactivity timer."""
        asleep_ms = self.cycle_ms - self.on_ms
        return asleep_ms**3 * (4.0 * self.cycle_ms - 3.0 * asleep_ms) / (12.0 * self.cycle_ms**2)

    def law(self) -> str:
        return (
            f"DRX cycle {self.cycle_ms:g} ms, on {self.on_ms:g} ms, "
            f"inactivity {self.inactivity_ms:g} ms, phase {self.phase_ms:g} ms"
        )


class Retransmission(DelayElement):
    """With a probability, a further uniform delay: a HARQ or RLC retransmission."""

    kind: Literal["retransmission"] = "retransmission"
    source: OneLine = "3GPP TS 38.321 section 5.4.2 (HARQ), TS 38.322 section 5.3 (RLC ARQ)"
    probability: Annotated[float, Field(strict=True, ge=0, le=1)]
    min_ms: Ms
    max_ms: Ms

    @model_validator(mode="after")
    def _in_order(self) -> Retransmission:
        if self.max_ms < self.min_ms:
            raise ValueError(f"max_ms {self.max_ms:g} is below min_ms {self.min_ms:g}")
        return self

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        u = rng.random()
        if u >= self.probability:
            return 0
        # Given u < p, u/p is itself uniform: one draw says both whether and how long.
        return ms_to_ns(self.min_ms + (self.max_ms - self.min_ms) * u / self.probability)

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return self.probability * (self.min_ms + self.max_ms) / 2.0

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        p, middle, span = (
            self.probability,
            (self.min_ms + self.max_ms) / 2.0,
            self.max_ms - self.min_ms,
        )
        return p * (1.0 - p) * middle**2 + p * span**2 / 12.0

    def law(self) -> str:
        percent, span = 100 * self.probability, f"{self.min_ms:g} to {self.max_ms:g} ms"
        return f"retransmission of {percent:g} % for {span}"


class Empirical(DelayElement):
    """A draw, with replacement, from measured waits."""

    kind: Literal["empirical"] = "empirical"
    basis: Basis = "calibrated"
    samples_ms: Annotated[tuple[Ms, ...], Field(min_length=1)]

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        return ms_to_ns(self.samples_ms[int(rng.random() * len(self.samples_ms))])

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return fmean(self.samples_ms)

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        return pvariance(self.samples_ms)

    def law(self) -> str:
        n, low, high = len(self.samples_ms), min(self.samples_ms), max(self.samples_ms)
        return f"empirical, {n} samples from {low:g} to {high:g} ms"


class Gaussian(DelayElement):
    """A normal law cut off at 0: a shape without a mechanism, and marked so."""

    kind: Literal["gaussian"] = "gaussian"
    basis: Basis = "phenomenological"
    source: OneLine = "normal law truncated at 0; no mechanism claimed"
    mu_ms: Annotated[float, Field(strict=True)]
    """Mean of the law before it is cut off."""
    sigma_ms: PositiveMs
    """Standard deviation of the law before it is cut off."""

    @model_validator(mode="after")
    def _leaves_something_above_zero(self) -> Gaussian:
        if self.mu_ms < -5 * self.sigma_ms:
            raise ValueError("mu_ms lies more than 5 sigma_ms below 0: nothing of the law is left")
        return self

    def wait_ns(self, at_ns: int, size_bytes: int, rng: Generator, state: ElementState) -> int:
        normal = NormalDist(self.mu_ms, self.sigma_ms)
        below = normal.cdf(0.0)
        u = below + (1.0 - below) * rng.random()
        return max(0, ms_to_ns(normal.inv_cdf(max(u, 2.0**-54))))  # inv_cdf(0) does not exist

    def _hazard(self) -> tuple[float, float]:
        """The cut α in standard units and λ = φ(α)/(1 - Φ(α)) (Johnson & Kotz, vol. 1, ch. 13)."""
        alpha = -self.mu_ms / self.sigma_ms
        return alpha, NormalDist().pdf(alpha) / NormalDist().cdf(-alpha)

    def mean_ms(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        _, hazard = self._hazard()
        return self.mu_ms + self.sigma_ms * hazard

    def variance_ms2(self, size_bytes: int = PING_FRAME_BYTES) -> float:
        alpha, hazard = self._hazard()
        return self.sigma_ms**2 * (1.0 + alpha * hazard - hazard**2)

    def law(self) -> str:
        return f"normal, mean {self.mu_ms:g} ms, sd {self.sigma_ms:g} ms, cut off at 0"


Element = Annotated[
    Propagation
    | Fixed
    | Serialise
    | FrameWait
    | SchedulingRequest
    | Drx
    | Retransmission
    | Empirical
    | Gaussian,
    Field(discriminator="kind"),
]
"""Any element, told apart by its `kind`: what a scenario file holds."""


def netem_delay_ns(elements: Iterable[DelayElement]) -> int:
    """The constant delay netem is to give, in ns; the rate is `netem_rate`'s."""
    return sum(ms_to_ns(e.delay_ms) for e in elements if isinstance(e, _Constant))


def netem_rate(elements: Iterable[DelayElement]) -> Serialise | None:
    """The line rate netem is to impose, if any. One qdisc has one: `InputError` for two."""
    rates = [e for e in elements if isinstance(e, Serialise)]
    if len(rates) > 1:
        raise InputError("two serialise elements on one direction of a hop: netem has one rate")
    return rates[0] if rates else None


def waiting(elements: Iterable[DelayElement]) -> tuple[DelayElement, ...]:
    """The elements a waiting process is to realise, in their order."""
    return tuple(e for e in elements if e.realised_by == "waiting")


def describe(elements: Sequence[DelayElement], size_bytes: int = PING_FRAME_BYTES) -> list[str]:
    """One line an element for a printed plan: law, mean, standard deviation, who, why, source."""
    return [
        f"{e.law()}: mean {e.mean_ms(size_bytes):.3f} ms, "
        f"sd {math.sqrt(e.variance_ms2(size_bytes)):.3f} ms "
        f"[{e.realised_by}, {e.basis}{': ' + e.source if e.source else ''}]"
        for e in elements
    ]
